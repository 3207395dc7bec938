"""A storm in which a third of the clients hang up at random: is capacity lost, and is work done for the gone?

    python -m benchmarks.server.client_disconnects

Closed loop of 16 clients three times over: nobody leaves, a third leaves, nobody leaves. The engine tells how many
pictures it computed; beyond the answers that were received it may only have computed those it had already begun.
"""

import argparse
import re
import time
import urllib.request
from typing import Any, Final

from benchmarks.harness import Watched, load, report, serving, stand_in

CLIENTS: Final = 16
SHARE: Final = 1 / 3


def computed(port: int) -> float:
    """Pictures that went through the engine so far, from the server's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    return sum(float(value) for value in re.findall(r"^alignseg_batch_size_sum\{.*\} (\S+)", page, re.MULTILINE))


def in_flight(port: int) -> float:
    """Requests in the house."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    return float(re.findall(r"^alignseg_in_flight (\S+)", page, re.MULTILINE)[0])


def phase(server: Watched, seconds: float, hang_up: float, seed: int) -> dict[str, Any]:
    """One closed loop."""
    before = computed(server.port)
    result = load(server.port, clients=CLIENTS, seconds=seconds, hang_up=hang_up, seed=seed)
    deadline = time.monotonic() + 10
    while in_flight(server.port) and time.monotonic() < deadline:
        time.sleep(0.05)
    answers, pictures = result["status"].count(200), computed(server.port) - before
    others = [status for status in result["status"] if status not in {200, 429}]
    return {
        "answers_a_second": round(answers / seconds, 1),
        "hung_up": result["hung_up"],
        "computed": int(pictures),
        "computed_for_the_gone": int(pictures) - answers,
        "gone_and_computed": round((pictures - answers) / max(1, result["hung_up"]), 3),
        "computed_a_second": round(pictures / seconds, 1),
        "other_statuses": others[:10],
        "still_in_flight": in_flight(server.port),
    }


def run(server: Watched, seconds: float) -> dict[str, Any]:
    """Calm, storm, calm."""
    phases = {
        "calm": phase(server, seconds, 0.0, 1),
        "storm": phase(server, seconds, SHARE, 2),
        "calm_again": phase(server, seconds, 0.0, 3),
    }
    calm = (phases["calm"]["answers_a_second"] + phases["calm_again"]["answers_a_second"]) / 2
    return {
        **phases,
        "capacity_after_of_before": round(
            phases["calm_again"]["answers_a_second"] / phases["calm"]["answers_a_second"], 3
        ),
        "answers_in_storm_of_calm": round(phases["storm"]["answers_a_second"] / calm, 3),
        "memory_mb": {"after": round(server.rss(), 1), "peak": round(server.peak_rss(), 1)},
        "tracebacks_in_log": sum("Traceback" in line for line in server.log),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the three phases")
    arguments = parser.parse_args()
    with serving(stand_in(arguments.infer_ms)) as server:
        report("storm", {"engine_ms": arguments.infer_ms, **run(server, arguments.seconds)})


if __name__ == "__main__":
    main()

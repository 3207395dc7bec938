"""A third of the clients disconnect at random: is capacity lost, and is work done for clients that have left?

    python -m benchmarks.server.client_disconnects

Closed loop of 16 clients, three times: without disconnects, with, without. The server counts the images it computed;
beyond the responses received it may only have computed those that had already begun.
"""

import argparse
import re
import time
import urllib.request
from typing import Any, Final

from benchmarks.harness import ServerProcess, fake_engine_server, load, report, serving

CLIENTS: Final = 16
SHARE: Final = 1 / 3


def computed(port: int) -> float:
    """Images that went through the engine so far, from the server's metrics."""
    values = re.findall(r"^alignseg_batch_size_sum\{.*\} (\S+)", _metrics(port), re.MULTILINE)
    return sum(map(float, values))


def in_flight(port: int) -> float:
    """Requests accepted and not finished."""
    return float(re.findall(r"^alignseg_in_flight (\S+)", _metrics(port), re.MULTILINE)[0])


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def phase(server: ServerProcess, seconds: float, disconnecting: float, seed: int) -> dict[str, Any]:
    """One closed loop. disconnecting: share of requests whose client leaves before the response."""
    before = computed(server.port)
    result = load(server.port, clients=CLIENTS, seconds=seconds, disconnect=disconnecting, seed=seed)
    deadline = time.monotonic() + 10
    while in_flight(server.port) and time.monotonic() < deadline:
        time.sleep(0.05)
    responses, images = result["status"].count(200), computed(server.port) - before
    others = [status for status in result["status"] if status not in {200, 429}]
    return {
        "responses_per_s": round(responses / seconds, 1),
        "disconnected": result["disconnected"],
        "computed": int(images),
        "computed_for_disconnected": int(images) - responses,
        "computed_share_of_disconnected": round((images - responses) / max(1, result["disconnected"]), 3),
        "computed_per_s": round(images / seconds, 1),
        "other_statuses": others[:10],
        "still_in_flight": in_flight(server.port),
    }


def run(server: ServerProcess, seconds: float) -> dict[str, Any]:
    """Three phases of `seconds` each."""
    phases = {
        "before": phase(server, seconds, 0.0, 1),
        "during": phase(server, seconds, SHARE, 2),
        "after": phase(server, seconds, 0.0, 3),
    }
    before, during, after = (phases[name]["responses_per_s"] for name in ("before", "during", "after"))
    return {
        **phases,
        "responses_after_of_before": round(after / before, 3),
        "responses_during_of_before_and_after": round(during / ((before + after) / 2), 3),
        "memory_mb": {"after": round(server.rss(), 1), "peak": round(server.peak_rss(), 1)},
        "tracebacks_in_log": sum("Traceback" in line for line in server.log),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the three phases")
    arguments = parser.parse_args()
    with serving(fake_engine_server(arguments.infer_ms)) as server:
        report("client-disconnects", {"engine_ms": arguments.infer_ms, **run(server, arguments.seconds)})


if __name__ == "__main__":
    main()

"""The cost of HTTP with the shipped model: served throughput and latency against the baseline without HTTP.

    python -m benchmarks.server.http_overhead [--rounds 20] [--seconds 3]

Both alternate in turns of seconds, on one machine, in one run. The machine this was written for has two speeds, each
for seconds or minutes: an inference takes 24 or 42 ms, with HTTP and without, and nothing else running (probably its
host runs both virtual cores on one). So turns are short, and only those of the fast phase are compared: those within a
quarter of the best of their kind.
"""

import argparse
from statistics import median
from typing import Any, Final

from benchmarks.harness import ServerProcess, load, report, serving, shipped
from benchmarks.server.no_http_baseline import Baseline

MANY: Final = 16
SPEED: Final = 1.25  # a turn slower than the best by more than this belongs to the slow phase
SETTLING_S: Final = 0.5  # of each load, left out


def served(server: ServerProcess, clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop. ms: median latency; ms_per_image: mean time between responses."""
    cpu_s = server.cpu_s()
    result = load(server.port, clients=clients, seconds=seconds + SETTLING_S, late=5.0)
    cpu_s, responses = server.cpu_s() - cpu_s, result["status"].count(200)
    counted = [done for done in result["done"] if SETTLING_S < done <= seconds + SETTLING_S]
    latencies = [done - due for done, due in zip(result["done"], result["due"], strict=True) if due > SETTLING_S]
    return {
        "ms": round(median(latencies) * 1e3, 2),
        "ms_per_image": round(seconds / len(counted) * 1e3, 2),
        "cpu_ms_per_image": round(cpu_s / responses * 1e3, 2),
    }


def baseline(images: Baseline, seconds: float) -> dict[str, Any]:
    """The same values without HTTP, one image after the other."""
    results = images.run(seconds)
    return {
        "ms": round(results["engine_ms"] + results["codec_ms"], 2),
        "ms_per_image": round(1e3 / results["responses_per_s"], 2),
        "cpu_ms_per_image": results["cpu_ms_per_image"],
    }


def fast_phase_only(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the turns of the machine's fast phase, and their share of all turns."""
    best = min(turn["ms_per_image"] for turn in turns)
    fast = [turn for turn in turns if turn["ms_per_image"] <= SPEED * best]
    return {name: round(median(turn[name] for turn in fast), 2) for name in fast[0]} | {
        "share_of_turns": round(len(fast) / len(turns), 2)
    }


def main() -> None:
    """Measure, print a line a round, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of a round's three measurements")
    options = parser.parse_args()
    rounds, images = [], Baseline(None)
    with serving(shipped()) as server:
        load(server.port, clients=MANY, seconds=1.0)  # warm up
        for _ in range(options.rounds):
            alone = baseline(images, options.seconds)
            rounds.append([alone, served(server, MANY, options.seconds), served(server, 1, options.seconds)])
            print(*(f"{turn['ms_per_image']:7.2f}" for turn in rounds[-1]), "ms an image: baseline, 16 clients, 1")
    alone, many, one = (fast_phase_only(list(turns)) for turns in zip(*rounds, strict=True))
    results = {
        "throughput_of_16_clients_of_baseline": round(alone["ms_per_image"] / many["ms_per_image"], 3),
        "overhead_ms_of_one_client": round(one["ms"] - alone["ms"], 2),
        "baseline": alone, "16_clients": many, "1_client": one,
    }  # fmt: skip
    report("http-overhead", {**results, "rounds": rounds})


if __name__ == "__main__":
    main()

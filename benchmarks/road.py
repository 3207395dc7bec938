"""What of the bare road survives HTTP, with the shipped model: both take turns of seconds, on one machine, in one run.

    python -m benchmarks.road [--rounds 15] [--seconds 3]

A virtual machine's host makes the same program a third slower from one minute to the next, so only neighbours in time
compare: each round measures the bare road, 16 clients and one client in turn, and ratios are told of each round's own.
"""

import argparse
from statistics import median
from typing import Any, Final

from benchmarks.bare import Bare
from benchmarks.harness import Watched, load, percentiles, report, serving, shipped

CLIENTS: Final = 16
SETTLING_S: Final = 0.5  # of each load, left out


def one_round(bare: Bare, server: Watched, seconds: float) -> dict[str, Any]:
    """Pictures a second, milliseconds and CPU of each."""
    alone = bare.run(seconds)
    many, one = served(server, CLIENTS, seconds), served(server, 1, seconds)
    budget = alone["engine_ms"] + alone["codec_ms"]
    return {
        "bare": alone,
        "many": many,
        "one": one,
        "many_of_bare": round(many["answers_a_second"] / alone["answers_a_second"], 3),
        "one_beyond_bare_ms": round(one["answer_ms"]["p50"] - budget, 2),
    }


def served(server: Watched, clients: int, seconds: float) -> dict[str, Any]:
    """The same figures of a closed loop."""
    cpu_s = server.cpu_s()
    result = load(server.port, clients=clients, seconds=seconds + SETTLING_S, late=5.0)
    cpu_s = server.cpu_s() - cpu_s
    ended = [done for done, status in zip(result["done"], result["status"], strict=True) if status == 200]
    times = [done - due for done, due in zip(result["done"], result["due"], strict=True) if due > SETTLING_S]
    counted = [done for done in ended if SETTLING_S < done <= seconds + SETTLING_S]
    return {
        "answers_a_second": round(len(counted) / seconds, 2),
        "answer_ms": percentiles([time * 1e3 for time in times]),
        "cpu_ms_each": round(cpu_s / max(1, len(ended)) * 1e3, 2),
    }


def main() -> None:
    """Measure, print a line a round, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of a round's three measurements")
    asked = parser.parse_args()
    rounds, bare = [], Bare(None)
    with serving(shipped()) as server:
        load(server.port, clients=CLIENTS, seconds=1.0)  # warm up
        for number in range(1, asked.rounds + 1):
            rounds.append(told := one_round(bare, server, asked.seconds))
            rates = [told[name]["answers_a_second"] for name in ("bare", "many", "one")]
            cpus = [told[name]["cpu_ms_each"] for name in ("bare", "many", "one")]
            print(number, *rates, "a second;", *cpus, "ms of CPU;", told["many_of_bare"], told["one_beyond_bare_ms"])
    summary = {name: quartiles([told[name] for told in rounds]) for name in ("many_of_bare", "one_beyond_bare_ms")}
    report("road", {"engine": rounds[0]["bare"]["engine"], "clients": CLIENTS, **summary, "rounds": rounds})


def quartiles(values: list[float]) -> dict[str, float]:
    """The median, and between which values half of the rounds lie."""
    return {"median": round(median(values), 3), **percentiles(values, (25, 75))}


if __name__ == "__main__":
    main()

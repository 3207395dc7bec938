"""What of the bare road survives HTTP, with the shipped model: both take turns of seconds, on one machine, in one run.

    python -m benchmarks.server.http_overhead [--rounds 20] [--seconds 3]

The machine this was written for has two speeds, for seconds or minutes at a time: an inference takes 24 or 42 ms, on
the bare road as behind HTTP, with nothing else running (its host puts both cores of the virtual machine on one, it
seems). So turns are short, and those of the quick speed are told apart: within a quarter of the best of their kind.
"""

import argparse
from statistics import median
from typing import Any, Final

from benchmarks.harness import Watched, load, report, serving, shipped
from benchmarks.server.no_http_baseline import Bare

MANY: Final = 16
SPEED: Final = 1.25  # slower than the best by more than this is the other speed
SETTLING_S: Final = 0.5  # of each load, left out


def served(server: Watched, clients: int, seconds: float) -> dict[str, Any]:
    """A closed loop. ms: from request to answer, the median; ms_each: between answers."""
    cpu_s = server.cpu_s()
    result = load(server.port, clients=clients, seconds=seconds + SETTLING_S, late=5.0)
    cpu_s, answers = server.cpu_s() - cpu_s, result["status"].count(200)
    counted = [done for done in result["done"] if SETTLING_S < done <= seconds + SETTLING_S]
    waits = [done - due for done, due in zip(result["done"], result["due"], strict=True) if due > SETTLING_S]
    return {
        "ms": round(median(waits) * 1e3, 2),
        "ms_each": round(seconds / len(counted) * 1e3, 2),
        "cpu_ms_each": round(cpu_s / answers * 1e3, 2),
    }


def on_the_bare_road(bare: Bare, seconds: float) -> dict[str, Any]:
    """The same figures of pictures one after the other."""
    told = bare.run(seconds)
    ms = told["engine_ms"] + told["codec_ms"]
    return {"ms": round(ms, 2), "ms_each": round(1e3 / told["answers_a_second"], 2), "cpu_ms_each": told["cpu_ms_each"]}


def at_the_quick_speed(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the turns that the machine's slow speed has not touched, and which share of all they are."""
    best = min(turn["ms_each"] for turn in turns)
    quick = [turn for turn in turns if turn["ms_each"] <= SPEED * best]
    return {name: round(median(turn[name] for turn in quick), 2) for name in quick[0]} | {
        "share_of_turns": round(len(quick) / len(turns), 2)
    }


def main() -> None:
    """Measure, print a line a round, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of a round's three measurements")
    asked = parser.parse_args()
    rounds, bare = [], Bare(None)
    with serving(shipped()) as server:
        load(server.port, clients=MANY, seconds=1.0)  # warm up
        for _ in range(asked.rounds):
            alone = on_the_bare_road(bare, asked.seconds)
            rounds.append([alone, served(server, MANY, asked.seconds), served(server, 1, asked.seconds)])
            print(*(f"{turn['ms_each']:7.2f}" for turn in rounds[-1]), "ms a picture: bare, 16 clients, one")
    alone, many, one = (at_the_quick_speed(list(turns)) for turns in zip(*rounds, strict=True))
    figures = {
        "rate_of_16_clients_of_the_bare_roads": round(alone["ms_each"] / many["ms_each"], 3),
        "ms_of_one_client_beyond_engine_and_codecs": round(one["ms"] - alone["ms"], 2),
        "bare": alone, "16 clients": many, "one client": one,
    }  # fmt: skip
    report("road", {**figures, "rounds": rounds})


if __name__ == "__main__":
    main()

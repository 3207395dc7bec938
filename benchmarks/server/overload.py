"""Overload, open loop: what is left of the capacity, who is refused and how right the refusals are.

    python -m benchmarks.server.overload                 # a stand-in engine of 0.3 ms
    python -m benchmarks.server.overload --infer-ms 100  # a slow engine: an answer within the deadline is a good one
    python -m benchmarks.server.overload --shipped       # the shipped model on the best engine of this machine

Capacity is what 16 clients get in a closed loop, measured before and after each overload, the same generator on the
same cores; so what the generator itself costs at four times the rate counts against the server.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness import Watched, load, percentiles, report, serving, shipped, stand_in
from benchmarks.server.load_client import LOST

CLIENTS: Final = 16
QUICK_S: Final = 0.1  # what a good answer may take at a fast engine
DEADLINE_S: Final = 30.0  # ... and at a slow one: the shipped request timeout
SLOW_MS: Final = 10.0  # from here on an engine is slow
CALM_S: Final = 1.5  # after which the server takes a burst again
ENOUGH: Final = 1000  # refusals, to tell their cost from that of idling
WARM_UP_S: Final = 3.0  # of each overload, left out: the first second fills the house


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. infer_ms: None for the shipped model. factors: overload in times of the capacity.

    seconds: of each phase.
    """

    infer_ms: float | None
    max_batch: int
    factors: tuple[float, ...]
    seconds: float

    @property
    def good_s(self) -> float:
        """How long a good answer may take."""
        return DEADLINE_S if self.infer_ms is None or self.infer_ms >= SLOW_MS else QUICK_S

    @property
    def server(self) -> list[str]:
        """The command that starts the server."""
        if self.infer_ms is None:
            return shipped()
        return stand_in(self.infer_ms, max_batch=self.max_batch)


def run(plan: Plan) -> dict[str, Any]:
    """All figures of a plan."""
    with serving(plan.server) as server:
        load(server.port, clients=CLIENTS, seconds=min(2.0, plan.seconds))  # warm up
        rest_mb = server.rss()
        overloads = [overload(server, plan, factor) for factor in plan.factors]
        time.sleep(1.0)
        memory = {"at_rest": rest_mb, "peak": server.peak_rss(), "after": server.rss()}
        return {
            "engine_ms": plan.infer_ms,
            "max_batch": plan.max_batch,
            "good_within_s": plan.good_s,
            "overload": overloads,
            "memory_mb": {name: round(mb, 1) for name, mb in memory.items()},
        }


def overload(server: Watched, plan: Plan, factor: float) -> dict[str, Any]:
    """One rate, with the capacity measured around it."""
    before = capacity(server, plan.seconds / 2)
    rate = factor * before["a_second"]
    cpu_s, since = server.cpu_s(), time.monotonic()
    result = load(server.port, rate=round(rate, 1), seconds=plan.seconds + WARM_UP_S)
    cpu_s = server.cpu_s() - cpu_s
    time.sleep(CALM_S)
    after = capacity(server, plan.seconds / 2)
    capacity_a_second = (before["a_second"] + after["a_second"]) / 2
    figures = judge(result, plan.good_s)
    refusals, answers = result["status"].count(429), result["status"].count(200)
    spent = cpu_s - answers * (before["cpu_ms_each"] + after["cpu_ms_each"]) / 2e3
    return {
        "times_capacity": factor,
        "offered_a_second": round(rate, 1),
        "capacity_a_second": [before["a_second"], after["a_second"]],
        "goodput_of_capacity": round(figures["goodput_a_second"] / capacity_a_second, 3),
        "server_cpu_ms_a_refusal": round(spent / refusals * 1e3, 3) if refusals > ENOUGH else None,
        "peak_memory_mb": round(server.peak_rss(since), 1),
        **figures,
    }


def capacity(server: Watched, seconds: float) -> dict[str, float]:
    """Closed loop: answers a second, and the server's CPU for each."""
    cpu_s = server.cpu_s()
    result = load(server.port, clients=CLIENTS, seconds=seconds)
    answers = result["status"].count(200)
    each_ms = (server.cpu_s() - cpu_s) / max(1, answers) * 1e3
    return {"a_second": round(answers / max(result["done"]), 1), "cpu_ms_each": round(each_ms, 3)}


def judge(result: dict[str, Any], good_s: float, warm_up_s: float | None = None) -> dict[str, Any]:
    """Goodput, latencies and the truth of Retry-After, of all that ended after the warm-up and while load was on."""
    warm_up_s = WARM_UP_S if warm_up_s is None else warm_up_s
    until = max(result["due"])
    requests = [
        row
        for row in zip(result["due"], result["done"], result["status"], result["retry_ms"], strict=True)
        if warm_up_s <= row[1] < until
    ]
    answered = [done - due for due, done, status, _ in requests if status == 200]
    refused = [(done - due) * 1e3 for due, done, status, _ in requests if status == 429]
    return {
        "goodput_a_second": round(sum(s <= good_s for s in answered) / max(until - warm_up_s, 1e-9), 1),
        "statuses": {str(status): n for status, n in sorted(Counter(row[2] for row in requests).items())},
        "lost_in_all": result["status"].count(LOST),
        "answer_ms": percentiles([s * 1e3 for s in answered]),
        "refusal_ms": percentiles(refused),
        "retry_after": truth(result),
        "generator_cpu_s": round(result["cpu_s"], 2),
    }


def truth(result: dict[str, Any]) -> dict[str, Any]:
    """Retry-After against what came true: when all that was being worked on at a refusal had been answered.

    A request is being worked on from when it was due until its answer; refusals of the warm-up are left out.
    """
    rows = sorted(zip(result["due"], result["done"], result["status"], result["retry_ms"], strict=True))
    worked = [(due, done) for due, done, status, _ in rows if status == 200]
    ratios, first = [], 0
    for due, done, status, retry_ms in rows:
        if status != 429 or due < WARM_UP_S:
            continue
        while first < len(worked) and worked[first][0] < due - DEADLINE_S:
            first += 1
        ends = [end for begin, end in _window(worked, first, done) if end > done]
        if ends and retry_ms > 0:
            ratios.append(retry_ms / 1e3 / (max(ends) - done))
    within = sum(0.5 <= ratio <= 2 for ratio in ratios)
    return {
        "checked": len(ratios),
        "within_2x": round(within / len(ratios), 3) if ratios else None,
        "told_over_true": percentiles(ratios, (5, 50, 95)),
    }


def _window(worked: list[tuple[float, float]], first: int, until: float) -> list[tuple[float, float]]:
    """Those from `first` on that began before `until`; the last 200 of them are enough: a house has 64 places."""
    low, high = first, len(worked)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if worked[middle][0] < until else (low, middle)
    return worked[max(first, low - 200) : low]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model in place of a stand-in")
    parser.add_argument("--max-batch", type=int, default=1)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--name", default="overload", help="of the file under benchmarks/results")
    arguments = parser.parse_args()
    infer_ms = None if arguments.shipped else arguments.infer_ms
    plan = Plan(infer_ms, arguments.max_batch, tuple(arguments.factors), arguments.seconds)
    figures = run(plan)
    for row in figures["overload"]:
        print(json.dumps({name: row[name] for name in ("times_capacity", "goodput_of_capacity", "answer_ms")}))
    report(arguments.name, figures)


if __name__ == "__main__":
    main()

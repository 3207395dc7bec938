"""Overload, open loop: goodput, who is rejected, and how accurate Retry-After is.

    python -m benchmarks.server.overload                 # a fake engine of 0.3 ms
    python -m benchmarks.server.overload --infer-ms 100  # a slow engine: any response within its deadline is goodput
    python -m benchmarks.server.overload --shipped       # the shipped model on the best engine of this machine

Capacity is the throughput of 16 clients in a closed loop, measured before and after each overload with the same
generator on the same cores: so what the generator itself costs at four times the rate counts against the server.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.harness import ServerProcess, fake_engine_server, load, percentiles, report, serving, shipped
from benchmarks.server.load_client import LOST

CLIENTS: Final = 16
GOOD_S: Final = 0.1  # longest latency that counts as goodput with a fast engine
DEADLINE_S: Final = 30.0  # ... and with a slow one: the default request timeout
SLOW_MS: Final = 10.0  # an engine of this or more is slow
CALM_S: Final = 1.5  # after which the server admits a burst again
MIN_REJECTIONS: Final = 1000  # fewer do not show their cost
WARM_UP_S: Final = 3.0  # of each overload, left out: in the first second the queue fills
MAX_WINDOW: Final = 200  # requests looked back at: more than the server ever holds (64)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. infer_ms: None for the shipped model. factors: load / capacity. seconds: of each phase."""

    infer_ms: float | None
    max_batch: int
    factors: tuple[float, ...]
    seconds: float

    @property
    def good_s(self) -> float:
        """Longest latency that counts as goodput."""
        return DEADLINE_S if self.infer_ms is None or self.infer_ms >= SLOW_MS else GOOD_S

    @property
    def server(self) -> list[str]:
        """The command that starts the server."""
        if self.infer_ms is None:
            return shipped()
        return fake_engine_server(self.infer_ms, max_batch=self.max_batch)


def run(plan: Plan) -> dict[str, Any]:
    """Measure every factor of a plan on one server."""
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


def overload(server: ServerProcess, plan: Plan, factor: float) -> dict[str, Any]:
    """One rate, with the capacity measured before and after it."""
    before = capacity(server, plan.seconds / 2)
    rate = factor * before["responses_per_s"]
    cpu_s, since = server.cpu_s(), time.monotonic()
    result = load(server.port, rate=round(rate, 1), seconds=plan.seconds + WARM_UP_S)
    cpu_s = server.cpu_s() - cpu_s
    time.sleep(CALM_S)
    after = capacity(server, plan.seconds / 2)
    capacity_per_s = (before["responses_per_s"] + after["responses_per_s"]) / 2
    judged = judge(result, plan.good_s)
    rejections, responses = result["status"].count(429), result["status"].count(200)
    spent = cpu_s - responses * (before["cpu_ms_per_image"] + after["cpu_ms_per_image"]) / 2e3
    return {
        "times_capacity": factor,
        "offered_per_s": round(rate, 1),
        "capacity_per_s": [before["responses_per_s"], after["responses_per_s"]],
        "goodput_of_capacity": round(judged["goodput_per_s"] / capacity_per_s, 3),
        "server_cpu_ms_per_rejection": round(spent / rejections * 1e3, 3) if rejections > MIN_REJECTIONS else None,
        "peak_memory_mb": round(server.peak_rss(since), 1),
        **judged,
    }


def capacity(server: ServerProcess, seconds: float) -> dict[str, float]:
    """Closed loop: responses a second, and the server's CPU for each."""
    cpu_s = server.cpu_s()
    result = load(server.port, clients=CLIENTS, seconds=seconds)
    responses = result["status"].count(200)
    cpu_ms = (server.cpu_s() - cpu_s) / max(1, responses) * 1e3
    return {"responses_per_s": round(responses / max(result["done"]), 1), "cpu_ms_per_image": round(cpu_ms, 3)}


def judge(result: dict[str, Any], good_s: float, warm_up_s: float | None = None) -> dict[str, Any]:
    """Goodput, latencies and accuracy of Retry-After, of all requests that ended after the warm-up and under load."""
    warm_up_s = WARM_UP_S if warm_up_s is None else warm_up_s
    until = max(result["due"])
    requests = [
        row
        for row in zip(result["due"], result["done"], result["status"], result["retry_ms"], strict=True)
        if warm_up_s <= row[1] < until
    ]
    latencies = [done - due for due, done, status, _ in requests if status == 200]
    rejections = [(done - due) * 1e3 for due, done, status, _ in requests if status == 429]
    return {
        "goodput_per_s": round(sum(s <= good_s for s in latencies) / max(until - warm_up_s, 1e-9), 1),
        "statuses": {str(status): n for status, n in sorted(Counter(row[2] for row in requests).items())},
        "no_response": result["status"].count(LOST),
        "latency_ms": percentiles([s * 1e3 for s in latencies]),
        "rejection_ms": percentiles(rejections),
        "retry_after": retry_after_accuracy(result),
        "generator_cpu_s": round(result["cpu_s"], 2),
    }


def retry_after_accuracy(result: dict[str, Any]) -> dict[str, Any]:
    """Compare each Retry-After with the time until all requests active at that moment had their response.

    A request is active from when it was due until its response. Rejections of the warm-up are left out.
    """
    rows = sorted(zip(result["due"], result["done"], result["status"], result["retry_ms"], strict=True))
    served = [(due, done) for due, done, status, _ in rows if status == 200]
    ratios, first = [], 0
    for due, done, status, retry_ms in rows:
        if status != 429 or due < WARM_UP_S:
            continue
        while first < len(served) and served[first][0] < due - DEADLINE_S:
            first += 1
        ends = [end for begin, end in _window(served, first, done) if end > done]
        if ends and retry_ms > 0:
            ratios.append(retry_ms / 1e3 / (max(ends) - done))
    within = sum(0.5 <= ratio <= 2 for ratio in ratios)
    return {
        "checked": len(ratios),
        "within_2x": round(within / len(ratios), 3) if ratios else None,
        "estimate_over_actual": percentiles(ratios, (5, 50, 95)),
    }


def _window(served: list[tuple[float, float]], first: int, until: float) -> list[tuple[float, float]]:
    """The last MAX_WINDOW of those from `first` on that began before `until`."""
    low, high = first, len(served)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if served[middle][0] < until else (low, middle)
    return served[max(first, low - MAX_WINDOW) : low]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model instead of a fake engine")
    parser.add_argument("--max-batch", type=int, default=1)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--name", default="overload", help="of the file under benchmarks/results")
    options = parser.parse_args()
    infer_ms = None if options.shipped else options.infer_ms
    plan = Plan(infer_ms, options.max_batch, tuple(options.factors), options.seconds)
    results = run(plan)
    for row in results["overload"]:
        print(json.dumps({name: row[name] for name in ("times_capacity", "goodput_of_capacity", "latency_ms")}))
    report(options.name, results)


if __name__ == "__main__":
    main()

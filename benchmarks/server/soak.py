"""Ten minutes at 80 % of capacity, open loop: does the p99 drift, does memory grow?

    python -m benchmarks.server.soak

The first minute is warm-up; the report has a row a minute and compares the first third of the rest with the last.
other_cpu_cores in each row: how many cores other work used in that minute. Exit code 1 when a bound is exceeded.
"""

import argparse
import json
import time
from collections import Counter
from statistics import median
from typing import Any, Final

from benchmarks.harness import ServerProcess, fake_engine_server, load, percentiles, report, serving
from benchmarks.server.overload import capacity

SHARE: Final = 0.8
MAX_GROWTH: Final = 0.05  # of memory
MAX_DRIFT: Final = 0.25  # of the p99


def run(server: ServerProcess, seconds: float, step_s: float) -> dict[str, Any]:
    """Load a running server for `seconds`, with a row for every `step_s`; the first step is warm-up."""
    capacity_per_s = capacity(server, min(10.0, step_s))["responses_per_s"]
    rate, began = SHARE * capacity_per_s, time.monotonic()
    result = load(server.port, rate=round(rate, 1), seconds=seconds)
    steps = [_step(server, result, began, index * step_s, step_s) for index in range(1, int(seconds / step_s))]
    third = max(1, len(steps) // 3)
    drift = {
        name: round(median(s[name] for s in steps[-third:]) / median(s[name] for s in steps[:third]) - 1, 4)
        for name in ("p50_ms", "p99_ms", "memory_mb")
    }
    return {
        "verdict": verdict(drift),
        "capacity_per_s": capacity_per_s,
        "rate_per_s": round(rate, 1),
        "seconds": seconds,
        "statuses": {str(status): count for status, count in sorted(Counter(result["status"]).items())},
        "drift_last_third_of_first": drift,
        "steps": steps,
    }


def verdict(drift: dict[str, float]) -> dict[str, bool]:
    """Whether the last third of the steps is within the bounds, relative to the first."""
    return {
        f"memory_grew_less_than_{MAX_GROWTH:.0%}": drift["memory_mb"] < MAX_GROWTH,
        f"p99_rose_less_than_{MAX_DRIFT:.0%}": drift["p99_ms"] < MAX_DRIFT,
    }


def _step(server: ServerProcess, result: dict[str, Any], began: float, begin: float, length: float) -> dict[str, float]:
    rows = zip(result["due"], result["done"], result["status"], strict=True)
    latencies = [(done - due) * 1e3 for due, done, status in rows if status == 200 and begin <= due < begin + length]
    points = percentiles(latencies, (50, 99))
    memory = [mb for when, mb in server.rss_mb if begin <= when - began < begin + length]
    others = [cpu_s for when, cpu_s in server.other_s if begin <= when - began < begin + length]
    generator = result["cpu_s"] / max(result["done"])
    return {
        "from_s": begin,
        "responses": len(latencies),
        "p50_ms": points.get("p50", 0.0),
        "p99_ms": points.get("p99", 0.0),
        "memory_mb": round(median(memory), 1) if memory else 0.0,
        "other_cpu_cores": round((others[-1] - others[0]) / length - generator, 2) if others else 0.0,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--name", default="soak", help="of the file under benchmarks/results")
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with serving(fake_engine_server(options.infer_ms)) as server:
        load(server.port, clients=16, seconds=5)
        results = run(server, options.minutes * 60, step_s=options.minutes * 6)
    report(options.name, {"engine_ms": options.infer_ms, **results})
    for step in results["steps"]:
        print(json.dumps(step))
    raise SystemExit(not all(results["verdict"].values()))


if __name__ == "__main__":
    main()

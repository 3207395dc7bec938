"""The server table: our server beside what users would pick instead, the same load generator, one server at a time.

    python -m benchmarks.server.compare_servers closed            # 1, 4, 16 and 64 clients; a stand-in engine of 0.3 ms
    python -m benchmarks.server.compare_servers open              # Poisson arrivals at 0.5 to 4 times the capacity
    python -m benchmarks.server.compare_servers closed --shipped  # the shipped model, and its baseline without HTTP
    python -m benchmarks.server.compare_servers open --shipped

Every server is started anew for each repeat, warmed up, measured and ended; the repeats of all servers take turns, and
medians are told. Peers are in benchmarks/server/peers. `pip install -e '.[bench]'` brings what they need.
"""

import argparse
import re
import sys
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any, Final

from benchmarks.harness import Watched, free_port, load, others_cpu_s, report, serving, shipped, stand_in
from benchmarks.server.no_http_baseline import bare_road
from benchmarks.server.overload import capacity, judge

CLIENTS: Final = (1, 4, 16, 64)
FACTORS: Final = (0.5, 0.8, 1.0, 2.0, 4.0)
WARM_UP_S: Final = 1.0  # of each measurement
LATE_S: Final = 1.0  # answers that are later than this after the load has ended do not count
PEERS: Final = {"plain FastAPI": "fastapi_server", "LitServe": "litserve_server"}
OURS: Final = "alignseg-serve"
STAGES: Final = ("decode", "queue", "infer", "encode")


@dataclass(frozen=True, slots=True)
class Plan:
    """infer_ms: None for the shipped model. good_s: how long a good answer may take. seconds: of a measurement."""

    infer_ms: float | None
    seconds: float
    repeats: int
    servers: Sequence[str]

    @property
    def good_s(self) -> float:
        """Within 100 ms for an engine of no time; a second for a network on a CPU."""
        return 1.0 if self.infer_ms is None else 0.1


@contextmanager
def started(name: str, plan: Plan) -> Generator[Watched, None, None]:
    """A warm server."""
    if name == OURS:
        with serving(shipped() if plan.infer_ms is None else stand_in(plan.infer_ms)) as ours:
            load(ours.port, clients=16, seconds=WARM_UP_S)
            yield ours
        return
    engine = ["--model", "weights/alignseg-lite"] if plan.infer_ms is None else ["--infer-ms", str(plan.infer_ms)]
    peer = Watched(
        [sys.executable, "-m", f"benchmarks.server.peers.{PEERS[name]}", "--port", str(free_port()), *engine]
    )
    try:
        load(peer.port, clients=16, seconds=WARM_UP_S)
        yield peer
    finally:
        peer.close()


def closed(plan: Plan) -> list[dict[str, Any]]:
    """A row for each server and number of clients."""
    runs: dict[tuple[str, float], list[dict[str, Any]]] = {}
    bare: list[dict[str, Any]] = []
    for _ in range(plan.repeats):
        bare.append(bare_road(plan.infer_ms, plan.seconds))
        for name in plan.servers:
            with started(name, plan) as server:
                for clients in CLIENTS:
                    row = measure(server, name == OURS, plan, clients=clients)
                    runs.setdefault((name, clients), []).append(row)
    rows = [{"server": name, "clients": clients, **merged(some)} for (name, clients), some in runs.items()]
    return [{"server": "bare road, no HTTP", "clients": 1, **merged(bare)}, *rows]


def open_loop(plan: Plan) -> list[dict[str, Any]]:
    """A row for each server and times of its capacity. A fresh server each time: some carry a backlog along."""
    runs: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for _ in range(plan.repeats):
        for factor in FACTORS:
            for name in plan.servers:
                runs.setdefault((name, factor), []).append(_overload(name, factor, plan))
    return [{"server": name, "times_capacity": factor, **merged(some)} for (name, factor), some in runs.items()]


def _overload(name: str, factor: float, plan: Plan) -> dict[str, Any]:
    with started(name, plan) as server:
        most = capacity(server, max(2.0, plan.seconds / 2))["a_second"]
        row = measure(server, name == OURS, plan, rate=round(factor * most, 2))
        share = round(row["goodput_a_second"] / max(most, 1e-9), 3)
        return {**row, "capacity_a_second": most, "goodput_of_capacity": share}


def measure(server: Watched, ours: bool, plan: Plan, **how: float) -> dict[str, Any]:
    """One load. cpu_ms_each: of the server's processes, for each answer; others_cpu: cores that other work took."""
    seconds, before = plan.seconds + WARM_UP_S, stage_sums(server.port) if ours else {}
    began, cpu_s, others_s = time.monotonic(), server.cpu_s(), others_cpu_s(server.cpu_s())
    result = load(server.port, seconds=seconds, late=LATE_S, **how)
    took_s, cpu_s = time.monotonic() - began, server.cpu_s() - cpu_s
    others_s = others_cpu_s(server.cpu_s(), result["cpu_s"]) - others_s
    told = judge(result, plan.good_s, WARM_UP_S)
    answers = result["status"].count(200)
    stages = mean_stages(before, stage_sums(server.port)) if ours else None
    return {
        **({"offered_a_second": how["rate"]} if "rate" in how else {}),
        "answers_a_second": round(told["statuses"].get("200", 0) / (max(result["due"]) - WARM_UP_S), 1),
        "goodput_a_second": told["goodput_a_second"],
        "answer_ms": told["answer_ms"],
        "refused": result["status"].count(429),
        "unanswered": told["lost_in_all"],
        "refusal_ms": told["refusal_ms"],
        "cpu_ms_each": round(cpu_s / max(1, answers) * 1e3, 2),
        "generator_cpu_ms_each": round(result["cpu_s"] / max(1, len(result["done"])) * 1e3, 3),
        "stages_ms": stages,
        "others_cpu": round(others_s / took_s, 2),
    }


def stage_sums(port: int) -> dict[str, tuple[float, float]]:
    """Seconds and pictures of each stage so far, from the server's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = re.findall(r'^alignseg_stage_seconds_(sum|count)\{.*stage="(\w+)"\} (\S+)', page, re.MULTILINE)
    values = {(stage, kind): float(value) for kind, stage, value in found}
    return {stage: (values.get((stage, "sum"), 0.0), values.get((stage, "count"), 0.0)) for stage in STAGES}


def mean_stages(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean milliseconds of each stage between two looks."""
    return {
        stage: round((after[stage][0] - before[stage][0]) / max(1.0, after[stage][1] - before[stage][1]) * 1e3, 2)
        for stage in STAGES
    }


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the repeats, and all of the answers a second."""
    row = {name: _median([run[name] for run in runs]) for name in runs[0]}
    return {**row, "answers_a_second_each_time": [run["answers_a_second"] for run in runs]}


def _median(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        names = [name for name in values[0] if all(name in value for value in values)]
        return {name: _median([value[name] for value in values]) for name in names}
    return round(median(values), 3) if isinstance(values[0], int | float) else values[0]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table."""
    figures = " ".join(f"{name:>8}" for name in ("offered", "answers/s", "good/s", "p50", "p95", "p99"))
    print(f"\n{'server':20}{'load':>6} {figures} CPU ms")
    for row in rows:
        wait = row["answer_ms"]
        waits = " ".join(f"{wait.get(point, float('nan')):8.1f}" for point in ("p50", "p95", "p99"))
        told = f"{row.get('offered_a_second', ''):>8} {row['answers_a_second']:9.1f} {row['goodput_a_second']:8.1f}"
        where = row.get("clients", row.get("times_capacity"))
        print(f"{row['server']:20}{where:>6} {told} {waits} {row['cpu_ms_each']:6.2f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=["closed", "open"])
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model in place of a stand-in")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, after a second of warm-up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--servers", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    asked = parser.parse_args()
    plan = Plan(None if asked.shipped else asked.infer_ms, asked.seconds, asked.repeats, asked.servers)
    peers = {name: version(name) for name in ("litserve", "fastapi", "uvicorn", "onnxruntime")}  # or fails now
    rows = closed(plan) if asked.loop == "closed" else open_loop(plan)
    show(rows)
    told = {"engine_ms": plan.infer_ms, "good_within_s": plan.good_s, "repeats": plan.repeats, "peers": peers}
    report(f"server-{asked.loop}{'-shipped' if asked.shipped else ''}", {**told, "rows": rows})


if __name__ == "__main__":
    main()

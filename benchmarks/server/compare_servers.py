"""Our server, a plain FastAPI server and LitServe under the same load generator, one server at a time.

    python -m benchmarks.server.compare_servers closed            # 1, 4, 16 and 64 clients; a fake engine of 0.3 ms
    python -m benchmarks.server.compare_servers open              # Poisson arrivals at 0.5 to 4 times the capacity
    python -m benchmarks.server.compare_servers closed --shipped  # the shipped model, and its baseline without HTTP
    python -m benchmarks.server.compare_servers open --shipped

Every server is started anew for each repeat, warmed up, measured and ended. The repeats of all servers alternate, and
medians are reported. The other servers are in benchmarks/server/peers; `pip install -e '.[bench]'` installs what they
need.
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

from benchmarks.harness import ServerProcess, fake_engine_server, free_port, load, other_cpu_s, report, serving, shipped
from benchmarks.server.no_http_baseline import run_in_own_process
from benchmarks.server.overload import capacity, judge

CLIENTS: Final = (1, 4, 16, 64)
FACTORS: Final = (0.5, 0.8, 1.0, 2.0, 4.0)
WARM_UP_S: Final = 1.0  # of each measurement
LATE_S: Final = 1.0  # responses that come later than this after the last request do not count
PEERS: Final = {"plain FastAPI": "fastapi_server", "LitServe": "litserve_server"}
OURS: Final = "alignseg-serve"
STAGES: Final = ("decode", "queue", "infer", "encode")


@dataclass(frozen=True, slots=True)
class Plan:
    """infer_ms: None for the shipped model. good_s: longest latency of goodput. seconds: of one measurement."""

    infer_ms: float | None
    seconds: float
    repeats: int
    servers: Sequence[str]

    @property
    def good_s(self) -> float:
        """100 ms for a fake engine, 1 s for a network on a CPU."""
        return 1.0 if self.infer_ms is None else 0.1


@contextmanager
def started(name: str, plan: Plan) -> Generator[ServerProcess, None, None]:
    """Start a server and warm it up."""
    if name == OURS:
        with serving(shipped() if plan.infer_ms is None else fake_engine_server(plan.infer_ms)) as ours:
            load(ours.port, clients=16, seconds=WARM_UP_S)
            yield ours
        return
    engine = ["--model", "weights/alignseg-lite"] if plan.infer_ms is None else ["--infer-ms", str(plan.infer_ms)]
    peer = ServerProcess(
        [sys.executable, "-m", f"benchmarks.server.peers.{PEERS[name]}", "--port", str(free_port()), *engine]
    )
    try:
        load(peer.port, clients=16, seconds=WARM_UP_S)
        yield peer
    finally:
        peer.close()


def closed(plan: Plan) -> list[dict[str, Any]]:
    """Return a row for each server and number of clients."""
    runs: dict[tuple[str, float], list[dict[str, Any]]] = {}
    baseline: list[dict[str, Any]] = []
    for _ in range(plan.repeats):
        baseline.append(run_in_own_process(plan.infer_ms, plan.seconds))
        for name in plan.servers:
            with started(name, plan) as server:
                for clients in CLIENTS:
                    row = measure(server, name == OURS, plan, clients=clients)
                    runs.setdefault((name, clients), []).append(row)
    rows = [{"server": name, "clients": clients, **merged(some)} for (name, clients), some in runs.items()]
    return [{"server": "no HTTP", "clients": 1, **merged(baseline)}, *rows]


def open_loop(plan: Plan) -> list[dict[str, Any]]:
    """Return a row for each server and offered load. A new server each time, since some keep a backlog."""
    runs: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for _ in range(plan.repeats):
        for factor in FACTORS:
            for name in plan.servers:
                runs.setdefault((name, factor), []).append(_overload(name, factor, plan))
    return [{"server": name, "times_capacity": factor, **merged(some)} for (name, factor), some in runs.items()]


def _overload(name: str, factor: float, plan: Plan) -> dict[str, Any]:
    with started(name, plan) as server:
        responses_per_s = capacity(server, max(2.0, plan.seconds / 2))["responses_per_s"]
        row = measure(server, name == OURS, plan, rate=round(factor * responses_per_s, 2))
        share = round(row["goodput_per_s"] / max(responses_per_s, 1e-9), 3)
        return {**row, "capacity_per_s": responses_per_s, "goodput_of_capacity": share}


def measure(server: ServerProcess, ours: bool, plan: Plan, **how: float) -> dict[str, Any]:
    """One load. cpu_ms_per_image: of the server's processes; other_cpu_cores: cores that other work used."""
    seconds, before = plan.seconds + WARM_UP_S, stage_sums(server.port) if ours else {}
    began, cpu_s, other_s = time.monotonic(), server.cpu_s(), other_cpu_s(server.cpu_s())
    result = load(server.port, seconds=seconds, late=LATE_S, **how)
    took_s, cpu_s = time.monotonic() - began, server.cpu_s() - cpu_s
    other_s = other_cpu_s(server.cpu_s(), result["cpu_s"]) - other_s
    judged = judge(result, plan.good_s, WARM_UP_S)
    responses = result["status"].count(200)
    stages = mean_stages(before, stage_sums(server.port)) if ours else None
    return {
        **({"offered_per_s": how["rate"]} if "rate" in how else {}),
        "responses_per_s": round(judged["statuses"].get("200", 0) / (max(result["due"]) - WARM_UP_S), 1),
        "goodput_per_s": judged["goodput_per_s"],
        "latency_ms": judged["latency_ms"],
        "rejected": result["status"].count(429),
        "no_response": judged["no_response"],
        "rejection_ms": judged["rejection_ms"],
        "cpu_ms_per_image": round(cpu_s / max(1, responses) * 1e3, 2),
        "generator_cpu_ms_per_image": round(result["cpu_s"] / max(1, len(result["done"])) * 1e3, 3),
        "stages_ms": stages,
        "other_cpu_cores": round(other_s / took_s, 2),
    }


def stage_sums(port: int) -> dict[str, tuple[float, float]]:
    """Seconds and images of each stage so far, from the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        page = response.read().decode()
    samples = re.findall(r'^alignseg_stage_duration_seconds_(sum|count)\{.*stage="(\w+)"\} (\S+)', page, re.MULTILINE)
    values = {(stage, kind): float(value) for kind, stage, value in samples}
    return {stage: (values.get((stage, "sum"), 0.0), values.get((stage, "count"), 0.0)) for stage in STAGES}


def mean_stages(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean milliseconds of each stage between two readings."""
    return {
        stage: round((after[stage][0] - before[stage][0]) / max(1.0, after[stage][1] - before[stage][1]) * 1e3, 2)
        for stage in STAGES
    }


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each value over the repeats, and all of the throughputs."""
    row = {name: _median([run[name] for run in runs]) for name in runs[0]}
    return {**row, "responses_per_s_each_run": [run["responses_per_s"] for run in runs]}


def _median(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        names = [name for name in values[0] if all(name in value for value in values)]
        return {name: _median([value[name] for value in values]) for name in names}
    return round(median(values), 3) if isinstance(values[0], int | float) else values[0]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table."""
    names = " ".join(f"{name:>8}" for name in ("offered", "all/s", "good/s", "p50", "p95", "p99"))
    print(f"\n{'server':20}{'load':>6} {names} CPU ms")
    for row in rows:
        latency = row["latency_ms"]
        latencies = " ".join(f"{latency.get(point, float('nan')):8.1f}" for point in ("p50", "p95", "p99"))
        rates = f"{row.get('offered_per_s', ''):>8} {row['responses_per_s']:8.1f} {row['goodput_per_s']:8.1f}"
        offered = row.get("clients", row.get("times_capacity"))
        print(f"{row['server']:20}{offered:>6} {rates} {latencies} {row['cpu_ms_per_image']:6.2f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=["closed", "open"])
    parser.add_argument("--infer-ms", type=float, default=0.3)
    parser.add_argument("--shipped", action="store_true", help="the shipped model instead of a fake engine")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, after a second of warm-up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--servers", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    options = parser.parse_args()
    plan = Plan(None if options.shipped else options.infer_ms, options.seconds, options.repeats, options.servers)
    peers = {name: version(name) for name in ("litserve", "fastapi", "uvicorn", "onnxruntime")}  # or fails now
    rows = closed(plan) if options.loop == "closed" else open_loop(plan)
    show(rows)
    about = {"engine_ms": plan.infer_ms, "good_within_s": plan.good_s, "repeats": plan.repeats, "peers": peers}
    report(f"server-{options.loop}{'-shipped' if options.shipped else ''}", {**about, "rows": rows})


if __name__ == "__main__":
    main()

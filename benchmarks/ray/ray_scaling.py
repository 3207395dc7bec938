"""Ray Serve on a cluster of four nodes: does throughput grow with engine replicas?

    python -m benchmarks.ray.ray_scaling

Each engine waits instead of computing, so that the cores of this machine do not limit it. Closed loop over HTTP through
Serve's proxy, eight clients an engine; every response is an indexed PNG; responses count while all clients are active.
"""

import argparse
from typing import Any

from benchmarks.harness import free_port, load, percentiles, report
from benchmarks.ray.local_cluster import WaitingEngineFactory, model_folder, nodes
from service.ray_serve.application import NAME, RayServeConfig, application
from service.settings import Settings

from ray import serve  # isort: skip

SETTLED_S = 3.0  # until every client has had a response
NODES, GPUS = 4, 2
CLIENTS = 8  # an engine: enough that no engine waits for work


def run(infer_ms: float, counts: list[int], seconds: float) -> dict[str, Any]:
    """A row for each number of replicas."""
    port = free_port()
    with nodes(NODES, GPUS), model_folder() as folder:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        try:
            rows = [_row(port, Settings(model=folder), infer_ms, count, seconds) for count in counts]
        finally:
            serve.shutdown()
    for row in rows:
        row["of_linear"] = round(
            row["responses_per_s"] / (row["replicas"] * rows[0]["responses_per_s"] / rows[0]["replicas"]), 3
        )
    return {"engine_ms": infer_ms, "nodes": NODES, "rows": rows}


def _row(port: int, settings: Settings, infer_ms: float, count: int, seconds: float) -> dict[str, Any]:
    config = RayServeConfig(engines=count, ingress_resources={"head": 1})
    serve.run(application(settings, config, WaitingEngineFactory(infer_ms / 1e3)), name=NAME, route_prefix="/")
    clients = CLIENTS * count
    result = load(port, clients=clients, seconds=seconds)
    serve.delete(NAME)
    latencies = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
    others = sorted({status for status in result["status"] if status != 200})
    pairs = zip(result["status"], result["done"], strict=True)
    responses_per_s = sum(status == 200 and SETTLED_S < done <= seconds for status, done in pairs) / (
        seconds - SETTLED_S
    )
    return {
        "replicas": count,
        "responses_per_s": round(responses_per_s, 2),
        "other_statuses": others,
        "latency_ms": percentiles(latencies),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=250.0)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row")
    arguments = parser.parse_args()
    report("ray-scaling", run(arguments.infer_ms, arguments.replicas, arguments.seconds))


if __name__ == "__main__":
    main()

"""A fleet on a Ray cluster of four nodes: do answers a second grow with replicas?

    python -m benchmarks.ray.ray_scaling

Each engine waits instead of computing, so that the cores of this machine do not hide it. Closed loop over HTTP through
Serve's proxy, eight clients an engine; every answer is a picture's indexed PNG; counted is what comes while all ask.
"""

import argparse
import socket
from typing import Any

from benchmarks.harness import load, percentiles, report
from benchmarks.ray.local_cluster import model_folder, nodes, waiting_engine
from service.ray_serve.application import NAME, RayServeConfig, application
from service.settings import Settings

from ray import serve  # isort: skip

SETTLED_S = 3.0  # until every client has had an answer
NODES, GPUS = 4, 2
CLIENTS = 8  # an engine: enough that none waits for work


def run(infer_ms: float, counts: list[int], seconds: float) -> dict[str, Any]:
    """A row for each number of replicas."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with nodes(NODES, GPUS), model_folder() as folder:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        try:
            rows = [_row(port, Settings(model=folder), infer_ms, count, seconds) for count in counts]
        finally:
            serve.shutdown()
    for row in rows:
        row["of_linear"] = round(row["a_second"] / (row["replicas"] * rows[0]["a_second"] / rows[0]["replicas"]), 3)
    return {"engine_ms": infer_ms, "nodes": NODES, "rows": rows}


def _row(port: int, settings: Settings, infer_ms: float, count: int, seconds: float) -> dict[str, Any]:
    fleet = RayServeConfig(engines=count, ingress_resources={"head": 1})
    serve.run(application(settings, fleet, waiting_engine(infer_ms / 1e3)), name=NAME, route_prefix="/")
    clients = CLIENTS * count
    result = load(port, clients=clients, seconds=seconds)
    serve.delete(NAME)
    waits = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
    others = sorted({status for status in result["status"] if status != 200})
    pairs = zip(result["status"], result["done"], strict=True)
    a_second = sum(status == 200 and SETTLED_S < done <= seconds for status, done in pairs) / (seconds - SETTLED_S)
    return {
        "replicas": count,
        "a_second": round(a_second, 2),
        "other_statuses": others,
        "answer_ms": percentiles(waits),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=250.0)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each row")
    arguments = parser.parse_args()
    report("fleet", run(arguments.infer_ms, arguments.replicas, arguments.seconds))


if __name__ == "__main__":
    main()

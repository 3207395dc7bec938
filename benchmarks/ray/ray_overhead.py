"""What a fleet costs a picture: the single server and a fleet of one replica, side by side, with an engine of 0.3 ms.

    python -m benchmarks.ray.ray_overhead

Closed loop of 1 and of 16 clients, in turn at one and at the other; every answer is a picture's indexed PNG.
"""

import argparse
import socket
from typing import Any

from benchmarks.harness import load, percentiles, report, serving, stand_in
from benchmarks.ray.local_cluster import model_folder, nodes, waiting_engine
from service.ray_serve.application import NAME, RayServeConfig, application
from service.settings import Settings

from ray import serve  # isort: skip

ENGINE_MS = 0.3
CLIENTS = (1, 16)


def run(seconds: float) -> dict[str, Any]:
    """A row for each number of clients and each of the two."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with nodes(1, 1), model_folder() as folder, serving(stand_in(ENGINE_MS)) as single:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        try:
            fleet = RayServeConfig(engines=1, ingress_resources={"head": 1})
            app = application(Settings(model=folder), fleet, waiting_engine(ENGINE_MS / 1e3))
            serve.run(app, name=NAME, route_prefix="/")
            load(port, clients=4, seconds=3.0)
            rows = [
                {"server": name, "clients": clients, **_measure(at, clients, seconds)}
                for clients in CLIENTS
                for name, at in (("single", single.port), ("fleet", port))
            ]
        finally:
            serve.shutdown()
    return {"engine_ms": ENGINE_MS, "rows": rows}


def _measure(port: int, clients: int, seconds: float) -> dict[str, Any]:
    result = load(port, clients=clients, seconds=seconds)
    waits = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
    others = sorted({status for status in result["status"] if status != 200})
    a_second = result["status"].count(200) / max(result["done"])
    return {"a_second": round(a_second, 1), "other_statuses": others, "answer_ms": percentiles(waits)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    report("fleet-cost", run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()

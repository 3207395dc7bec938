"""The cost of Ray Serve: the single server and one ingress with one engine replica, side by side; an engine of 0.3 ms.

    python -m benchmarks.ray.ray_overhead

Closed loop of 1 and of 16 clients, alternating between the two; every response is an indexed PNG.
"""

import argparse
from typing import Any

from benchmarks.harness import fake_engine_server, free_port, load, percentiles, report, serving
from benchmarks.ray.local_cluster import WaitingEngineFactory, model_folder, nodes
from service.ray_serve.application import NAME, RayServeConfig, application
from service.settings import Settings

from ray import serve  # isort: skip

ENGINE_MS = 0.3
CLIENTS = (1, 16)


def run(seconds: float) -> dict[str, Any]:
    """A row for each number of clients and each of the two servers."""
    port = free_port()
    with nodes(1, 1), model_folder() as folder, serving(fake_engine_server(ENGINE_MS)) as single:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        try:
            config = RayServeConfig(engines=1, ingress_resources={"head": 1})
            app = application(Settings(model=folder), config, WaitingEngineFactory(ENGINE_MS / 1e3))
            serve.run(app, name=NAME, route_prefix="/")
            load(port, clients=4, seconds=3.0)
            rows = [
                {"server": name, "clients": clients, **_measure(at, clients, seconds)}
                for clients in CLIENTS
                for name, at in (("single", single.port), ("ray", port))
            ]
        finally:
            serve.shutdown()
    return {"engine_ms": ENGINE_MS, "rows": rows}


def _measure(port: int, clients: int, seconds: float) -> dict[str, Any]:
    result = load(port, clients=clients, seconds=seconds)
    latencies = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
    others = sorted({status for status in result["status"] if status != 200})
    responses_per_s = result["status"].count(200) / max(result["done"])
    return {
        "responses_per_s": round(responses_per_s, 1),
        "other_statuses": others,
        "latency_ms": percentiles(latencies),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    report("ray-overhead", run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()

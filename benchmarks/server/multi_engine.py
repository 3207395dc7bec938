"""Several GPUs behind one queue: does throughput grow with them?

    python -m benchmarks.server.multi_engine

Each engine waits instead of computing, so that the cores of this machine do not limit it. Closed loop, four clients an
engine; every response is an indexed PNG.
"""

import argparse
from typing import Any

from benchmarks.harness import fake_engine_server, load, percentiles, report, serving


def run(infer_ms: float, counts: list[int], seconds: float) -> dict[str, Any]:
    """A row for each number of engines."""
    rows: list[dict[str, Any]] = []
    for engines in counts:
        with serving(fake_engine_server(infer_ms, engines=engines)) as server:
            clients = 4 * engines
            load(server.port, clients=clients, seconds=1.0)
            result = load(server.port, clients=clients, seconds=seconds)
        latencies = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
        responses_per_s = result["status"].count(200) / max(result["done"])
        linear = responses_per_s / (engines * rows[0]["responses_per_s"] / rows[0]["engines"]) if rows else 1.0
        others = sorted({status for status in result["status"] if status != 200})
        rows.append({
            "engines": engines, "responses_per_s": round(responses_per_s, 1), "of_linear": round(linear, 3),
            "other_statuses": others, "latency_ms": percentiles(latencies),
        })  # fmt: skip
    return {"engine_ms": infer_ms, "rows": rows}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=40.0)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    options = parser.parse_args()
    report("multi-engine", run(options.infer_ms, options.engines, options.seconds))


if __name__ == "__main__":
    main()

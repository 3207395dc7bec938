"""Several GPUs behind one queue: do answers a second grow with them?

    python -m benchmarks.server.multi_engine

Each engine waits instead of computing, so that the cores of this machine do not hide it. Closed loop, four clients an
engine; every answer is a picture's indexed PNG.
"""

import argparse
from typing import Any

from benchmarks.harness import load, percentiles, report, serving, stand_in


def run(infer_ms: float, counts: list[int], seconds: float) -> dict[str, Any]:
    """A row for each number of engines."""
    rows: list[dict[str, Any]] = []
    for engines in counts:
        with serving(stand_in(infer_ms, engines=engines)) as server:
            clients = 4 * engines
            load(server.port, clients=clients, seconds=1.0)
            result = load(server.port, clients=clients, seconds=seconds)
        waits = [(done - due) * 1e3 for due, done in zip(result["due"], result["done"], strict=True)]
        a_second = result["status"].count(200) / max(result["done"])
        linear = a_second / (engines * rows[0]["a_second"] / rows[0]["engines"]) if rows else 1.0
        others = sorted({status for status in result["status"] if status != 200})
        rows.append({
            "engines": engines, "a_second": round(a_second, 1), "of_linear": round(linear, 3),
            "other_statuses": others, "answer_ms": percentiles(waits),
        })  # fmt: skip
    return {"engine_ms": infer_ms, "rows": rows}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer-ms", type=float, default=40.0)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    arguments = parser.parse_args()
    report("scaling", run(arguments.infer_ms, arguments.engines, arguments.seconds))


if __name__ == "__main__":
    main()

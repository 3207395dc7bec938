"""Draws the server tables: benchmarks/results/server-*.png from the JSON beside them.

python -m benchmarks.plots
"""

import json
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from benchmarks.harness import RESULTS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLORS: Final = {"alignseg-serve": "#0b6e4f", "plain FastAPI": "#c05746", "LitServe": "#4a6fa5"}


def draw(path: Path) -> Path:
    """One figure for one JSON file: throughput left, latency right."""
    results = json.loads(path.read_text())
    axis = "clients" if "clients" in results["rows"][-1] else "times_capacity"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for name, color in COLORS.items():
        rows = [row for row in results["rows"] if row["server"] == name]
        _throughput(left, axis, rows, name, color)
        _latency(right, axis, rows, name, color)
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks([row[axis] for row in rows], [f"{row[axis]:g}" for row in rows])
        axes.set_xlabel("clients, closed loop" if axis == "clients" else "offered load / capacity of each server")
        axes.grid(alpha=0.3)
    engine = "the shipped model" if results["engine_ms"] is None else f"a fake engine of {results['engine_ms']} ms"
    figure.suptitle(f"480x360 JPEG to indexed PNG; {engine}; {results['machine']['cores']} cores, load included")
    figure.tight_layout()
    figure.savefig(out := path.with_suffix(".png"), dpi=110)
    plt.close(figure)
    return out


def _throughput(axes: Axes, axis: str, rows: list[dict[str, Any]], name: str, color: str) -> None:
    key = "responses_per_s" if axis == "clients" else "goodput_per_s"
    axes.plot([row[axis] for row in rows], [row[key] for row in rows], "o-", color=color, label=name)
    axes.set_ylabel("responses a second" if axis == "clients" else "responses in time, a second")
    axes.legend()


def _latency(axes: Axes, axis: str, rows: list[dict[str, Any]], name: str, color: str) -> None:
    for point, style in (("p50", "o-"), ("p99", "o:")):
        known = [(row[axis], row["latency_ms"][point]) for row in rows if point in row["latency_ms"]]
        axes.plot([x for x, _ in known], [ms for _, ms in known], style, color=color, label=f"{name}, {point}")
    axes.set_yscale("log")
    axes.set_ylabel("latency, ms")


def main() -> None:
    """Draw all results that exist."""
    for path in sorted(RESULTS.glob("server-*.json")):
        print(f"drawn: {draw(path).relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()

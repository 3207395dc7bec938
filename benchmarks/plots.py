"""The server tables as pictures: benchmarks/results/server-*.png from the JSON beside them.

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

COLOURS: Final = {"alignseg-serve": "#0b6e4f", "plain FastAPI": "#c05746", "LitServe": "#4a6fa5"}


def draw(path: Path) -> Path:
    """One figure for one JSON file: what is answered, and how late."""
    told = json.loads(path.read_text())
    axis = "clients" if "clients" in told["rows"][-1] else "times_capacity"
    figure, (much, late) = plt.subplots(1, 2, figsize=(10, 4))
    for name, colour in COLOURS.items():
        rows = [row for row in told["rows"] if row["server"] == name]
        _much(much, axis, rows, name, colour)
        _late(late, axis, rows, name, colour)
    much.set_ylim(bottom=0)
    for axes in (much, late):
        axes.set_xscale("log", base=2)
        axes.set_xticks([row[axis] for row in rows], [f"{row[axis]:g}" for row in rows])
        axes.set_xlabel("clients, closed loop" if axis == "clients" else "load, in times of each server's capacity")
        axes.grid(alpha=0.3)
    engine = "the shipped model" if told["engine_ms"] is None else f"a stand-in engine of {told['engine_ms']} ms"
    figure.suptitle(f"480x360 JPEG in, indexed PNG out; {engine}; {told['machine']['cores']} cores, load included")
    figure.tight_layout()
    figure.savefig(out := path.with_suffix(".png"), dpi=110)
    plt.close(figure)
    return out


def _much(axes: Axes, axis: str, rows: list[dict[str, Any]], name: str, colour: str) -> None:
    what = "answers_a_second" if axis == "clients" else "goodput_a_second"
    axes.plot([row[axis] for row in rows], [row[what] for row in rows], "o-", color=colour, label=name)
    axes.set_ylabel("answers a second" if axis == "clients" else "answers in time, a second")
    axes.legend()


def _late(axes: Axes, axis: str, rows: list[dict[str, Any]], name: str, colour: str) -> None:
    for point, style in (("p50", "o-"), ("p99", "o:")):
        known = [(row[axis], row["answer_ms"][point]) for row in rows if point in row["answer_ms"]]
        axes.plot([x for x, _ in known], [ms for _, ms in known], style, color=colour, label=f"{name}, {point}")
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds until the answer")


def main() -> None:
    """Draw all that were measured."""
    for path in sorted(RESULTS.glob("server-*.json")):
        print(f"drawn: {draw(path).relative_to(RESULTS.parents[1])}")


if __name__ == "__main__":
    main()

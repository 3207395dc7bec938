"""Plots loss and val mIoU of runs: python -m training.figures.learning_curves runs/NAME... -o curves.png."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.loop.progress import CurveLog


def draw(runs: Sequence[Path], path: Path) -> None:
    """Write a PNG with loss and val mIoU by step, from the log.csv of each run.

    Raises ValueError that names a run without a log.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for run in runs:
        rows = CurveLog.rows(run / "log.csv")
        if not rows:
            raise ValueError(f"{run / 'log.csv'} is missing or empty; expected the log of a run")
        left.plot([int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], label=run.name)
        measured = [(int(r["step"]), 100 * float(r["val_miou"])) for r in rows if r["val_miou"]]
        right.plot([step for step, _ in measured], [miou for _, miou in measured], marker=".", label=run.name)
    for axes, name in ((left, "training loss"), (right, "val mIoU, %")):
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    """Plot. Exit status: 0, or 1 when a run has no log."""
    parser = argparse.ArgumentParser(
        "python -m training.figures.learning_curves", description="Plot loss and val mIoU of runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, each with a log.csv")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("curves.png"), help="PNG file to write (default: curves.png)"
    )
    arguments = parser.parse_args(argv)
    try:
        draw(arguments.runs, arguments.out)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

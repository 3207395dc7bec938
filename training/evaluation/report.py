"""What an evaluation tells: figures as JSON has them, a table for people, the confusion matrix as a picture."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from training.data.datasets import Dataset
from training.evaluation.boundary_f1 import BoundaryScore
from training.evaluation.confusion import Confusion

NUMBERED = 40
"""Up to so many classes the confusion matrix has names and numbers; they could not be read in one of ADE20K's 150."""


def report(confusion: Confusion, boundaries: BoundaryScore, dataset: Dataset) -> dict[str, Any]:
    """The figures, 0..1; null stands for a class in neither labels nor predictions."""
    return {
        "miou": round(confusion.miou, 5),
        "pixel_accuracy": round(confusion.accuracy, 5),
        "boundary_f": round(boundaries.mean, 5),
        "boundary_tolerance_px": boundaries.tolerance,
        "iou": _by_class(confusion.iou, dataset),
        "boundary_f_by_class": _by_class(boundaries.f, dataset),
        "confusion": confusion.counts.tolist(),
    }


def _by_class(values: NDArray[np.float64], dataset: Dataset) -> dict[str, float | None]:
    rounded = [None if np.isnan(value) else round(float(value), 5) for value in values]
    return dict(zip(dataset.names, rounded, strict=True))


def table(figures: dict[str, Any]) -> Table:
    """The figures for people, in per cent."""
    made = Table()
    made.add_column("class")
    made.add_column("IoU %", justify="right")
    made.add_column(f"boundary F %, {figures['boundary_tolerance_px']:g} px", justify="right")
    for name, iou in figures["iou"].items():
        made.add_row(name, _percent(iou), _percent(figures["boundary_f_by_class"][name]))
    made.add_section()
    made.add_row("mean (mIoU)", f"{100 * figures['miou']:.2f}", f"{100 * figures['boundary_f']:.2f}")
    made.add_row("pixel accuracy", f"{100 * figures['pixel_accuracy']:.2f}", "")
    return made


def _percent(share: float | None) -> str:
    return "absent" if share is None else f"{100 * share:.1f}"


def draw_confusion(figures: dict[str, Any], path: Path) -> None:
    """The confusion matrix as a PNG: row = labelled class, column = predicted class, in per cent of the row.

    The diagonal is the recall of each class. A class that is nowhere labelled has an empty row.
    """
    names, counts = list(figures["iou"]), np.array(figures["confusion"], float)
    labelled = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, labelled, out=np.full_like(counts, np.nan), where=labelled > 0)
    side = 2.4 + 0.52 * min(len(names), NUMBERED)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="labelled")
    title = f"{heading(figures)}, mIoU {100 * figures['miou']:.1f} %"
    axes.set_title(textwrap.fill(title, int(9 * side)), fontsize="medium")
    if len(names) <= NUMBERED:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        _number(axes, shares)
    figure.colorbar(shown, ax=axes, label="% of the labelled pixels", shrink=0.8)
    figure.savefig(path, dpi=120)


def _number(axes: Any, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # what would read 0 is left blank, so that confusions stand out
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black")


def heading(figures: dict[str, Any]) -> str:
    """What was measured, on what."""
    return f"{figures['measured']}: {figures['data']} {figures['split']}, {figures['pictures']} pictures"

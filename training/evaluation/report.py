"""Reports of an evaluation: metrics for JSON, a table for the terminal, the confusion matrix as a figure."""

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

MAX_LABELLED_CLASSES = 40
"""With more classes, such as ADE20K's 150, the figure of the confusion matrix has no names and numbers."""


def report(confusion: Confusion, boundaries: BoundaryScore, dataset: Dataset) -> dict[str, Any]:
    """The metrics as JSON values, 0..1; null for a class in neither labels nor predictions, and for a mean of none."""
    return {
        "miou": _rounded(confusion.miou),
        "pixel_accuracy": _rounded(confusion.accuracy),
        "boundary_f": _rounded(boundaries.mean),
        "boundary_tolerance_px": boundaries.tolerance,
        "iou": _by_class(confusion.iou, dataset),
        "boundary_f_by_class": _by_class(boundaries.f, dataset),
        "confusion": confusion.counts.tolist(),
    }


def _by_class(values: NDArray[np.float64], dataset: Dataset) -> dict[str, float | None]:
    return dict(zip(dataset.names, map(_rounded, values), strict=True))


def _rounded(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 5)


def table(metrics: dict[str, Any]) -> Table:
    """The metrics in per cent, a row per class."""
    rows = Table()
    rows.add_column("class")
    rows.add_column("IoU %", justify="right")
    rows.add_column(f"boundary F %, {metrics['boundary_tolerance_px']:g} px", justify="right")
    for name, iou in metrics["iou"].items():
        rows.add_row(name, _percent(iou), _percent(metrics["boundary_f_by_class"][name]))
    rows.add_section()
    rows.add_row("mean (mIoU)", _percent(metrics["miou"], 2), _percent(metrics["boundary_f"], 2))
    rows.add_row("pixel accuracy", _percent(metrics["pixel_accuracy"], 2), "")
    return rows


def _percent(share: float | None, digits: int = 1) -> str:
    return "absent" if share is None else f"{100 * share:.{digits}f}"


def draw_confusion(metrics: dict[str, Any], path: Path) -> None:
    """Write the confusion matrix as a PNG: row = labelled class, column = predicted class, in per cent of the row.

    The diagonal is the recall of each class. A class without labelled pixels has an empty row.
    """
    names, counts = list(metrics["iou"]), np.array(metrics["confusion"], float)
    labelled = counts.sum(1, keepdims=True)
    shares = np.divide(100 * counts, labelled, out=np.full_like(counts, np.nan), where=labelled > 0)
    side = 2.4 + 0.52 * min(len(names), MAX_LABELLED_CLASSES)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    heatmap = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="labelled")
    title = f"{heading(metrics)}, mIoU {_percent(metrics['miou'])} %"
    axes.set_title(textwrap.fill(title, int(9 * side)), fontsize="medium")
    if len(names) <= MAX_LABELLED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        _write_numbers(axes, shares)
    figure.colorbar(heatmap, ax=axes, label="% of the labelled pixels", shrink=0.8)
    figure.savefig(path, dpi=120)


def _write_numbers(axes: Any, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # cells that would show 0 stay empty
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black")


def heading(metrics: dict[str, Any]) -> str:
    """What was measured, and on which images."""
    return f"{metrics['measured']}: {metrics['data']} {metrics['split']}, {metrics['pictures']} images"

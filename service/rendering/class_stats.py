"""Area, box and confidence of each class, from runs of equal ids along rows: a hundred times fewer than pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.errors import InferenceFailed
from service.rendering.selection import UNSELECTED
from service.types import Classes, UInt8Array

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class in one image.

    fraction: share of the image's pixels, 0..1. box: [x, y, width, height] of the smallest box around all of them.
    confidence: mean probability of its pixels, 0..1; None if not requested.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    pixels: int
    fraction: float
    box: tuple[int, int, int, int]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of equal ids within rows, sorted by id, those of one id in reading order.

    y, left, right: (R,) row and columns, left <= x < right. first: (P,) index of the first run of each id present.
    """

    ids: UInt8Array
    y: Ints
    left: Ints
    right: Ints
    first: Ints


def summarize(
    ids: UInt8Array, classes: Classes, confidence: UInt8Array | None = None, *, with_unselected: bool = False
) -> list[ClassSummary]:
    """Statistics of each class that is present, in order of the ids.

    ids: (H, W) uint8. confidence: (H, W) uint8, 255 times the probability. with_unselected: ids may be UNSELECTED.
    Raises InferenceFailed when an id is not a class of the model.
    """
    runs = _find_runs(ids)
    present = runs.ids[runs.first]
    known = present[present != UNSELECTED] if with_unselected else present
    check_ids(int(known.max(initial=0)), len(classes.names))
    pixels = np.add.reduceat(runs.right - runs.left, runs.first)
    means: Sequence[float | None] = [None] * len(present)
    if confidence is not None:
        means = _means(runs, pixels, confidence)
    return [
        ClassSummary(
            id=int(i),
            name=classes.names[int(i)],
            color=_color(classes, int(i)),
            pixels=int(count),
            fraction=round(float(count / ids.size), 6),
            box=box,
            confidence=mean,
        )
        for i, count, box, mean in zip(present, pixels, _boxes(runs), means, strict=True)
        if i in known
    ]


def check_ids(highest: int, num_classes: int) -> None:
    """Raises InferenceFailed when the highest id of a class map is not a class of the model."""
    if highest >= num_classes:
        raise InferenceFailed(
            f"Engine returned class id {highest}, the model has {num_classes} classes. Report this as a bug."
        )


def _find_runs(ids: UInt8Array) -> _Runs:
    width = ids.shape[1]
    flat = ids.ravel()
    starts_run = np.empty(flat.size, dtype=np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=starts_run[1:])
    starts_run[::width] = True
    starts = np.flatnonzero(starts_run)
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    starts, ends = starts[order], ends[order]
    values, y = flat[starts], starts // width
    first = np.flatnonzero(np.diff(values, prepend=~values[:1]))
    return _Runs(values, y, starts - y * width, ends - y * width, first)


def _boxes(runs: _Runs) -> list[tuple[int, int, int, int]]:
    last = np.append(runs.first[1:], len(runs.ids)) - 1
    left, right = np.minimum.reduceat(runs.left, runs.first), np.maximum.reduceat(runs.right, runs.first)
    top, bottom = runs.y[runs.first], runs.y[last] + 1
    return [(int(x), int(y), int(x1 - x), int(y1 - y)) for x, y, x1, y1 in zip(left, top, right, bottom, strict=True)]


def _means(runs: _Runs, pixels: Ints, confidence: UInt8Array) -> list[float]:
    starts = runs.y * confidence.shape[1] + runs.left
    in_order = np.argsort(starts)
    sums = np.empty_like(starts)
    sums[in_order] = np.add.reduceat(confidence.ravel(), starts[in_order], dtype=np.int64)
    totals = np.add.reduceat(sums, runs.first)
    return [round(float(total / count / 255), 4) for total, count in zip(totals, pixels, strict=True)]


def _color(classes: Classes, class_id: int) -> tuple[int, int, int]:
    red, green, blue = classes.palette[class_id].tolist()
    return red, green, blue

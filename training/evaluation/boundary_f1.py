"""The boundary F-score: how accurately class boundaries are placed, which is what alignment should improve."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.data.labels import IGNORED

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
TOLERANCE = 3
"""Pixels: 0.5 % of the diagonal of CamVid's 480x360. Csurka et al. use 0.75 %."""


@dataclass
class BoundaryScore:
    """The boundary F-score (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013).

    The boundary of a class consists of its pixels with a pixel of another class among their four neighbours. A
    predicted boundary pixel is correct if a labelled one of the same class lies within `tolerance` pixels (Euclidean).
    Precision P is the share of predicted ones that are correct, recall R the same with the roles exchanged, and
    F = 2 P R / (P + R). Void pixels have no class and no boundary, and predictions there are ignored.

    Unlike in the paper, counts are summed over all images before F is computed, as for IoU: images with few pixels of a
    class do not dominate its score.

    matched, total: int64 (2, C), boundary pixels of [the prediction, the labels] by class.
    """

    num_classes: int
    tolerance: float = TOLERANCE
    matched: NDArray[np.int64] = field(init=False)
    total: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.matched = np.zeros((2, self.num_classes), np.int64)
        self.total = np.zeros_like(self.matched)

    def add(self, predicted: Bytes, truth: Bytes) -> None:
        """Add one image; both uint8 (H, W) class ids, `truth` may contain IGNORED.

        Raises ValueError when the shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(
                f"got a class map of shape {predicted.shape}, expected {truth.shape}, the shape of the labels"
            )
        of_prediction = boundary(np.where(truth == IGNORED, IGNORED, predicted).astype(np.uint8))
        of_labels = boundary(truth)
        for row, (one, other) in enumerate(((of_prediction, of_labels), (of_labels, of_prediction))):
            classes, near = matches(one, other, self.tolerance)
            self.total[row] += np.bincount(classes, minlength=self.num_classes)
            self.matched[row] += np.bincount(classes[near], minlength=self.num_classes)

    @property
    def f(self) -> Floats:
        """(C,) F of each class, 0..1; nan for a class without a boundary in predictions and labels."""
        # With matches m and totals t of predictions (0) and labels (1), this is 2PR/(P+R), and 0 when nothing matches.
        (m0, m1), (t0, t1) = self.matched.astype(float), self.total.astype(float)
        denominator = m0 * t1 + m1 * t0
        f = np.divide(2 * m0 * m1, denominator, out=np.zeros(self.num_classes), where=denominator > 0)
        return np.where(t0 + t1 > 0, f, np.nan)

    @property
    def mean(self) -> float:
        """Mean F of the classes that have a boundary; nan when none has one."""
        known = self.f[~np.isnan(self.f)]
        return float(known.mean()) if known.size else float("nan")


def boundary(labels: Bytes) -> Bytes:
    """uint8 (H, W): the class of labelled pixels with a labelled four-neighbour of another class, else IGNORED."""
    edge = np.zeros(labels.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (labels[here] != labels[there]) & (labels[here] != IGNORED) & (labels[there] != IGNORED)
        edge[here] |= differs
        edge[there] |= differs
    return np.where(edge, labels, IGNORED).astype(np.uint8)


def matches(one: Bytes, other: Bytes, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For each boundary pixel of `one`: its class (K,), and whether `other` has that class within `tolerance` (K,).

    Only a disc around each boundary pixel is looked up: boundaries are a few per cent of an image, so this is cheaper
    than a distance transform per class.
    """
    rows, columns = np.nonzero(one != IGNORED)
    classes = one[rows, columns]
    radius = int(tolerance)
    padded = np.pad(other, radius, constant_values=IGNORED)
    near = np.zeros(classes.shape, bool)
    for dy, dx in _disc(tolerance):
        near |= padded[rows + radius + dy, columns + radius + dx] == classes
    return classes.astype(np.intp), near


def _disc(radius: float) -> list[tuple[int, int]]:
    steps = range(-int(radius), int(radius) + 1)
    return [(dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx <= radius * radius]

"""How well class boundaries are placed: the boundary F-score, where alignment should show before it shows in mIoU."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import IGNORED

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
TOLERANCE = 3
"""Pixels; at CamVid's 480x360 about the 0.5 % of the diagonal, where Csurka et al. take 0.75 %."""


@dataclass
class BoundaryScore:
    """The boundary F-score (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013).

    The boundary of a class are its pixels that have a pixel of another class among their four neighbours. A predicted
    boundary pixel is right if a labelled one of the same class lies within `tolerance` pixels (Euclidean); precision
    is the share of predicted ones that are right. Recall is the same with the roles changed; F = 2 P R / (P + R).
    Void pixels belong to no class and make no boundary: the prediction there is ignored too.

    Unlike in the paper, counts are summed over all pictures before F is computed, as IoU's are, so that a class is not
    judged by the pictures that hardly show it.

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
        """Count one picture; both uint8 (H, W) class ids, truth may hold IGNORED.

        Raises ValueError when the shapes differ.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"got a class map of shape {predicted.shape}, expected {truth.shape}, as the labels")
        mine = boundary(np.where(truth == IGNORED, IGNORED, predicted).astype(np.uint8))
        theirs = boundary(truth)
        for row, (one, other) in enumerate(((mine, theirs), (theirs, mine))):
            classes, near = matches(one, other, self.tolerance)
            self.total[row] += np.bincount(classes, minlength=self.num_classes)
            self.matched[row] += np.bincount(classes[near], minlength=self.num_classes)

    @property
    def f(self) -> Floats:
        """(C,) F of each class, 0..1; nan for a class without a boundary in either."""
        # With hits m and totals t of prediction (0) and labels (1): 2PR/(P+R), which is 0 when either has no hit.
        (m0, m1), (t0, t1) = self.matched.astype(float), self.total.astype(float)
        below = m0 * t1 + m1 * t0
        f = np.divide(2 * m0 * m1, below, out=np.zeros(self.num_classes), where=below > 0)
        return np.where(t0 + t1 > 0, f, np.nan)

    @property
    def mean(self) -> float:
        """The mean of the classes' F, those without a boundary left out; nan when none has one."""
        known = self.f[~np.isnan(self.f)]
        return float(known.mean()) if known.size else float("nan")


def boundary(labels: Bytes) -> Bytes:
    """uint8 (H, W): the class where a labelled pixel has a labelled four-neighbour of another class, else IGNORED."""
    edge = np.zeros(labels.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (labels[here] != labels[there]) & (labels[here] != IGNORED) & (labels[there] != IGNORED)
        edge[here] |= differs
        edge[there] |= differs
    return np.where(edge, labels, IGNORED).astype(np.uint8)


def matches(one: Bytes, other: Bytes, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For each boundary pixel of `one`: its class (K,), and whether `other` has that class within `tolerance` (K,).

    Looks up the disc around boundary pixels alone, which are a few per cent of a picture: no map per class, no
    distance transform.
    """
    rows, columns = np.nonzero(one != IGNORED)
    classes = one[rows, columns]
    reach = int(tolerance)
    padded = np.pad(other, reach, constant_values=IGNORED)
    near = np.zeros(classes.shape, bool)
    for dy, dx in _disc(tolerance):
        near |= padded[rows + reach + dy, columns + reach + dx] == classes
    return classes.astype(np.intp), near


def _disc(radius: float) -> list[tuple[int, int]]:
    reach = range(-int(radius), int(radius) + 1)
    return [(dy, dx) for dy in reach for dx in reach if dy * dy + dx * dx <= radius * radius]

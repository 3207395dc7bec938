"""The confusion matrix, and from it IoU of each class, mIoU and pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.data.labels import IGNORED

Bytes = NDArray[np.uint8]


@dataclass
class Confusion:
    """Counts of labelled pixels by true and predicted class: counts[true, predicted], int64 (C, C)."""

    num_classes: int
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def add(self, predicted: Bytes, truth: Bytes) -> None:
        """Add the pixels of an image or batch; both uint8 of the same shape, `truth` may contain IGNORED.

        Raises ValueError when the shapes differ or a prediction is not a class id.
        """
        if predicted.shape != truth.shape:
            raise ValueError(
                f"got a class map of shape {predicted.shape}, expected {truth.shape}, the shape of the labels"
            )
        labelled = truth != IGNORED
        ids = predicted[labelled].astype(np.int64)
        if ids.size and ids.max() >= self.num_classes:
            raise ValueError(f"got class id {ids.max()}, expected 0..{self.num_classes - 1}")
        cells = truth[labelled].astype(np.int64) * self.num_classes + ids
        self.counts += np.bincount(cells, minlength=self.num_classes**2).reshape(self.counts.shape)

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union by class; nan for a class in neither the labels nor the predictions."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        iou: NDArray[np.float64] = np.divide(hits, union, out=np.full(self.num_classes, np.nan), where=union > 0)
        return iou

    @property
    def miou(self) -> float:
        """Mean IoU of the classes, each computed over the pixels of all images together.

        IoU of a class = true positives / (true positives + false positives + false negatives). Void pixels are ignored.
        A class in neither the labels nor the predictions has no IoU and is left out; nan when no class has one.
        """
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of labelled pixels whose prediction is correct; nan if no pixel is labelled."""
        total = int(self.counts.sum())
        return float(np.diag(self.counts).sum() / total) if total else float("nan")

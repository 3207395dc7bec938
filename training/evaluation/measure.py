"""Compares the class maps of a predictor with labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from training.data.datasets import Bytes, Dataset, Pair
from training.evaluation.confusion import Confusion
from training.evaluation.predictors import Predictor


class Metric(Protocol):
    """Accumulates class maps and their labels."""

    def add(self, predicted: Bytes, truth: Bytes) -> None:
        """Add one image; both uint8 (H, W)."""


def evaluate(predict: Predictor, dataset: Dataset, pairs: Iterable[Pair], *metrics: Metric) -> Confusion:
    """The confusion matrix over all images of `pairs`, which are added to `metrics` too."""
    confusion = Confusion(dataset.num_classes)
    for pair in pairs:
        image, labels = dataset.read(pair)
        predicted = predict(image)
        for metric in (confusion, *metrics):
            metric.add(predicted, labels)
    return confusion

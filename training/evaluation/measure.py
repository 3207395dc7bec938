"""Counts the class maps of a predictor against labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from training.data.datasets import Bytes, Dataset, Pair
from training.evaluation.confusion import Confusion
from training.evaluation.predictors import Predictor


class Meter(Protocol):
    """What counts class maps."""

    def add(self, predicted: Bytes, truth: Bytes) -> None:
        """Count one picture; both uint8 (H, W)."""


def evaluate(predict: Predictor, dataset: Dataset, pairs: Iterable[Pair], *more: Meter) -> Confusion:
    """Every picture of `pairs` through the predictor, counted together, by `more` too."""
    confusion = Confusion(dataset.num_classes)
    for pair in pairs:
        picture, labels = dataset.read(pair)
        predicted = predict(picture)
        for meter in (confusion, *more):
            meter.add(predicted, labels)
    return confusion

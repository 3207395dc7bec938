"""Measures a predictor on a split of a data set."""

from __future__ import annotations

from collections.abc import Iterable

from training.datasets import Dataset, Pair
from training.metrics import Confusion
from training.predict import Predictor


def evaluate(predict: Predictor, dataset: Dataset, pairs: Iterable[Pair]) -> Confusion:
    """Every picture of `pairs` through the predictor, counted together."""
    confusion = Confusion(dataset.num_classes)
    for pair in pairs:
        picture, labels = dataset.read(pair)
        confusion.add(predict(picture), labels)
    return confusion

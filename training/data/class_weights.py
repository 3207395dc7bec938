"""Class weights of the loss, from the frequency of each class in the training labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import Dataset, Pair
from training.data.labels import IGNORED

MAX_RATIO = 10.0
"""Largest ratio of two class weights: without it, a class of a few pixels would dominate the loss."""


def class_shares(dataset: Dataset, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Share of each class among the labelled pixels, (C,)."""
    counts = np.zeros(256, np.int64)
    for pair in pairs:
        counts += np.bincount(dataset.read(pair)[1].ravel(), minlength=256)
    labelled = counts[: dataset.num_classes]
    shares: NDArray[np.float64] = labelled / max(1, int(counts[:IGNORED].sum()))
    return shares


def class_weights(shares: NDArray[np.float64], kind: str) -> NDArray[np.float32]:
    """Weights (C,), from 1 to MAX_RATIO.

    enet: 1 / ln(1.02 + share) (Paszke et al., 2016). sqrt-enet: its square root, for a loss whose other terms favour
    rare classes too. median: median share / share (Eigen and Fergus, ICCV 2015).
    """
    if kind == "enet":
        weights = 1.0 / np.log(1.02 + shares)
    elif kind == "sqrt-enet":
        weights = 1.0 / np.sqrt(np.log(1.02 + shares))
    elif kind == "median":
        weights = np.median(shares[shares > 0]) / np.maximum(shares, 1e-12)
    else:
        raise ValueError(f"--class-weights: got {kind!r}; expected enet, sqrt-enet or median")
    bounded: NDArray[np.float32] = np.minimum(weights / weights.min(), MAX_RATIO).astype(np.float32)
    return bounded

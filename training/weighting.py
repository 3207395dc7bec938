"""Class weights from the frequency of each class in the training labels: rare classes count for more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.datasets import IGNORED, Dataset, Pair

MOST = 10.0
"""No class weighs more than this times another: a class of a few pixels would drown the rest."""


def class_shares(dataset: Dataset, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """(C,) share of each class among the labelled pixels."""
    counts = np.zeros(256, np.int64)
    for pair in pairs:
        counts += np.bincount(dataset.read(pair)[1].ravel(), minlength=256)
    known = counts[: dataset.num_classes]
    shares: NDArray[np.float64] = known / max(1, int(counts[:IGNORED].sum()))
    return shares


def class_weights(shares: NDArray[np.float64], kind: str) -> NDArray[np.float32]:
    """(C,) weights within a factor of MOST of each other, their least 1.

    enet: 1 / ln(1.02 + share) (Paszke et al., 2016). sqrt-enet: the square root of that, for a loss with other terms
    for rare classes. median: median share / share (Eigen and Fergus, ICCV 2015).
    """
    if kind == "enet":
        weights = 1.0 / np.log(1.02 + shares)
    elif kind == "sqrt-enet":
        weights = 1.0 / np.sqrt(np.log(1.02 + shares))
    elif kind == "median":
        weights = np.median(shares[shares > 0]) / np.maximum(shares, 1e-12)
    else:
        raise ValueError(f"class weights: got {kind!r}, expected 'enet', 'sqrt-enet' or 'median'")
    bounded: NDArray[np.float32] = np.minimum(weights / weights.min(), MOST).astype(np.float32)
    return bounded

"""Logits -> the confidence of each pixel. Computed outside the graph, so that requests without it cost nothing."""

from typing import Final

import numpy as np
import numpy.typing as npt

from service.types import UInt8Array

FloatArray = npt.NDArray[np.float32]
_ROWS: Final = 64  # computed at a time, so that full-size logits of many classes are never in memory at once


def confidence(logits: FloatArray, size: tuple[int, int]) -> UInt8Array:
    """The softmax probability of the most likely class times 255, rounded.

    logits: (N, num_classes, h, w) float32, upsampled bilinearly with aligned corners as the graph does for its argmax.
    size: (H, W) of the images. Returns (N, H, W) uint8.
    """
    rows, columns = (_interpolation(n, small) for n, small in zip(size, logits.shape[2:], strict=True))
    wide = logits @ columns.T  # (N, num_classes, h, W)
    strips = [_softmax_maximum(rows[top : top + _ROWS] @ wide) for top in range(0, size[0], _ROWS)]
    return np.concatenate(strips, axis=1)


def _softmax_maximum(logits: FloatArray) -> UInt8Array:
    below_best = logits - logits.max(axis=1, keepdims=True)
    probability = 1 / np.exp(below_best).sum(axis=1)
    rounded: UInt8Array = np.rint(255 * probability).astype(np.uint8)
    return rounded


def _interpolation(length: int, small: int) -> FloatArray:
    """(length, small) matrix of bilinear weights: row i reads position i * (small - 1) / (length - 1)."""
    position = np.arange(length) * ((small - 1) / max(length - 1, 1))
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(small)))
    matrix: FloatArray = weights.astype(np.float32)
    return matrix

"""Logits -> the confidence of each pixel, for the few who ask: no graph has to compute it for the others."""

from typing import Final

import numpy as np
import numpy.typing as npt

from service.types import UInt8Array

FloatArray = npt.NDArray[np.float32]
_ROWS: Final = 64  # at a time, so that full-size logits of many classes never lie in memory whole


def confidence(logits: FloatArray, size: tuple[int, int]) -> UInt8Array:
    """The softmax probability of the likeliest class times 255, rounded.

    logits: (N, num_classes, h, w) float32, upsampled bilinearly with aligned corners as the graph does for its argmax.
    size: (H, W) of the pictures. Returns (N, H, W) uint8.
    """
    rows, columns = (_interpolation(n, of) for n, of in zip(size, logits.shape[2:], strict=True))
    wide = logits @ columns.T  # (N, num_classes, h, W)
    strips = [_of_strip(rows[top : top + _ROWS] @ wide) for top in range(0, size[0], _ROWS)]
    return np.concatenate(strips, axis=1)


def _of_strip(logits: FloatArray) -> UInt8Array:
    below_best = logits - logits.max(axis=1, keepdims=True)
    probability = 1 / np.exp(below_best).sum(axis=1)
    rounded: UInt8Array = np.rint(255 * probability).astype(np.uint8)
    return rounded


def _interpolation(length: int, of: int) -> FloatArray:
    """(length, of) matrix: row i reads position i * (of - 1) / (length - 1)."""
    position = np.arange(length) * ((of - 1) / max(length - 1, 1))
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(of)))
    matrix: FloatArray = weights.astype(np.float32)
    return matrix

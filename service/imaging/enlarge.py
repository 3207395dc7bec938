"""Enlarge a map to the image's own size: values by nearest neighbour, class maps with smooth edges between classes.

Both use half-pixel centres, as `letterbox`. A cell is the square between the centres of four neighbouring pixels of the
small map. Where all four have one class, so has the cell. Elsewhere each class has a score at the corners, its share of
the surroundings by a filter, and each pixel of the cell takes the class whose interpolated score is highest.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.types import Size, UInt8Array

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_MIN_SCALE: Final = 2  # up to it, stairs are hardly visible, and smooth edges would change the masks of small images
_MAX_SHARE: Final = 0.25  # of cells with several classes: such a map is noise, without edges that could be smooth
_CHUNK_PIXELS: Final = 1 << 17  # of cells computed at once: their arrays stay in the processor's cache
_SIDE: Final = 6  # of the surroundings of a cell, in pixels of the small map: the filter reaches two pixels
_CORNERS: Final = (2 * _SIDE + 2, 2 * _SIDE + 3, 3 * _SIDE + 2, 3 * _SIDE + 3)  # in the flat surroundings


def enlarge_nearest(values: npt.NDArray[np.uint8], size: Size) -> UInt8Array:
    """Enlarge (h, w) uint8 to `size`, (height, width), by nearest neighbour; C-contiguous."""
    if values.shape == size:
        return np.ascontiguousarray(values)
    rows, columns = (_nearest(n, of) for n, of in zip(size, values.shape, strict=True))
    return values.take(columns, axis=1).take(rows, axis=0)  # columns first: then whole rows are copied


def enlarge_class_map(ids: UInt8Array, size: Size) -> UInt8Array:
    """Enlarge (h, w) uint8 class ids to `size`, (height, width), with smooth edges; C-contiguous.

    Straight edges along rows and columns stay where nearest neighbour has them, corners are rounded, and areas are
    kept. At up to twice the size it is `enlarge_nearest`.
    """
    out = enlarge_nearest(ids, size)
    if min(size[0] / ids.shape[0], size[1] / ids.shape[1]) > _MIN_SCALE:
        _smooth_edges(ids, out)
    return out


def _smooth_edges(ids: UInt8Array, out: UInt8Array) -> None:
    """Overwrite the cells of `out` that have several classes."""
    rows, columns = (_Axis.of(n, of) for n, of in zip(out.shape, ids.shape, strict=True))
    surroundings, at = _edge_cells(ids)
    if len(surroundings) > _MAX_SHARE * ids.size:
        return
    chunk = max(1, _CHUNK_PIXELS // (rows.block * columns.block))
    for start in range(0, len(surroundings), chunk):
        some = slice(start, start + chunk)
        _fill(surroundings[some], rows.pixels(at[0][some]), columns.pixels(at[1][some]), (rows, columns), out)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The cells of one axis, one more than there are pixels in the small map.

    fractions: (n,) of each pixel's way through its cell. starts: of each cell's pixels, and the end. block: the most
    pixels of a cell.
    """

    fractions: Floats
    starts: Indices
    block: int

    @classmethod
    def of(cls, length: int, small_length: int) -> "_Axis":
        # In units of 1 / (2 length) of a small pixel, from the centre of the pixel before the first: integers.
        positions = (2 * np.arange(length) + 1) * small_length + length
        cells, rest = np.divmod(positions, 2 * length)
        starts = np.searchsorted(cells, np.arange(small_length + 2))
        return cls((rest / (2 * length)).astype(np.float32), starts, int(np.diff(starts).max()))

    def pixels(self, cells: Indices) -> Indices:
        """(k,) -> (k, block) the pixels of each cell; the last one is repeated where there are fewer."""
        last = self.starts[cells + 1][:, None] - 1
        pixels: Indices = np.minimum(self.starts[cells][:, None] + np.arange(self.block), last)
        return pixels


def _edge_cells(ids: UInt8Array) -> tuple[UInt8Array, tuple[Indices, Indices]]:
    """The cells with several classes: (k, 36) ids around each, and the row and column of each, from 0."""
    padded = np.pad(ids, _SIDE // 2, mode="edge")
    inner = padded[2:-2, 2:-2]
    first = inner[:-1, :-1]
    cells = np.nonzero((first != inner[:-1, 1:]) | (first != inner[1:, :-1]) | (first != inner[1:, 1:]))
    offsets = (np.arange(_SIDE)[:, None] * padded.shape[1] + np.arange(_SIDE)).ravel()
    return padded.ravel().take((cells[0] * padded.shape[1] + cells[1])[:, None] + offsets), (cells[0], cells[1])


def _fill(around: UInt8Array, rows: Indices, columns: Indices, axes: tuple[_Axis, _Axis], out: UInt8Array) -> None:
    """Compute k cells and write them. around: (k, 36) ids. rows, columns: (k, block) pixels of `out`."""
    weights = axes[0].fractions[rows], axes[1].fractions[columns]
    corners = around[:, _CORNERS]
    first, second = corners[:, 0], _second_class(corners)
    score = _interpolate(_indicator(around, first) - _indicator(around, second), weights)
    classes = np.where(score > 0, first[:, None, None], second[:, None, None])
    several = np.flatnonzero(((corners != first[:, None]) & (corners != second[:, None])).any(axis=1))
    if len(several):
        some = weights[0][several], weights[1][several]
        classes[several] = _highest(around[several], corners[several], some)
    flat = (rows * out.shape[1])[:, :, None] + columns[:, None, :]
    out.reshape(-1)[flat] = classes


def _second_class(corners: UInt8Array) -> UInt8Array:
    """(k, 4) -> (k,): the first class of each row that is not corners[:, 0]."""
    other = (corners != corners[:, :1]).argmax(axis=1)
    second: UInt8Array = corners[np.arange(len(corners)), other]
    return second


def _highest(around: UInt8Array, corners: UInt8Array, weights: tuple[Floats, Floats]) -> UInt8Array:
    """(k, block, block): of the classes at the four corners the one with the highest score."""
    scores = np.stack([_interpolate(_indicator(around, corners[:, i]), weights) for i in range(4)])
    best = scores.argmax(axis=0)
    return np.take_along_axis(corners[:, :, None, None], best[:, None], axis=1)[:, 0]


def _indicator(around: UInt8Array, classes: UInt8Array) -> Floats:
    """(k, 36): 1 where the class is that of the row."""
    indicator: Floats = (around == classes[:, None]).astype(np.float32)
    return indicator


def _interpolate(values: Floats, weights: tuple[Floats, Floats]) -> Floats:
    """(k, 36) -> (k, block, block): filtered at the four corners, then bilinear."""
    corners: Floats = values @ _FILTERS
    down, right = weights
    left_side: Floats = corners[:, 0:1] + (corners[:, 2:3] - corners[:, 0:1]) * down
    right_side = corners[:, 1:2] + (corners[:, 3:4] - corners[:, 1:2]) * down
    scores: Floats = (right_side - left_side)[:, :, None] * right[:, None, :]
    np.add(scores, left_side[:, :, None], out=scores)
    return scores


def _nearest(length: int, of: int) -> Indices:
    """Indices of the pixels, out of `of`, at the centres of `length` pixels; integers, so no rounding moves an edge."""
    return (2 * np.arange(length) + 1) * of // (2 * length)


def _filters() -> Floats:
    """(36, 4): from the surroundings of a cell to its corners.

    A smoothing filter moves curved edges inwards by its variance. Binomial filters of one and two steps, B and BB, are
    therefore combined so that the variance, with that of the bilinear interpolation (1/6 on average), is zero.
    """
    weight = 0.8  # of BB: 0 only sharpens; above 1 lines that are one pixel wide get thinner
    one_step, two_steps = np.array([0, 1, 2, 1, 0]) / 4, np.array([1, 4, 6, 4, 1]) / 16
    kernel = (2 * weight - 1 / 3) * np.outer(one_step, one_step) - weight * np.outer(two_steps, two_steps)
    kernel[2, 2] += 4 / 3 - weight
    filters = np.zeros((_SIDE, _SIDE, 4), dtype=np.float32)
    for corner, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        filters[row : row + 5, column : column + 5, corner] = kernel
    return filters.reshape(-1, 4)


_FILTERS: Final = _filters()

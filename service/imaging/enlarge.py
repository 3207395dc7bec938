"""Enlarge a map to the image's own size: values by nearest neighbour, class maps with smooth edges between classes.

Both use half-pixel centres, as `letterbox`. A cell is the square between the centres of four neighbouring pixels of the
small map. Where all four have one class, so has the cell. Elsewhere each class has a score at the corners, its share of
the surroundings by a filter, and each pixel of the cell takes the class whose interpolated score is highest.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.types import Size, UInt8Array

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_MIN_SCALE: Final = 2  # up to it, stairs are hardly visible, and smooth edges would change the masks of small images
_MAX_SHARE: Final = 0.25  # of cells with several classes: such a map is noise, without edges that could be smooth
_CHUNK_PIXELS: Final = 1 << 17  # of cells computed at once: their arrays stay in the processor's cache
_AREA_STEPS: Final = 4  # of Newton's method
_NEAR: Final = 0.25  # how much a score changes from a sample half-way to the next, across an edge
_MAX_OFFSET: Final = 0.5
_PRODUCT_ROWS: Final = 1024
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
    cells = _EdgeCells(ids)
    if cells.count > _MAX_SHARE * ids.size:
        return
    cells.keep_areas()
    chunk = max(1, _CHUNK_PIXELS // (rows.block * columns.block))
    for start in range(0, cells.count, chunk):
        some = slice(start, start + chunk)
        pixels = rows.pixels(cells.rows[some]), columns.pixels(cells.columns[some])
        flat = (pixels[0] * out.shape[1])[:, :, None] + pixels[1][:, None, :]
        out.reshape(-1)[flat] = cells.classes(some, (rows.fractions[pixels[0]], columns.fractions[pixels[1]]))


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


class _EdgeCells:
    """The k cells of a map that have several classes.

    rows, columns: (k,) of each cell, from 0. around: (k, 36) ids. corners: (k, 4) ids. first, second: (k,) the class at
    the first corner, and another one. scores: (k, 4) of the first minus the second, at the corners.
    offsets: (256,) what is added to the score of each class.
    """

    def __init__(self, ids: UInt8Array) -> None:
        padded = np.pad(ids, _SIDE // 2, mode="edge")
        inner = padded[2:-2, 2:-2]
        first = inner[:-1, :-1]
        is_edge = (first != inner[:-1, 1:]) | (first != inner[1:, :-1]) | (first != inner[1:, 1:])
        self.rows, self.columns = np.nonzero(is_edge)
        self.count = len(self.rows)
        window = (np.arange(_SIDE)[:, None] * padded.shape[1] + np.arange(_SIDE)).ravel()
        self.around = padded.ravel().take((self.rows * padded.shape[1] + self.columns)[:, None] + window)
        self.corners = self.around[:, _CORNERS]
        self.first = self.corners[:, 0]
        self.second = self.corners[np.arange(self.count), (self.corners != self.corners[:, :1]).argmax(axis=1)]
        indicators = self._indicator(self.first) - self._indicator(self.second)
        self.scores = _product(indicators, _FILTERS)
        self.offsets = np.zeros(256, dtype=np.float32)
        one_of_two = (self.corners == self.first[:, None]) | (self.corners == self.second[:, None])
        self._has_two = one_of_two.all(axis=1)

    def keep_areas(self) -> None:
        """Set the offsets so that each class's area is that of its pixels in the small map, and add them to the scores.

        Rounded corners make small objects smaller. Areas are those of samples in the cells with two classes.
        """
        first, second = self.first[self._has_two], self.second[self._has_two]
        scores = _product(self.scores[self._has_two], _SAMPLES)
        expected = (self.corners[self._has_two] == first[:, None]).mean(axis=1, dtype=np.float32)
        offsets = self.offsets
        for _ in range(_AREA_STEPS):
            shifted = scores + (offsets[first] - offsets[second])[:, None]
            covered = (shifted / (2 * _NEAR) + 0.5).clip(0, 1)  # of the surroundings of each sample
            missing = _per_class(first, second, expected - covered.mean(axis=1), -1)
            rate = _per_class(first, second, ((covered > 0) & (covered < 1)).mean(axis=1) / (2 * _NEAR), 1)
            offsets = (offsets + missing / np.maximum(rate, 1)).clip(-_MAX_OFFSET, _MAX_OFFSET)
        self.offsets = offsets
        self.scores += (offsets[self.first] - offsets[self.second])[:, None]

    def classes(self, some: slice, weights: tuple[Floats, Floats]) -> UInt8Array:
        """(n, block, block): the class of each pixel. weights: (n, block) of each pixel's way down and to the right."""
        score = _interpolate(self.scores[some], weights)
        classes: UInt8Array = np.where(score > 0, self.first[some, None, None], self.second[some, None, None])
        several = np.flatnonzero(~self._has_two[some])
        if len(several):
            classes[several] = self._highest(some.start + several, (weights[0][several], weights[1][several]))
        return classes

    def _highest(self, cells: Indices, weights: tuple[Floats, Floats]) -> UInt8Array:
        """The same where there are three or four classes: of those at the corners the one with the highest score."""
        corners = self.corners[cells]
        at_corners = (_product(self._indicator(corners[:, i], cells), _FILTERS) for i in range(4))
        scores = np.stack([_interpolate(one, weights) for one in at_corners])
        scores += self.offsets[corners.T][:, :, None, None]
        best = scores.argmax(axis=0)[:, None]
        classes: UInt8Array = np.take_along_axis(corners[:, :, None, None], best, axis=1)[:, 0]
        return classes

    def _indicator(self, classes: UInt8Array, cells: Indices | slice = slice(None)) -> Floats:
        """(n, 36): 1 where the class is that of the row."""
        indicator: Floats = (self.around[cells] == classes[:, None]).astype(np.float32)
        return indicator


def _per_class(first: UInt8Array, second: UInt8Array, values: npt.NDArray[Any], sign: int) -> Floats:
    """(256,) sums of the values by first class, plus `sign` times the sums by second class."""
    sums = np.bincount(first, values, 256) + sign * np.bincount(second, values, 256)
    return sums.astype(np.float32)


def _product(rows: Floats, matrix: Floats) -> Floats:
    """Rows @ matrix, in parts so small that BLAS starts no threads: they would take the cores of the engine."""
    product = np.empty((len(rows), matrix.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _PRODUCT_ROWS):
        some = slice(start, start + _PRODUCT_ROWS)
        np.matmul(rows[some], matrix, out=product[some])
    return product


def _interpolate(corners: Floats, weights: tuple[Floats, Floats]) -> Floats:
    """(k, 4) -> (k, block, block), bilinear."""
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


def _samples() -> Floats:
    """(4, 16): from the corners of a cell to 4 x 4 points in it."""
    down, right = (np.mgrid[0:4, 0:4].reshape(2, -1) + 0.5) / 4
    bilinear = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    return bilinear.astype(np.float32)


_FILTERS: Final = _filters()
_SAMPLES: Final = _samples()

"""Class map -> polygons with holes. Exact: edges run along pixel edges, so filling the polygons gives the map back.

Coordinates are [x, y] of pixel corners: pixel (row, column) covers [column, column + 1] x [row, row + 1]. Geometries
are GeoJSON's (RFC 7946): rings are closed, outer rings have positive area by the shoelace formula on these numbers,
holes negative. Pixels that touch only at a corner are two polygons, as the standard requires.

Only corners are processed, not every border pixel. In each row of corners, the first is joined to the second, the
third to the fourth, and so on; in each column likewise. Following row edges and column edges in turn gives the rings.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from service.types import UInt8Array

_OUTSIDE: Final = 255  # no class id: models have at most 255 classes
Point = list[int]
Ring = list[Point]
Ints = npt.NDArray[np.int64]


class MultiPolygon(TypedDict):
    """GeoJSON geometry: polygons, each an outer ring and its holes."""

    type: Literal["MultiPolygon"]
    coordinates: list[list[Ring]]


@dataclass(frozen=True, slots=True)
class _Corners:
    """Points where four pixels meet and the border of a class turns.

    y, x: (K,) of the point, in reading order. around: (K, 4) uint8, ids above left and right, below left and right.
    """

    y: Ints
    x: Ints
    around: UInt8Array


def trace(ids: UInt8Array, class_ids: Iterable[int]) -> dict[int, MultiPolygon]:
    """The polygons of each class.

    ids: (H, W) uint8 below 255. Returns by class id; a class that is absent has no polygons.
    """
    corners = _find_corners(ids)
    return {
        class_id: MultiPolygon(type="MultiPolygon", coordinates=_Tracer(ids, corners, class_id).polygons())
        for class_id in class_ids
    }


def _find_corners(ids: UInt8Array) -> _Corners:
    padded = np.pad(ids, 1, constant_values=_OUTSIDE)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    straight = ((a == b) & (c == d)) | ((a == c) & (b == d))
    y, x = np.nonzero(~straight)
    return _Corners(y, x, np.stack([part[y, x] for part in (a, b, c, d)], axis=1))


class _Tracer:
    """Follows the border of one class.

    Where two pixels of the class touch only at a corner, that point is listed twice, a corner for each pixel.
    Corners are numbered in reading order: along the row, 2k is joined to 2k + 1.
    """

    def __init__(self, ids: UInt8Array, corners: _Corners, class_id: int) -> None:
        inside = corners.around == class_id
        count = inside.sum(axis=1)
        touching = (count == 2) & (inside[:, 0] == inside[:, 3])
        times = np.where(touching, 2, count % 2)
        y, x = np.repeat(corners.y, times), np.repeat(corners.x, times)
        self._ids, self._class_id = ids, class_id
        self._points: list[Point] = np.stack((x, y), axis=1).tolist()
        self._touching: list[bool] = np.repeat(touching, times).tolist()
        self._opens: list[bool] = np.repeat(inside[:, 3], times).tolist()  # the pixel below right is inside
        self._stride = 2 * (ids.shape[0] + 1)
        keys = x * self._stride + 2 * y + _is_lower(y, x, np.repeat(touching & inside[:, 1], times))
        order = np.argsort(keys)
        self._keys: list[int] = keys[order].tolist()
        self._by_column: list[int] = order.tolist()
        mates = np.empty_like(order)
        mates[order] = order.reshape(-1, 2)[:, ::-1].ravel()
        self._mates: list[int] = mates.tolist()  # the other end of each corner's edge along the column
        self._polygon_of: list[int] = [-1] * len(mates)

    def polygons(self) -> list[list[Ring]]:
        """Each an outer ring and its holes."""
        polygons: list[list[Ring]] = []
        for first in range(0, len(self._points), 2):
            if self._polygon_of[first] >= 0:
                continue
            # The first corner in reading order is the top left of its ring: the pixel below right is inside.
            outer = self._opens[first]
            polygon = len(polygons) if outer else self._polygon_around(first)
            rings = self._rings(self._loop(first, polygon))
            if outer:
                polygons.append(
                    sorted(rings, key=_area, reverse=True) if len(rings) > 1 else rings
                )  # the outer one first
            else:
                polygons[polygon] += [ring[::-1] for ring in rings]
        return polygons

    def _loop(self, first: int, polygon: int) -> list[int]:
        """All corners from `first` around, by row and column edges in turn; assigns them to the polygon."""
        loop, corner = [], first
        while self._polygon_of[corner] < 0:
            other = corner ^ 1
            self._polygon_of[corner] = self._polygon_of[other] = polygon
            loop += [corner, other]
            corner = self._mates[other]
        return loop

    def _rings(self, loop: list[int]) -> list[Ring]:
        """The loop, split where it passes a point again: a valid ring does not touch itself."""
        rings: list[Ring] = []
        ring: Ring = []
        passed: dict[tuple[int, int], int] = {}
        for corner in loop:
            point = self._points[corner]
            if self._touching[corner]:
                since = passed.setdefault((point[0], point[1]), len(ring))
                if since < len(ring):
                    rings.append([*ring[since:], point])
                    passed = {p: i for p, i in passed.items() if i <= since}
                    del ring[since:]
            ring.append(point)
        return [*rings, [*ring, ring[0]]]

    def _polygon_around(self, corner: int) -> int:
        """The polygon of the hole whose top left corner this is: that of the pixel above, so of its run's left edge."""
        x, y = self._points[corner]
        outside = self._ids[y - 1, x::-1] != self._class_id
        left = x + 1 - int(outside.argmax()) if outside.any() else 0
        above = bisect_right(self._keys, left * self._stride + 2 * (y - 1) + 1) - 1
        return self._polygon_of[self._by_column[above]]


def _is_lower(y: Ints, x: Ints, swapped: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Of two corners at one point: which has the edge below, the other having the one above.

    Along the row the first of the two has the edge on the left. Its pixel lies above left, so it has the edge above;
    swapped: its pixel lies below left.
    """
    second = np.zeros(len(x), dtype=np.bool_)
    second[1:] = (np.diff(x) == 0) & (np.diff(y) == 0)
    return second ^ swapped


def _area(ring: Ring) -> int:
    """Twice the signed area, by the shoelace formula."""
    return sum(x * after_y - after_x * y for (x, y), (after_x, after_y) in pairwise(ring))

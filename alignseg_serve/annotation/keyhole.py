"""Polygons with holes -> single rings, for tools whose polygons have no holes.

Each hole is joined to the ring around it by a bridge without width: a vertical line that the ring follows up and down.
Filling the ring gives exactly the pixels of the polygon.
"""

from collections.abc import Sequence

import numpy as np

from service.rendering.polygons import MultiPolygon, Point, Ring, trace
from service.types import UInt8Array


def rings(ids: UInt8Array, class_ids: Sequence[int]) -> dict[int, list[Ring]]:
    """The rings of each class, one for each connected region, open: the last point differs from the first.

    ids: (H, W) uint8. Points are [x, y] of pixel corners, as in service/rendering/polygons.py.
    """
    return {class_id: _joined(polygons) for class_id, polygons in trace(ids, class_ids).items()}


def _joined(polygons: MultiPolygon) -> list[Ring]:
    return [_join(outer, holes) for outer, *holes in polygons["coordinates"]]


def _join(outer: Ring, holes: list[Ring]) -> Ring:
    ring = outer[:-1]
    for hole in sorted((_from_top_left(hole) for hole in holes), key=lambda hole: (hole[0][1], hole[0][0])):
        ring = _with_hole(ring, hole)
    return ring


def _from_top_left(hole: Ring) -> Ring:
    """The same ring, open, that starts at the left end of its top edge."""
    points = hole[:-1]
    start = min(range(len(points)), key=lambda i: (points[i][1], points[i][0]))
    return points[start:] + points[:start]


def _with_hole(ring: Ring, hole: Ring) -> Ring:
    """The bridge goes up to the nearest edge of the ring: all that lies above the hole was joined before."""
    x, y = hole[0]
    edge, edge_y = _edge_above(ring, x, y)
    foot: Point = [x, edge_y]
    return [*ring[: edge + 1], foot, *hole, hole[0], foot, *ring[edge + 1 :]]


def _edge_above(ring: Ring, x: int, y: int) -> tuple[int, int]:
    """Index of the first point and y of the lowest horizontal edge above y that covers the column of pixels x."""
    points = np.array([*ring, ring[0]])
    (x0, y0), (x1, y1) = points[:-1].T, points[1:].T
    above = (y0 == y1) & (np.minimum(x0, x1) <= x) & (np.maximum(x0, x1) > x) & (y0 < y)
    edges = np.flatnonzero(above)
    edge = int(edges[np.argmax(y0[edges])])
    return edge, int(y0[edge])

"""Filling the polygons gives the class map back, for any class map."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from shapely.geometry import shape

from service.rendering.polygons import MultiPolygon, trace
from service.types import UInt8Array


def filled(geometry: MultiPolygon, size: tuple[int, int]) -> UInt8Array:
    """Even-odd scanline: each vertical edge turns all pixels to its right."""
    turns = np.zeros((size[0], size[1] + 1), dtype=np.int64)
    for polygon in geometry["coordinates"]:
        for ring in polygon:
            assert ring[0] == ring[-1]
            for (x0, y0), (x1, y1) in pairwise(ring):
                assert (x0 == x1) != (y0 == y1)
                if x0 == x1:
                    turns[min(y0, y1) : max(y0, y1), x0] += 1
    return (turns.cumsum(axis=1)[:, :-1] % 2).astype(np.uint8)


def check(ids: UInt8Array, *, valid: bool = True) -> dict[int, MultiPolygon]:
    geometries = trace(ids, range(int(ids.max()) + 2))
    for class_id, geometry in geometries.items():
        mask = ids == class_id
        np.testing.assert_array_equal(filled(geometry, ids.shape), mask)
        solid = shape(geometry)
        assert solid.area == mask.sum()
        if valid:
            assert solid.is_valid
            assert all(p.exterior.is_ccw and not any(h.is_ccw for h in p.interiors) for p in solid.geoms)
    return geometries


@given(nps.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
@settings(max_examples=400, deadline=None)
def test_any_small_map_is_traced_exactly(ids: UInt8Array) -> None:
    check(ids)


@pytest.mark.parametrize(
    ("size", "classes"), [((60, 90), 2), ((97, 31), 4), ((64, 64), 11), ((1, 200), 2), ((200, 1), 3)]
)
def test_noise_is_traced_exactly(size: tuple[int, int], classes: int) -> None:
    rng = np.random.default_rng(7)
    check(rng.integers(0, classes, size, dtype=np.uint8))
    coarse = rng.integers(0, classes, size, dtype=np.uint8).repeat(3, axis=0).repeat(4, axis=1)
    check(coarse)


def drawn(text: str) -> UInt8Array:
    return np.array([[".#".index(c) for c in line] for line in text.split()], dtype=np.uint8)


def rings(text: str) -> list[list[int]]:
    """Number of points of each polygon's rings, the closing ones not counted."""
    return [[len(ring) - 1 for ring in polygon] for polygon in check(drawn(text))[1]["coordinates"]]


def test_a_box_has_one_ring() -> None:
    ids = drawn("..... .##.. .##..")
    assert check(ids)[1] == {"type": "MultiPolygon", "coordinates": [[[[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]]}


def test_an_island_in_a_hole_is_a_polygon() -> None:
    assert rings("##### #...# #.#.# #...# #####") == [[4, 4], [4]]


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    assert rings("#. .#") == [[4], [4]]
    assert rings(".# #.") == [[4], [4]]


def test_a_ring_that_touches_itself_is_an_outer_ring_and_a_hole() -> None:
    assert rings("### #.# ##.") == [[6, 4]]
    assert rings(".## #.# ###") == [[6, 4]]


def test_holes_that_touch_at_a_corner_are_two() -> None:
    assert rings("#### #.## ##.# ####") == [[4, 4, 4]]


def test_holes_belong_to_the_polygon_around_them() -> None:
    around = "########## #.##.##.## ########## #........#"
    assert rings(f"{around} #.######.# #.#.##.#.# #.######.# #........# ##########") == [[4, 4, 4, 4, 4], [4, 4, 4]]


def test_a_map_of_one_class_is_one_rectangle() -> None:
    geometries = trace(np.zeros((3, 5), dtype=np.uint8), [0, 1])
    assert geometries[0]["coordinates"] == [[[[0, 0], [5, 0], [5, 3], [0, 3], [0, 0]]]]
    assert geometries[1]["coordinates"] == []

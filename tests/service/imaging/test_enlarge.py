"""Class maps at the size of a 12 MP photograph: smooth edges, areas kept, small images unchanged."""

import numpy as np
import pytest

from service.imaging.enlarge import enlarge_class_map, enlarge_nearest
from service.imaging.letterbox import letterbox, unletterbox, unletterbox_ids
from service.types import UInt8Array

SMALL, SIZE = (361, 481), (3000, 4000)  # scale 8.3
ROWS, COLUMNS = np.mgrid[0:3000, 0:4000].astype(np.float32)


def reduced(mask: np.ndarray) -> UInt8Array:
    """The class map of a model that sees each pixel of its input exactly."""
    prepared = letterbox(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), [SMALL])
    height, width = prepared.content
    return (prepared.pixels[:height, :width, 0] > 127).astype(np.uint8)


@pytest.mark.parametrize("slope", [0.1, 0.37, -0.6, 1.0])
def test_slanted_edges_have_no_stairs(slope: float) -> None:
    mask = slope * (COLUMNS - 2000) + 1500 < ROWS
    edges = [
        enlarge(reduced(mask), SIZE)[:, 600:3400].argmax(axis=0).astype(int)
        for enlarge in (enlarge_nearest, enlarge_class_map)
    ]
    errors = [float(np.sqrt(np.mean((edge - mask[:, 600:3400].argmax(axis=0)) ** 2))) for edge in edges]
    assert np.abs(np.diff(edges[0])).max() >= 8
    assert np.abs(np.diff(edges[1])).max() <= (2 if abs(slope) < 1 else 0.4 * np.abs(np.diff(edges[0])).max())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("radius", [200, 700, 1400])
def test_the_area_of_a_disc_is_kept(radius: int) -> None:
    disc = radius**2 > (COLUMNS - 2001) ** 2 + (ROWS - 1503) ** 2
    small = reduced(disc)
    area = int(enlarge_class_map(small, SIZE).sum())
    assert area == pytest.approx(int(enlarge_nearest(small, SIZE).sum()), rel=0.001)
    assert area == pytest.approx(int(disc.sum()), rel=0.001)


def test_three_classes_meet_without_a_fourth_one() -> None:
    small = np.zeros((30, 40), dtype=np.uint8)
    small[:, 20:], small[15:, :] = 7, 3
    small[5, 5] = 9
    large = enlarge_class_map(small, (300, 400))
    assert np.unique(large).tolist() == [0, 3, 7, 9]
    exact = enlarge_nearest(small, (300, 400))
    assert [abs(int((large == i).sum()) - int((exact == i).sum())) <= 20 for i in (0, 3, 7, 9)] == [True] * 4


def test_the_area_of_every_class_of_a_scene_is_kept() -> None:
    """Many small and large objects: each class within 0.1 % of the image, the large ones within 0.1 % of themselves."""
    rng = np.random.default_rng(5)
    small = np.zeros(SMALL, dtype=np.uint8)
    for _ in range(150):
        y, x, radius, i = rng.integers(0, 361), rng.integers(0, 481), rng.integers(1, 40), rng.integers(1, 11)
        small[(np.arange(361)[:, None] - y) ** 2 + (np.arange(481) - x) ** 2 <= radius**2] = i
    areas = [
        np.bincount(enlarge(small, SIZE).ravel(), minlength=11) for enlarge in (enlarge_class_map, enlarge_nearest)
    ]
    difference = np.abs(areas[0] - areas[1])
    assert difference.max() <= 0.0002 * SIZE[0] * SIZE[1]
    large = areas[1] > 0.05 * SIZE[0] * SIZE[1]
    assert large.sum() >= 4
    assert (difference[large] <= 0.001 * areas[1][large]).all()


def test_straight_edges_and_thin_lines_stay() -> None:
    small = np.zeros((30, 40), dtype=np.uint8)
    small[10, :], small[:, 12] = 1, 1
    small[10:12, 12:14] = 0
    large, exact = (enlarge(small, (300, 400)) for enlarge in (enlarge_class_map, enlarge_nearest))
    np.testing.assert_array_equal(large[:, 250:], exact[:, 250:])
    np.testing.assert_array_equal(large[200:], exact[200:])


@pytest.mark.parametrize("size", [(30, 40), (45, 60), (60, 80), (60, 400), (300, 80)])
def test_up_to_twice_the_size_nothing_changes(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 11, (30, 40), dtype=np.uint8)
    np.testing.assert_array_equal(enlarge_class_map(ids, size), enlarge_nearest(ids, size))


@pytest.mark.parametrize("small", [(1, 1), (1, 60), (60, 1), (2, 2), (31, 47)])
@pytest.mark.parametrize("scale", [2.03, 3.7, 9.1])
def test_any_size_has_only_the_classes_of_the_map(small: tuple[int, int], scale: float) -> None:
    ids = np.zeros(small, dtype=np.uint8)
    ids[small[0] // 2 :, small[1] // 2 :] = 5
    ids[: small[0] // 3] = 8
    size = round(small[0] * scale), round(small[1] * scale)
    large = enlarge_class_map(ids, size)
    assert large.shape == size
    assert large.flags.c_contiguous
    assert set(np.unique(large)) <= set(np.unique(ids))


def test_the_result_is_symmetric() -> None:
    ids = (np.random.default_rng(3).random((20, 30)) > 0.95).astype(np.uint8)
    large = enlarge_class_map(ids, (137, 207))
    mirrored = enlarge_class_map(np.ascontiguousarray(ids[::-1, ::-1].T), (207, 137))
    assert np.mean(mirrored.T[::-1, ::-1] != large) < 0.001  # rounding at ties


def test_confidence_is_not_interpolated() -> None:
    prepared = letterbox(np.zeros((3000, 4000, 3), np.uint8), [SMALL])
    values = np.random.default_rng(0).integers(0, 256, SMALL, dtype=np.uint8)
    exact = enlarge_nearest(values[: prepared.content[0], : prepared.content[1]], SIZE)
    np.testing.assert_array_equal(unletterbox(values, prepared), exact)
    assert unletterbox_ids(values, prepared).shape == SIZE

"""The rings are filled by Pillow, as annotation tools fill theirs, and give the class map back."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alignseg_serve.annotation.keyhole import rings
from service.types import UInt8Array

_SCALE = 4  # pixel centres then lie off the lines, so that Pillow's rule for points on lines does not matter


def filled(ring: list[list[int]], height: int, width: int) -> UInt8Array:
    """Each pixel whose centre is inside, by the even-odd rule."""
    inside = np.zeros((height, width), dtype=np.bool_)
    centres = np.arange(width) + 0.5
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        assert x0 == x1 or y0 == y1
        if x0 == x1:  # a vertical line flips all pixels on its right
            inside[min(y0, y1) : max(y0, y1)] ^= centres > x0
    return inside.astype(np.uint8)


def blobs(seed: int, height: int, width: int) -> UInt8Array:
    coarse = np.random.default_rng(seed).integers(0, 3, (height // 3 + 1, width // 3 + 1), dtype=np.uint8)
    return np.kron(coarse, np.ones((3, 3), dtype=np.uint8))[:height, :width]


NESTED = np.zeros((13, 15), dtype=np.uint8)
NESTED[1:12, 1:14], NESTED[2:5, 2:5], NESTED[6:11, 3:13], NESTED[7:10, 5:8], NESTED[8, 6] = 1, 0, 2, 1, 2
NESTED[2:5, 8:12] = 2


@pytest.mark.parametrize(
    "ids", [NESTED, np.zeros((1, 1), np.uint8), *(blobs(seed, 40, 55) for seed in range(6)),
            np.random.default_rng(9).integers(0, 2, (24, 31), dtype=np.uint8)],
)  # fmt: skip
def test_filled_rings_are_the_class_map(ids: UInt8Array) -> None:
    height, width = ids.shape
    for class_id, class_rings in rings(ids, [0, 1, 2]).items():
        area = sum((filled(ring, height, width) for ring in class_rings), np.zeros((height, width), dtype=np.uint8))
        np.testing.assert_array_equal(area, ids == class_id)
        assert all(ring[0] != ring[-1] for ring in class_rings)


def test_a_drawing_library_fills_them_as_well() -> None:
    (ring,) = rings(NESTED, [1])[1][:1]
    image = Image.new("1", (15 * _SCALE, 13 * _SCALE))
    ImageDraw.Draw(image).polygon([(x * _SCALE - 0.5, y * _SCALE - 0.5) for x, y in ring], fill=1)
    centres = np.asarray(image)[_SCALE // 2 :: _SCALE, _SCALE // 2 :: _SCALE]
    np.testing.assert_array_equal(centres, filled(ring, 13, 15))

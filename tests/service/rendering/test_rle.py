"""Compared with pycocotools: the same bytes, and the same mask back."""

import numpy as np
import pytest
from pycocotools import mask as coco

from service.rendering.rle import encode_rle
from service.types import UInt8Array

# pycocotools was built before numpy 2 asked for the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def check(ids: UInt8Array) -> None:
    for class_id, rle in encode_rle(ids, range(int(ids.max()) + 2)).items():
        mask = (ids == class_id).astype(np.uint8)
        assert rle["counts"].encode() == coco.encode(np.asfortranarray(mask))["counts"]
        np.testing.assert_array_equal(coco.decode({"size": rle["size"], "counts": rle["counts"]}), mask)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (13, 17), (64, 48), (301, 211)])
def test_noise_and_blocks_equal_pycocotools(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    check(rng.integers(0, 3, size, dtype=np.uint8))
    check(rng.integers(0, 4, size, dtype=np.uint8).repeat(7, axis=0).repeat(5, axis=1))
    check((rng.random(size) < 0.01).astype(np.uint8))


def test_long_runs_and_large_differences_equal_pycocotools() -> None:
    ids = np.zeros((2000, 1500), dtype=np.uint8)
    ids[3, 2], ids[1000:1900, 700:705], ids[-1, -1] = 1, 1, 1
    check(ids)
    check(1 - ids)


def test_area_and_size_are_right() -> None:
    ids = np.zeros((5, 8), dtype=np.uint8)
    ids[1:3, 2:6] = 1
    rle = encode_rle(ids, [1])[1]
    assert rle["size"] == [5, 8]
    assert coco.area({**rle}) == 8
    assert coco.toBbox({**rle}).tolist() == [2, 1, 4, 2]

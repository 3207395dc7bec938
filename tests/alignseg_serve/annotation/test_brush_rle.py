"""Brush masks, decoded as Label Studio's front end decodes them, and by its SDK where that is installed."""

import numpy as np
import numpy.typing as npt
import pytest

from alignseg_serve.annotation.brush_rle import encode
from tests.alignseg_serve.annotation.test_keyhole import blobs

Mask = npt.NDArray[np.bool_]


def decode(rle: bytes) -> npt.NDArray[np.uint8]:
    """The decoder of umbrella's rle-pack, which Label Studio uses."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    size, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    out = np.zeros(size, dtype=np.uint8)
    i = 0
    while i < size:
        run = read(1)
        j = i + 1 + read(lengths[read(2)])
        if run:
            out[i:j] = read(word)
        else:
            out[i:j] = [read(word) for _ in range(i, j)]
        i = j
    return out


def large() -> Mask:
    """Runs of more than 65536 values, and of exactly that."""
    mask = np.zeros((256, 300), dtype=np.bool_)
    mask[100:250] = True
    mask.ravel()[:16384] = True
    return mask


MASKS = [
    np.ones((1, 1), dtype=np.bool_),
    np.zeros((3, 5), dtype=np.bool_),
    large(),
    *(np.arange(length + 1)[None] < length for length in (2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385)),
    *(blobs(seed, 40, 55) == 1 for seed in range(3)),
    np.random.default_rng(1).random((31, 17)) < 0.5,
]


@pytest.mark.parametrize("mask", MASKS)
def test_all_channels_of_a_pixel_are_255_inside_the_mask(mask: Mask) -> None:
    channels = decode(encode(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(channels, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


@pytest.mark.parametrize("mask", MASKS)
def test_label_studio_s_sdk_reads_the_same(mask: Mask) -> None:
    reason = "needs label-studio-sdk, which excludes our NumPy; in an environment of its own: docs/annotation.md"
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason=reason)
    height, width = mask.shape
    result = {"type": "brushlabels", "rle": list(encode(mask)), "original_width": width, "original_height": height}
    (layer,) = brush.decode_from_annotation("tag", [result | {"brushlabels": ["road"]}]).values()
    np.testing.assert_array_equal(layer, mask * np.uint8(255))

"""Large JPEGs are decoded no larger than needed, and the results stay the same."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import decode, decode_downscaled
from service.imaging.letterbox import letterbox, min_decode_size
from service.imaging.model_input import ImageLimits, open_image
from service.rendering import media_types
from service.types import UInt8Array
from tests.service.imaging.test_geometry import Threshold
from tests.support.fake_engine import encoded, opened, serving

BUCKETS = [(36, 48), (48, 36)]


def blobs(height: int, width: int) -> UInt8Array:
    rng = np.random.default_rng(2)
    small = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: UInt8Array, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, "JPEG", quality=95, exif=exif)


def downscaled(data: bytes) -> tuple[UInt8Array, tuple[int, int]]:
    return decode_downscaled(data, 10**9, lambda pixels: None, lambda size: min_decode_size(size, BUCKETS))


@pytest.mark.parametrize(
    ("size", "factor"),
    [((576, 768), 8), ((288, 384), 4), ((144, 192), 2), ((72, 96), 1), ((580, 772), 4), ((578, 770), 2),
     ((577, 769), 1), ((768, 576), 8), ((144, 768), 8)],
)  # fmt: skip
def test_the_factor(size: tuple[int, int], factor: int) -> None:
    pixels, real = downscaled(jpeg(blobs(*size)))
    assert real == size
    assert pixels.shape == (size[0] // factor, size[1] // factor, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images_look_the_same(orientation: int) -> None:
    data = jpeg(blobs(576, 768), orientation)
    full = decode(data, 10**9)
    pixels, real = downscaled(data)
    assert real == full.shape[:2]
    assert len(pixels) == len(full) // 8
    expected, actual = letterbox(full, BUCKETS), letterbox(pixels, BUCKETS, real)
    assert (actual.content, actual.original) == (expected.content, expected.original)
    difference = np.abs(expected.pixels.astype(int) - actual.pixels)
    assert difference.mean() < 1
    assert difference.max() < 12


def kinds() -> Iterator[tuple[str, bytes]]:
    pixels = blobs(576, 768)
    yield "PNG", encoded(pixels)
    yield "WEBP", encoded(pixels, "WEBP", lossless=True)
    yield "TIFF", encoded(pixels, "TIFF")
    yield "grey JPEG", encoded(pixels[..., 0], "JPEG")
    cmyk = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(cmyk, "JPEG")
    yield "CMYK JPEG", cmyk.getvalue()
    several = io.BytesIO()
    Image.fromarray(pixels).save(several, "MPO", save_all=True, append_images=[Image.fromarray(pixels[::2])])
    yield "JPEG of a phone", several.getvalue()
    yield "progressive JPEG", encoded(pixels, "JPEG", progressive=True)


@pytest.mark.parametrize(("kind", "data"), list(kinds()), ids=lambda value: value if isinstance(value, str) else "")
def test_only_jpegs_are_downscaled(kind: str, data: bytes) -> None:
    pixels, real = downscaled(data)
    assert real == (576, 768)
    assert pixels.shape == ((72, 96, 3) if "JPEG" in kind else (576, 768, 3))
    full = letterbox(decode(data, 10**9), BUCKETS).pixels.astype(int)
    assert np.abs(full - letterbox(pixels, BUCKETS, real).pixels).mean() < 1


@pytest.mark.parametrize("flip", [False, True])
async def test_edges_stay_where_they_are(flip: bool) -> None:
    """Blocks of two by two pixels of the bucket come back exactly from a JPEG that was decoded at 1/8."""
    ids = np.kron(np.random.default_rng(4).integers(0, 2, (8, 12), dtype=np.uint8), np.ones((64, 64), dtype=np.uint8))
    ids = np.ascontiguousarray(ids.T) if flip else ids
    data = encoded(np.repeat(ids[..., None] * np.uint8(255), 3, axis=2), "JPEG", quality=95)
    async with serving(Threshold()) as (client, _):
        for query in ("", "?confidence=false&tile=false"):
            mask = await client.post(f"/segment{query}", content=data, headers={"Accept": media_types.PNG})
            np.testing.assert_array_equal(np.asarray(opened(mask.content)), ids)


def test_the_tensor_is_the_same_with_and_without_pixels() -> None:
    data = jpeg(blobs(576, 768), orientation=6)
    (no_pixels, without), (pixels, with_pixels) = (
        open_image(data, BUCKETS, ImageLimits(10**9), with_pixels=value) for value in (False, True)
    )
    np.testing.assert_array_equal(without.tensor(0), with_pixels.tensor(0))
    assert no_pixels is None
    assert pixels is not None
    assert pixels.shape == (768, 576, 3)
    assert with_pixels.assemble([np.zeros(without.tensor(0).shape[:2], np.uint8)]).shape == (768, 576)


async def test_overlays_have_all_pixels() -> None:
    data = jpeg(blobs(576, 768))
    formats = (
        (media_types.JPEG, ""),
        (media_types.WEBP, ""),
        (media_types.ZIP, ""),
        (media_types.MULTIPART, ""),
        (media_types.JSON, "&include=overlay"),
    )
    async with serving() as (client, _):
        responses = [
            await client.post(f"/segment?alpha=0{query}", content=data, headers={"Accept": accept})
            for accept, query in formats
        ]
    assert [r.status_code for r in responses] == [200] * len(formats)
    exact = opened(base64.b64decode(responses[-1].json()["overlay"]))
    for overlay in (opened(responses[0].content), opened(responses[1].content), exact):
        assert np.abs(np.asarray(overlay).astype(int) - decode(data, 10**9)).mean() < 3

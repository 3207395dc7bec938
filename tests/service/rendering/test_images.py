import io
import json
from collections.abc import Callable

import numpy as np
import pytest

from service.errors import InferenceFailed, NotAcceptable
from service.rendering import images
from tests.support.fake_engine import COLORS, manifest, opened, striped

MODEL = manifest()
IDS = np.zeros((6, 10), dtype=np.uint8)
IDS[1:3, 2:7], IDS[5, 9] = 1, 3


def test_an_id_without_a_class_is_an_inference_failure() -> None:
    with pytest.raises(InferenceFailed, match="class id 4, the model has 4"):
        images.indexed_png(np.full((2, 2), 4, dtype=np.uint8), MODEL.palette)
    with pytest.raises(InferenceFailed, match="class id 255, the model has 4"):
        images.indexed_png(np.full((2, 2), 255, dtype=np.uint8), MODEL.palette)


def test_an_indexed_png_holds_ids_and_colours() -> None:
    image = opened(images.indexed_png(IDS, MODEL.palette))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), IDS)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), MODEL.palette[IDS])


def test_an_indexed_png_holds_255_classes() -> None:
    ids = np.arange(255, dtype=np.uint8).reshape(15, 17)
    palette = np.random.default_rng(0).integers(0, 256, (255, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(images.indexed_png(ids, palette))), ids)


def test_an_overlay_blends_image_and_colours() -> None:
    pixels, ids = striped(), striped()[..., 0] % 4
    overlay = np.asarray(opened(images.overlay_png(pixels, ids, MODEL.palette, alpha=0.25)))
    expected = pixels * 0.75 + MODEL.palette[ids] * 0.25
    assert np.abs(overlay - expected).max() <= 1


def test_class_masks_and_class_overlays() -> None:
    mask = opened(images.class_mask_png(IDS, 1))
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), (IDS == 1) * 255)
    overlay = opened(images.class_overlay_png(IDS, 1, MODEL.palette))
    assert overlay.mode == "RGBA"
    assert np.asarray(overlay)[1, 2].tolist() == [*COLORS["sky"], 128]
    assert np.asarray(overlay)[0, 0].tolist() == [0, 0, 0, 0]


def test_unselected_pixels_are_transparent_in_masks_and_untouched_in_overlays() -> None:
    ids = np.where(IDS == 1, IDS, images.UNSELECTED).astype(np.uint8)
    mask = opened(images.indexed_png(ids, MODEL.palette, with_unselected=True))
    np.testing.assert_array_equal(np.asarray(mask), ids)
    np.testing.assert_array_equal(np.asarray(mask.convert("RGBA"))[..., 3], np.where(IDS == 1, 255, 0))
    pixels = striped(*IDS.shape)
    before = pixels.copy()
    overlay = np.asarray(opened(images.overlay_png(pixels, ids, MODEL.palette, alpha=1)))
    np.testing.assert_array_equal(overlay, np.where(ids[..., None] == 1, MODEL.palette[1], pixels))
    np.testing.assert_array_equal(pixels, before)


def test_a_mask_without_unselected_pixels_is_opaque() -> None:
    mask = opened(images.indexed_png(IDS, MODEL.palette, with_unselected=True))
    np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), MODEL.palette[IDS])


def test_class_names_are_in_the_png() -> None:
    mask = opened(images.indexed_png(IDS, MODEL.palette, names=["Straße", "sky"]))
    assert json.loads(mask.info["classes"]) == {"0": "Straße", "1": "sky"}


@pytest.mark.parametrize(("draw", "kind"), [(images.overlay_jpeg, "JPEG"), (images.overlay_webp, "WEBP")])
def test_lossy_overlays_look_the_same(draw: Callable[..., bytes], kind: str) -> None:
    pixels = striped(64, 96)
    ids = pixels[..., 0] % 4
    image = opened(draw(pixels, ids, MODEL.palette, 0.25))
    assert (image.format, image.mode, image.size) == (kind, "RGB", (96, 64))
    exact = np.asarray(opened(images.overlay_png(pixels, ids, MODEL.palette, 0.25)), dtype=float)
    assert np.abs(np.asarray(image) - exact).mean() < 3


@pytest.mark.parametrize(("draw", "most"), [(images.overlay_jpeg, 65_500), (images.overlay_webp, 16_383)])
def test_an_image_too_large_for_the_format_is_rejected(draw: Callable[..., bytes], most: int) -> None:
    for length in (most, most + 1):
        pixels, ids = np.zeros((1, length, 3), np.uint8), np.zeros((1, length), np.uint8)
        if length == most:
            assert opened(draw(pixels, ids, MODEL.palette)).size == (most, 1)
        else:
            with pytest.raises(NotAcceptable, match=f"at most {most:,} pixels"):
                draw(pixels, ids, MODEL.palette)


def test_npy_holds_the_ids() -> None:
    array = np.load(io.BytesIO(images.npy(IDS[::2, ::3])))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IDS[::2, ::3])

"""`alignseg_serve.segment` and a real server with the shipped model give the same results."""

import io
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignseg_serve import Segmenter
from alignseg_serve.client import Client
from tests.support.server_process import running, serve

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY / "weights" / "alignseg-lite"
SCENE = REPOSITORY / "docs" / "scene.png"


@pytest.fixture(scope="module")
def url() -> Generator[str, None, None]:
    with running(serve(MODEL)) as process:  # engine auto, as below
        yield process.url


@pytest.fixture(scope="module")
def segmenter() -> Generator[Segmenter, None, None]:
    with Segmenter(MODEL) as segmenter:
        yield segmenter


def _jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.open(SCENE).convert("RGB").resize((width, height)).save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def _half_transparent() -> Image.Image:
    image = Image.open(SCENE).convert("RGBA")
    image.putalpha(128)
    return image


IMAGES = {
    "a path": SCENE,
    "a JPEG that the decoder reduces": _jpeg(3840, 2880),
    "a rotated JPEG": _jpeg(480, 360, orientation=6),
    "an array": np.asarray(Image.open(SCENE).convert("RGB"))[:300, :500],
    "a Pillow image": Image.open(SCENE).convert("RGB").resize((333, 222)),
    "a grey Pillow image": Image.open(SCENE).convert("L"),
    "a transparent Pillow image": _half_transparent(),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_results_of_a_server_and_of_this_process_are_equal(url: str, segmenter: Segmenter, image: object) -> None:
    with Client(url) as client:
        served = client.segment(image, overlay=True)  # type: ignore[arg-type]
    local = segmenter.segment(image)  # type: ignore[arg-type]
    np.testing.assert_array_equal(local.mask, served.mask)
    assert local.mask_png == served.mask_png
    assert local.overlay_png == served.overlay_png
    assert (local.model, local.version, local.width, local.height) == (
        served.model, served.version, served.width, served.height,
    )  # fmt: skip
    _same_classes(local.classes, served.classes)


def test_confidence_tiles_and_classes_are_equal_too(url: str, segmenter: Segmenter) -> None:
    options = {"confidence": True, "tile": True, "classes": ["road=ground", "pavement=ground", "sky"]}
    with Client(url) as client:
        served = client.segment(SCENE, **options)  # type: ignore[arg-type]
    local = segmenter.segment(SCENE, **options)  # type: ignore[arg-type]
    assert local.mask_png == served.mask_png
    assert local.confidence_png == served.confidence_png
    _same_classes(local.classes, served.classes)


def _same_classes(local: tuple[object, ...], served: tuple[object, ...]) -> None:
    names = ("id", "name", "color", "pixels", "fraction", "box", "confidence")
    assert len(local) == len(served) > 1
    for ours, theirs in zip(local, served, strict=True):
        assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]

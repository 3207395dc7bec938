"""HEIC: read where the extra is installed; otherwise the error names it."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from service.errors import CorruptImage, ImageTooLarge
from service.imaging.decode import decode
from tests.support.fake_engine import striped

HEAD = b"\0\0\0\x1cftyp%s\0\0\0\0mif1heic"
WITHOUT = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from service.errors import UnsupportedImage
from service.imaging.decode import decode
for brand in (b"heic", b"mif1"):
    try:
        decode(b"\\0\\0\\0\\x1cftyp" + brand + b"\\0\\0\\0\\0mif1heic", 100)
    except UnsupportedImage as error:
        print(error)
"""


def saved(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=-1, **options)
    return out.getvalue()


def test_without_the_extra_the_error_names_it() -> None:
    command = [sys.executable, "-c", WITHOUT]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    lines = shown.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("Got a HEIC image, expected JPEG, PNG, WebP, AVIF, BMP or TIFF.")
        assert "install alignseg-serve[heic] on the server" in line


def test_pixels_are_decoded() -> None:
    pixels = striped(64, 96) * np.uint8(60)
    decoded = decode(saved(Image.fromarray(pixels)), 10_000)
    assert decoded.shape == (64, 96, 3)
    assert np.abs(decoded[32, [12, 36, 60, 84]].astype(int) - pixels[32, [12, 36, 60, 84]]).max() < 16


def test_the_size_is_checked_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match="96 x 64"):
        decode(saved(Image.new("RGB", (96, 64))), 96 * 64 - 1)


def test_a_damaged_file_is_corrupt() -> None:
    data = saved(Image.fromarray(striped(64, 96)))
    for damaged in (data[: len(data) // 2], HEAD % b"heic" + b"junk" * 20):
        with pytest.raises(CorruptImage):
            decode(damaged, 10_000)

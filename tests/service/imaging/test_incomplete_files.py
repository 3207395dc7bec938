"""Files that browsers show although they lack something, or have more than Pillow reads."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import CorruptImage
from service.imaging.decode import decode, decode_downscaled
from training.synthetic.render import render

SCENE = Image.fromarray(render(3, (96, 128))[0])
MAX_PIXELS = 10**6
KINDS: list[dict[str, Any]] = [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 20}]


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    SCENE.convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_jpeg_that_lacks_only_its_end_marker_is_decoded(mode: str, kind: dict[str, Any]) -> None:
    whole = jpeg(mode, **kind)
    for missing in (1, 2):
        np.testing.assert_array_equal(decode(whole[:-missing], MAX_PIXELS), decode(whole, MAX_PIXELS), str(missing))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_jpeg_truncated_in_its_scan_data_is_rejected(mode: str, kind: dict[str, Any]) -> None:
    whole = jpeg(mode, **kind)
    for missing in (3, 4, 5, 10, 50, 500, len(whole) // 2, len(whole) - 30):
        with pytest.raises(CorruptImage):
            decode(whole[:-missing], MAX_PIXELS)


def test_a_progressive_jpeg_without_its_last_scans_is_rejected() -> None:
    """Each of these files ends at the end of a scan, so that no decoder misses a bit in those before it."""
    whole = jpeg(progressive=True)
    starts = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    tables = [whole.rfind(b"\xff\xc4", 0, start) for start in starts]
    for start, table in list(zip(starts, tables, strict=True))[1:]:
        for end in (start, table):
            with pytest.raises(CorruptImage):
                decode(whole[:end], MAX_PIXELS)


def test_a_large_jpeg_without_its_end_marker_is_downscaled_while_decoding() -> None:
    for mode in ("RGB", "CMYK"):
        whole = jpeg(mode)
        pixels, size = decode_downscaled(whole[:-2], MAX_PIXELS, lambda pixels: None, lambda size: (24, 32))
        expected, _ = decode_downscaled(whole, MAX_PIXELS, lambda pixels: None, lambda size: (24, 32))
        assert (pixels.shape, size) == ((24, 32, 3), (96, 128))
        np.testing.assert_array_equal(pixels, expected)


def test_the_pixels_of_a_repaired_file_are_reserved_once() -> None:
    reserved: list[int] = []
    decode(jpeg()[:-2], MAX_PIXELS, reserved.append)
    decode(png((b"iCCP", profile(3_000_000))), MAX_PIXELS, reserved.append)
    decode(png((b"zTXt", text(3_000_000)), behind=True), MAX_PIXELS, reserved.append)
    assert reserved == [96 * 128] * 3


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """SCENE with further chunks after the header, or behind the pixels."""
    out = io.BytesIO()
    SCENE.save(out, "PNG")
    data = out.getvalue()
    added = b"".join(_chunk(kind, body) for kind, body in chunks)
    at = len(data) - 12 if behind else 33
    return data[:at] + added + data[at:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def profile(size: int) -> bytes:
    return b"printer\0\0" + zlib.compress(np.random.default_rng(0).bytes(size))


def text(size: int) -> bytes:
    return b"Comment\0\0" + zlib.compress(b"a" * size)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("size", [1_000, 1_100_000, 4_000_000])
def test_a_png_with_a_large_profile_or_text_is_decoded(size: int, behind: bool) -> None:
    for chunk in (
        (b"iCCP", profile(size)),
        (b"zTXt", text(size)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * size)),
        (b"tEXt", b"Comment\0" + b"a" * size),
    ):
        np.testing.assert_array_equal(decode(png(chunk, behind=behind), MAX_PIXELS), np.asarray(SCENE), str(chunk[0]))


@pytest.mark.parametrize("kind", [b"iCCP", b"tEXt", b"iTXt", b"gAMA", b"pHYs", b"tIME"])
def test_a_png_with_a_damaged_chunk_of_metadata_is_decoded(kind: bytes) -> None:
    whole = png((kind, b"a\0\1\xff\xff\xff\xff\xff\xff"))
    damaged = whole[:50] + b"\0\0" + whole[52:]
    assert damaged != whole
    for data in (whole, damaged):
        np.testing.assert_array_equal(decode(data, MAX_PIXELS), np.asarray(SCENE))


def test_a_png_with_a_damaged_header_or_palette_is_rejected() -> None:
    out = io.BytesIO()
    SCENE.quantize(16).save(out, "PNG")
    palette = out.getvalue()
    at = palette.index(b"PLTE") + 8
    for whole, damaged in ((png((b"tEXt", b"a\0b")), 20), (palette, at)):
        with pytest.raises(CorruptImage):
            decode(whole[:damaged] + bytes([whole[damaged] ^ 1]) + whole[damaged + 1 :], MAX_PIXELS)


def test_transparency_and_orientation_survive_beside_a_large_profile() -> None:
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))  # an image that is transparent everywhere is rejected
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "PNG", icc_profile=np.random.default_rng(0).bytes(2_000_000), exif=exif)
    pixels = decode(out.getvalue(), MAX_PIXELS)
    assert pixels.shape == (4, 2, 3)
    assert pixels[0, 1].tolist() == [255, 0, 0]  # the top left pixel, turned clockwise
    assert pixels[1:].min() == 255  # the rest lies on white


def test_a_png_with_a_large_profile_that_is_truncated_is_rejected() -> None:
    whole = png((b"iCCP", profile(2_000_000)))
    for missing in (30, len(whole) - 1_000_000):
        with pytest.raises(CorruptImage):
            decode(whole[:-missing], MAX_PIXELS)

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.errors import CorruptImage, ImageTooLarge, RequestError, UnsupportedImage
from service.imaging.decode import decode
from tests.support.fake_engine import encoded

LIMIT = 1_000_000
RNG = np.random.default_rng(7)
IMAGE = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((28, 20), Image.Resampling.BICUBIC)
)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("TIFF", {"compression": "tiff_lzw"}, 0),
     ("WEBP", {"lossless": True}, 0), ("JPEG", {"quality": 95, "subsampling": 0}, 12),
     ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}, 12)],
)  # fmt: skip
def test_each_format_is_decoded(kind: str, options: dict[str, object], tolerance: int) -> None:
    pixels = decode(encoded(IMAGE, kind, **options), LIMIT)
    assert pixels.shape == IMAGE.shape
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - IMAGE).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(IMAGE, kind, exif=exif, **lossless)
    expected = Image.fromarray(IMAGE)
    if kind != "WEBP":  # browsers ignore it there; see tests/e2e/web/test_orientation.py
        expected.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(decode(data, LIMIT), np.asarray(ImageOps.exif_transpose(expected)))


def test_orientation_6_turns_clockwise() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    upright = decode(encoded(pixels, "PNG", exif=exif), LIMIT)
    assert upright.shape == (3, 2, 3)
    assert upright[0, 1].tolist() == [255, 255, 255]


@pytest.mark.filterwarnings("ignore:::PIL")
def test_an_image_with_broken_exif_is_decoded() -> None:
    data = encoded(IMAGE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data, LIMIT).shape == IMAGE.shape


GREY = np.linspace(0, 255, 28 * 20).reshape(20, 28).round().astype(np.uint8)
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("8 bit", encoded(GREY)),
        ("16 bit PNG", encoded(GREY.astype(np.uint16) * 257)),
        ("16 bit TIFF", encoded(GREY.astype(np.uint16) * 257, "TIFF")),
        ("32 bit TIFF of 8 bit", encoded(GREY.astype(np.int32), "TIFF")),
        ("32 bit TIFF of 16 bit", encoded(GREY.astype(np.int32) * 257, "TIFF")),
        ("float 0..1", encoded(GREY.astype(np.float32) / 255, "TIFF")),
        ("float 0..255", encoded(GREY.astype(np.float32), "TIFF")),
        ("float of its own range", encoded(GREY.astype(np.float32) * 10 - 1000, "TIFF")),
    ],
)
def test_grey_of_any_depth_is_scaled(name: str, data: bytes) -> None:
    np.testing.assert_array_equal(decode(data, LIMIT), GREY_RGB, err_msg=name)


def test_big_endian_16_bit_grey_is_scaled() -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0x8000, 0xFFFF))
    assert decode(saved(image, "TIFF"), LIMIT)[0, :, 0].tolist() == [128, 255]


def test_nan_and_infinity_are_black() -> None:
    values = np.array([[np.nan, np.inf, 1.0]], dtype=np.float32)
    assert decode(encoded(values, "TIFF"), LIMIT)[0, :, 0].tolist() == [0, 0, 255]


def test_one_bit_images_are_black_and_white() -> None:
    assert decode(encoded(GREY > 127), LIMIT)[0, 0].tolist() == [0, 0, 0]
    assert decode(encoded(GREY > 127, "TIFF"), LIMIT)[-1, -1].tolist() == [255, 255, 255]


def test_transparent_pixels_are_composed_on_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, (255, 0, 128)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        pixels = decode(encoded(rgba, kind, **options), LIMIT)
        assert pixels[0, 0].tolist() == [200, 0, 0]
        assert pixels[0, 1].tolist() == [255, 255, 255]
        assert abs(int(pixels[0, 2, 1]) - 127) <= 1


def test_grey_with_alpha_is_composed_on_white() -> None:
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert decode(encoded(la), LIMIT)[0, :, 0].tolist() == [10, 255]


def test_palettes_are_applied_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(saved(image, "PNG"), LIMIT).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert decode(saved(image, "PNG", transparency=1), LIMIT).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_converted_with_and_without_adobes_marker() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink: red
    by_adobe = saved(cmyk, "JPEG", quality=95)
    start = by_adobe.index(b"\xff\xee")
    length = struct.unpack(">H", by_adobe[start + 2 : start + 4])[0]
    inverted = saved(Image.new("CMYK", (16, 16), (255, 0, 0, 255)), "JPEG", quality=95)
    plain = inverted[:start] + inverted[start + 2 + length :]  # without the marker ink is stored as it is
    for data in (by_adobe, plain, saved(cmyk, "TIFF")):
        red, green, blue = decode(data, LIMIT)[8, 8].tolist()
        assert red > 240
        assert max(green, blue) < 15


def test_the_first_of_several_frames_is_decoded() -> None:
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    for kind in ("PNG", "WEBP", "TIFF"):
        data = saved(first, kind, save_all=True, append_images=[second])
        assert decode(data, LIMIT)[0, 0, 0] > 200, kind


def test_what_is_no_image_is_rejected() -> None:
    for data in (b"", b"hello", b"<!DOCTYPE html>", encoded(IMAGE, "GIF")):
        with pytest.raises(UnsupportedImage, match="expected JPEG, PNG, WebP, AVIF, BMP or TIFF"):
            decode(data, LIMIT)


@pytest.mark.parametrize(
    ("data", "received"),
    [(b"", "an empty file"), (b"hello", "5 bytes that start with 'hello'"), (b"\x1f\x8b\x08\0", "with 1f 8b 08 00,"),
     ("größer".encode(), "with 67 72 c3 b6 c3 9f 65 72,")],
)  # fmt: skip
def test_the_first_bytes_are_named(data: bytes, received: str) -> None:
    with pytest.raises(UnsupportedImage, match=received):
        decode(data, LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_rejected(kind: str, part: float) -> None:
    data = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(CorruptImage):
        decode(data[: max(16, int(len(data) * part))], LIMIT)


def test_the_size_is_checked_before_decoding() -> None:
    data = encoded(np.zeros((40, 50), dtype=np.uint8))
    assert decode(data, 2000).shape == (40, 50, 3)
    with pytest.raises(
        ImageTooLarge, match=r"50 x 40 = 2,000 pixels, limit 1,999 \(ALIGNSEG_MAX_PIXELS\). Scale it down"
    ):
        decode(data, 1999)
    with pytest.raises(ImageTooLarge):
        decode(data[:60], 1999)  # the header is enough


def test_a_decompression_bomb_is_rejected_without_a_warning() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0\0\0\0"
    with warnings.catch_warnings(), pytest.raises((ImageTooLarge, CorruptImage)):
        warnings.simplefilter("error")
        decode(bomb, LIMIT)


def mutants(data: bytes, rng: np.random.Generator, count: int) -> list[bytes]:
    out = []
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(int(rng.integers(1, 8))):
            at = int(rng.integers(0, min(len(mutant), 400 if rng.random() < 0.7 else len(mutant))))
            mutant[at] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            del mutant[int(rng.integers(1, len(mutant))) :]
        out.append(bytes(mutant))
    return out


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF"])
def test_mutated_files_in_threads_give_an_image_or_a_request_error(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 5
    options = {} if kind == "BMP" else {"exif": exif}
    corpus = mutants(encoded(IMAGE, kind, **options), np.random.default_rng(1), 120)
    palette = Image.fromarray(IMAGE).quantize(16)
    if kind in {"PNG", "TIFF"}:
        corpus += mutants(saved(palette, kind), np.random.default_rng(2), 60)

    def attempt(data: bytes) -> bool:
        try:
            return decode(data, LIMIT).shape[2] == 3
        except RequestError:
            return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(attempt, corpus))


def test_a_jpeg_with_too_many_scans_is_rejected_before_decoding() -> None:
    data = saved(Image.fromarray(IMAGE).convert("L"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 200 + data[-2:]
    assert decode(data, LIMIT).shape == IMAGE.shape
    with pytest.raises(CorruptImage, match="scans, limit 100"):
        decode(bomb, LIMIT)


def tiled_tiff(size: int, tile: int) -> bytes:
    """A grey TIFF of size x size pixels in one tile of tile x tile (TIFF 6.0)."""
    data = zlib.compress(bytes(tile * tile))
    long, short = 4, 3
    tags = [(256, long, size), (257, long, size), (258, short, 8), (259, short, 8), (262, short, 1), (277, short, 1),
            (322, long, tile), (323, long, tile), (324, long, 134), (325, long, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    assert len(head) == 134
    return head + data


def test_a_tiff_whose_tile_exceeds_the_limit_is_rejected() -> None:
    assert decode(tiled_tiff(16, 64), LIMIT).shape == (16, 16, 3)
    reserved: list[int] = []
    decode(tiled_tiff(16, 64), LIMIT, reserved.append)
    assert reserved == [64 * 64]
    with pytest.raises(ImageTooLarge, match="6,000 x 6,000"):
        decode(tiled_tiff(16, 6000), LIMIT)


def test_a_turned_cmyk_jpeg_has_the_colours_of_an_upright_one() -> None:
    ink = Image.new("CMYK", (24, 16), (10, 200, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = _without_adobe(saved(ink, "JPEG", quality=95))
    turned = _without_adobe(saved(ink, "JPEG", quality=95, exif=exif.tobytes()))
    upright = decode(plain, LIMIT)
    assert decode(turned, LIMIT).shape == (24, 16, 3)
    np.testing.assert_array_equal(decode(turned, LIMIT)[12, 8], upright[8, 12])


def _without_adobe(jpeg: bytes) -> bytes:
    """The same file without the APP14 segment that Adobe's programs write."""
    at = jpeg.find(b"\xff\xee")
    return jpeg if at < 0 else jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encoded(IMAGE, "GIF"), "a GIF"),
        (b"\0\0\0\x1cftypmp42\0\0\0\0isommp42", "a video"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw data"),
        (b"IIRO\x08\0\0\0", "a camera's raw data"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw data"),
    ],
)
def test_other_formats_are_rejected_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"Got {name}.*Convert it first"):
        decode(data, LIMIT)

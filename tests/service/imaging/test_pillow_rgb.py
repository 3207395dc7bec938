"""Pillow images of every mode: the pixels that are meant, the same in the client, in this process and from files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from alignseg_serve.client.schemas import encode_image
from service.errors import UnsupportedImage
from service.imaging.decode import decode, decode_pillow
from service.imaging.pillow_rgb import to_rgb
from service.types import UInt8Array
from tests.support.tiff_writer import tiff

LIMIT = 1_000_000
ROOT = Path(__file__).parents[3]
LEVELS = np.linspace(0, 255, 24 * 16).reshape(16, 24).round().astype(np.uint8)
GREY = np.repeat(LEVELS[..., None], 3, axis=2)
COLORS = np.stack([LEVELS, LEVELS[::-1], LEVELS[:, ::-1]], axis=-1)
MUTED = COLORS // 2 + 64
COLORED = Image.fromarray(COLORS)


def deep(mode: str, values: np.ndarray) -> Image.Image:
    kinds = {"I": "<i4", "F": "<f4", "I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}
    return Image.frombytes(mode, (24, 16), values.astype(kinds[mode]).tobytes())


def lab() -> Image.Image:
    """The muted colors: dark saturated ones change by more in 8 bits of Lab."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(Image.fromarray(MUTED), *profiles, outputMode="LAB")
    assert converted is not None
    return converted


def with_alpha(mode: str, alpha: int = 255) -> Image.Image:
    """COLORED or its grey, with this alpha in the right half and none in the left one."""
    image = COLORED.convert("L").convert(mode) if mode == "PA" else COLORED.convert(mode)
    mask = Image.new("L", image.size)
    mask.paste(alpha, (12, 0, 24, 16))
    image.putalpha(mask)
    return image


MODES: dict[str, tuple[Image.Image, np.ndarray, int]] = {
    **{f"{mode} of 16 bits": (deep(mode, LEVELS.astype(np.uint16) * 257), GREY, 0) for mode in
       ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")},
    **{f"{mode} of 8 bits": (deep(mode, LEVELS.astype(np.uint16)), GREY, 0) for mode in ("I;16", "I;16B", "I", "F")},
    "F of 0..1": (deep("F", LEVELS / 255), GREY, 0),
    "F with missing data": (deep("F", np.where(LEVELS < 10, -9999.0, LEVELS)), np.where(GREY < 10, 0, GREY), 0),
    "1": (Image.fromarray(LEVELS > 127), np.where(GREY > 127, 255, 0), 0),
    "L": (Image.fromarray(LEVELS), GREY, 0),
    "P": (COLORED.quantize(64), np.asarray(COLORED.quantize(64).convert("RGB")), 0),
    "RGB": (COLORED, COLORS, 0),
    "RGBX": (COLORED.convert("RGBX"), COLORS, 0),
    "CMYK": (COLORED.convert("CMYK"), COLORS, 1),
    "YCbCr": (COLORED.convert("YCbCr"), COLORS, 3),
    "HSV": (COLORED.convert("HSV"), COLORS, 6),
    "LAB": (lab(), MUTED, 8),  # one step of a* is up to 7 levels of red
}  # fmt: skip
TRANSPARENT = {
    "RGBA": with_alpha("RGBA"),
    "RGBa": with_alpha("RGBA").convert("RGBa"),
    "LA": with_alpha("LA"),
    "La": with_alpha("LA").convert("La"),
    "PA": with_alpha("PA"),
}


def by_client(image: Image.Image) -> UInt8Array:
    return decode(encode_image(image), LIMIT)


PATHS = pytest.mark.parametrize("convert", [to_rgb, decode_pillow, by_client])


def test_every_mode_that_pillow_documents_is_tested() -> None:
    tested = {name.split(" ")[0] for name in (*MODES, *TRANSPARENT)}
    known = {"1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La",
             "I;16", "I;16L", "I;16B", "I;16N"}  # fmt: skip
    assert known <= tested


@PATHS
@pytest.mark.parametrize("name", MODES)
def test_opaque_modes(name: str, convert: object) -> None:
    image, expected, tolerance = MODES[name]
    pixels = convert(image.copy())  # type: ignore[operator]
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


@PATHS
@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparent_modes_lie_on_white(mode: str, convert: object) -> None:
    image = TRANSPARENT[mode]
    assert image.mode == mode
    pixels = convert(image.copy())  # type: ignore[operator]
    expected = COLORS if mode.startswith("RGB") else np.repeat(np.asarray(COLORED.convert("L"))[..., None], 3, axis=2)
    assert (pixels[:, :12] == 255).all()
    np.testing.assert_array_equal(pixels[:, 12:], expected[:, 12:])


@pytest.mark.parametrize("mode", TRANSPARENT)
@pytest.mark.parametrize("alpha", [0, 3])
def test_an_image_without_a_visible_pixel_is_rejected(mode: str, alpha: int) -> None:
    image = with_alpha({"RGBa": "RGBA", "La": "LA"}.get(mode, mode), alpha)
    image = image if image.mode == mode else image.convert(mode)
    for convert in (decode_pillow, by_client):
        with pytest.raises((UnsupportedImage, ValueError), match="alpha is 0 everywhere"):
            convert(image.copy())


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})], ids=str
)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_file_without_a_visible_pixel_is_rejected(kind: str, options: dict[str, object], mode: str) -> None:
    out = io.BytesIO()
    with_alpha(mode, 0).save(out, kind, **options)
    with pytest.raises(UnsupportedImage, match=r"Every pixel is transparent.*Remove the alpha channel"):
        decode(out.getvalue(), LIMIT)


def test_palettes_and_keys_without_a_visible_pixel_are_rejected() -> None:
    for image, transparency in ((COLORED.quantize(4), bytes(4)), (Image.new("RGB", (4, 4), "red"), (255, 0, 0)),
                                (Image.new("L", (4, 4), 7), 7)):  # fmt: skip
        out = io.BytesIO()
        image.save(out, "PNG", transparency=transparency)
        with pytest.raises(UnsupportedImage, match="Every pixel is transparent"):
            decode(out.getvalue(), LIMIT)


def test_the_transparent_value_of_a_16_bit_png_lies_on_white() -> None:
    out = io.BytesIO()
    values = np.array([[0, 20000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(out, "PNG", transparency=20000)
    assert decode(out.getvalue(), LIMIT)[0, :, 0].tolist() == [0, 255, 255]
    np.testing.assert_array_equal(by_client(Image.open(out)), decode(out.getvalue(), LIMIT))
    out = io.BytesIO()
    Image.new("I;16", (4, 4), 7).save(out, "PNG", transparency=7)
    with pytest.raises(UnsupportedImage, match="Every pixel is transparent"):
        decode(out.getvalue(), LIMIT)


def test_one_visible_pixel_suffices() -> None:
    image = with_alpha("RGBA", 0)
    image.putpixel((3, 4), (1, 2, 3, 255))
    assert by_client(image)[4, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "data",
    [
        tiff(COLORS.astype(np.uint16) * 257, 2, planar=True),
        tiff(LEVELS.astype(np.uint32) * np.uint32(16843009), 1),
        tiff(np.where(LEVELS == 0, np.float32(-1234.5), LEVELS.astype(np.float32)), 1, tags={42113: b"-1234.5\0"}),
    ],
    ids=["planar 16 bit", "unsigned 32 bit", "named missing data"],
)
def test_tiffs_opened_by_pillow_are_read_as_files(data: bytes) -> None:
    expected = decode(data, LIMIT)
    assert np.abs(expected.astype(int) - (COLORS if expected[0, 0, 1] else GREY)).max() <= 1
    for convert in (decode_pillow, by_client):
        image = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(convert(image), expected)
        image.load()  # what was asked about it before does not prevent the caller's own use


def test_a_tiff_of_a_kind_that_is_misread_is_rejected_as_a_pillow_image_too() -> None:
    image = Image.open(io.BytesIO(tiff(LEVELS.astype(np.int8), 1)))
    for convert in (decode_pillow, by_client):
        with pytest.raises(UnsupportedImage, match="8 bits, signed"):
            convert(image)


def test_cmyk_of_a_jpeg_without_adobes_marker_is_not_inverted() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(out, "JPEG")
    data = out.getvalue()
    at = data.find(b"\xff\xee")
    plain = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :] if at > 0 else data
    for file in (data, plain):
        pixels = decode(file, LIMIT)
        np.testing.assert_array_equal(by_client(Image.open(io.BytesIO(file))), pixels)
        np.testing.assert_array_equal(decode_pillow(Image.open(io.BytesIO(file))), pixels)


def test_the_client_has_the_same_file() -> None:
    ours, clients = (ROOT / folder / "pillow_rgb.py" for folder in ("service/imaging", "alignseg_serve/client"))
    assert ours.read_bytes() == clients.read_bytes()

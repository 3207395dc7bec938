"""TIFFs: each kind is read right, or rejected by name. Expected pixels come from arrays, not from a decoder."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from service.errors import CorruptImage, UnsupportedImage
from service.imaging.decode import decode
from tests.support.tiff_writer import directory, tiff

LIMIT = 1_000_000
GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR, LAB, CFA = 0, 1, 2, 3, 5, 6, 8, 32803
RAMP = np.linspace(0, 255, 24 * 16).reshape(16, 24).round()
LEVELS = RAMP.astype(np.uint8)
COLORS = np.stack([LEVELS, LEVELS[::-1], LEVELS[:, ::-1]], axis=-1)
EITHER_ORDER = pytest.mark.parametrize("order", ["<", ">"])
EITHER_COMPRESSION = pytest.mark.parametrize("compression", [1, 8])


def gray(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[..., 0]


@EITHER_ORDER
@EITHER_COMPRESSION
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("scale", [1, 257], ids=["8 bit", "16 bit"])
def test_rgb_of_8_and_16_bits_interleaved_and_planar(order: str, compression: int, planar: bool, scale: int) -> None:
    samples = COLORS.astype(np.uint8 if scale == 1 else np.uint16) * scale
    data = tiff(samples, RGB, order=order, compression=compression, planar=planar)
    np.testing.assert_array_equal(decode(data, LIMIT), COLORS)


@EITHER_ORDER
def test_several_strips_of_planes_of_16_bits(order: str) -> None:
    samples = np.zeros((32, 16, 3), dtype=np.uint16)
    samples[:16, :, 0] = samples[16:, :, 2] = 0x8000
    planes = [samples[at : at + 16, :, channel] for channel in range(3) for at in (0, 16)]
    strips = [plane.astype(samples.dtype.newbyteorder(order)).tobytes() for plane in planes]
    stored = np.frombuffer(b"".join(strips), dtype=samples.dtype.newbyteorder(order)).reshape(32, 16, 3)
    offsets = [8 + sum(map(len, strips[:i])) for i in range(6)]
    tiles = {273: offsets, 278: 16, 279: [512] * 6, 284: 2}
    pixels = decode(tiff(stored, RGB, order=order, tags=tiles), LIMIT)
    np.testing.assert_array_equal(pixels, samples >> 8)


@EITHER_ORDER
@EITHER_COMPRESSION
@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        ("8 bit", LEVELS),
        ("16 bit", LEVELS.astype(np.uint16) * 257),
        ("0..255 in 16 bit", LEVELS.astype(np.uint16)),
        ("signed 16 bit", LEVELS.astype(np.int16)),
        ("signed 32 bit", LEVELS.astype(np.int32) * 257),
        ("0..1", LEVELS.astype(np.float32) / 255),
        ("0..255", LEVELS.astype(np.float32)),
        ("0..65535", LEVELS.astype(np.float32) * 257),
        ("its own range", LEVELS.astype(np.float32) * 10 - 1000),
    ],
)
def test_grey_of_every_depth(order: str, compression: int, kind: str, samples: npt.NDArray[np.generic]) -> None:
    pixels = decode(tiff(samples, GREY, order=order, compression=compression), LIMIT)
    np.testing.assert_array_equal(gray(pixels), LEVELS, err_msg=kind)


@EITHER_COMPRESSION
@pytest.mark.parametrize("factor", [1, 257, 257 * 65537])
def test_unsigned_32_bit_also_above_2_31(compression: int, factor: int) -> None:
    samples = LEVELS.astype(np.uint32) * np.uint32(factor)
    np.testing.assert_array_equal(gray(decode(tiff(samples, GREY, compression=compression), LIMIT)), LEVELS)


def test_12_bits_in_16() -> None:
    twelve = np.rint(RAMP * 4095 / 255).astype(np.uint16)
    assert np.abs(gray(decode(tiff(twelve, GREY), LIMIT)).astype(int) - LEVELS).max() <= 1


@pytest.mark.parametrize("marker", [-9999.0, -32768.0, -3.4028234663852886e38, 1e20, 3.4028234663852886e38, np.nan])
@pytest.mark.parametrize("scale", [1 / 255, 1.0, 257.0])
def test_missing_data_of_floats_is_black_and_leaves_the_others(marker: float, scale: float) -> None:
    samples = LEVELS.astype(np.float32) * np.float32(scale)
    samples[4:8, 4:9] = marker
    pixels = gray(decode(tiff(samples, GREY), LIMIT))
    assert pixels[4:8, 4:9].max() == 0
    pixels[4:8, 4:9] = LEVELS[4:8, 4:9]
    np.testing.assert_array_equal(pixels, LEVELS)


def test_missing_data_that_gdals_tag_names() -> None:
    samples = LEVELS.astype(np.float32) * 10 - 1000
    samples[:2] = -1234.5
    pixels = gray(decode(tiff(samples, GREY, tags={42113: b"-1234.5\0"}), LIMIT))
    assert pixels[:2].max() == 0
    low, high = samples[2:].min(), samples[2:].max()
    np.testing.assert_array_equal(pixels[2:], np.rint((samples[2:] - low) * (255 / (high - low))))


@pytest.mark.parametrize(
    "samples",
    [
        np.where(LEVELS == 100, np.float32(5000), LEVELS.astype(np.float32) / 100),
        np.full((16, 24), np.nan, dtype=np.float32),
        LEVELS.astype(np.float32) / 100,
    ],
    ids=["outliers", "only NaN", "0..2.55"],
)
def test_floats_without_a_known_range_are_rejected(samples: npt.NDArray[np.float32]) -> None:
    with pytest.raises(UnsupportedImage, match=r"Save the image with 8 bits|no valid values"):
        decode(tiff(samples, GREY), LIMIT)


@pytest.mark.parametrize("divisor", [1, 16])
def test_rgb_of_8_or_12_bits_stored_in_16_is_rejected(divisor: int) -> None:
    samples = (COLORS.astype(np.uint16) * 257) >> (8 if divisor == 1 else 4)
    with pytest.raises(UnsupportedImage, match="below 4,096 of 65,535"):
        decode(tiff(samples, RGB), LIMIT)


def test_other_colors() -> None:
    cmyk = np.zeros((16, 16, 4), dtype=np.uint8)
    cmyk[..., 1:3] = 255  # magenta and yellow ink: red
    for planar in (False, True):
        assert decode(tiff(cmyk, CMYK, planar=planar), LIMIT)[8, 8].tolist() == [255, 0, 0]
    ycbcr = np.full((16, 16, 3), (76, 85, 255), dtype=np.uint8)
    red, green, blue = decode(tiff(ycbcr, YCBCR, tags={530: [1, 1]}), LIMIT)[8, 8].tolist()
    assert (red > 250, green < 5, blue < 5) == (True, True, True)
    palette = [v * 257 for v in (10, 200)] + [0] * 254
    indices = np.array([[0, 1]], dtype=np.uint8)
    assert decode(tiff(indices, PALETTE, tags={320: palette * 3}), LIMIT)[0, :, 1].tolist() == [10, 200]
    eight_bits = [10, 200] + [0] * 254
    assert decode(tiff(indices, PALETTE, tags={320: eight_bits * 3}), LIMIT)[0, :, 1].tolist() == [10, 200]
    assert decode(tiff(LEVELS, GREY_INVERTED), LIMIT)[0, 0, 0] == 255


def test_cie_lab_is_converted() -> None:
    out = io.BytesIO()
    rgb = Image.new("RGB", (16, 16), (200, 60, 30))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB")
    assert lab is not None
    lab.save(out, "TIFF")
    assert np.abs(decode(out.getvalue(), LIMIT)[8, 8].astype(int) - (200, 60, 30)).max() <= 3


def with_sub_directory() -> bytes:
    """As NEF: the page has a smaller size than the directory that it points to."""
    thumbnail = tiff(COLORS, RGB, tags={330: [0]})
    larger = directory({256: 400, 257: 300, 262: CFA}, len(thumbnail))
    return tiff(COLORS, RGB, tags={330: [len(thumbnail)]}) + larger


def with_larger_second_page() -> bytes:
    first = tiff(COLORS, RGB, pages=[b""])
    return first + directory({256: 480, 257: 320, 262: RGB}, len(first))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tiff(COLORS, RGB, tags={50706: [1, 4]}), r"a camera's raw data \(DNG"),
        (with_sub_directory(), "a thumbnail as its first page"),
        (tiff(COLORS, RGB, tags={254: 1}), "a thumbnail as its first page"),
        (tiff(COLORS, RGB, tags={254: 4}), "a transparency mask as its first page"),
        (with_larger_second_page(), r"a first page \(24x16\) that is a reduced copy of the second \(480x320\)"),
        (tiff(LEVELS.astype(np.uint16), CFA), "color a sensor's color filter array"),
        (tiff(LEVELS.astype(np.uint16), 32844), "color LogL"),
        (tiff(LEVELS, 7), "color unknown, 7"),
        (tiff(LEVELS.astype(np.int8), GREY), "1 sample of 8 bits, signed"),
        (tiff(LEVELS.astype(np.float16), GREY), "1 sample of 16 bits, float"),
        (tiff(LEVELS.astype(np.float64), GREY), "1 sample of 64 bits, float"),
        (tiff(LEVELS.astype(np.complex64), GREY), "1 sample of 64 bits, complex float"),
        (tiff(LEVELS.astype(np.uint32), GREY, order=">"), "1 sample of 32 bits, unsigned"),
        (tiff(LEVELS.astype(np.uint16), GREY_INVERTED), r"1 sample of 16 bits, unsigned \(grey, white is zero\)"),
        (tiff(LEVELS.astype(np.float32), GREY_INVERTED), "grey, white is zero"),
        (tiff(COLORS.astype(np.float32), RGB), "3 samples of 32 bits, float"),
        (tiff(COLORS.astype(np.uint16), GREY), r"3 samples of 16 bits, unsigned \(grey\)"),
        (tiff(np.concatenate([COLORS] * 3, axis=2), RGB), r"9 samples of 8 bits, unsigned \(RGB\)"),
        (tiff(COLORS, YCBCR), "uncompressed YCbCr with subsampled chroma"),
        (tiff(COLORS, YCBCR, planar=True), r"in separate planes \(YCbCr\)"),
        (tiff(np.zeros((4, 4, 4), np.uint16), CMYK, planar=True), r"16 bits, unsigned in separate planes \(CMYK\)"),
        (tiff(np.zeros((4, 4, 4), np.uint8), CMYK, tags={332: 2}), "other inks than CMYK"),
        *(
            (tiff(COLORS, RGB, compression=number), rf"compression {number} \({name}\)")
            for number, name in [
                (4, "CCITT fax"), (6, "old-style JPEG"), (32809, "ThunderScan"), (34676, "LogLuv"), (34925, "LZMA"),
                (50000, "Zstandard"), (50001, "WebP"), (34712, "JPEG 2000"), (9999, "unknown"),
            ]
        ),
    ],
)  # fmt: skip
def test_other_kinds_are_rejected_by_name(data: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"Got a TIFF with .*{kind}.*Save the image as PNG or JPEG"):
        decode(data, LIMIT)


def test_bigtiff_is_read_by_its_tags() -> None:
    out = io.BytesIO()
    Image.fromarray(COLORS).save(out, "TIFF", big_tiff=True)
    np.testing.assert_array_equal(decode(out.getvalue(), LIMIT), COLORS)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("size", [4, 7, 8, 9, 60])
def test_a_header_that_does_not_read_is_corrupt(size: int) -> None:
    whole = tiff(COLORS, RGB)
    start = struct.unpack("<I", whole[4:8])[0]
    for data in (whole[:size], whole[: start + size]):
        with pytest.raises(CorruptImage, match="Header of the TIFF is damaged"):
            decode(data, LIMIT)


def test_an_image_file_of_two_pages_of_one_size_gives_the_first() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    assert decode(out.getvalue(), LIMIT)[0, 0].tolist() == [255, 0, 0]


def test_orientation_in_the_tag_is_applied_and_in_xmp_is_not() -> None:
    turned = decode(tiff(COLORS, RGB, tags={274: 6}), LIMIT)
    np.testing.assert_array_equal(turned, np.rot90(COLORS, -1))
    xmp = b'<rdf:Description tiff:Orientation="6"/>\0'
    np.testing.assert_array_equal(decode(tiff(COLORS, RGB, tags={700: xmp}), LIMIT), COLORS)

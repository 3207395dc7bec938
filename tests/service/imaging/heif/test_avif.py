"""AVIF: pixels as Pillow has them, and files whose frames differ from what the container says."""

import io
import struct

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image

from service.errors import CorruptImage, ImageTooLarge, RequestError, UnsupportedImage
from service.imaging import decode_limits
from service.imaging.decode import decode
from service.imaging.heif import av1, avif
from tests.support.fake_engine import striped

LIMIT = 100_000
IMAGE = Image.fromarray(striped(48, 64) * np.uint8(60))


def saved(image: Image.Image = IMAGE, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "AVIF", **{"speed": 10, **options})
    return out.getvalue()


AVIF = saved()


def boxes(data: bytes) -> dict[bytes, tuple[int, int]]:
    return {name: (start, end) for name, start, end in avif._boxes(data, 0, len(data))}


def item(data: bytes) -> tuple[int, int]:
    """Offset and length of the first item's data."""
    start, end = boxes(data)[b"meta"]
    ilocs = [(a, b) for name, a, b in avif._boxes(data, start + 4, end) if name == b"iloc"]
    return next(avif._locations(data[slice(*ilocs[0])])).extents[0]


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The container says another size than the frames have."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def with_data(data: bytes, content: bytes) -> bytes:
    """The first item's data is replaced, in a box at the end of the file."""
    offset, length = item(data)
    old, new = struct.pack(">II", offset, length), struct.pack(">II", len(data) + 8, len(content))
    assert data.count(old) == 1
    return data.replace(old, new) + struct.pack(">I", len(content) + 8) + b"mdat" + content


@pytest.mark.parametrize(
    ("image", "options"),
    [(IMAGE, {}), (IMAGE, {"subsampling": "4:4:4", "quality": 100}), (IMAGE.convert("L"), {}),
     (IMAGE, {"xmp": b"<x/>"}), (IMAGE, {"autotiling": False}), (IMAGE.resize((640, 480)), {})],
)  # fmt: skip
def test_pixels_are_those_of_pillow(image: Image.Image, options: dict[str, object]) -> None:
    data = saved(image, **options)
    with Image.open(io.BytesIO(data)) as expected:
        np.testing.assert_array_equal(decode(data, 400_000), np.asarray(expected.convert("RGB")))


def test_transparent_pixels_lie_on_white() -> None:
    image = IMAGE.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: 255 * (value > 128)))
    pixels = decode(saved(image, quality=100), LIMIT)
    assert pixels[0].min() > 250
    assert pixels[-1].min() < 5


def test_frames_are_counted_as_they_are() -> None:
    assert avif.check(AVIF, LIMIT) == 64 * 48
    offset, length = item(AVIF)
    assert list(av1.frame_sizes(AVIF[offset : offset + length] * 3)) == [(64, 48)] * 3
    assert avif.check(saved(IMAGE.convert("RGBA").rotate(10)), 64 * 48) == 64 * 48  # its alpha is a second frame


def test_one_thread_decodes() -> None:
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


def test_the_size_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode(AVIF, 64 * 48).shape == (48, 64, 3)
    monkeypatch.setattr(AvifImagePlugin.AvifImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="64 x 48 = 3,072 pixels, limit 3,071"):
        decode(AVIF, 64 * 48 - 1)
    reserved = []

    def reserve(pixels: int) -> None:
        reserved.append(pixels)
        raise ImageTooLarge("no room")

    with pytest.raises(ImageTooLarge, match="no room"):
        decode(with_size(AVIF, 8, 8), LIMIT, reserve)
    assert reserved == [64 * 48]  # of the frame, not of the container


def test_a_large_frame_in_a_container_that_says_1x1_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = with_size(saved(Image.new("L", (1200, 1000), 90)), 1, 1)
    assert len(bomb) < 1000
    monkeypatch.setattr(AvifImagePlugin.AvifImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="1,200 x 1,000"):
        decode(bomb, LIMIT)


def test_many_frames_in_one_item_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    offset, length = item(AVIF)
    frames = AVIF[offset : offset + length]
    monkeypatch.setattr(AvifImagePlugin.AvifImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match="frames"):
        decode(with_data(AVIF, frames * (4 * LIMIT // (64 * 48) + 1)), LIMIT)
    with pytest.raises(CorruptImage, match="10,000 units"):
        decode(with_data(AVIF, frames + b"\x12\0" * 20_000), LIMIT)


def test_animations_are_rejected() -> None:
    with pytest.raises(UnsupportedImage, match="animated AVIF"):
        decode(saved(save_all=True, append_images=[IMAGE.transpose(Image.Transpose.ROTATE_180)]), LIMIT)


@pytest.mark.parametrize("name", [b"iloc", b"iinf", b"meta"])
def test_a_second_list_of_items_is_rejected(name: bytes) -> None:
    """Otherwise the lists that are checked could be others than those that are decoded."""
    if name == b"meta":
        start, end = boxes(AVIF)[b"meta"]
        doubled = AVIF + AVIF[start - 8 : end]
    else:
        start, end = boxes(AVIF)[b"meta"]
        inner = next((a, b) for box, a, b in avif._boxes(AVIF, start + 4, end) if box == name)
        copy = AVIF[inner[0] - 8 : inner[1]]
        size = struct.pack(">I", end - start + 8 + len(copy))
        doubled = AVIF[: start - 8] + size + AVIF[start - 4 : end] + copy + AVIF[end:]
    with pytest.raises(CorruptImage):
        decode(doubled, LIMIT)


def test_damaged_files_raise_only_what_is_promised() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutant = bytearray(AVIF)
        for _ in range(int(rng.integers(1, 6))):
            mutant[int(rng.integers(0, len(mutant)))] = int(rng.integers(0, 256))
        try:
            pixels = decode(bytes(mutant), LIMIT)
        except RequestError:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.size <= 3 * LIMIT


def test_the_limits_of_other_formats_hold() -> None:
    assert decode_limits.CountedReads(AVIF).read() == AVIF
    with pytest.raises(CorruptImage):
        decode(AVIF[:100], LIMIT)

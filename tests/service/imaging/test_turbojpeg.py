"""What libjpeg-turbo decodes directly is what Pillow decodes; everything else is left to Pillow."""

import io
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import CorruptImage
from service.imaging import turbojpeg
from service.imaging.decode import decode
from service.imaging.decode_limits import count_scans
from training.synthetic.render import render

SCENE = Image.fromarray(render(3, (96, 128))[0])
SIZES = [(48, 64), (47, 61), (9, 17), (1, 1), (8, 24)]  # (height, width)
KINDS: list[dict[str, Any]] = [
    {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"subsampling": "4:2:0"}, {"subsampling": "4:1:1"},
    {"progressive": True}, {"restart_marker_blocks": 2}, {"keep_rgb": True, "subsampling": 0}, {"optimize": True},
]  # fmt: skip


def saved(size: tuple[int, int], mode: str = "RGB", **kind: Any) -> bytes:
    out = io.BytesIO()
    SCENE.resize(size[::-1]).convert(mode).save(out, "JPEG", **kind)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pixels_equal_pillows(mode: str, kind: dict[str, Any]) -> None:
    for size, factor in product(SIZES, (1, 2, 4, 8)):
        if size[0] % factor or size[1] % factor:
            continue
        data = saved(size, mode, **kind)
        image = opened(data)
        if factor > 1:
            image.draft(None, (size[1] // factor, size[0] // factor))
        pixels = turbojpeg.decode(data, image)
        assert pixels is not None, (size, factor)
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")), str((size, factor)))


def test_damaged_files_are_left_to_pillow() -> None:
    whole = saved((48, 64))
    for length in (len(whole) - 3, len(whole) // 2, len(whole) - 40):
        assert turbojpeg.decode(whole[:length], opened(whole[:length])) is None
        with pytest.raises(CorruptImage):
            decode(whole[:length], 10**6)


def test_a_thousand_mutations_give_the_same_as_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(data: bytes) -> Any:
        try:
            return decode(data, 10**6).tolist()
        except Exception as error:
            return type(error)

    rng, images, mutated = random.Random(7), [saved((24, 32)), saved((24, 32), progressive=True)], []
    for _ in range(1000):
        data = bytearray(rng.choice(images))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        mutated.append(bytes(data[: rng.choice([None, rng.randrange(len(data))])]))
    outcomes = [outcome(data) for data in mutated]
    monkeypatch.setattr(turbojpeg, "decode", lambda data, image: None)
    assert outcomes == [outcome(data) for data in mutated]
    assert sum(isinstance(one, list) for one in outcomes) > 100


def test_cmyk_is_left_to_pillow() -> None:
    data = saved((8, 8), "CMYK")
    assert turbojpeg.decode(data, opened(data)) is None


@pytest.mark.parametrize("other", [(96, 64), (48, 65), (24, 32)])
def test_only_the_size_that_was_checked_is_decoded(other: tuple[int, int]) -> None:
    assert turbojpeg.decode(saved(other), opened(saved((48, 64)))) is None


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload


def frame(marker: int, components: int) -> bytes:
    return segment(marker, b"\x08\x00\x08\x00\x08" + bytes([components]) + b"\x01\x11\x00" * components)


def scan(components: int) -> bytes:
    return segment(0xDA, bytes([components]) + b"\x01\x00" * components + b"\x00\x3f\x00") + b"\x12\x34"


@pytest.mark.parametrize(
    ("parts", "scans"),
    [
        ([frame(0xC0, 3), scan(3)], 1),
        ([segment(0xE1, b"a thumbnail \xff\xda \xff\xda"), frame(0xC1, 1), scan(1)], 1),
        ([frame(0xC0, 3), scan(3), scan(3)], 1),  # a decoder stops at the first and reports a second as an error
        ([frame(0xC0, 3), *[scan(1)] * 200], 200),
        ([frame(0xC2, 3), *[scan(3)] * 200], 200),  # progressive
        ([frame(0xC2, 0), *[scan(0)] * 7], 7),
        ([scan(1), frame(0xC0, 1), scan(1)], 2),
        ([b"\x00", frame(0xC0, 1), *[scan(1)] * 5], 5),  # not a sequence of segments: searched
        ([frame(0xC0, 3)], 0),
    ],
)
def test_scans_are_counted(parts: list[bytes], scans: int) -> None:
    assert count_scans(b"\xff\xd8" + b"".join(parts)) == scans


def test_scans_of_real_images_are_counted() -> None:
    assert count_scans(saved((48, 64))) == 1
    assert count_scans(saved((48, 64), exif=_with_thumbnail())) == 1
    assert count_scans(saved((48, 64), progressive=True)) == 10


def _with_thumbnail() -> bytes:
    return b"Exif\0\0" + saved((16, 16), progressive=True)


def test_libjpeg_does_not_decode_a_scan_after_a_complete_one() -> None:
    """count_scans relies on it: libjpeg reports an error."""
    data = saved((48, 64))
    at = data.index(b"\xff\xda")
    twice = data[:-2] + data[at:-2] + b"\xff\xd9"
    assert count_scans(twice) == 1
    with pytest.raises(CorruptImage, match="cannot be decoded"):
        decode(twice, 10**6)

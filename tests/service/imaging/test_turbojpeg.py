"""The short way to a JPEG's pixels is Pillow's own result, or it is not taken."""

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
def test_pixels_are_pillows(mode: str, kind: dict[str, Any]) -> None:
    for size, by in product(SIZES, (1, 2, 4, 8)):
        if size[0] % by or size[1] % by:
            continue
        data = saved(size, mode, **kind)
        image = opened(data)
        if by > 1:
            image.draft(None, (size[1] // by, size[0] // by))
        found = turbojpeg.decode(data, image)
        assert found is not None, (size, by)
        np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")), str((size, by)))


def test_what_is_damaged_is_pillows_business() -> None:
    whole = saved((48, 64))
    for length in (len(whole) - 1, len(whole) // 2, len(whole) - 40):
        assert turbojpeg.decode(whole[:length], opened(whole[:length])) is None
        with pytest.raises(CorruptImage):
            decode(whole[:length], 10**6)


def test_a_thousand_mutations_end_as_with_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(data: bytes) -> Any:
        try:
            return decode(data, 10**6).tolist()
        except Exception as error:
            return type(error)

    chance, pictures, mutated = random.Random(7), [saved((24, 32)), saved((24, 32), progressive=True)], []
    for _ in range(1000):
        data = bytearray(chance.choice(pictures))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        mutated.append(bytes(data[: chance.choice([None, chance.randrange(len(data))])]))
    found = [outcome(data) for data in mutated]
    monkeypatch.setattr(turbojpeg, "decode", lambda data, image: None)
    assert found == [outcome(data) for data in mutated]
    assert sum(isinstance(one, list) for one in found) > 100


def test_ink_is_pillows_business() -> None:
    data = saved((8, 8), "CMYK")
    assert turbojpeg.decode(data, opened(data)) is None


@pytest.mark.parametrize("other", [(96, 64), (48, 65), (24, 32)])
def test_no_other_size_is_decoded_than_the_one_that_was_checked(other: tuple[int, int]) -> None:
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
        ([frame(0xC0, 3), scan(3), scan(3)], 1),  # a decoder ends with the first, and takes a second for an error
        ([frame(0xC0, 3), *[scan(1)] * 200], 200),
        ([frame(0xC2, 3), *[scan(3)] * 200], 200),  # progressive
        ([frame(0xC2, 0), *[scan(0)] * 7], 7),
        ([scan(1), frame(0xC0, 1), scan(1)], 2),
        ([b"\x00", frame(0xC0, 1), *[scan(1)] * 5], 5),  # not a row of segments: searched
        ([frame(0xC0, 3)], 0),
    ],
)
def test_scans(parts: list[bytes], scans: int) -> None:
    assert turbojpeg.count_scans(b"\xff\xd8" + b"".join(parts)) == scans


def test_scans_of_real_pictures() -> None:
    assert turbojpeg.count_scans(saved((48, 64))) == 1
    assert turbojpeg.count_scans(saved((48, 64), exif=_with_thumbnail())) == 1
    assert turbojpeg.count_scans(saved((48, 64), progressive=True)) == 10


def _with_thumbnail() -> bytes:
    return b"Exif\0\0" + saved((16, 16), progressive=True)


def test_a_second_scan_after_a_whole_one_is_not_gone_through() -> None:
    """What count_scans relies on: libjpeg takes it for an error."""
    data = saved((48, 64))
    at = data.index(b"\xff\xda")
    twice = data[:-2] + data[at:-2] + b"\xff\xd9"
    assert turbojpeg.count_scans(twice) == 1
    with pytest.raises(CorruptImage, match="does not decode"):
        decode(twice, 10**6)

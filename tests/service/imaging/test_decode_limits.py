"""Files that Pillow would read in hundreds of thousands of small steps are rejected after 20,000 of them."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from service.errors import CorruptImage
from service.imaging.decode import decode
from service.imaging.decode_limits import MAX_READS, CountedReads

MANY = MAX_READS + 1


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload


def tiff(*entries: tuple[int, int, int, int], after: bytes = b"") -> bytes:
    """A TIFF of one directory with (tag, type, count, value) entries, then `after`."""
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4) + after


def strips(count: int) -> bytes:
    """A grey TIFF of 8 x `count` pixels, a strip for each row."""
    after = 8 + 2 + 12 * 9 + 4
    return tiff(
        (256, 4, 1, 8), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, count, after),
        (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, after + 4 * count),
        after=struct.pack("<I", 8) * count + struct.pack("<I", 8) * count,
    )  # fmt: skip


def rle_bmp(width: int, height: int, runs: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + bytes(1024) + runs


JPEG, PNG, TIFF = saved("JPEG"), saved("PNG"), saved("TIFF")
HOSTILE: dict[str, Callable[[], bytes]] = {
    "JPEG: comments": lambda: JPEG[:2] + b"\xff\xfe\x00\x02" * MANY + JPEG[2:],
    "JPEG: fill bytes": lambda: JPEG[:2] + b"\xff" * MANY + JPEG[2:],
    "JPEG: junk": lambda: JPEG[:20] + b"\x00" * MANY + JPEG[20:],
    "JPEG: junk to the end": lambda: JPEG[:20] + b"\x00" * MANY,
    "JPEG: restart markers": lambda: JPEG[:2] + b"\xff\xd0" * MANY + JPEG[2:],
    "JPEG: segments of no length": lambda: JPEG[:2] + b"\xff\xfe\x00\x00" * MANY + JPEG[2:],
    "JPEG: Exif": lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(3700)) * 9000 + JPEG[2:],
    "JPEG: Photoshop resources": lambda: JPEG[:2] + segment(0xED, b"Photoshop 3.0\0" + bytes(65_000)) * 40 + JPEG[2:],
    "JPEG: quantisation tables": lambda: JPEG[:2] + segment(0xDB, bytes(65 * 1000)) * 40 + JPEG[2:],
    "JPEG: frame headers": lambda: JPEG[:2] + segment(0xC0, b"\x08\0\x30\0\x40\3" + bytes(65_001)) * 40 + JPEG[2:],
    "PNG: before the pixels": lambda: PNG[:33] + chunk(b"prVt") * MANY + PNG[33:],
    "PNG: behind them": lambda: PNG[:-12] + chunk(b"prVt") * MANY + PNG[-12:],
    "TIFF": lambda: b"II*\0\x08\0\0\0" + struct.pack("<H", MANY) + bytes(12 * MANY),
    "TIFF, big-endian": lambda: b"MM\0*\0\0\0\x08" + struct.pack(">H", MANY) + bytes(12 * MANY),
    "TIFF: strips": lambda: strips(1_000_000),
    "BigTIFF": lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + bytes(20 * MANY),
    "BMP: runs of one pixel": lambda: rle_bmp(1000, 1000, b"\1\7" * MANY),
    "BMP: moves by nothing": lambda: rle_bmp(1000, 1000, b"\0\2\0\0" * MANY),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_file_with_too_many_parts_is_rejected(make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[CountedReads] = []
    create = CountedReads.__init__
    monkeypatch.setattr(CountedReads, "__init__", lambda self, data: (create(self, data), files.append(self))[0])
    data = make()
    with pytest.raises(CorruptImage, match=r"more than 20,000 reads. Re-save the image"):
        decode(data, 40_000_000)
    (file,) = files
    assert file.tell() < len(data)


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        JPEG[:2] + b"\xff\xfe\x00\x02" * 1000 + JPEG[2:],
        JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 10 + JPEG[2:],
        saved("JPEG", progressive=True, icc_profile=bytes(3_000_000)),
        PNG,
        PNG[:33] + chunk(b"prVt") * 1000 + PNG[33:],
        TIFF,
        saved("WEBP"),
        saved("BMP"),
        rle_bmp(64, 48, (b"\1\7" * 64 + b"\0\0") * 48),
    ],
    ids=range(10),
)
def test_real_images_are_decoded(data: bytes) -> None:
    assert decode(data, 10**6).shape == (48, 64, 3)


def test_a_tiff_with_thousands_of_strips_is_decoded() -> None:
    assert decode(strips(5000), 10**6).shape == (5000, 8, 3)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PNG"])
@pytest.mark.parametrize("color", ["#ffdbff", "#ffc0ff", "#ffedff", "white"])
def test_large_plain_images_are_decoded_whatever_their_bytes(kind: str, color: str) -> None:
    """Their pixels may look like JPEG markers."""
    out = io.BytesIO()
    Image.new("RGB", (4000, 3000), color).save(out, kind)
    assert decode(out.getvalue(), 12_000_000).shape == (3000, 4000, 3)


def test_a_png_of_32_mb_in_chunks_of_8_kb_is_decoded() -> None:
    """As libpng writes them."""
    width = height = 3300
    packed = zlib.compress(bytes(height * (1 + 3 * width)), level=0)
    chunks = [chunk(b"IDAT", packed[at : at + 8192]) for at in range(0, len(packed), 8192)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = PNG[:8] + head + b"".join(chunks) + chunk(b"IEND")
    assert len(data) > 32_000_000
    assert decode(data, 40_000_000).shape == (height, width, 3)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"II", b"MM\0*", b"\x89PNG\r\n\x1a\n", JPEG[:30], PNG[:40]])
def test_short_files_are_read_to_their_end(data: bytes) -> None:
    file = CountedReads(data)
    assert file.read() == data
    assert file.read(5) == b""


def test_unusual_tags_are_not_logged() -> None:
    """Pillow warns of each, and Python writes warnings to stderr, except under pytest; hence a process of its own."""
    entries = [
        (256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, 8), (279, 4, 1, 64),
        (40_000, 7, 10**6, 8),
    ]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    tiff = struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + struct.pack("<H", len(entries)) + tags + bytes(4)
    program = (
        "import sys; from service.imaging.decode import decode; print(decode(sys.stdin.buffer.read(), 10**6).shape)"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, input=tiff, capture_output=True, check=True)  # noqa: S603
    assert (result.stdout.strip(), result.stderr) == (b"(8, 8, 3)", b"")

"""Files of nothing but empty pieces are refused before Pillow goes through them."""

import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from service.errors import CorruptImage
from service.imaging import decode_limits
from service.imaging.decode import decode

MANY = decode_limits.MOST + 1


def saved(kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(out, kind, **how)
    return out.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


JPEG, PNG, TIFF = saved("JPEG"), saved("PNG"), saved("TIFF")
IN_PIECES = {
    "JPEG: comments": JPEG[:2] + b"\xff\xfe\x00\x02" * MANY + JPEG[2:],
    "JPEG: fill bytes": JPEG[:2] + b"\xff" * MANY + JPEG[2:],
    "JPEG: junk": JPEG[:20] + b"\x00" * MANY + JPEG[20:],
    "JPEG: junk to the end": JPEG[:20] + b"\x00" * MANY,
    "JPEG: restart markers": JPEG[:2] + b"\xff\xd0" * MANY + JPEG[2:],
    "JPEG: segments of no length": JPEG[:2] + b"\xff\xfe\x00\x00" * MANY + JPEG[2:],
    "PNG: before the pixels": PNG[:33] + chunk(b"prVt") * MANY + PNG[33:],
    "PNG: behind them": PNG[:-12] + chunk(b"prVt") * MANY + PNG[-12:],
    "TIFF": b"II*\0\x08\0\0\0" + struct.pack("<H", MANY) + bytes(12 * MANY),
    "TIFF, the other way round": b"MM\0*\0\0\0\x08" + struct.pack(">H", MANY) + bytes(12 * MANY),
    "BigTIFF": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + bytes(20 * MANY),
}


@pytest.mark.parametrize("data", IN_PIECES.values(), ids=IN_PIECES)
def test_too_many_pieces(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("opened"))
    with pytest.raises(CorruptImage, match="20000 pieces"):
        decode(data, 10**6)


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        JPEG[:2] + b"\xff\xfe\x00\x02" * 1000 + JPEG[2:],
        saved("JPEG", progressive=True, icc_profile=bytes(3_000_000)),
        PNG,
        PNG[:33] + chunk(b"prVt") * 1000 + PNG[33:],
        TIFF,
        saved("WEBP"),
        saved("BMP"),
    ],
    ids=range(8),
)
def test_real_pictures_have_few(data: bytes) -> None:
    assert not decode_limits.too_many(data)
    assert decode(data, 10**6).shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"II", b"MM\0*", b"\x89PNG\r\n\x1a\n", JPEG[:30], PNG[:40]])
def test_what_ends_early_is_somebody_elses_business(data: bytes) -> None:
    assert not decode_limits.too_many(data)


def test_odd_tags_are_not_told_to_the_log() -> None:
    """Pillow warns of each; Python writes such warnings to stderr, unless it is told not to, as pytest does."""
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
    done = subprocess.run(command, input=tiff, capture_output=True, check=True)  # noqa: S603
    assert (done.stdout.strip(), done.stderr) == (b"(8, 8, 3)", b"")

"""The tags of a TIFF's pages, as far as they say what kind of image it is. Source: TIFF 6.0, section 2; BigTIFF."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from service.errors import CorruptImage

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SAMPLES, PLANAR, SUB_DIRECTORIES, INKS, EXTRA_SAMPLES, SAMPLE_FORMAT = 277, 284, 330, 332, 338, 339
CHROMA_SUBSAMPLING, DEPTH, DNG_VERSION = 530, 32997, 50706
_WANTED: Final = frozenset((
    SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, SUB_DIRECTORIES, INKS, EXTRA_SAMPLES,
    SAMPLE_FORMAT, CHROMA_SUBSAMPLING, DEPTH, DNG_VERSION,
))  # fmt: skip
_MAGIC: Final = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_TYPES: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # unsigned integers, and offsets of directories
_MAX_VALUES: Final = 16  # of one tag; those above are not read
_MAX_ENTRIES: Final = 4096  # of one directory, which are read; how many Pillow reads is limited in decode_limits.py


@dataclass(frozen=True, slots=True)
class Directory:
    """One page's tags, as tuples of integers, and the position of the next page; 0 after the last one."""

    tags: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    next: int = 0

    def first(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.first(WIDTH, 0), self.first(HEIGHT, 0)


def is_tiff(data: bytes) -> bool:
    """Whether the file begins as a TIFF or BigTIFF."""
    return data[:4] in _MAGIC


def byte_order(data: bytes) -> str:
    """As in `struct`: "<" or ">"."""
    return _MAGIC[data[:4]]


def first_page(data: bytes) -> Directory:
    """The tags of the first page. Raises CorruptImage."""
    is_big = data[2:4] in {b"+\0", b"\0+"}
    try:
        (position,) = struct.unpack_from(byte_order(data) + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        return read(data, position)
    except (struct.error, OverflowError) as error:
        raise CorruptImage(
            f"Header of the TIFF is damaged ({len(data):,} bytes). Send a complete, undamaged file."
        ) from error


def read(data: bytes, position: int) -> Directory:
    """The tags of the directory at `position`. Raises struct.error or OverflowError where the file ends before."""
    order, is_big = byte_order(data), data[2:4] in {b"+\0", b"\0+"}
    count_format, entry_format, inline = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    (count,) = struct.unpack_from(order + count_format, data, position)
    at, head = position + struct.calcsize(order + count_format), struct.calcsize(order + entry_format)
    tags = {}
    for _ in range(min(count, _MAX_ENTRIES)):
        tag, kind, values = struct.unpack_from(order + entry_format, data, at)
        if tag in _WANTED and kind in _TYPES and values:
            size = struct.calcsize(order + _TYPES[kind]) * values
            (offset,) = (at + head,) if size <= inline else struct.unpack_from(order + "IQ"[is_big], data, at + head)
            tags[tag] = struct.unpack_from(f"{order}{min(values, _MAX_VALUES)}{_TYPES[kind]}", data, offset)
        at += head + inline
    end = position + struct.calcsize(order + count_format) + count * (head + inline)
    (following,) = struct.unpack_from(order + "IQ"[is_big], data, end)
    return Directory(tags, following)

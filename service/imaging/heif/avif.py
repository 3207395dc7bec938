"""What an AVIF's decoder would have to decode, read from the file before it is called.

libavif checks the size that the container states. The AV1 frames inside have sizes and numbers of their own, and dav1d
decodes them first: a file of 2 kB that says 1x1 may hold a frame of 268 million pixels, or thousands of hidden frames.
So every frame of every AV1 item is counted here. Animations are rejected: libavif would read their frames from another
part of the file.

Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (items), AV1 Image File Format 1.1.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from service.errors import CorruptImage, ImageTooLarge, UnsupportedImage
from service.imaging.decode_limits import check_size
from service.imaging.heif.av1 import frame_sizes

MAX_ITEMS: Final = 1000  # tiles of a grid; a phone's 48 megapixels in tiles of 512x512 are 200
MAX_FRAMES: Final = 2000
_MAX_WORK: Final = 4  # times the pixels of one image: its colors, its alpha, a thumbnail, a second layer
_BRANDS: Final = frozenset({b"avif", b"avis"})
_FULL_BOX: Final = 4  # version and flags
_IN_FILE, _IN_IDAT = 0, 1  # construction methods of an item


class Item(NamedTuple):
    """One item: the parts of its data as (offset, length), in the file or in the box `idat`; length 0: to the end."""

    id: int
    method: int
    extents: list[tuple[int, int]]


def is_avif(data: bytes) -> bool:
    """Whether the file states a brand of AVIF."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4]), 256)]
    return any(brands[at : at + 4] in _BRANDS for at in range(0, len(brands), 4) if at != 4)


def check(data: bytes, max_pixels: int) -> int:
    """The pixels of the largest frame. Raises ImageTooLarge, UnsupportedImage or CorruptImage for a file that must not
    be decoded.
    """
    if data[8:12] == b"avis":
        raise UnsupportedImage("Got an animated AVIF, expected a still image. Send one frame.")
    frames, pixels, largest = 0, 0, 0
    for item_data in _av1_items(data):
        for width, height in frame_sizes(item_data):
            check_size((width, height), max_pixels)
            frames, pixels, largest = frames + 1, pixels + width * height, max(largest, width * height)
            if frames > MAX_FRAMES or pixels > _MAX_WORK * max_pixels:
                raise ImageTooLarge(
                    f"The AVIF has at least {frames:,} frames and tiles of {pixels:,} pixels together, "
                    f"limits {MAX_FRAMES:,} and {_MAX_WORK} times {max_pixels:,} (ALIGNSEG_MAX_PIXELS). Re-save it."
                )
    return largest


def _av1_items(data: bytes) -> Iterator[bytes]:
    """The data of each item of AV1 frames. Raises CorruptImage."""
    meta = _only(data, 0, len(data), b"meta")
    start, end = meta[0] + _FULL_BOX, meta[1]
    types = _item_types(data[slice(*_only(data, start, end, b"iinf"))])
    idat = next((data[a:b] for name, a, b in _boxes(data, start, end) if name == b"idat"), b"")
    for item in _locations(data[slice(*_only(data, start, end, b"iloc"))]):
        if types.get(item.id) != b"av01":
            continue
        if item.method not in {_IN_FILE, _IN_IDAT}:
            raise _corrupt("an item whose data is neither in the file nor in its idat")
        source = data if item.method == _IN_FILE else idat
        yield b"".join(source[at : at + length if length else None] for at, length in item.extents)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box from `at` to `end`. Raises CorruptImage."""
    for _ in range(MAX_ITEMS):
        if at >= end:
            return
        size, head = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        size = size or end - at  # 0: to the end
        if size < head or at + size > end:
            raise _corrupt(f"a box of {size} bytes in a part of {end - at}")
        yield data[at + 4 : at + 8], at + head, at + size
        at += size
    raise _corrupt(f"more than {MAX_ITEMS} boxes")


def _only(data: bytes, start: int, end: int, name: bytes) -> tuple[int, int]:
    """Start and end of the one box of this type. Several would leave open which one the decoder reads."""
    places = [(a, b) for box, a, b in _boxes(data, start, end) if box == name]
    if len(places) != 1:
        raise _corrupt(f"{len(places)} boxes of type {name.decode()}, expected one")
    return places[0]


def _item_types(iinf: bytes) -> dict[int, bytes]:
    """Item type by id. Types that are not in a box infe of version 2 or 3 are not known to decoders either."""
    types = {}
    for name, start, end in _boxes(iinf, _FULL_BOX + (2 if iinf[:1] == b"\0" else 4), len(iinf)):
        infe = iinf[start:end]
        if name != b"infe" or infe[:1] not in {b"\2", b"\3"}:
            continue
        width = 2 if infe[:1] == b"\2" else 4
        types[int.from_bytes(infe[4 : 4 + width])] = infe[6 + width : 10 + width]
    return types


def _locations(iloc: bytes) -> Iterator[Item]:
    """The parts of each item's data. Raises CorruptImage."""
    version = iloc[0] if iloc else 0
    reader = _Reader(iloc, _FULL_BOX)
    sizes = reader.take(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version in {1, 2} else 0
    id_size = 4 if version == 2 else 2
    count = reader.take(id_size)
    if version > 2 or count > MAX_ITEMS:
        raise _corrupt(f"{count} items in a list of version {version}; limits {MAX_ITEMS} and 2")
    for _ in range(count):
        item_id = reader.take(id_size)
        method = reader.take(2) & 15 if version else _IN_FILE
        reader.take(2)  # which file: always this one
        base, extents = reader.take(base_size), []
        for _ in range(reader.take(2)):
            reader.take(index_size)
            extents.append((base + reader.take(offset_size), reader.take(length_size)))
        yield Item(item_id, method, extents)


class _Reader:
    """Big-endian numbers, one after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, size: int) -> int:
        """Raises CorruptImage at the end of the data."""
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise _corrupt("a list of items that ends early")
        self._at += size
        return int.from_bytes(part)


def _corrupt(received: str) -> CorruptImage:
    return CorruptImage(f"The AVIF has {received}. Send a complete, undamaged file.")

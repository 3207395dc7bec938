"""Writes TIFFs of kinds that Pillow does not write. Source: TIFF 6.0, section 2."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Values = int | Sequence[int] | bytes
SHORT, LONG, ASCII = 3, 4, 2


def tiff(
    samples: npt.NDArray[np.generic],
    photometric: int,
    *,
    order: str = "<",
    compression: int = 1,
    planar: bool = False,
    tags: Mapping[int, Values] | None = None,
    pages: Sequence[bytes] = (),
) -> bytes:
    """One image as one strip, or one a plane.

    samples: (H, W) or (H, W, samples). order: "<" or ">". compression: 1, or 8 for Deflate; with another number the
    strips are as with 1. tags: further ones, or others. pages: directories from `directory`, as the following pages.
    """
    deep = samples if samples.ndim == 3 else samples[..., None]
    height, width, count = deep.shape
    planes = [deep[..., i] for i in range(count)] if planar else [deep]
    strips = [plane.astype(deep.dtype.newbyteorder(order)).tobytes() for plane in planes]
    strips = [zlib.compress(strip) if compression == 8 else strip for strip in strips]
    numbers = {"u": 1, "i": 2, "f": 3, "c": 6}[deep.dtype.kind]
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries: dict[int, Values] = {
        256: width, 257: height, 258: [deep.dtype.itemsize * 8] * count, 259: compression, 262: photometric,
        273: offsets, 277: count, 278: height, 279: [len(strip) for strip in strips], 284: 2 if planar else 1,
        339: [numbers] * count, **(tags or {}),
    }  # fmt: skip
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    data = head + body
    for index, page in enumerate([entries, *pages]):
        data += directory(page, len(data), order, last=index == len(pages)) if isinstance(page, dict) else page
    return data


def directory(entries: Mapping[int, Values], position: int, order: str = "<", *, last: bool = True) -> bytes:
    """The bytes of a directory that lies at `position`; without `last`, the next one follows it."""
    head, values = struct.pack(order + "H", len(entries)), b""
    after = position + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        packed, kind, count = _packed(tag, value, order)
        if len(packed) > 4:
            field, values = struct.pack(order + "I", after + len(values)), values + packed + b"\0" * (len(packed) % 2)
        else:
            field = packed.ljust(4, b"\0")
        head += struct.pack(order + "HHI", tag, kind, count) + field
    following = 0 if last else after + len(values)
    return head + struct.pack(order + "I", following) + values


def _packed(tag: int, value: Values, order: str) -> tuple[bytes, int, int]:
    if isinstance(value, bytes):
        return value, ASCII, len(value)
    numbers = [value] if isinstance(value, int) else list(value)
    kind = LONG if tag in {254, 256, 257, 273, 279, 330} else SHORT
    return struct.pack(f"{order}{len(numbers)}{'I' if kind == LONG else 'H'}", *numbers), kind, len(numbers)

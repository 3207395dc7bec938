"""COCO's compressed run-length encoding, byte for byte that of pycocotools.

Source: rleEncode and rleToString in common/maskApi.c of https://github.com/cocodataset/cocoapi
"""

from collections.abc import Iterable
from typing import Final, TypedDict

import numpy as np
import numpy.typing as npt

from service.types import UInt8Array

_GROUPS: Final = 13  # of 5 bits: sufficient for any 64-bit number


class Rle(TypedDict):
    """One mask. size: [height, width]. counts: lengths of runs of 0 and 1 in turn, down the columns, compressed."""

    size: list[int]
    counts: str


def encode_rle(ids: UInt8Array, class_ids: Iterable[int]) -> dict[int, Rle]:
    """The mask of each class, from one pass over the class map.

    ids: (H, W) uint8. Returns by class id; a class that is absent has one run of zeros.
    """
    flat = ids.T.ravel()  # COCO counts down the columns
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    values, ends = flat[starts], np.append(starts[1:], flat.size)
    size = [int(n) for n in ids.shape]
    encoded = {}
    for class_id in class_ids:
        own = values == class_id
        encoded[class_id] = Rle(size=size, counts=_compress(_counts(starts[own], ends[own], flat.size)))
    return encoded


def _counts(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """Zeros before the first run, its length, zeros before the next, ...; no empty run at the end."""
    edges = np.stack((starts, ends), axis=1).ravel()
    if not edges.size or edges[-1] != total:
        edges = np.append(edges, total)
    return np.diff(edges, prepend=0)


def _compress(counts: npt.NDArray[np.int64]) -> str:
    """Each count, from the fourth on as the difference to the last but one, in groups of 5 bits, lowest first.

    A character is 48 plus the group, plus 32 if more groups follow; the highest bit of the last one is the sign.
    """
    left = counts.copy()
    left[3:] -= counts[1:-2]
    text = np.zeros((len(left), _GROUPS), dtype=np.uint8)
    open_ = np.ones(len(left), dtype=np.bool_)
    for place in range(_GROUPS):
        group = left & 31
        left >>= 5
        more = left != np.where(group & 16, -1, 0)
        text[open_, place] = (group + 48 + 32 * more)[open_]
        open_ &= more
        if not open_.any():
            break
    return text[text > 0].tobytes().decode("ascii")

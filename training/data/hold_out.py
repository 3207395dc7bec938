"""Splitting by recording: train on some drives of a data set, measure on one that training never saw.

Neighbouring frames of one drive show the same street, so a split within a drive measures memory as much as ability.
CamVid's val is such a split: it is drive 0016E5, and so are 204 of the 367 training frames. File names begin with the
drive (0016E5_00390.jpg); Cityscapes' begin with the city.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.data.datasets import Dataset, Pair


def drive_of(pair: Pair) -> str:
    """The recording that an image is of: its file name up to the first underscore."""
    return pair.picture.stem.partition("_")[0]


def only(pairs: Sequence[Pair], drive: str) -> list[Pair]:
    """The images of one drive. Raises ValueError that names the drives there are."""
    kept = [pair for pair in pairs if drive_of(pair) == drive]
    if not kept:
        raise ValueError(f"drive: got {drive!r}, expected one of {_names(pairs)}")
    return kept


def split(pairs: Sequence[Pair], drive: str) -> tuple[list[Pair], list[Pair]]:
    """(images of the other drives, images of `drive`). Raises ValueError when one of the two would be empty."""
    held_out = only(pairs, drive)
    rest = [pair for pair in pairs if drive_of(pair) != drive]
    if not rest:
        raise ValueError(f"hold_out: got {drive!r}, which leaves no images to train on; the drives are {_names(pairs)}")
    return rest, held_out


def train_and_val(dataset: Dataset, root: Path, train_on: str, drive: str) -> tuple[list[Pair], list[Pair]]:
    """What a run trains on and what it is measured on: the images of `drive`, or val where no drive is held out."""
    pairs = dataset.pairs(root, train_on)
    return split(pairs, drive) if drive else (pairs, dataset.pairs(root, "val"))


def _names(pairs: Sequence[Pair]) -> str:
    """As "0001TP (62 images), 0006R0 (101 images)"."""
    return ", ".join(f"{name} ({count} images)" for name, count in sorted(Counter(map(drive_of, pairs)).items()))

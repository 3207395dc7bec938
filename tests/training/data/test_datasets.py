"""Each data set is read from its official layout, and what is missing is named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CAMVID as SHARED_CAMVID
from tests.training import tiny_data
from training.data.datasets import ADE20K, CAMVID, CITYSCAPES, DATASETS, IGNORED, Dataset, DatasetError


@pytest.mark.parametrize(
    ("dataset", "make"),
    [
        (CAMVID, tiny_data.camvid),
        (CAMVID, tiny_data.camvid_segnet),
        (CITYSCAPES, tiny_data.cityscapes),
        (ADE20K, tiny_data.ade20k),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_official_layouts(dataset, make, split, tmp_path):
    for pair in dataset.pairs(make(tmp_path), split):
        picture, labels = dataset.read(pair)
        assert picture.shape == (*tiny_data.SIZE, 3)
        assert picture.dtype == labels.dtype == np.uint8
        assert labels.shape == tiny_data.SIZE
        assert labels[labels != IGNORED].max() < dataset.num_classes


def test_several_splits_together(tmp_path):
    assert len(CAMVID.pairs(tiny_data.camvid(tmp_path), "train+val")) == 4 + 2


@pytest.mark.parametrize(
    ("dataset", "raw", "expected"),
    [
        (CAMVID, [0, 10, 11, 12, 255], [0, 10, IGNORED, IGNORED, IGNORED]),
        (CITYSCAPES, [0, 6, 7, 11, 26, 29, 33, 255], [IGNORED, IGNORED, 0, 2, 13, IGNORED, 18, IGNORED]),
        (ADE20K, [0, 1, 150, 151], [IGNORED, 0, 149, IGNORED]),
    ],
)
def test_raw_labels_become_class_ids(dataset: Dataset, raw, expected, tmp_path):
    pair = dataset.pairs(_make(dataset, tmp_path), "train")[0]
    stripes = np.full(tiny_data.SIZE, raw[0], np.uint8)
    stripes[0, : len(raw)] = raw
    tiny_data.write(pair.labels, stripes)
    assert dataset.read(pair)[1][0, : len(raw)].tolist() == expected


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda d: d.name)
def test_a_missing_data_set_says_what_was_expected_and_how_to_get_it(dataset, tmp_path):
    with pytest.raises(DatasetError) as caught:
        dataset.pairs(tmp_path / "nowhere", "train")
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert dataset.download in str(caught.value)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda d: d.name)
def test_a_half_unpacked_data_set_names_the_missing_file(dataset, tmp_path):
    missing = dataset.pairs(_make(dataset, tmp_path), "train")[-1].labels
    missing.unlink()
    with pytest.raises(DatasetError, match="expected the labels") as caught:
        dataset.pairs(tmp_path, "train")
    assert str(missing) in str(caught.value)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "train" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="contains no files"):
        CAMVID.pairs(tmp_path, "train")


def _png(depth: int, color: int, rows: np.ndarray) -> bytes:
    """A PNG of packed rows, written by hand: Pillow writes no grey of 2 or 4 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape
    bits = ((rows[..., None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8).reshape(height, -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in bits)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_labels_of_every_depth_are_the_same_labels(depth, tmp_path):
    pair = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")[0]
    raw = np.random.default_rng(depth).integers(0, min(2**depth, 11), tiny_data.SIZE)
    pair.labels.write_bytes(_png(depth, 0, raw))
    assert (CAMVID.read(pair)[1] == raw).all()


def test_values_beyond_8_bits_are_ignored(tmp_path):
    pair = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")[0]
    raw = np.full(tiny_data.SIZE, 3)
    raw[0, :3] = 255, 256 + 3, 65535
    pair.labels.write_bytes(_png(16, 0, raw))
    assert CAMVID.read(pair)[1][0, :4].tolist() == [IGNORED, IGNORED, IGNORED, 3]


@pytest.mark.parametrize("values", [np.zeros((*tiny_data.SIZE, 3), np.uint8), np.zeros(tiny_data.SIZE, np.float32)])
def test_labels_that_are_not_integers_of_one_channel_are_named(values, tmp_path):
    pair = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")[0]
    Image.fromarray(values).save(pair.labels, "TIFF")
    with pytest.raises(DatasetError, match="expected one integer a pixel") as caught:
        CAMVID.read(pair)
    assert str(pair.labels) in str(caught.value)


@pytest.mark.parametrize("which", ["picture", "labels"])
@pytest.mark.parametrize(
    "content", [b"", b"no image", None, b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "half", "head"]
)
def test_a_file_that_cannot_be_read_is_named(which, content, tmp_path):
    pair = CAMVID.pairs(tiny_data.camvid_segnet(tmp_path), "train")[0]
    path = getattr(pair, which)
    path.write_bytes(path.read_bytes()[:100] if content is None else content)
    with pytest.raises(DatasetError, match="can't be read") as caught:
        CAMVID.read(pair)
    assert str(path) in str(caught.value)


def test_labels_of_another_size(tmp_path):
    pair = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")[0]
    tiny_data.write(pair.labels, np.zeros((5, 7), np.uint8))
    with pytest.raises(DatasetError, match=r"got labels of shape \(5, 7\), expected"):
        CAMVID.read(pair)


def test_the_shared_camvid():
    if not SHARED_CAMVID.is_dir():
        pytest.skip(f"no CamVid at {SHARED_CAMVID}")
    assert len(CAMVID.pairs(SHARED_CAMVID, "train")) == 367
    pairs = CAMVID.pairs(SHARED_CAMVID, "val")
    assert len(pairs) == 101
    assert CAMVID.read(pairs[0])[1].shape == (360, 480)


def _make(dataset: Dataset, root):
    makers = {"camvid": tiny_data.camvid, "cityscapes": tiny_data.cityscapes, "ade20k": tiny_data.ade20k}
    return makers[dataset.name](root)

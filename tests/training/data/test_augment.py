"""Views are functions of their seed, keep picture and labels together, and have the size asked for."""

from dataclasses import replace

import numpy as np
import pytest

from training.data.augment import PADDING, Augmentation
from training.data.datasets import IGNORED

STILL = Augmentation(crop=(40, 56), scale=(1.0, 1.0), stretch=0.0, mirror=0.0, colour=0.0, hue=0.0, blur=0.0)


@pytest.fixture
def street():
    """An image whose labels follow from its pixels: red is 10 times the class."""
    labels = np.kron(np.arange(48).reshape(6, 8) % 11, np.ones((8, 8))).astype(np.uint8)
    picture = np.repeat(labels[..., None] * 10, 3, axis=2)
    return picture, labels


def test_the_same_seed_gives_the_same_view(street):
    first, again, other = (Augmentation(crop=(32, 32))(*street, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("crop", [(33, 65), (48, 64), (200, 20)])
@pytest.mark.parametrize("seed", range(5))
def test_size_and_type(street, crop, seed):
    picture, labels = Augmentation(crop)(*street, np.random.default_rng(seed))
    assert picture.shape == (*crop, 3)
    assert labels.shape == crop
    assert picture.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(11), IGNORED}


def test_without_any_strength_a_view_is_a_plain_crop(street):
    labels = STILL(*street, np.random.default_rng(0))[1]
    windows = np.lib.stride_tricks.sliding_window_view(street[1], STILL.crop)
    assert (windows == labels).all(axis=(2, 3)).any()


def test_mirror(street):
    whole = replace(STILL, crop=street[1].shape, mirror=1.0)
    picture, labels = whole(*street, np.random.default_rng(0))
    assert np.array_equal(labels, street[1][:, ::-1])
    assert np.array_equal(picture, street[0][:, ::-1])


@pytest.mark.parametrize("seed", range(4))
def test_a_small_picture_is_padded_and_the_padding_ignored(street, seed):
    picture, labels = replace(STILL, crop=(100, 90), scale=(0.5, 0.5))(*street, np.random.default_rng(seed))
    inside = labels != IGNORED
    assert inside.sum() == 24 * 32
    assert (picture[~inside] == PADDING).all()


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.7])
def test_picture_and_labels_stay_together(street, scale):
    picture, labels = replace(STILL, crop=(32, 32), scale=(scale, scale))(*street, np.random.default_rng(3))
    inside = labels != IGNORED
    same = np.abs(picture[..., 0].astype(int) - labels * 10)[inside] <= 5
    assert same.mean() > 0.6  # all but the edges of the blocks, which bilinear sampling mixes


def test_colour_keeps_grey_grey_on_average(street):
    picture, _ = replace(STILL, colour=0.4, hue=0.3)(*street, np.random.default_rng(0))
    assert np.ptp(picture.astype(int), axis=2).max() <= 1  # hue and saturation do not move the grey axis


def test_blur_smooths(street):
    sharp, _ = STILL(*street, np.random.default_rng(0))
    soft, _ = replace(STILL, blur=1.0)(*street, np.random.default_rng(0))
    assert np.abs(np.diff(soft.astype(int), axis=0)).max() < np.abs(np.diff(sharp.astype(int), axis=0)).max()

"""What a step sees is a function of the seed and the step alone."""

from itertools import islice

import numpy as np
import pytest
import torch

from tests.training import tiny_data
from training.data.augment import Augmentation
from training.data.datasets import CAMVID
from training.data.loader import Batches, Views, load_batches


def names(batches, count):
    return list(islice(batches, count))


def test_batches_go_on_from_any_step():
    straight = names(Batches(pictures=10, batch=3, seed=5), 9)
    assert names(Batches(10, 3, 5, first_step=4), 5) == straight[4:]


def test_an_epoch_shows_each_picture_at_most_once_and_the_next_is_shuffled_anew():
    batches = Batches(pictures=9, batch=3, seed=0)
    first, second = names(batches, 6)[:3], names(batches, 6)[3:]
    assert sorted(i for batch in first for _, i in batch) == list(range(9))
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for batch in first for _, i in batch] != [i for batch in second for _, i in batch]


def test_members_share_a_batch():
    whole = names(Batches(10, 4, 0), 3)
    shares = [names(Batches(10, 4, 0, rank=rank, members=2), 3) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


def test_a_batch_that_cannot_be_made():
    with pytest.raises(ValueError, match="got 8; expected at most 3"):
        Batches(3, 8, 0)
    with pytest.raises(ValueError, match="expected a multiple of 2"):
        Batches(8, 3, 0, members=2)


def test_a_view_is_the_same_in_any_process(tmp_path):
    pairs = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")
    views = Views(CAMVID, pairs, Augmentation(crop=(32, 32)), seed=3)
    here, there = (load_batches(views, Batches(4, 2, 3), workers) for workers in (0, 1))
    for mine, theirs in islice(zip(here, there, strict=True), 3):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_scenes_take_their_share(tmp_path):
    def scene(_seed):
        return np.full((48, 64, 3), 7, np.uint8), np.full((48, 64), 3, np.uint8)

    pairs = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")
    plain = Augmentation(crop=(32, 32), scale=(1, 1), stretch=0, colour=0, hue=0, blur=0)
    views = Views(CAMVID, pairs, plain, seed=0, scene=scene, scene_share=0.25)
    drawn = sum(bool((views[epoch, 0][0] == 7).all()) for epoch in range(100))
    assert 15 <= drawn <= 35

"""The drawn street: a function of its seed, with exact labels."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.synthetic.render import DEMO_SEED, main, render

CLASSES = 11


@pytest.fixture(scope="module")
def demo() -> tuple[np.ndarray, np.ndarray]:
    return render(DEMO_SEED)


def test_shapes_and_types(demo):
    picture, labels = demo
    assert picture.shape == (360, 480, 3) and picture.dtype == np.uint8
    assert labels.shape == (360, 480) and labels.dtype == np.uint8


def test_the_demo_shows_every_class(demo):
    _, labels = demo
    assert np.unique(labels).tolist() == list(range(CLASSES))
    assert np.bincount(labels.ravel()).min() > 300


def test_the_same_seed_gives_the_same_scene(demo):
    again = render(DEMO_SEED)
    assert all(np.array_equal(a, b) for a, b in zip(demo, again, strict=True))


def test_another_seed_gives_another_scene(demo):
    assert not np.array_equal(demo[1], render(DEMO_SEED + 1)[1])


def test_another_size_shows_the_same_street(demo):
    small = render(DEMO_SEED, (180, 240))[1]
    assert small.shape == (180, 240)
    assert (small == demo[1][::2, ::2]).mean() > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_labels_stay_in_range_and_the_picture_is_exposed(seed):
    picture, labels = render(seed, (120, 160))
    assert labels.max() < CLASSES
    assert 60 < picture.mean() < 200 and picture.std() > 25


def test_the_sky_is_above_and_the_road_below(demo):
    _, labels = demo
    assert (labels[-20:] == 3).mean() > 0.5
    assert not (labels[-100:] == 0).any()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, ids = tmp_path / "street.png", tmp_path / "ids.png"
    monkeypatch.setattr(sys, "argv", ["scene", str(out), "--seed", "3", "--size", "160x120", "--labels", str(ids)])
    main()
    with Image.open(out) as picture, Image.open(ids) as labels:
        assert picture.size == labels.size == (160, 120)
        assert np.array_equal(np.asarray(labels), render(3, (120, 160))[1])

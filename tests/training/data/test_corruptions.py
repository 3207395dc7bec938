"""Each corruption changes an image, keeps its shape, is a function of its seed, and grows with its strength."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.augment import Augmentation
from training.data.corruptions import CORRUPTIONS, corrupt

SCENE = Path(__file__).parents[2] / "data" / "scene.jpg"


@pytest.fixture(scope="module")
def image():
    with Image.open(SCENE) as opened:
        return np.asarray(opened.convert("RGB").resize((160, 120)))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption(name, image):
    before = image.copy()
    weak, strong, again = (CORRUPTIONS[name](image, strength, np.random.default_rng(4)) for strength in (0.2, 1.0, 1.0))
    assert strong.shape == image.shape
    assert strong.dtype == np.uint8
    assert strong.flags.writeable
    assert np.array_equal(strong, again)
    assert np.array_equal(image, before)
    assert 0 < _distance(weak, image) < _distance(strong, image)
    assert strong.std() > 2  # something can still be seen


def test_night_is_dark_and_fog_is_pale(image):
    rng = np.random.default_rng(0)
    assert CORRUPTIONS["night"](image, 1.0, rng).mean() < 0.35 * image.mean()
    assert CORRUPTIONS["haze"](image, 1.0, rng).std() < 0.75 * image.std()
    assert CORRUPTIONS["defocus"](image, 1.0, rng).std() < image.std()


def test_motion_moves_nothing(image):
    """The copies lie evenly around the image: an image of one colour stays, an edge stays in the middle."""
    plain = np.full((20, 30, 3), 90, np.uint8)
    assert np.array_equal(CORRUPTIONS["motion"](plain, 1.0, np.random.default_rng(0)), plain)
    step = np.zeros((21, 41, 3), np.uint8)
    step[:, 21:] = 200
    blurred = CORRUPTIONS["motion"](step, 1.0, _Angle(0.0))[10, :, 0].astype(int)
    assert np.abs(blurred + blurred[::-1] - 200).max() <= 40


def test_how_often_they_come(image):
    rng = np.random.default_rng(1)
    assert all(np.array_equal(corrupt(image, 0.0, rng), image) for _ in range(3))
    changed = [not np.array_equal(corrupt(image, 0.1, rng), image) for _ in range(60)]
    assert 0.4 < np.mean(changed) < 0.8  # 1 - 0.9^9 = 0.61


def test_views_are_a_function_of_the_seed(image):
    labels = np.zeros(image.shape[:2], np.uint8)
    augmentation = Augmentation((65, 81), (0.4, 2.5), corrupt=1.0)
    view, again = (augmentation(image, labels, np.random.default_rng(7))[0] for _ in range(2))
    assert np.array_equal(view, again)
    plain = Augmentation((65, 81), (0.4, 2.5))(image, labels, np.random.default_rng(7))[0]
    assert not np.array_equal(view, plain)


class _Angle:
    """A generator whose angle is known."""

    def __init__(self, angle):
        self.angle = angle

    def uniform(self, *_):
        return self.angle


def _distance(one, other):
    return float(np.abs(one.astype(float) - other).mean())

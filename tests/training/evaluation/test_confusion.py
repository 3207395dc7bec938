"""mIoU by hand."""

import numpy as np
import pytest

from training.data.datasets import IGNORED
from training.evaluation.confusion import Confusion


def confusion(predicted, truth, classes=4):
    result = Confusion(classes)
    result.add(np.array(predicted, np.uint8), np.array(truth, np.uint8))
    return result


def test_by_hand():
    # class 0: 2 correct, 1 missed (predicted 1). class 1: 1 correct, 1 false. class 2: only for an ignored pixel.
    result = confusion([[0, 0, 1], [1, 2, 0]], [[0, 0, 0], [1, IGNORED, 3]])
    # predicted 0 for a true 3: a false positive of 0, and 3 is missed
    assert result.iou[:2].tolist() == [2 / 4, 1 / 2]
    assert np.isnan(result.iou[2])
    assert result.iou[3] == 0.0
    assert result.miou == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert result.accuracy == 3 / 5


def test_a_class_only_predicted_counts_as_zero():
    assert confusion([2, 0], [0, 0]).iou[2] == 0.0


def test_pictures_are_counted_together_not_averaged():
    result = confusion([0, 0], [0, 0], 2)
    result.add(np.array([1, 0, 0, 0], np.uint8), np.array([1, 1, 1, 1], np.uint8))
    assert result.iou.tolist() == [2 / 5, 1 / 4]


def test_nothing_labelled():
    result = confusion([0], [IGNORED])
    assert np.isnan(result.miou)
    assert np.isnan(result.accuracy)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"got a class map of shape \(1, 2\), expected \(2,\)"):
        confusion([[0, 0]], [0, 0])
    with pytest.raises(ValueError, match=r"got class id 7, expected 0\.\.3"):
        confusion([7], [0])
    assert confusion([7], [IGNORED]).counts.sum() == 0

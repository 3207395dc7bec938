"""The boundary F-score against its definition, written out pixel by pixel."""

import numpy as np
import pytest

from training.data.datasets import IGNORED
from training.evaluation.boundary_f1 import BoundaryScore, boundary

V = IGNORED


def halves(edge: int, size: int = 12) -> np.ndarray:
    """Class 0 left of column `edge`, class 1 from there on."""
    return np.repeat((np.arange(size) >= edge)[None], size, 0).astype(np.uint8)


def score(predicted, truth, classes=2, tolerance=2.0) -> BoundaryScore:
    result = BoundaryScore(classes, tolerance)
    result.add(predicted, truth)
    return result


def by_definition(predicted, truth, classes, tolerance):
    """Precision and recall of each class from all pairs of boundary pixels."""
    edges = [boundary(np.where(truth == V, V, predicted).astype(np.uint8)), boundary(truth)]
    result = []
    for c in range(classes):
        points = [np.argwhere(edge == c) for edge in edges]
        if not len(points[0]) and not len(points[1]):
            result.append(np.nan)
            continue
        if not len(points[0]) or not len(points[1]):
            result.append(0.0)
            continue
        near = ((points[0][:, None] - points[1][None]) ** 2).sum(2) <= tolerance**2
        precision, recall = near.any(1).mean(), near.any(0).mean()
        result.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return result


def test_a_boundary_is_both_sides_and_void_makes_none():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [V, V, V, V], [2, 2, 2, 2]], np.uint8)
    assert boundary(labels).tolist() == [[V, 0, 1, V], [V, 0, 1, V], [V, V, V, V], [V, V, V, V]]


def test_the_tolerance_forgives_so_many_pixels():
    truth = halves(5)
    assert score(halves(7), truth).mean == 1.0
    assert score(halves(8), truth).mean == 0.0
    assert score(halves(8), truth, tolerance=3.0).f.tolist() == [1.0, 1.0]
    assert score(truth, truth, tolerance=0).mean == 1.0


def test_a_class_without_boundary_has_no_score_and_a_missed_one_scores_zero():
    one_class = np.zeros((12, 12), np.uint8)
    assert np.isnan(score(one_class, one_class).mean)
    missed = score(one_class, halves(5), classes=3)
    assert missed.f[:2].tolist() == [0.0, 0.0]
    assert np.isnan(missed.f[2])


def test_void_hides_what_was_predicted_there():
    truth = np.zeros((12, 12), np.uint8)
    truth[:, 6:] = V
    assert np.isnan(score(halves(8), truth).mean)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_any_picture_scores_as_the_definition_says(tolerance):
    rng = np.random.default_rng(3)
    truth = np.kron(rng.choice([0, 1, 2, V], (5, 6)), np.ones((5, 5))).astype(np.uint8)
    predicted = np.kron(rng.integers(0, 4, (5, 6)), np.ones((5, 5))).astype(np.uint8)
    expected = by_definition(predicted, truth, 4, tolerance)
    np.testing.assert_allclose(score(predicted, truth, 4, tolerance).f, expected)


def test_counts_are_summed_over_pictures():
    both = BoundaryScore(2, 1.0)
    for predicted in (halves(5), halves(11)):
        both.add(predicted, halves(5))
    assert both.mean == pytest.approx(0.5)
    with pytest.raises(ValueError, match="expected"):
        both.add(halves(3), halves(3)[:5])

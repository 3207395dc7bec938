"""Each loss against a slow reference implementation."""

import itertools
import math

import numpy as np
import pytest
import torch

from model_export.alignseg.sampling import upsample
from training.data.class_weights import MAX_RATIO, class_shares, class_weights
from training.data.datasets import IGNORED
from training.loop.losses import cross_entropy, lovasz_softmax, make_loss, ohem

CLASSES = 4


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, CLASSES, (2, 5, 6), generator=generator)
    labels[:, 0] = IGNORED
    return logits, labels


def pixels(logits, labels):
    """(logits of the pixel as a list, label) of each labelled pixel."""
    for n, y, x in itertools.product(*(range(s) for s in labels.shape)):
        if labels[n, y, x] != IGNORED:
            yield logits[n, :, y, x].tolist(), int(labels[n, y, x])


def negative_log(values, label):
    return math.log(sum(math.exp(v) for v in values)) - values[label]


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 0.5]])
def test_cross_entropy(sample, weights):
    w = weights or [1.0] * CLASSES
    parts = [(w[label] * negative_log(v, label), w[label]) for v, label in pixels(*sample)]
    expected = sum(p for p, _ in parts) / sum(q for _, q in parts)
    got = cross_entropy(*sample, None if weights is None else torch.tensor(weights, dtype=torch.float64))
    assert got.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.7, 0.3])
def test_ohem_keeps_pixels_below_the_threshold(sample, threshold):
    losses = [negative_log(v, label) for v, label in pixels(*sample)]
    hard = [loss for loss in losses if math.exp(-loss) < threshold]
    assert len(hard) > len(losses) / 16
    assert ohem(*sample, threshold=threshold).item() == pytest.approx(sum(hard) / len(hard))


def test_ohem_keeps_a_least_share_of_the_hardest(sample):
    losses = sorted((negative_log(v, label) for v, label in pixels(*sample)), reverse=True)
    kept = losses[: len(losses) // 2]
    got = ohem(*sample, threshold=1e-9, least_kept=0.5)
    assert got.item() == pytest.approx(sum(kept) / len(kept))


def test_ohem_with_class_weights_is_their_weighted_mean(sample):
    w = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    hard = [
        (w[label].item(), loss) for v, label in pixels(*sample) if math.exp(-(loss := negative_log(v, label))) < 0.7
    ]
    expected = sum(a * b for a, b in hard) / sum(a for a, _ in hard)
    assert ohem(*sample, w).item() == pytest.approx(expected)


def test_lovasz_softmax_is_the_extension_of_the_jaccard_loss(sample):
    logits, labels = sample
    kept = labels != IGNORED
    probabilities = logits.softmax(1).permute(0, 2, 3, 1)[kept].detach().numpy()
    truth = labels[kept].numpy()
    expected = np.mean([lovasz_by_sets(probabilities[:, c], truth == c) for c in np.unique(truth)])
    assert lovasz_softmax(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def lovasz_by_sets(probability, truth):
    """The definition: errors sorted downwards, each times the growth of the loss of the mistakes so far."""

    def jaccard_loss(mistakes):
        predicted = {i for i, t in enumerate(truth) if t != (i in mistakes)}
        real = set(np.flatnonzero(truth))
        return 1 - len(predicted & real) / len(predicted | real) if predicted | real else 0.0

    errors = np.where(truth, 1 - probability, probability)
    total, mistakes, before = 0.0, set(), 0.0
    for i in np.argsort(-errors, kind="stable"):
        mistakes.add(int(i))
        total += errors[i] * (jaccard_loss(mistakes) - before)
        before = jaccard_loss(mistakes)
    return total


def test_a_perfect_prediction_costs_nothing(sample):
    _, labels = sample
    logits = 50.0 * torch.nn.functional.one_hot(labels.clamp_max(CLASSES - 1), CLASSES).permute(0, 3, 1, 2).float()
    for mix in ("ce", "lovasz", "ohem"):
        assert make_loss(mix, 0.0)(logits, None, labels).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("mix", ["ce", "ohem", "lovasz", "ce+0.5*lovasz"])
def test_ignored_pixels_have_no_gradient_and_a_picture_without_labels_no_loss(sample, mix):
    logits, labels = sample
    make_loss(mix, 0.0)(logits, None, labels).backward()
    assert (logits.grad[:, :, 0] == 0).all()
    assert (logits.grad[:, :, 1:] != 0).any()
    nothing = make_loss(mix, 0.0)(logits, None, torch.full_like(labels, IGNORED))
    assert nothing.item() == 0.0
    nothing.backward()
    assert logits.grad.isfinite().all()


def test_a_mix_is_the_weighted_sum_and_the_auxiliary_logits_get_the_first(sample):
    logits, labels = sample
    logits = logits.float()
    aux = logits.flip(1)
    expected = ohem(logits, labels) + 0.8 * lovasz_softmax(logits, labels) + 0.1 * ohem(aux, labels)
    assert make_loss("ohem + 0.8*lovasz", 0.1)(logits, aux, labels).item() == pytest.approx(expected.item())


def test_logits_are_upsampled_to_the_labels(sample):
    _, labels = sample
    small = torch.randn(2, CLASSES, 2, 2)
    expected = cross_entropy(upsample(small, (5, 6)), labels)
    assert make_loss("ce", 0.0)(small, None, labels.to(torch.uint8)).item() == pytest.approx(expected.item())
    strided = cross_entropy(upsample(small, (3, 3)), labels[:, ::2, ::2])
    assert make_loss("ce", 0.0, stride=2)(small, None, labels).item() == pytest.approx(strided.item())


@pytest.mark.parametrize("mix", ["", "focal", "ce+", "x*ce", "ce*0.5"])
def test_an_unknown_mix_is_named(mix):
    with pytest.raises(ValueError, match=r"expected ce, ohem, lovasz"):
        make_loss(mix, 0.0)


def test_class_weights():
    shares = np.array([0.9, 0.09, 0.01, 0.0])
    median = class_weights(shares, "median")
    assert median.tolist() == pytest.approx([1.0, 10.0, MAX_RATIO, MAX_RATIO])
    enet = class_weights(shares, "enet")
    assert enet[1] == pytest.approx(math.log(1.92) / math.log(1.11), rel=1e-5)
    assert enet.min() == 1.0
    assert enet.max() <= MAX_RATIO


def test_class_shares(tmp_path):
    from tests.training import tiny_data
    from training.data.datasets import CAMVID

    pairs = CAMVID.pairs(tiny_data.camvid(tmp_path), "train")
    labels = np.concatenate([CAMVID.read(pair)[1].ravel() for pair in pairs])
    shares = class_shares(CAMVID, pairs)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[3] == pytest.approx((labels == 3).sum() / (labels != IGNORED).sum())

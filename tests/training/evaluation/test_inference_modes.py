"""Inference modes against results that are known without a network."""

import pytest
import torch
from torch.nn import functional

from model_export.alignseg import AlignSeg
from training.evaluation.inference_modes import (
    InferenceMode,
    multi_scale,
    pad_to_raster,
    sliding_window,
    starts,
    whole_image,
)


def identity(x):
    """In place of a network: the logits are the image."""
    return x.clone()


@pytest.mark.parametrize(
    ("length", "tile", "expected"),
    [(872, 872, [0]), (1024, 872, [0, 152]), (2048, 872, [0, 582, 1164, 1176]), (33, 32, [0, 1]), (3, 3, [0])],
)
def test_tiles_start_where_those_of_the_published_code_do(length, tile, expected):
    """Its stride is ceil(tile * 2/3); the last tile is moved back to the edge."""
    assert starts(length, tile) == expected


@pytest.mark.parametrize("size", [(50, 70), (32, 32), (20, 90), (33, 31)])
def test_the_tiles_of_an_image_are_reassembled(size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(sliding_window(identity, (32, 32))(x), x)


def test_logits_are_averaged_where_tiles_overlap():
    numbers = iter((1.0, 3.0))
    result = sliding_window(lambda x: torch.full((1, 1, *x.shape[2:]), next(numbers)), (2, 3), overlap=1 / 3)(
        torch.zeros(1, 3, 2, 5)
    )
    assert result.tolist() == [[[[1, 1, 2, 3, 3]] * 2]]


def test_an_image_smaller_than_a_tile_is_padded_with_zeros():
    shapes = []

    def recording(x):
        shapes.append(tuple(x.shape))
        assert x[:, :, 10:].eq(0).all()
        assert x[..., 40:].eq(0).all()
        return x

    x = torch.ones(1, 3, 10, 40)
    assert torch.equal(sliding_window(recording, (32, 64))(x), x)
    assert shapes == [(1, 3, 32, 64)]


@pytest.mark.parametrize(("size", "padded"), [((360, 480), (369, 481)), ((33, 65), (33, 65)), ((1, 32), (1, 33))])
def test_an_image_is_padded_to_the_raster(size, padded):
    result = []

    def recording(x):
        result.append(x)
        return x

    x = torch.randn(1, 3, *size)
    assert torch.equal(pad_to_raster(recording)(x), x)
    assert tuple(result[0].shape[2:]) == padded
    assert result[0][:, :, size[0] :].eq(result[0][:, :, size[0] - 1 : size[0]]).all()
    assert result[0][..., size[1] :].eq(result[0][..., size[1] - 1 : size[1]]).all()


def test_scores_of_the_mirror_image_are_mirrored_back():
    x = torch.randn(1, 3, 8, 12)
    torch.testing.assert_close(multi_scale(identity, (1.0,), flip=True)(x), x)
    ramp = torch.linspace(0, 1, 12)
    result = multi_scale(lambda x: x + ramp, (1.0,), flip=True)(x)
    torch.testing.assert_close(result, x + 0.5)


def test_scores_of_all_scales_are_resized_and_averaged():
    sizes = []

    def recording(x):
        sizes.append(tuple(x.shape[2:]))
        return torch.full((1, 2, *x.shape[2:]), float(len(sizes)))

    result = multi_scale(recording, (0.5, 1.0, 1.5), flip=False)(torch.zeros(1, 3, 9, 12))
    assert sizes == [(4, 6), (9, 12), (14, 18)]
    torch.testing.assert_close(result, torch.full((1, 2, 9, 12), 2.0))


def test_probabilities_are_averaged_after_softmax():
    logits = iter((torch.tensor([4.0, 0.0]), torch.tensor([0.0, 1.0])))
    result = multi_scale(lambda x: next(logits).view(1, 2, 1, 1), (1.0,), True, "probabilities")(
        torch.zeros(1, 3, 1, 1)
    )
    expected = (functional.softmax(torch.tensor([4.0, 0.0]), 0) + functional.softmax(torch.tensor([0.0, 1.0]), 0)) / 2
    torch.testing.assert_close(result.flatten(), expected)


def test_inference_modes_of_a_network():
    torch.manual_seed(0)
    network = AlignSeg("lite", 4, channels=8).eval()
    x = torch.randn(1, 3, 40, 70)
    mode = InferenceMode(tile=(32, 32), scales=(0.75, 1.0), flip=True)
    with torch.inference_mode():
        plain = whole_image(network)(x)
        assert torch.equal(InferenceMode().predict_with(network)(x), pad_to_raster(whole_image(network))(x))
        assert mode.predict_with(network)(x).shape == plain.shape == (1, 4, 40, 70)
        flip = InferenceMode(flip=True).predict_with(network)
        straight, mirrored = flip(x), flip(x.flip(3)).flip(3)
        one_tile = InferenceMode(tile=(40, 70)).predict_with(network)(x)
    assert torch.equal(one_tile, plain)
    torch.testing.assert_close(mirrored, straight)
    assert str(mode) == "tiles of 32x32, scales 0.75 1, mirror images"
    assert str(InferenceMode()) == "whole images"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"tile": (16, 64)}, "expected at least 32x32"),
        ({"overlap": 1.0}, "expected at least 0 and less than 1"),
        ({"scales": (0.0, 1.0)}, "expected positive numbers"),
    ],
)
def test_values_out_of_range_are_rejected(choices, message):
    with pytest.raises(ValueError, match=message):
        InferenceMode(**choices)

"""Tiles, scales and mirror images against what can be said of them without a network."""

import pytest
import torch
from torch.nn import functional

from model_export.alignseg import AlignSeg
from training.evaluation.inference_modes import Viewing, augmented, on_raster, sliding, starts, whole


def colours(x):
    """A stand-in for a network whose logits are the picture."""
    return x.clone()


@pytest.mark.parametrize(
    ("length", "tile", "expected"),
    [(872, 872, [0]), (1024, 872, [0, 152]), (2048, 872, [0, 582, 1164, 1176]), (33, 32, [0, 1]), (3, 3, [0])],
)
def test_tiles_begin_where_the_published_code_has_them(length, tile, expected):
    """Its stride is ceil(tile * 2/3); the last tile is moved back to the edge."""
    assert starts(length, tile) == expected


@pytest.mark.parametrize("size", [(50, 70), (32, 32), (20, 90), (33, 31)])
def test_tiles_put_together_are_the_picture(size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(sliding(colours, (32, 32))(x), x)


def test_where_tiles_lap_their_logits_are_averaged():
    numbers = iter((1.0, 3.0))
    seen = sliding(lambda x: torch.full((1, 1, *x.shape[2:]), next(numbers)), (2, 3), overlap=1 / 3)(
        torch.zeros(1, 3, 2, 5)
    )
    assert seen.tolist() == [[[[1, 1, 2, 3, 3]] * 2]]


def test_a_small_picture_is_padded_with_zeros_to_a_whole_tile():
    shapes = []

    def watched(x):
        shapes.append(tuple(x.shape))
        assert x[:, :, 10:].eq(0).all()
        assert x[..., 40:].eq(0).all()
        return x

    x = torch.ones(1, 3, 10, 40)
    assert torch.equal(sliding(watched, (32, 64))(x), x)
    assert shapes == [(1, 3, 32, 64)]


@pytest.mark.parametrize(("size", "padded"), [((360, 480), (369, 481)), ((33, 65), (33, 65)), ((1, 32), (1, 33))])
def test_a_picture_is_padded_to_where_corners_align(size, padded):
    seen = []

    def watched(x):
        seen.append(x)
        return x

    x = torch.randn(1, 3, *size)
    assert torch.equal(on_raster(watched)(x), x)
    assert tuple(seen[0].shape[2:]) == padded
    assert seen[0][:, :, size[0] :].eq(seen[0][:, :, size[0] - 1 : size[0]]).all()
    assert seen[0][..., size[1] :].eq(seen[0][..., size[1] - 1 : size[1]]).all()


def test_a_mirror_image_is_mirrored_back():
    x = torch.randn(1, 3, 8, 12)
    torch.testing.assert_close(augmented(colours, (1.0,), flip=True)(x), x)
    ramp = torch.linspace(0, 1, 12)
    seen = augmented(lambda x: x + ramp, (1.0,), flip=True)(x)
    torch.testing.assert_close(seen, x + 0.5)


def test_scales_are_brought_back_to_the_pictures_size_and_averaged():
    sizes = []

    def watched(x):
        sizes.append(tuple(x.shape[2:]))
        return torch.full((1, 2, *x.shape[2:]), float(len(sizes)))

    seen = augmented(watched, (0.5, 1.0, 1.5), flip=False)(torch.zeros(1, 3, 9, 12))
    assert sizes == [(4, 6), (9, 12), (14, 18)]
    torch.testing.assert_close(seen, torch.full((1, 2, 9, 12), 2.0))


def test_probabilities_are_averaged_after_softmax():
    logits = iter((torch.tensor([4.0, 0.0]), torch.tensor([0.0, 1.0])))
    seen = augmented(lambda x: next(logits).view(1, 2, 1, 1), (1.0,), True, "probabilities")(torch.zeros(1, 3, 1, 1))
    expected = (functional.softmax(torch.tensor([4.0, 0.0]), 0) + functional.softmax(torch.tensor([0.0, 1.0]), 0)) / 2
    torch.testing.assert_close(seen.flatten(), expected)


def test_a_viewing_with_a_network():
    torch.manual_seed(0)
    network = AlignSeg("lite", 4, channels=8).eval()
    x = torch.randn(1, 3, 40, 70)
    viewing = Viewing(tile=(32, 32), scales=(0.75, 1.0), flip=True)
    with torch.inference_mode():
        plain = whole(network)(x)
        assert torch.equal(Viewing().look(network)(x), on_raster(whole(network))(x))
        assert viewing.look(network)(x).shape == plain.shape == (1, 4, 40, 70)
        flip = Viewing(flip=True).look(network)
        straight, mirrored = flip(x), flip(x.flip(3)).flip(3)
        one_tile = Viewing(tile=(40, 70)).look(network)(x)
    assert torch.equal(one_tile, plain)
    torch.testing.assert_close(mirrored, straight)
    assert str(viewing) == "tiles of 32x32, scales 0.75 1, mirrored too"
    assert str(Viewing()) == "whole pictures"


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"tile": (16, 64)}, "expected at least 32x32"),
        ({"overlap": 1.0}, "expected 0..1"),
        ({"scales": (0.0, 1.0)}, "expected numbers above 0"),
    ],
)
def test_numbers_out_of_range_are_told(choices, told):
    with pytest.raises(ValueError, match=told):
        Viewing(**choices)

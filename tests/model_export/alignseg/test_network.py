"""Modules against PyTorch's own operators and against both sampling conventions."""

import pytest
import torch
import torch.nn.functional as F

from model_export.alignseg import AlignSeg
from model_export.alignseg.align_cm import region_means
from model_export.alignseg.align_fa import AlignFA
from model_export.alignseg.sampling import Sampling, sample, upsample


def bilinear_at(plane: torch.Tensor, x: float, y: float) -> float:
    """Read a (h, w) plane at (x, y) in pixels, zeros outside; written out as a reference."""
    total = 0.0
    for row in (int(y // 1), int(y // 1) + 1):
        for column in (int(x // 1), int(x // 1) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                total += float(plane[row, column]) * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@pytest.mark.parametrize("size", [(4, 6), (7, 5), (1, 3)])
@pytest.mark.parametrize("sampling", ["standard", "published"])
def test_sample_reads_where_the_convention_says(sampling: Sampling, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(1, 1, 4, 6, generator=generator, dtype=torch.float64)
    offsets = torch.randn(1, 2, *size, generator=generator, dtype=torch.float64)
    result = sample(feature, offsets, sampling)
    (h, w), (H, W) = feature.shape[2:], size
    for j in range(H):
        for i in range(W):
            dx, dy = offsets[0, :, j, i].tolist()
            if sampling == "standard":
                x, y = (i + dx) * (w - 1) / max(W - 1, 1), (j + dy) * (h - 1) / max(H - 1, 1)
            else:
                x, y = i * w / max(W - 1, 1) - 0.5 + dx / 2, j * h / max(H - 1, 1) - 0.5 + dy / 2
            assert float(result[0, 0, j, i]) == pytest.approx(bilinear_at(feature[0, 0], x, y), abs=1e-9)


def test_standard_sampling_without_offsets_is_upsampling() -> None:
    feature = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(
        sample(feature, torch.zeros(2, 2, 11, 13, dtype=torch.float64), "standard"), upsample(feature, (11, 13))
    )


@pytest.mark.parametrize("size", [(3, 3), (12, 15), (13, 17), (2, 5), (1, 1)])
def test_region_means_is_adaptive_average_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size)
    torch.testing.assert_close(region_means(x, 3), F.adaptive_avg_pool2d(x, 3))


def test_an_untrained_align_fa_adds_without_moving() -> None:
    align_fa = AlignFA(8, "standard").eval()
    low, high = torch.randn(1, 8, 12, 10), torch.randn(1, 8, 6, 5)
    torch.testing.assert_close(align_fa(low, high), low + upsample(high, (12, 10)))


@pytest.mark.parametrize(
    ("backbone", "classes", "millions"), [("lite", 11, 3.64), ("resnet50", 19, 47.85), ("resnet101", 19, 66.85)]
)
def test_parameter_counts(backbone: str, classes: int, millions: float) -> None:
    count = sum(parameter.numel() for parameter in AlignSeg(backbone, classes).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("size", [(64, 96), (97, 131), (33, 65), (20, 17)])
@pytest.mark.parametrize("training", [True, False])
def test_any_size_and_logits_alone_in_every_mode(size: tuple[int, int], training: bool) -> None:
    network = AlignSeg("lite", 5).train(training)
    x = network.normalise(torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8))
    logits = network(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape[:2] == (2, 5)
    assert all(abs(got - full / 4) < 1.5 for got, full in zip(logits.shape[2:], size, strict=True))
    assert network.forward_with_aux(x)[1].shape == logits.shape


def test_no_auxiliary_head() -> None:
    with pytest.raises(ValueError, match="aux_head=True"):
        AlignSeg("lite", 5, aux_head=False).forward_with_aux(torch.zeros(1, 3, 32, 32))


def test_unknown_backbone() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'vgg'; expected one of lite, resnet18"):
        AlignSeg("vgg", 5)


@pytest.mark.parametrize("align_cm", [True, False])
@pytest.mark.parametrize("align_fa", [True, False])
def test_the_ablations_networks_equal_the_whole_one_while_offsets_are_zero(align_fa: bool, align_cm: bool) -> None:
    whole = AlignSeg("lite", 5, channels=8).eval()
    other = AlignSeg("lite", 5, channels=8, align_fa=align_fa, align_cm=align_cm).eval()
    left_out = other.load_state_dict(whole.state_dict(), strict=False)
    assert not left_out.missing_keys
    assert all("_offsets." in key for key in left_out.unexpected_keys)
    assert AlignSeg.from_architecture(other.architecture).state_dict().keys() == other.state_dict().keys()
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(other(x), whole(x), rtol=1e-4, atol=1e-5)

"""EfficientNet-Lite against the reference implementation's features (tests/data/golden/make_efficientnet.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model_export.alignseg import AlignSeg
from model_export.alignseg.efficientnet_lite import NAMES, EfficientNetLite, EfficientNetName
from model_export.alignseg.same_padding import SameConv2d
from model_export.flops import cost
from tests.data.golden import make_efficientnet
from training.loop import pretrained_efficientnet
from training.loop.pretrained_efficientnet import reference_key

BUDGET = 4.5e9
DECODER_BUDGET = 1.5e9
SERVED = (369, 481)


def seeded(name: EfficientNetName, path: Path) -> EfficientNetLite:
    """A backbone with the golden weights, loaded from a file in the reference's names."""
    backbone = EfficientNetLite(name)
    shapes = {reference_key(backbone, key): tuple(value.shape) for key, value in backbone.state_dict().items()}
    classifier = {"_conv_head.weight": (4, 3, 1, 1), "_bn1.weight": (4,), "_fc.bias": (7,)}
    torch.save(make_efficientnet.state({**shapes, **classifier}), path)
    pretrained_efficientnet.load(backbone, path)
    return backbone.double().eval()


@pytest.mark.parametrize("name", make_efficientnet.BLOCKS)
def test_features_are_the_references(name: EfficientNetName, tmp_path: Path) -> None:
    """The features were written by `python -m tests.data.golden.make_efficientnet`, which needs the reference."""
    golden = np.load(make_efficientnet.FILE)
    backbone = seeded(name, tmp_path / "weights.pth")
    for size in make_efficientnet.SIZES:
        with torch.inference_mode():
            maps = backbone(torch.from_numpy(make_efficientnet.image(size)))
        for index, features in enumerate(maps):
            for part, values in make_efficientnet.kept(features).items():
                expected = golden[f"{name} {size[0]}x{size[1]} {index} {part}"]
                np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
                assert np.abs(expected).max() > 0.05


def test_channels_and_strides() -> None:
    assert EfficientNetLite("efficientnet-lite0").channels == [24, 40, 112, 320]
    backbone = EfficientNetLite("efficientnet-lite2").eval()
    assert backbone.channels == [24, 48, 120, 352]
    for size in ((65, 96), (20, 17)):
        with torch.inference_mode():
            maps = backbone(torch.zeros(1, 3, *size))
        for features, channels, stride in zip(maps, backbone.channels, (4, 8, 16, 32), strict=True):
            assert features.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(6, 9), (9, 6), (7, 7), (8, 8), (1, 2)])
def test_same_padding_at_stride_2(size: tuple[int, int], kernel: int) -> None:
    """Written out: zeros in front, half of what ceil(size / 2) outputs need, rounded down, and the rest behind."""
    conv = SameConv2d(2, 3, kernel, 2).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    # An odd size is padded alike on both sides; an even one has one zero less in front.
    front = [(kernel - 1) // 2 - (1 - length % 2) for length in size]
    padded = F.pad(x, (front[1], kernel, front[0], kernel))
    rows, columns = (-(-length // 2) for length in size)
    expected = F.conv2d(padded, conv.weight, stride=2)[:, :, :rows, :columns]
    torch.testing.assert_close(conv(x), expected)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="no backbone 'efficientnet-b0'; there are efficientnet-lite0, "):
        EfficientNetLite("efficientnet-b0")


def test_operations_at_the_served_size() -> None:
    whole = cost(AlignSeg("efficientnet-lite0", 11).architecture, SERVED)
    backbone = _backbone_flops("efficientnet-lite0")
    assert whole.flops <= BUDGET
    assert whole.flops - backbone <= DECODER_BUDGET
    assert whole.parameters < 3.3e6
    assert cost(AlignSeg("efficientnet-lite1", 11).architecture, SERVED).flops <= BUDGET


def _backbone_flops(name: EfficientNetName) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        EfficientNetLite(name).eval()(torch.empty(1, 3, *SERVED))
    flops: int = counter.get_total_flops()
    return flops


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_makes_a_network(name: EfficientNetName) -> None:
    network = AlignSeg(name, 5, channels=8)
    assert network.architecture.preprocessing.mean == (127.0, 127.0, 127.0)
    for training, size in ((True, (97, 131)), (False, (64, 96)), (False, (20, 17))):
        x = network.normalise(torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8))
        logits, aux_logits = network.train(training).forward_with_aux(x)
        assert logits.shape == (2, 5, -(-size[0] // 4), -(-size[1] // 4))
        assert aux_logits.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("align_cm", [True, False])
@pytest.mark.parametrize("align_fa", [True, False])
def test_the_ablations_networks_equal_the_whole_one_while_offsets_are_zero(align_fa: bool, align_cm: bool) -> None:
    whole = AlignSeg("efficientnet-lite0", 5, channels=8).eval()
    other = AlignSeg("efficientnet-lite0", 5, channels=8, align_fa=align_fa, align_cm=align_cm).eval()
    left_out = other.load_state_dict(whole.state_dict(), strict=False)
    assert not left_out.missing_keys
    assert all("offsets." in key for key in left_out.unexpected_keys)
    assert bool(left_out.unexpected_keys) == (not align_fa or not align_cm)
    assert AlignSeg.from_architecture(other.architecture).state_dict().keys() == other.state_dict().keys()
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(other(x), whole(x), rtol=1e-4, atol=1e-5)

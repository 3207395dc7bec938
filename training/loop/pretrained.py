"""Initial weights: a network of this project, or a backbone of torchvision or CSAIL.

A checkpoint of this project (.safetensors) fits completely when it has the same size and number of classes; with other
classes, all but the last layers of the heads fit.

Other backbones are state dicts (.pth) with the names that torchvision and CSAIL share: stages layer1..4, and in their
blocks conv1, bn1, ..., downsample. They differ in the stem:
- CSAIL (semantic-segmentation-pytorch, `resnet50-imagenet.pth`) has the deep stem that AlignSeg has: conv1..3, bn1..3;
- torchvision has one 7x7 convolution to 64 channels, so conv1, bn1 and the first block of layer1, which reads twice as
  many channels here, do not fit.

The network's input is RGB with ImageNet's mean and std, as in torchvision. Weights for another input are not converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model_export.alignseg import AlignSeg, efficientnet_lite
from model_export.alignseg.backbone import Backbone
from model_export.alignseg.efficientnet_lite import EfficientNetLite
from model_export.checkpoints import checkpoint, published_weights
from model_export.checkpoints.checkpoint import CheckpointError, listed, read_state_dict
from training.loop import pretrained_efficientnet

CLASSIFIER = "fc."  # ImageNet's, which a backbone has no use for


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file fit a module: `fitting` by the module's key; the others as lines for messages."""

    fitting: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def whole(self) -> bool:
        """Whether everything fits."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        """What does not fit, for the end of a message."""
        return (
            listed("missing", self.missing)
            + listed("unexpected", self.unexpected)
            + listed("misshapen", self.misshapen)
        )


def load(network: AlignSeg, path: Path, partly: bool = False) -> Fit:
    """Put the weights of `path` into `network`: all of them from a .safetensors of this project, else the backbone's.

    partly: load what fits and leave the rest as it is initialised; the returned Fit says what that is.
    Raises FileNotFoundError; CheckpointError when the file can't be read, when nothing fits, or, unless `partly`, when
    anything does not: the message names each key.
    """
    if str(path) in efficientnet_lite.NAMES:
        path = pretrained_efficientnet.path_of(str(path))
    if not path.is_file():
        raise FileNotFoundError(f"--init-from: {path} does not exist")
    if path.suffix == ".safetensors":
        return _load_network(network, path, partly)
    if isinstance(network.backbone, EfficientNetLite):
        return Fit(pretrained_efficientnet.load(network.backbone, path), [], [], [])
    return load_backbone(network.backbone, path, partly)


def _load_network(network: AlignSeg, path: Path, partly: bool) -> Fit:
    theirs, ours = checkpoint.load(path), network.architecture
    for name in ("sampling", "preprocessing"):
        if (got := getattr(theirs.architecture, name)) != (expected := getattr(ours, name)):
            raise CheckpointError(
                f"{path} was trained with {name} {got}; expected {expected}. Its weights can't be used here."
            )
    state, expected = theirs.state_dict(), network.state_dict()
    fit = Fit(
        fitting={key: value for key, value in state.items() if key in expected and value.shape == expected[key].shape},
        missing=sorted(expected.keys() - state.keys()),
        unexpected=sorted(state.keys() - expected.keys()),
        misshapen=[
            f"{key}: got {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            for key, value in state.items()
            if key in expected and value.shape != expected[key].shape
        ],
    )
    if not (partly or fit.whole):
        raise CheckpointError(f"{path} does not fit the network. --init-partly loads what fits.{fit}")
    network.load_state_dict(fit.fitting, strict=False)
    return fit


def load_backbone(backbone: Backbone, path: Path, partly: bool = False) -> Fit:
    """Put the weights of the state dict at `path` (.pth, read without running anything in it) into `backbone`.

    partly and what is raised: as of `load`.
    """
    state = published_weights.without_wrapping(read_state_dict(path))
    fit = compare(backbone, state)
    if not fit.fitting or not (partly or fit.whole):
        raise CheckpointError(f"{path} does not fit the backbone.{_advice(state, fit)}{fit}")
    backbone.load_state_dict({key: value.float() for key, value in fit.fitting.items()}, strict=False)
    return fit


def compare(backbone: Backbone, state: dict[str, Tensor]) -> Fit:
    """What of `state`, in the others' names, fits. A norm fits if its convolution does."""
    expected = {key: value for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    names = {key: published_weights.name_of(f"backbone.{key}") for key in expected}
    there = {key: state[name] for key, name in names.items() if name in state}
    shaped = {key for key, value in there.items() if value.shape == expected[key].shape}
    misshapen = {
        key: f"got {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
        if key not in shaped
        else "its convolution does not fit"
        for key, value in there.items()
        if key not in shaped or _convolution(key) not in shaped
    }
    surplus = state.keys() - set(names.values())
    return Fit(
        fitting={key: value for key, value in there.items() if key not in misshapen},
        missing=[name for name in names.values() if name not in state],
        unexpected=sorted(key for key in surplus if not key.startswith(CLASSIFIER)),
        misshapen=[f"{names[key]}: {why}" for key, why in misshapen.items()],
    )


def _convolution(key: str) -> str:
    """The kernel of the pair (0: convolution, 1: norm) that the tensor is of."""
    return f"{key.rsplit('.', 2)[0]}.0.weight"


def _advice(state: dict[str, Tensor], fit: Fit) -> str:
    if not fit.fitting:
        return " No tensor fits. Check that it is a ResNet of the same size."
    stem = state.get("conv1.weight")
    if stem is not None and stem.shape[2:] == (7, 7):
        return (
            " Its stem is torchvision's, one 7x7 convolution; AlignSeg's stem has three 3x3 convolutions, like CSAIL's "
            "weights. --init-partly loads all tensors except the stem and the block after it."
        )
    return " --init-partly loads what fits."

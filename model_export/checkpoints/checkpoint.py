"""Loads and saves checkpoints. Every key must fit, and no code in a file is run.

Reads this project's safetensors and the published InPlaceABN state dicts.
"""

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model_export.alignseg import AlignSeg, Architecture, Preprocessing
from model_export.checkpoints import onnx_weights, published_weights
from model_export.checkpoints.file_kind import other_kind
from service.files import atomic_replace

FORMAT = "alignseg-1"
StateDict = dict[str, Tensor]
_MOST_LISTED = 10


class CheckpointError(Exception):
    """The file can't be loaded; the message names the reason and each key that does not fit."""


def load(path: Path) -> AlignSeg:
    """Build the network that a checkpoint describes and load its weights, on the CPU, float32, in eval mode.

    path: `.safetensors` written by `save`, the `.onnx` of an export with the slim decoder, or a published `.pth`/`.pt`
        state dict (ResNet-50 or -101, any number of classes, with or without `dsn`, `num_batches_tracked` and a
        `module.` prefix), which loads with sampling="published" and BGR mean subtraction.
    Raises CheckpointError when the file is not a checkpoint, contains code, has a key that is missing, unexpected or of
    another shape, or values that are NaN or infinite; FileNotFoundError when there is no file.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a checkpoint, .safetensors, .pth or .pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a checkpoint, .safetensors, .pth or .pt")
    loaders = {".safetensors": _load_own, ".onnx": _load_export}
    return loaders.get(path.suffix, _load_published)(path).eval()


def save(path: Path, network: AlignSeg, *, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and architecture as safetensors; if that fails, `path` stays as it was.

    half: store matrices and kernels as float16, norms and biases as float32; loading returns float32.
    metadata: further strings to store beside the architecture.
    """
    state = {key: _stored(value, half) for key, value in network.state_dict().items() if _is_weight(key)}
    header = {**(metadata or {}), "format": FORMAT, "architecture": json.dumps(asdict(network.architecture))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as temporary:
        save_file(state, temporary, metadata=header)


def read_metadata(path: Path) -> dict[str, str]:
    """The strings stored in a safetensors checkpoint. Raises CheckpointError for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from None


def _load_own(path: Path) -> AlignSeg:
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} was not written by this project: its metadata has the format {metadata.get('format')!r}, expected "
            f"{FORMAT!r}. Published weights load from .pth or .pt files."
        )
    network = _build(path, metadata.get("architecture", ""))
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no mapping)
    _load_strictly(path, network, state, names={key: key for key in _expected(network)})
    return network


def _load_export(path: Path) -> AlignSeg:
    try:
        architecture, initializers = onnx_weights.read(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    network = _build(path, architecture)
    expected = _expected(network)
    state = {key: value for key, value in initializers.items() if key in expected}  # the others are constants
    _load_strictly(path, network, state, names={key: key for key in expected})
    return network


def _build(path: Path, architecture: str) -> AlignSeg:
    """The untrained network of an architecture given as JSON."""
    try:
        return AlignSeg.from_architecture(_architecture(path, architecture))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} describes a network that can't be built: {error}") from None


def _architecture(path: Path, text: str) -> Architecture:
    try:
        fields = json.loads(text)
        preprocessing = fields.pop("preprocessing")
        order, mean, std = (preprocessing[key] for key in ("channel_order", "mean", "std"))
        return Architecture(**fields, preprocessing=Preprocessing(order, tuple(mean), tuple(std)))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} has an architecture in its metadata that can't be read: got {text!r}, expected the JSON that "
            f"`alignseg export` and the training write ({error!r})"
        ) from None


def _load_published(path: Path) -> AlignSeg:
    state = published_weights.without_wrapping(read_state_dict(path))
    try:
        network = AlignSeg.from_architecture(published_weights.architecture(state))
    except KeyError as error:
        raise CheckpointError(
            f"{path} is not an AlignSeg state dict: it has {len(state)} keys, such as {', '.join(sorted(state)[:3])}; "
            f"expected the published names, but {error} is missing."
        ) from None
    names = {key: published_weights.name_of(key) for key in _expected(network)}
    _load_strictly(path, network, published_weights.without_abn(state), names)
    return network


def read_state_dict(path: Path) -> StateDict:
    """Read the state dict of a PyTorch file, or its entry `state_dict`. No code in the file is run.

    Raises CheckpointError when the file is damaged or contains anything else.
    """
    if (kind := other_kind(path)) is not None:
        raise CheckpointError(
            f"{path} is not a PyTorch file: it contains {kind}. Expected a state dict, .pth or .pt, or .safetensors."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to load the file with code in it
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} contains objects other than tensors{f', such as {name[1]}' if name else ''}; loading them could "
            "run code. Expected a state dict: save it with torch.save(network.state_dict(), 'weights.pth')."
        ) from None
    except Exception as error:  # torch.load raises many kinds for damaged files
        text = str(error)
        reason = "" if "weights_only" in text else f": {' '.join(text.split())[:200] or type(error).__name__}"
        hint = "a TorchScript archive" if "TorchScript" in text else "not a PyTorch file, or is damaged"
        raise CheckpointError(f"{path} is {hint}{reason}. Expected a state dict.") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path} contains a {type(content).__name__}, expected a state dict (names to tensors). "
            "Save it with torch.save(network.state_dict(), 'weights.pth')."
        )
    return dict(content)


def of_another_shape(expected: StateDict, state: StateDict, names: Mapping[str, str]) -> list[str]:
    """A line for each tensor whose shape is not the expected one. names: a key of `expected` -> the key in `state`."""
    return [
        f"{name}: got {tuple(state[name].shape)}, expected {tuple(expected[key].shape)}"
        for key, name in names.items()
        if name in state and state[name].shape != expected[key].shape
    ]


def _load_strictly(path: Path, network: AlignSeg, state: StateDict, names: Mapping[str, str]) -> None:
    """names: the network's key -> the file's key."""
    expected = _expected(network)
    missing = sorted(names[key] for key in expected if names[key] not in state)
    unexpected = sorted(state.keys() - set(names.values()))
    misshapen = of_another_shape(expected, state, names)
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"{path} does not fit {network.architecture}:"
            + listed("missing", missing)
            + listed("unexpected", unexpected)
            + listed("of another shape", misshapen)
        )
    unusable = [f"{names[key]}: {fault}" for key in expected if (fault := _fault(key, state[names[key]])) is not None]
    if unusable:
        raise CheckpointError(
            f"{path} can't be used: {len(unusable)} of {len(expected)} tensors have impossible values. The training "
            "diverged, or the file was saved in a type that is too small; use an earlier checkpoint."
            + listed("tensors with impossible values", unusable[:_MOST_LISTED])
        )
    network.load_state_dict(
        {key: state[name] for key, name in names.items()}, strict=False
    )  # strict except for the counters of BatchNorm


def _fault(key: str, value: Tensor) -> str | None:
    """What makes the network compute NaN, if anything."""
    if not value.is_floating_point():
        return None
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        return f"{bad} of {value.numel()} values are NaN or infinite"
    if key.endswith("running_var") and bool((value < 0).any()):
        return "negative variances"
    return None


def listed(title: str, keys: Iterable[str]) -> str:
    """The number of keys, the title, and a line for each key, to append to a message; empty without keys."""
    lines = list(keys)
    return f"\n  {len(lines)} {title}:" + "".join(f"\n    {line}" for line in lines) if lines else ""


def _expected(network: AlignSeg) -> StateDict:
    return {key: value for key, value in network.state_dict().items() if _is_weight(key)}


def _is_weight(key: str) -> bool:
    # BatchNorm uses its batch counter only with a momentum of None, which AlignSeg does not have.
    return not key.endswith("num_batches_tracked")


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    return (value.half() if half and value.ndim > 1 else value.float()).contiguous()

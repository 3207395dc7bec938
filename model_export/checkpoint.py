"""Checkpoints: strict, weights-only. Reads the project's safetensors and the published InPlaceABN state dicts."""

import json
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model_export import published
from model_export.alignseg import AlignSeg, Architecture, Preprocessing
from model_export.atomic import replacing
from model_export.checkpoints import onnx_weights

FORMAT = "alignseg-1"
StateDict = dict[str, Tensor]


class CheckpointError(Exception):
    """The file is not a checkpoint that can be loaded; the message names each key that does not fit."""


def load(path: Path) -> AlignSeg:
    """Build the network that a checkpoint describes and load its weights, on the CPU, float32, in eval mode.

    path: `.safetensors` written by `save`, the `.onnx` of an export with the slim decoder, or a published `.pth`/`.pt`
        state dict (ResNet-50 or -101, any number of classes, with or without `dsn`, `num_batches_tracked` and a
        `module.` prefix), which loads with sampling="published" and BGR mean subtraction.
    Raises CheckpointError when the file is not a checkpoint, holds code, or a key is missing, unexpected or misshapen;
    FileNotFoundError when there is no file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    readers = {".safetensors": _load_own, ".onnx": _load_export}
    return readers.get(path.suffix, _load_published)(path).eval()


def save(path: Path, network: AlignSeg, *, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and architecture as safetensors; `path` is either whole or untouched.

    half: store matrices and kernels as float16 (norms and biases stay float32); loading gives float32 again.
    metadata: further strings to keep beside the architecture.
    """
    state = {key: _stored(value, half) for key, value in network.state_dict().items() if _is_weight(key)}
    header = {**(metadata or {}), "format": FORMAT, "architecture": json.dumps(asdict(network.architecture))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(state, temporary, metadata=header)


def read_metadata(path: Path) -> dict[str, str]:
    """The strings kept in a safetensors checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from None


def _load_own(path: Path) -> AlignSeg:
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has no AlignSeg architecture in its metadata: got format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}. Only files written by model_export.checkpoint.save are read as safetensors."
        )
    network = _build(path, metadata.get("architecture", ""))
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no mapping)
    _load_strictly(path, network, state, names={key: key for key in _expected(network)})
    return network


def _load_export(path: Path) -> AlignSeg:
    try:
        architecture, initialisers = onnx_weights.read(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    network = _build(path, architecture)
    expected = _expected(network)
    state = {key: value for key, value in initialisers.items() if key in expected}  # the others are constants
    _load_strictly(path, network, state, names={key: key for key in expected})
    return network


def _build(path: Path, architecture: str) -> AlignSeg:
    """The untrained network of an architecture given as JSON."""
    try:
        return AlignSeg.from_architecture(_architecture(path, architecture))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is of a network that can't be built: {error}") from None


def _architecture(path: Path, text: str) -> Architecture:
    try:
        fields = json.loads(text)
        preprocessing = fields.pop("preprocessing")
        order, mean, std = (preprocessing[key] for key in ("channel_order", "mean", "std"))
        return Architecture(**fields, preprocessing=Preprocessing(order, tuple(mean), tuple(std)))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: the architecture in its metadata cannot be read: {error!r}. Got {text}"
        ) from None


def _load_published(path: Path) -> AlignSeg:
    state = published.without_wrapping(read_state_dict(path))
    try:
        network = AlignSeg.from_architecture(published.architecture(state))
    except KeyError as error:
        raise CheckpointError(
            f"{path} is not an AlignSeg state dict: key {error} is missing. "
            f"It has {len(state)} keys, such as {', '.join(sorted(state)[:3])}."
        ) from None
    names = {key: published.name_of(key) for key in _expected(network)}
    _load_strictly(path, network, published.without_abn(state), names)
    return network


def read_state_dict(path: Path) -> StateDict:
    """Names to tensors of a PyTorch file, from under `state_dict` where it has that; nothing in the file is run.

    Raises CheckpointError when the file is none, is damaged, or holds anything else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and is not run. Save its state dict alone: "
            f"torch.save(network.state_dict(), 'weights.pth'). ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a PyTorch file, or is damaged: {error}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a state dict: names to tensors.")
    return dict(content)


def _load_strictly(path: Path, network: AlignSeg, state: StateDict, names: Mapping[str, str]) -> None:
    """names: the network's key -> the file's key."""
    expected = _expected(network)
    missing = sorted(names[key] for key in expected if names[key] not in state)
    unexpected = sorted(state.keys() - set(names.values()))
    misshapen = [
        f"{name}: got {tuple(state[name].shape)}, expected {tuple(expected[key].shape)}"
        for key, name in names.items()
        if name in state and state[name].shape != expected[key].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"{path} does not fit {network.architecture}:"
            + listed("missing", missing)
            + listed("unexpected", unexpected)
            + listed("misshapen", misshapen)
        )
    network.load_state_dict({key: state[name] for key, name in names.items()}, strict=False)  # all but the counters


def listed(title: str, keys: Iterable[str]) -> str:
    """A heading with the count and a line for each key, for the end of a message; nothing when there is none."""
    lines = list(keys)
    return f"\n  {len(lines)} {title}:" + "".join(f"\n    {line}" for line in lines) if lines else ""


def _expected(network: AlignSeg) -> StateDict:
    return {key: value for key, value in network.state_dict().items() if _is_weight(key)}


def _is_weight(key: str) -> bool:
    # BatchNorm counts its batches only for a momentum of None, which AlignSeg does not use.
    return not key.endswith("num_batches_tracked")


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    return (value.half() if half and value.ndim > 1 else value.float()).contiguous()

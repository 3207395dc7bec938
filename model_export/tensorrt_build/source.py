"""What an engine is built from: a model folder, an ONNX file or a checkpoint."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from model_export import export
from service.model_folder import manifest as manifests


@dataclass(frozen=True, slots=True)
class Source:
    """An ONNX file, the model folder to put engines into, and the (height, width) buckets to build for."""

    onnx: Path
    folder: Path
    buckets: tuple[tuple[int, int], ...]


def find(path: Path, buckets: Sequence[tuple[int, int]] | None, export_to: Path | None = None) -> Source:
    """The ONNX file of a model folder, with its hash verified; an ONNX file; or a checkpoint, exported beside itself.

    buckets: (height, width); None: those of the model folder, or the export's defaults. export_to: folder for the ONNX
    of a checkpoint, instead of its own.
    Raises ManifestError, CheckpointError, ParityError or FileNotFoundError.
    """
    if path.is_dir():
        manifest = manifests.load(path)
        return Source(manifests.verified_file(path, manifest, "onnx"), path, tuple(buckets or manifest.input.buckets))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a model folder, an ONNX file or a checkpoint. "
            "Create a model folder with `alignseg export`."
        )
    model = path if path.suffix == ".onnx" else _export(path, export_to or path.parent)
    return Source(model, path.parent, tuple(buckets or export.DEFAULT_BUCKETS))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and the sha256 of the bytes that it was read from: the file may be replaced during a build."""

    model: ModelProto
    sha256: str


def read(path: Path) -> LoadedModel:
    """Read an ONNX file once."""
    content = path.read_bytes()
    return LoadedModel(onnx.load_model_from_string(content), hashlib.sha256(content).hexdigest())


def num_classes(model: ModelProto) -> int:
    """From the kernel of the last convolution, the head's 1x1: (num_classes, channels, 1, 1)."""
    graph = model.graph
    dims = {weight.name.removesuffix(".half"): weight.dims for weight in graph.initializer}
    last = [node for node in graph.node if node.op_type == "Conv"][-1]
    return int(dims[last.input[1]][0])


def _export(checkpoint_path: Path, folder: Path) -> Path:
    from model_export.checkpoints import checkpoint  # noqa: PLC0415 - only checkpoints need PyTorch
    from model_export.onnx_export import exporter, parity  # noqa: PLC0415 - only checkpoints need PyTorch

    path = folder / checkpoint_path.with_suffix(".onnx").name
    rows = exporter.export(checkpoint.load(checkpoint_path), path, export.read_frames(None))
    sys.stdout.write(f"export    {checkpoint_path} to {path}\n{parity.table(rows)}\n")
    return path

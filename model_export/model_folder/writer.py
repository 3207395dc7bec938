"""Writes weights/<model>/, the only thing that the export hands to the service."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import onnx

from model_export.alignseg import AlignSeg
from model_export.checkpoints import checkpoint
from model_export.model_folder.provenance import Provenance
from model_export.onnx_export import calibration as int8_calibration
from model_export.onnx_export import exporter, parity
from service.engines import reference_check
from service.engines.onnxruntime.engine import OnnxRuntimeEngine
from service.engines.openvino import quantization
from service.engines.reference_check import ReferenceCheck
from service.model_folder.manifest import (
    FILE_NAME,
    Architecture,
    FileEntry,
    InputProfile,
    Manifest,
    Preprocessing,
    verified_file,
)
from service.types import UInt8Array

CHECKPOINT, ONNX, INLINED, INT8, REFERENCE_CHECK = (
    "checkpoint", "onnx", "inlined", quantization.ROLE, reference_check.ROLE,
)  # fmt: skip
_FILES = {
    CHECKPOINT: "model.safetensors",
    ONNX: "model.onnx",
    INLINED: "model.inlined.onnx",
    INT8: "int8.json",
    REFERENCE_CHECK: "self_test.npz",
}


def write(
    folder: Path,
    network: AlignSeg,
    provenance: Provenance,
    buckets: Sequence[tuple[int, int]],
    frames: Sequence[UInt8Array],
    *,
    description: str,
    model_version: str,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
    calibration: Sequence[UInt8Array] = (),
    with_checkpoint: bool = True,
    with_inlined: bool = False,
) -> list[parity.Row]:
    """Export `network` into `folder`; the model is named after it. Old files stay until the new ones are checked.

    buckets: (height, width) of the served tensors. frames: (H, W, 3) uint8 RGB images for the comparison.
    metadata: stored in the checkpoint's header. half: store weights as float16; the export computes with these.
    calibration: typical images, (H, W, 3) uint8 RGB, to measure int8 ranges on; empty: the folder has no int8.
    with_checkpoint: False leaves out model.safetensors, which doubles the folder's size; PyTorch then reads the weights
        from model.onnx (see checkpoints/onnx_weights.py), which only networks with the slim decoder allow.
    with_inlined: also write model.inlined.onnx, which other tools read; see onnx_export/inline.py.
    Returns the comparison. Raises parity.ParityError when the export differs from PyTorch, and ValueError for a network
    that can't be read from its export; then writes nothing.
    """
    if not (with_checkpoint or network.slim):
        raise ValueError(
            f"with_checkpoint=False: the export of a {network.architecture.backbone} contains merged weights, from "
            "which the checkpoint can't be restored. Keep the checkpoint."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        staging = Path(name)
        checkpoint.save(staging / _FILES[CHECKPOINT], network, half=half, metadata=metadata)
        stored = checkpoint.load(staging / _FILES[CHECKPOINT])
        rows = exporter.export(stored, staging / _FILES[ONNX], frames)
        if with_inlined:
            exporter.export_inlined(stored, staging / _FILES[ONNX], staging / _FILES[INLINED], frames)
        if calibration:
            ranges = int8_calibration.measure(onnx.load(staging / _FILES[ONNX]), calibration)
            int8_calibration.write(staging / _FILES[INT8], ranges)
        check = ReferenceCheck.from_reference(OnnxRuntimeEngine(staging / _FILES[ONNX]), buckets[0])
        check.save(staging / _FILES[REFERENCE_CHECK])
        if not with_checkpoint:
            checkpoint.load(staging / _FILES[ONNX])  # raises CheckpointError if anything is missing
            (staging / _FILES[CHECKPOINT]).unlink()
        names = {role: file for role, file in _FILES.items() if (staging / file).is_file()}
        files = {role: FileEntry.of(staging / file, staging) for role, file in names.items()}
        manifest = _manifest(folder.name, stored, provenance, buckets, files, description, model_version)
        (staging / FILE_NAME).write_text(_json(manifest))
        folder.mkdir(exist_ok=True)
        for file in (*names.values(), FILE_NAME):  # the manifest last: it has the hashes of the others
            shutil.move(staging / file, folder / file)
        for role in _FILES.keys() - names.keys():
            (folder / _FILES[role]).unlink(missing_ok=True)  # belongs to the previous model
    return rows


def checkpoint_of(folder: Path, manifest: Manifest) -> Path:
    """The verified file with the weights for PyTorch: the checkpoint, or model.onnx in a folder without one.

    Raises service.errors.ManifestError when it is missing or damaged.
    """
    return verified_file(folder, manifest, CHECKPOINT if CHECKPOINT in manifest.files else ONNX)


def _json(manifest: Manifest) -> str:
    """Indented, but with each list of numbers on one line."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return re.sub(r"\[\s*([\d.,\s-]+?)\s*\]", lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def _manifest(
    name: str,
    network: AlignSeg,
    provenance: Provenance,
    buckets: Sequence[tuple[int, int]],
    files: dict[str, FileEntry],
    description: str,
    model_version: str,
) -> Manifest:
    fields = asdict(network.architecture)
    del fields["align_fa"], fields["align_cm"]  # switches of the ablation, which the service does not need
    return Manifest(
        name=name,
        version=model_version,
        description=description,
        preprocessing=Preprocessing(**fields.pop("preprocessing")),
        architecture=Architecture(**fields),
        classes=provenance.classes,
        input=InputProfile(buckets=tuple(buckets)),
        files=files,
        metrics=dict(provenance.metrics),
        trained_on=provenance.trained_on,
        terms=provenance.terms,
        built_by=f"alignseg-serve {version('alignseg-serve')}",
        built_with={package: version(package) for package in ("torch", "onnx", "onnxscript", "onnxruntime")},
    )

"""weights/<model>/: the only thing that the checkpoint road hands to the picture road."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import onnx

from model_export import checkpoint, export_onnx, int8_ranges, parity
from model_export.alignseg import AlignSeg
from model_export.provenance import Provenance
from service.contracts import UInt8Array
from service.engines import openvino_int8, self_test
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.engines.self_test import SelfTest
from service.manifest import FILE_NAME, Architecture, FileEntry, InputProfile, Manifest, Preprocessing, verified_file

CHECKPOINT, ONNX, INT8, SELF_TEST = "checkpoint", "onnx", openvino_int8.ROLE, self_test.ROLE
_FILES = {CHECKPOINT: "model.safetensors", ONNX: "model.onnx", INT8: "int8.json", SELF_TEST: "self_test.npz"}


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
) -> list[parity.Row]:
    """Export `network` into `folder`, named after it; the folder's old contents stay until all is made and checked.

    buckets: (height, width) of the served tensors. frames: (H, W, 3) uint8 RGB pictures for the comparison.
    metadata: kept in the checkpoint's header. half: store weights as float16; the export computes with these.
    calibration: typical pictures, (H, W, 3) uint8 RGB, to measure int8 ranges on; none: the folder has no int8.
    with_checkpoint: False leaves out model.safetensors, which doubles the folder's size; PyTorch then reads the weights
        of model.onnx (see checkpoints/onnx_weights.py), which the slim decoder alone allows.
    Returns the comparison's rows. Raises parity.ParityError on a breach, and then writes nothing, and ValueError for a
    network that can't be read from its export.
    """
    if not (with_checkpoint or network.slim):
        raise ValueError(
            f"with_checkpoint: got False for a {network.architecture.backbone}, whose export holds merged weights; "
            "keep the checkpoint"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        staging = Path(name)
        checkpoint.save(staging / _FILES[CHECKPOINT], network, half=half, metadata=metadata)
        stored = checkpoint.load(staging / _FILES[CHECKPOINT])
        rows = export_onnx.export(stored, staging / _FILES[ONNX], frames)
        if calibration:
            ranges = int8_ranges.measure(onnx.load(staging / _FILES[ONNX]), calibration)
            int8_ranges.write(staging / _FILES[INT8], ranges)
        SelfTest.ask(OnnxRuntimeEngine(staging / _FILES[ONNX]), buckets[0]).save(staging / _FILES[SELF_TEST])
        if not with_checkpoint:
            checkpoint.load(staging / _FILES[ONNX])  # raises CheckpointError if anything is missing
            (staging / _FILES[CHECKPOINT]).unlink()
        made = {role: file for role, file in _FILES.items() if (staging / file).is_file()}
        files = {role: FileEntry.of(staging / file, staging) for role, file in made.items()}
        manifest = _manifest(folder.name, stored, provenance, buckets, files, description, model_version)
        (staging / FILE_NAME).write_text(_json(manifest))
        folder.mkdir(exist_ok=True)
        for file in (*made.values(), FILE_NAME):  # the manifest last: it vouches for the others
            shutil.move(staging / file, folder / file)
        for role in _FILES.keys() - made.keys():
            (folder / _FILES[role]).unlink(missing_ok=True)  # of the model that was here before
    return rows


def checkpoint_of(folder: Path, manifest: Manifest) -> Path:
    """The verified file that PyTorch reads the weights from: the checkpoint, or in a folder without one the ONNX.

    Raises service.errors.ManifestError when it is missing or damaged.
    """
    return verified_file(folder, manifest, CHECKPOINT if CHECKPOINT in manifest.files else ONNX)


def _json(manifest: Manifest) -> str:
    """Indented, but with each list of numbers on one line."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return re.sub(r"\[\s*([\d.,\s-]+?)\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


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
    del fields["align_fa"], fields["align_cm"]  # the ablation's switches; serving reads the graph
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

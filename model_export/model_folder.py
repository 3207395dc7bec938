"""weights/<model>/: the only thing that the checkpoint road hands to the picture road."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from model_export import checkpoint, export_onnx, parity
from model_export.alignseg import AlignSeg
from service.contracts import UInt8Array
from service.manifest import FILE_NAME, Architecture, ClassEntry, FileEntry, InputProfile, Manifest, Preprocessing

CHECKPOINT, ONNX = "checkpoint", "onnx"
_FILES = {CHECKPOINT: "model.safetensors", ONNX: "model.onnx"}
PROVENANCE = "provenance"  # key in a checkpoint's metadata


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a checkpoint was trained on. `to_metadata` goes into checkpoint.save(metadata=...)."""

    classes: tuple[ClassEntry, ...]
    trained_on: str
    terms: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """As strings for a safetensors header."""
        fields = {**asdict(self), "classes": [entry.model_dump() for entry in self.classes]}
        return {PROVENANCE: json.dumps(fields)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Provenance | None":
        """What `to_metadata` wrote, or None where nothing was."""
        if PROVENANCE not in metadata:
            return None
        fields = json.loads(metadata[PROVENANCE])
        classes = tuple(ClassEntry.model_validate(entry) for entry in fields.pop("classes"))
        return cls(classes, **fields)


def write(
    folder: Path,
    network: AlignSeg,
    provenance: Provenance,
    buckets: Sequence[tuple[int, int]],
    frames: Sequence[UInt8Array],
    *,
    description: str,
    model_version: str,
    half: bool = False,
) -> list[parity.Row]:
    """Export `network` into `folder`, named after it; the folder's old contents stay until all is made and checked.

    buckets: (height, width) of the served tensors. frames: (H, W, 3) uint8 RGB pictures for the comparison.
    half: store weights as float16; the exported model computes with these rounded weights.
    Returns the comparison's rows. Raises parity.ParityError on a breach, and then writes nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        staging = Path(name)
        checkpoint.save(staging / _FILES[CHECKPOINT], network, half=half, metadata=provenance.to_metadata())
        stored = checkpoint.load(staging / _FILES[CHECKPOINT])
        rows = export_onnx.export(stored, staging / _FILES[ONNX], frames)
        files = {role: FileEntry.of(staging / file, staging) for role, file in _FILES.items()}
        manifest = _manifest(folder.name, stored, provenance, buckets, files, description, model_version)
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (staging / FILE_NAME).write_text(text + "\n")
        folder.mkdir(exist_ok=True)
        for file in (*_FILES.values(), FILE_NAME):  # the manifest last: it vouches for the others
            shutil.move(staging / file, folder / file)
    return rows


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

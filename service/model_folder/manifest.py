"""weights/<model>/model.json: everything that the service knows of a model, written by export."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import ManifestError
from service.types import Size, UInt8Array

FILE_NAME = "model.json"
Byte = Annotated[int, Field(ge=0, le=255)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassEntry(_Strict):
    """One class: its id is its index in the list."""

    name: str = Field(min_length=1)
    color: tuple[Byte, Byte, Byte]


class InputProfile(_Strict):
    """The sizes a model is served at.

    buckets: (height, width) of the input tensors, best first; each image is resized and padded to the bucket in which
        it keeps most of its pixels.
    """

    buckets: tuple[Size, ...] = Field(min_length=1)


class Preprocessing(_Strict):
    """What the graph does to its uint8 RGB input. For information: the graph does it, not the service."""

    channel_order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class FileEntry(_Strict):
    """A file of the model folder."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path, folder: Path) -> Self:
        """Describe the file `path` inside `folder`."""
        return cls(path=str(path.relative_to(folder)), sha256=sha256(path), bytes=path.stat().st_size)


class Architecture(_Strict):
    """The arguments of AlignSeg(...)."""

    backbone: str
    num_classes: int = Field(ge=1, le=255)
    channels: int = Field(ge=1)
    sampling: Literal["standard", "published"]
    aux_head: bool


class Manifest(_Strict):
    """A model folder's contents, validated.

    files: by role: "onnx", "checkpoint", "self_test" and, if calibrated, "int8".
    metrics: measured on the shipped files, e.g. {"camvid_val_miou": 0.6}.
    built_with: versions of the software that made the files.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = Field(min_length=1)
    description: str
    architecture: Architecture
    classes: tuple[ClassEntry, ...] = Field(min_length=1, max_length=255)
    input: InputProfile
    preprocessing: Preprocessing
    files: dict[str, FileEntry]
    metrics: dict[str, float] = {}
    trained_on: str
    terms: str
    built_by: str
    built_with: dict[str, str]

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        if len(self.classes) != self.architecture.num_classes:
            raise ValueError(f"got {len(self.classes)} classes, expected the network's {self.architecture.num_classes}")
        if len({c.name for c in self.classes}) != len(self.classes):
            raise ValueError("class names must be unique")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each class id, in order."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def palette(self) -> UInt8Array:
        """(num_classes, 3) uint8 RGB colours."""
        return np.array([c.color for c in self.classes], dtype=np.uint8)


def load(folder: Path) -> Manifest:
    """Read and validate `folder`/model.json.

    Raises ManifestError when the file is missing or invalid.
    """
    path = folder / FILE_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ManifestError(
            f"No model at {folder}: {path} does not exist. Set ALIGNSEG_MODEL to a folder made by `alignseg export`."
        ) from None
    except OSError as error:
        raise ManifestError(
            f"{path} cannot be read: {error}. Set ALIGNSEG_MODEL to a folder made by `alignseg export`."
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'model'}: {e['msg']}" for e in error.errors())
        raise ManifestError(
            f"{path} is not a model manifest of format 1: {problems}. Export the model again."
        ) from None


def verified_file(folder: Path, manifest: Manifest, role: str) -> Path:
    """The path of the file with this role, after checking its sha256.

    Raises ManifestError when model.json does not name it, or it is missing, or not the file that was exported.
    """
    entry = manifest.files.get(role)
    if entry is None:
        raise ManifestError(
            f"{folder / FILE_NAME} has no file with role {role!r}, only {sorted(manifest.files)}. "
            "Export the model again."
        )
    path = folder / entry.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ManifestError(
            f"{folder / FILE_NAME}: file {entry.path!r} is outside the model folder. Export the model again."
        )
    if not path.is_file():
        raise ManifestError(f"{path} is missing. Download the model folder again, or run `alignseg export`.")
    actual = sha256(path)
    if actual != entry.sha256:
        raise ManifestError(
            f"{path} is not the file that was exported: sha256 {actual}, expected {entry.sha256}. "
            "Download the model folder again, or run `alignseg export`."
        )
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What each mask was made from: a file of JSON lines beside the masks, `.alignseg-masks.jsonl`.

Without it, a run with another model, or after an image was replaced, would take the old masks for its own.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

FILE_NAME: Final = ".alignseg-masks.jsonl"


@dataclass(frozen=True, slots=True)
class ModelId:
    """What identifies a model. sha256: of the ONNX file; None when a server does not state it."""

    name: str
    version: str
    sha256: str | None = None

    def equals(self, other: "ModelId") -> bool:
        """Whether both may be the same model."""
        same_file = self.sha256 == other.sha256 or None in (self.sha256, other.sha256)
        return (self.name, self.version) == (other.name, other.version) and same_file


class Record:
    """The record of one folder. Threads may share it. Each line is complete or ignored, so a run may end anywhere."""

    def __init__(self, folder: Path, options: str = "") -> None:
        """options: of this run, those that change the contents of files."""
        self._folder = folder
        self._path = folder / FILE_NAME
        self._options = options
        self._lock = Lock()
        self._entries = _read(self._path)

    def contains(self, file: Path) -> bool:
        """Whether it is known what `file` was made from."""
        return self._key(file) in self._entries

    def matches(self, file: Path, image: Path, model: ModelId) -> bool:
        """Whether `file` was made from this image, as it is now, by this model, with these options."""
        entry = self._entries.get(self._key(file))
        return entry is not None and entry[0] == _fingerprint(image, self._options) and entry[1].equals(model)

    def add(self, file: Path, image: Path, model: ModelId) -> None:
        """Write a line, before `file` is written. Raises OSError."""
        key, image_print = self._key(file), _fingerprint(image, self._options)
        line = json.dumps({"file": key, "image": image_print, "model": asdict(model)})
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as out:
                out.write(f"\n{line}")  # the newline first: after a line that was cut off, this one is still valid
            self._entries[key] = image_print, model

    def _key(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def _fingerprint(image: Path, options: str) -> str:
    try:
        status = image.stat()
    except OSError:
        return "missing"
    return fingerprint(str(image.resolve()), status.st_size, status.st_mtime_ns, options)


def _read(path: Path) -> dict[str, tuple[str, ModelId]]:
    entries: dict[str, tuple[str, ModelId]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return entries
    for line in lines:
        try:
            fields: dict[str, Any] = json.loads(line)
            entries[fields["file"]] = fields["image"], ModelId(**fields["model"])
        except (ValueError, TypeError, KeyError):
            continue  # an empty line, or one that was cut off
    return entries


def fingerprint(path: str, size: int, mtime_ns: int, options: str = "") -> str:
    """Of the path, size and time of the last change, and the options.

    Millions of files are not read again to see that they are done.
    """
    text = f"{path}\0{size}\0{mtime_ns}" + (f"\0{options}" if options else "")
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

"""Folders and files by path or URI: local, s3://, gs:// and other storage that pyarrow or fsspec supports."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import fsspec
import pyarrow as pa
from pyarrow import fs as arrow_fs

from alignseg_serve.segmentation.record import fingerprint
from service.errors import AlignSegError
from service.files import atomic_replace

_LOCAL: Final = {"local", "py::fsspec+('file', 'local')"}  # where an incomplete file is visible while it is written


@dataclass(frozen=True, slots=True)
class StoragePath:
    """A folder or file. system: pyarrow's file system. path: within that file system."""

    system: Any
    path: str

    def __truediv__(self, name: str) -> "StoragePath":
        return StoragePath(self.system, f"{self.path.rstrip('/')}/{name}")

    @property
    def is_folder(self) -> bool:
        """Whether it exists and is a folder."""
        return bool(self.system.get_file_info(self.path).type == arrow_fs.FileType.Directory)

    @property
    def is_file(self) -> bool:
        """Whether it exists and is a file."""
        return bool(self.system.get_file_info(self.path).type == arrow_fs.FileType.File)

    def read(self) -> bytes:
        """Read the file. Raises OSError."""
        with self.system.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write(self, data: bytes) -> None:
        """Write the file atomically: object stores show it once it is closed, others are renamed. Raises OSError."""
        if self.system.type_name in _LOCAL:
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_replace(path, durable=False) as temporary:
                temporary.write_bytes(data)
            return
        with self.system.open_output_stream(self.path) as stream:
            stream.write(data)

    def delete(self) -> None:
        """Delete the file. Raises OSError."""
        self.system.delete_file(self.path)

    def fingerprint(self) -> str:
        """Of the file: its path, size and time of the last change."""
        return _fingerprint(self.system.get_file_info(self.path))

    def files(self, without: "StoragePath | None" = None) -> Iterator[str]:
        """Paths of all files below the folder, relative to it; see `fingerprints`."""
        return (path for path, _ in self.fingerprints(without))

    def fingerprints(self, without: "StoragePath | None" = None) -> Iterator[tuple[str, str]]:
        """(path, fingerprint) of all files below the folder. Lists one folder at a time: there may be millions.

        Paths are relative to the folder. without: a folder that is left out. Links to local folders are followed, but
        none to a folder that contains it.
        """
        left_out = without._real_path(without.path) if without is not None else None
        folders: list[tuple[str, frozenset[str]]] = [(self.path.rstrip("/"), frozenset())]
        while folders:
            folder, above = folders.pop()
            real = self._real_path(folder)
            if real in above or real == left_out:
                continue
            selector = arrow_fs.FileSelector(folder, allow_not_found=True)
            for entry in sorted(self.system.get_file_info(selector), key=lambda info: str(info.path)):
                if entry.type == arrow_fs.FileType.Directory:
                    folders.append((entry.path, above | {real}))
                elif entry.type == arrow_fs.FileType.File:
                    yield entry.path.removeprefix(self.path.rstrip("/") + "/"), _fingerprint(entry)

    def _real_path(self, path: str) -> str:
        """Without links, where there are any."""
        return os.path.realpath(path) if self.system.type_name in _LOCAL else path.rstrip("/")

    def clear(self) -> None:
        """Delete the folder's contents, if the folder exists."""
        if self.is_folder:
            self.system.delete_dir_contents(self.path)


def _fingerprint(info: Any) -> str:
    return fingerprint(info.path, info.size or 0, info.mtime_ns or 0)


def absolute(name: str) -> str:
    """An absolute path, for processes with another working directory; URIs are unchanged."""
    return name if "://" in name else str(Path(name).resolve())


@cache
def open_path(name: str) -> StoragePath:
    """The file system and path of a local path or a URI such as s3://bucket/folder. Raises AlignSegError."""
    if "://" not in name:
        return StoragePath(arrow_fs.LocalFileSystem(), absolute(name))
    try:
        return StoragePath(*arrow_fs.FileSystem.from_uri(name))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # a scheme that pyarrow does not support: fsspec may
    except OSError as error:
        raise AlignSegError(f"{name} can't be accessed: {error}") from error
    try:
        system, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise AlignSegError(
            f"{name} can't be accessed: {error}. Install fsspec's package for this kind of storage."
        ) from error
    return StoragePath(arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(system)), path)

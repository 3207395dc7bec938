"""Folders and files by name, here or on object storage: s3://, gs:// and what else pyarrow or fsspec can read."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import fsspec
import pyarrow as pa
from pyarrow import fs as arrow_fs

from service.errors import AlignSegError
from service.files import atomic_replace

_LOCAL: Final = {"local", "py::fsspec+('file', 'local')"}  # filesystems where a half-written file can be seen


@dataclass(frozen=True, slots=True)
class StoragePath:
    """A folder or file. system: pyarrow's. path: as that system names it."""

    system: Any
    path: str

    def __truediv__(self, inside: str) -> "StoragePath":
        return StoragePath(self.system, f"{self.path.rstrip('/')}/{inside}")

    @property
    def is_folder(self) -> bool:
        """Whether it is there and a folder."""
        return bool(self.system.get_file_info(self.path).type == arrow_fs.FileType.Directory)

    @property
    def is_file(self) -> bool:
        """Whether it is there and a file."""
        return bool(self.system.get_file_info(self.path).type == arrow_fs.FileType.File)

    def read(self) -> bytes:
        """The whole file. Raises OSError."""
        with self.system.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write(self, data: bytes) -> None:
        """The whole file or nothing: object stores show a file once it is closed, a local one is renamed."""
        if self.system.type_name in _LOCAL:
            path = Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_replace(path, durable=False) as temporary:
                temporary.write_bytes(data)
            return
        with self.system.open_output_stream(self.path) as stream:
            stream.write(data)

    def files(self) -> Iterator[str]:
        """Paths below the folder, relative to it; a folder at a time, so that millions need no memory."""
        folders = [self.path.rstrip("/")]
        while folders:
            folder = folders.pop()
            selector = arrow_fs.FileSelector(folder, allow_not_found=True)
            for found in sorted(self.system.get_file_info(selector), key=lambda info: str(info.path)):
                if found.type == arrow_fs.FileType.Directory:
                    folders.append(found.path)
                elif found.type == arrow_fs.FileType.File:
                    yield found.path.removeprefix(self.path.rstrip("/") + "/")

    def clear(self) -> None:
        """Delete the folder's contents, if there are any."""
        if self.is_folder:
            self.system.delete_dir_contents(self.path)


def absolute(name: str) -> str:
    """The same place for processes that run in other folders."""
    return name if "://" in name else str(Path(name).resolve())


@cache
def place(name: str) -> StoragePath:
    """A path, or a URI such as s3://bucket/folder. Raises AlignSegError."""
    if "://" not in name:
        return StoragePath(arrow_fs.LocalFileSystem(), absolute(name))
    try:
        return StoragePath(*arrow_fs.FileSystem.from_uri(name))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # not one of pyarrow's own
    except OSError as error:
        raise AlignSegError(f"{name} can't be reached: {error}") from error
    try:
        system, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        raise AlignSegError(
            f"{name} can't be reached: {error}. fsspec needs a package for this kind of storage."
        ) from error
    return StoragePath(arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(system)), path)

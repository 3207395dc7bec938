"""Compiled models kept on disk, so that the second start of a server loads in a tenth of a second instead of half.

One file holds the model compiled for one input size. Its name is a hash of everything that the compiled model depends
on, so a file is never out of date. It begins with the SHA-256 of what follows, because OpenVINO loads a file with a
changed byte, and gives other class maps. A file that is damaged or does not load is deleted, and the model is compiled
again.
"""

import contextlib
import hashlib
import io
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from service.files import atomic_replace

_FILES_KEPT: Final = 64  # 6 to 15 MB each at 360x480
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_ABANDONED_S: Final = 600.0  # far longer than a write takes
_log: Final = logging.getLogger("alignseg.engines")
_PACKAGE: Final = Path(__file__).parent


def default_folder() -> Path | None:
    """$XDG_CACHE_HOME/alignseg-serve, or ~/.cache/alignseg-serve as the XDG specification says; None without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "alignseg-serve"
    except RuntimeError:  # a user ID without an entry in the password database, as in many containers
        return None


class CompileCache:
    """The compiled models of one ONNX file under one configuration."""

    def __init__(
        self, core: Any, folder: Path | None, model: Path, properties: Mapping[str, object], *other_inputs: object
    ) -> None:
        """Hash what the compiled model depends on.

        core: openvino.Core, whose processor the model is compiled for. folder: where the files lie; None disables the
        cache, and a folder that can't be written is not an error. model: the ONNX file. properties: OpenVINO's, as
        given to compile_model. other_inputs: anything else that changes the graph, as values with a stable repr.
        """
        import openvino  # noqa: PLC0415 - optional

        self._core, self._folder, self._properties = core, folder, dict(properties)
        processor = core.get_property("CPU", "FULL_DEVICE_NAME"), core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        inputs = openvino.__version__, processor, sorted(self._properties.items()), other_inputs
        digests = [repr(inputs).encode(), source_digest(_PACKAGE), hashlib.sha256(model.read_bytes()).digest()]
        self._key = hashlib.sha256(b"".join(digests)).hexdigest()[:32]

    def load(self, shape: tuple[int, ...]) -> Any:
        """The model compiled for inputs of this shape; None when there is no file, or it is damaged."""
        path = self._path(shape)
        if path is None:
            return None
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            with contextlib.suppress(OSError):  # the folder may be read-only
                os.utime(path)  # the least recently used files are deleted first
            with contextlib.suppress(RuntimeError):
                if (compiled := _verified(content)) is not None:
                    return self._core.import_model(io.BytesIO(compiled), "CPU", self._properties)
            _log.warning("%s is damaged; the model is compiled again", path)
            path.unlink()
        return None

    def store(self, shape: tuple[int, ...], compiled: Any) -> None:
        """Write the compiled model, if that is possible, and delete the least recently used files beyond 64."""
        with contextlib.suppress(OSError, RuntimeError):
            if (path := self._path(shape)) is not None:
                exported = compiled.export_model()
                content = exported if isinstance(exported, bytes) else exported.getvalue()
                path.parent.mkdir(parents=True, exist_ok=True)
                _delete_abandoned(path.parent)
                with atomic_replace(path, durable=False) as temporary:
                    temporary.write_bytes(hashlib.sha256(content).digest() + content)
                for old in sorted(path.parent.glob("*.openvino"), key=lambda p: p.stat().st_mtime)[:-_FILES_KEPT]:
                    old.unlink(missing_ok=True)

    def _path(self, shape: tuple[int, ...]) -> Path | None:
        name = f"{self._key}-{'x'.join(map(str, shape))}.openvino"
        return None if self._folder is None else self._folder / name


def _verified(content: bytes) -> bytes | None:
    """What follows the checksum, if it is intact."""
    compiled = content[_DIGEST_BYTES:]
    return compiled if hashlib.sha256(compiled).digest() == content[:_DIGEST_BYTES] else None


def _delete_abandoned(folder: Path) -> None:
    """Delete the temporary files of processes that were killed while they wrote."""
    for temporary in folder.glob(".*.openvino.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _ABANDONED_S:
                temporary.unlink()


def source_digest(package: Path) -> bytes:
    """SHA-256 over the names and contents of all .py files below `package`.

    The graph is rewritten by this package's code, so a model compiled before the code changed must not be loaded.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)} {len(content)}\n".encode())
        digest.update(content)
    return digest.digest()

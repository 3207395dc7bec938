"""Compiled models kept on disk: the second start of a server loads in a tenth of a second what took half a second.

A file holds one compiled size. Its name tells all that went into it, so nothing is ever out of date; it is written
whole or not at all, and one that does not load is as good as none.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FILES_KEPT: Final = 64  # 6 to 15 MB each at 360x480


def default_folder() -> Path | None:
    """$XDG_CACHE_HOME/alignseg-serve, or ~/.cache/alignseg-serve as the XDG specification says; None without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "alignseg-serve"
    except RuntimeError:  # a user whom the system does not know, as in many containers
        return None


class Cache:
    """folder: where files lie; None keeps nothing. One that can't be written is no error."""

    def __init__(self, core: Any, folder: Path | None, model: Path, how: Mapping[str, object], *more: object) -> None:
        """Compiled from `model` with the properties `how` and all that `more` tells, on this core's processor."""
        import openvino  # noqa: PLC0415 - optional

        self._core, self._folder, self._how = core, folder, dict(how)
        processor = core.get_property("CPU", "FULL_DEVICE_NAME"), core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        told = repr((openvino.__version__, processor, sorted(self._how.items()), more)).encode()
        lowering = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
        self._key = hashlib.sha256(b"".join([told, *lowering, model.read_bytes()])).hexdigest()[:32]

    def load(self, shape: tuple[int, ...]) -> Any:
        """The compiled model for pictures of this shape; None when there is none that loads."""
        with contextlib.suppress(OSError, RuntimeError):
            if (path := self._path(shape)) is not None:
                os.utime(path)  # the oldest go first
                return self._core.import_model(io.BytesIO(path.read_bytes()), "CPU", self._how)
        return None

    def keep(self, shape: tuple[int, ...], compiled: Any) -> None:
        """Write it, if that is possible."""
        with contextlib.suppress(OSError, RuntimeError):
            if (path := self._path(shape)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                    exported = compiled.export_model()
                    file.write(exported if isinstance(exported, bytes) else exported.getvalue())
                Path(file.name).replace(path)
                for old in sorted(path.parent.glob("*.openvino"), key=lambda p: p.stat().st_mtime)[:-_FILES_KEPT]:
                    old.unlink(missing_ok=True)

    def _path(self, shape: tuple[int, ...]) -> Path | None:
        name = f"{self._key}-{'x'.join(map(str, shape))}.openvino"
        return None if self._folder is None else self._folder / name

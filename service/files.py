"""Atomic file replacement: a reader sees the old file or the complete new one, never half of it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NAME_BYTES: Final = 200  # of the file's name in that of the temporary file: file systems allow 255 in all


@contextmanager
def atomic_replace(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; when the block succeeds, the temporary file replaces `path`.

    If the block raises, Ctrl-C included, `path` stays as it was and the temporary file is removed. The new file gets
    the permissions that the umask gives any new file, whatever the writer set.
    durable: flush the data to the disk first, so that the file is complete even after a power failure. Costs
        milliseconds: pass False for files that can be made again.
    """
    name = path.name.encode("utf-8", "surrogateescape")[:_NAME_BYTES].decode("utf-8", "ignore")
    temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
    temporary.touch(exist_ok=False)
    try:
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers create files that only their owner can read; a server runs as another user
        if durable:
            _flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

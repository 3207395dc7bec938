"""Atomic file replacement: a reader sees the old file or the complete new one, never half of it."""

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
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


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block with SystemExit (code 143), so that temporary files and folders are removed.

    Only in the main thread, which alone handles signals; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the removal
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

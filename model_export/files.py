"""A lock file: one process at a time does the work, the others wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(lock: Path, on_wait: Callable[[], object]) -> Iterator[None]:
    """Hold `lock`, an empty file that is left behind, while the block runs.

    on_wait: called once if another process holds the lock; then this one waits until it is released.
    Raises OSError on Windows.
    """
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        raise OSError("building engines needs Linux or macOS; on Windows, use WSL 2 or Docker") from None
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

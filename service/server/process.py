"""Settings of the process: open files, malloc arenas, the interpreter's lock, garbage collection."""

import contextlib
import ctypes
import gc
import sys
from typing import Final

RESERVED_FILES: Final = 256  # for the model, the libraries and the log
MALLOC_ARENAS: Final = 2
_M_ARENA_MAX: Final = -8  # malloc.h
# How long a thread waits for the interpreter's lock before its holder must release it. Python's default of 5 ms is
# longer than a whole request: an engine thread with a finished result would wait for the event loop.
SWITCH_INTERVAL_S: Final = 0.0003


def raise_open_file_limit(connections: int) -> int:
    """Raise the process's limit of open files for this many connections. Returns how many connections fit.

    Every connection is an open file. Shells and service managers allow 1024 unless a process asks for more.
    """
    try:
        import resource  # noqa: PLC0415 - Windows has neither the module nor the limit
    except ImportError:
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        new_limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than its hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard))
            soft = new_limit
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - RESERVED_FILES))


def limit_malloc_arenas() -> bool:
    """Let all threads share two arenas of glibc's malloc. Call it before any thread starts.

    Returns whether the C library supports it. By default each thread has its own arena, and images of many sizes,
    allocated in one thread and freed in another, fragment all of them: memory grew by 12 % over 30,000 mutated images
    instead of 3 %.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, MALLOC_ARENAS))
    except (AttributeError, OSError, TypeError):  # not glibc
        return False


def shorten_switch_interval() -> None:
    """Make threads release the interpreter's lock after SWITCH_INTERVAL_S when another thread waits for it."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def freeze_gc_and_trim() -> None:
    """Call it once everything is loaded. Exempts loaded objects from garbage collection and returns free memory.

    Collections that scan the same 100,000 objects again and again took 3 % of the time; a model that is replaced
    closes its engine explicitly. Compiling a model leaves some 20 MB of free blocks in the C library.
    """
    gc.collect()
    gc.freeze()
    trim()


def trim() -> None:
    """Return the free blocks of the C library to the system."""
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)

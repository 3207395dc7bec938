"""Open files: every connection is one, and shells and service managers allow a process 1024 unless it asks for more."""

import contextlib
from typing import Final

OTHERS: Final = 256  # those of the model, the libraries, the log


def allow(connections: int) -> int:
    """Have the system allow for so many connections. Returns for how many it does."""
    try:
        import resource  # noqa: PLC0415 - Windows has none, and no such limit
    except ImportError:
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections + OTHERS:
        wanted = connections + OTHERS if hard == resource.RLIM_INFINITY else min(connections + OTHERS, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - OTHERS))

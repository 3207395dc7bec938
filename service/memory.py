"""How the C library keeps memory that Python and the decoders have given back."""

import ctypes
import ctypes.util
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
ARENAS: Final = 2


def few_arenas() -> bool:
    """Let all threads share two arenas of glibc's malloc. True when that could be set; call it before they start.

    Each thread would have its own, and pictures of many sizes, allocated in one thread and freed in another, leave
    holes in all of them: 12 % growth over 30,000 mutated pictures instead of 3 %.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError, TypeError):  # another C library
        return False

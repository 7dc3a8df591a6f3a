"""How the C library hands out memory to a process that serves; nothing else is set up here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 16 * 1024 * 1024
_MAPPED_FROM_BYTES = 4 * 1024 * 1024


def keep_large_blocks() -> bool:
    """Have memory for parts of large bodies used again instead of returned; true if that could be arranged.

    Reads from a fast connection bring up to 256 KiB at once. glibc maps blocks of that size anew from the
    kernel, or returns the end of its heap as soon as they are free, and the kernel zeroes every page of them
    again: for answers of 1 MiB that was a fifth to a third of the CPU time. At most ``_KEPT_BYTES`` that are
    free stay at the end of the heap. Other C libraries have no such switch, and other habits; there nothing
    is done.
    """
    try:
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))

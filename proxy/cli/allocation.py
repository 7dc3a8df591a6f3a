"""How memory is handed out and collected in a process that serves; nothing else is set up here."""

from __future__ import annotations

import ctypes
import gc
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


def spare_the_collector() -> None:
    """Keep what was made at the start out of garbage collection, and have the rest collected less often.

    Modules and settings are some hundred thousand objects that never go; going through them in search of
    cycles stopped everything for 30 ms, several times a second under load. Requests leave few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)

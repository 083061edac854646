"""How the process's C allocator treats large blocks, which decides the speed of XLA's CPU backend."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for reuse instead of returning them to the system; True where that took effect.

    XLA's CPU backend allocates its temporaries anew at every call. Above 128 KiB glibc maps and unmaps each, and the page faults
    cost more than the arithmetic: a model update of the quickstart's size took 43 ms with them and 18 ms without. Elsewhere than on
    Linux with glibc, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, 2**30 - 1) == 1 and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1

"""Keeps freed memory in the process, for training on a CPU with glibc."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Stop malloc from handing large freed blocks back to the system; returns whether the C library complied.

    By default glibc maps each large tensor afresh and unmaps it when freed, so every step pays a page fault for every
    4 KiB it touches. This changes the whole process: programs call it, the library never does on its own.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Older versions refuse a threshold above 32 MiB. Setting anything freezes the threshold, which otherwise adapts: so
    # this comes first.
    if not any(mallopt(_M_MMAP_THRESHOLD, value) for value in (1 << 30, 32 << 20)):
        return False
    return all(
        mallopt(parameter, value) for parameter, value in ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    )

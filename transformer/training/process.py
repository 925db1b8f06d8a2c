"""What a program sets for its whole process to compute fast on a CPU. The library never does so on its own."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import torch

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def tune_process() -> None:
    """Make this process fast on a CPU; every program of scripts/ calls it first."""
    # For each shape that they meet, oneDNN keeps a kernel and torch's layer above it an entry with buffers, 1,024 of
    # both by default. Batches of other lengths rarely find theirs among them; layers of one batch do among far fewer.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
    keep_freed_memory()
    use_onednn_for_float32()


def keep_freed_memory() -> bool:
    """Stop malloc from handing large freed blocks back to the system; returns whether the C library complied.

    By default glibc maps each large tensor afresh and unmaps it when freed, so every step pays a page fault for every
    4 KiB it touches.
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


def return_freed_memory() -> bool:
    """Hand back to the system what is free now; returns whether the C library could.

    Kept memory falls into pieces that fit no tensor of the next batch's shape: without this once in a while, a process
    grows to several times of what it uses.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return malloc_trim is not None and malloc_trim(0) == 1


def use_onednn_for_float32() -> bool:
    """Send float32 matrix products on a CPU to oneDNN where it keeps their precision; returns whether it does.

    Torch's default library for them picks slow kernels on some processors. The setting that leads past it also permits
    oneDNN to round factors to bfloat16. It makes no use of that where this would not be faster, which a product of
    known result tells; elsewhere the setting is taken back.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if not torch.backends.mkldnn.is_available() or not hasattr(settings, "fp32_precision"):
        return False
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    # 1 + 2^-12 is a float32, and 1 in bfloat16: so are 256 times that and 256 their sums.
    factor = torch.full((256, 256), 1 + 2**-12)
    if not torch.equal(factor @ torch.ones(256, 256), torch.full((256, 256), 256 + 2**-4)):
        settings.fp32_precision = before
        return False
    return True

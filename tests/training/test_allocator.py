"""Malloc settings: what is asked of the C library, and that freed memory stays."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from transformer.training import allocator
from transformer.training.allocator import keep_freed_memory

# The numbers of mallopt(3).
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
DEFAULT_MMAP_THRESHOLD, OLD_MAXIMUM = 128 << 10, 32 << 20


class FakeMalloc:
    """Mallopt as in mallopt(3): setting any of the three stops the adaptive threshold; old ones refuse over 32 MiB."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.mmap_threshold = DEFAULT_MMAP_THRESHOLD
        self.is_dynamic = True

    def mallopt(self, parameter: int, value: int) -> int:
        assert parameter in (TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD)
        assert 0 <= value < 2**31  # a C int
        if parameter == MMAP_THRESHOLD:
            if value > self.maximum:
                return 0
            self.mmap_threshold = value
        self.is_dynamic = False
        return 1


def use_library(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)


@pytest.mark.parametrize("name", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def no_library(_: object) -> None:
        raise AssertionError("looked for a C library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(sys, "platform", name)
    assert keep_freed_memory() is False


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, SimpleNamespace())
    assert keep_freed_memory() is False


def test_a_c_library_that_complies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    malloc = FakeMalloc(maximum=2**31 - 1)
    use_library(monkeypatch, malloc)
    assert keep_freed_memory() is True
    assert malloc.mmap_threshold > OLD_MAXIMUM


def test_a_c_library_that_refuses_everything_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, SimpleNamespace(mallopt=lambda *_: 0))
    assert keep_freed_memory() is False


def test_an_older_c_library_is_not_left_worse_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # mallopt(3): M_MMAP_THRESHOLD may be refused above 32 MiB. Setting the others all the same freezes it at 128 KiB,
    # where by default it adapts: from then on every tensor larger than that is mapped afresh.
    malloc = FakeMalloc(maximum=OLD_MAXIMUM)
    use_library(monkeypatch, malloc)
    keep_freed_memory()
    assert malloc.is_dynamic or malloc.mmap_threshold == OLD_MAXIMUM


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    # In a process of its own, as the setting is for good.
    program = """
import resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
complied = keep_freed_memory()
assert complied is True or complied is False
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x" * (64 << 20))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(complied, *faults)
"""
    command = [sys.executable, "-c", program, allocator.__file__]
    complied, *faults = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if complied != "True":
        pytest.skip("this glibc refused")
    # A block of 64 MiB has 16,384 pages, which only the first round may have to touch for the first time.
    assert all(int(count) < 100 for count in faults[1:]), faults

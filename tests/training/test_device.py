"""Devices, dtypes and process-wide CPU settings: malloc, oneDNN, float32 precision."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from transformer.errors import DeviceError, UserError
from transformer.training import device as device_module
from transformer.training.device import (
    is_out_of_memory,
    keep_freed_memory,
    resolve_device,
    resolve_dtype,
    return_freed_memory,
    tune_process,
    use_onednn_for_float32,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_selects_cuda_if_available(monkeypatch: pytest.MonkeyPatch, available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("available", [False, True])
def test_a_cpu_is_always_available(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("cpu") == CPU


def test_cuda_is_used_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_requesting_absent_cuda_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"device={name}: torch .* sees no CUDA device; use cpu or auto") as error:
        resolve_device(name)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_an_explicit_precision_is_used_on_any_device(
    monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    for device in (CPU, torch.device("cuda")):
        assert resolve_dtype(precision, device) == dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_selects_bfloat16_on_cpus_with_native_support(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_dtype("auto", CPU) == dtype


def test_auto_selects_float32_if_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_selects_bfloat16_on_cuda_since_ampere(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert resolve_dtype("auto", torch.device("cuda")) == dtype


@pytest.mark.parametrize("precision", ["fp64", "float16", "", "FP32", "BF16", "16"])
def test_an_unknown_precision_is_an_error_that_lists_them(precision: str) -> None:
    with pytest.raises(DeviceError, match=f"^precision='{precision}' is not one of auto, fp32, tf32, bf16, fp16$"):
        resolve_dtype(precision, CPU)


class Matmul:
    """Torch's settings of CUDA products, since version 2.9 or before."""

    def __init__(self, *, is_new: bool) -> None:
        if is_new:
            self.fp32_precision = "ieee"
        else:
            self.allow_tf32 = False

    def value(self) -> object:
        (value,) = vars(self).values()
        return value


@pytest.mark.parametrize("is_new", [True, False])
def test_tf32_is_float32_with_a_setting_that_the_next_precision_takes_back(
    monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    settings, cuda = Matmul(is_new=is_new), torch.device("cuda")
    monkeypatch.setattr(torch.backends.cuda, "matmul", settings)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    before, wanted = settings.value(), "tf32" if is_new else True
    for precision in ("fp32", "bf16", "fp16", "auto"):
        assert resolve_dtype("tf32", cuda) == resolve_dtype("tf32", cuda) == torch.float32
        assert settings.value() == wanted
        assert device_module.precision_name(torch.float32) == "tf32"
        assert device_module.precision_name(torch.float16) == "float16"
        resolve_dtype(precision, cuda)
        assert settings.value() == before
        assert device_module.precision_name(torch.float32) == "float32"


def test_a_setting_of_the_user_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Matmul(is_new=True)
    settings.fp32_precision = "tf32"
    monkeypatch.setattr(torch.backends.cuda, "matmul", settings)
    for precision in ("fp32", "bf16"):
        resolve_dtype(precision, CPU)
        assert settings.value() == "tf32"


@pytest.mark.parametrize(("name", "capability"), [("cpu", (0, 0)), ("mps", (0, 0)), ("cuda", (7, 5))])
def test_tf32_needs_a_gpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(DeviceError, match=f"^precision=tf32: device={name} does not multiply it; use auto, "):
        resolve_dtype("tf32", torch.device(name))
    assert device_module.precision_name(torch.float32) == "float32"


# Apple GPUs, as far as can be told without one


def test_an_apple_gpu_is_used_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("mps") == torch.device("mps")
    assert resolve_device("auto") == CPU


def test_requesting_an_absent_apple_gpu_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^device=mps: torch .* sees no Apple GPU; use cpu or auto$"):
        resolve_device("mps")


def test_several_processes_cannot_share_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(DeviceError, match=r"^device=mps: one process only"):
        resolve_device("mps")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_an_apple_gpu_computes_in_float32_unless_told_otherwise(precision: str, dtype: torch.dtype) -> None:
    assert resolve_dtype(precision, torch.device("mps")) == dtype


def test_an_apple_gpu_has_the_fused_adam() -> None:
    assert "mps" in torch.utils._foreach_utils._get_fused_kernels_supported_devices()


@pytest.mark.parametrize(("name", "emptied"), [("cpu", []), ("cuda", ["cuda"]), ("mps", ["mps"])])
def test_the_cache_of_a_gpu_is_emptied(monkeypatch: pytest.MonkeyPatch, name: str, emptied: list[str]) -> None:
    found: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: found.append("mps"))
    device_module.empty_cache(torch.device(name))
    assert found == emptied


def test_other_errors_are_not_out_of_memory() -> None:
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("a bug"))


def test_a_failed_cpu_allocation_is_recognised() -> None:
    with pytest.raises(Exception) as error:
        torch.empty(1 << 55, dtype=torch.uint8)  # more than any address space
    assert is_out_of_memory(error.value)


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


def test_success_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    malloc = FakeMalloc(maximum=2**31 - 1)
    use_library(monkeypatch, malloc)
    assert keep_freed_memory() is True
    assert malloc.mmap_threshold > OLD_MAXIMUM


def test_refusal_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, SimpleNamespace(mallopt=lambda *_: 0))
    assert keep_freed_memory() is False


def test_an_older_c_library_is_not_made_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    # mallopt(3): M_MMAP_THRESHOLD may be refused above 32 MiB. Setting the others all the same freezes it at 128 KiB,
    # where by default it adapts: from then on every tensor larger than that is mapped afresh.
    malloc = FakeMalloc(maximum=OLD_MAXIMUM)
    use_library(monkeypatch, malloc)
    keep_freed_memory()
    assert malloc.is_dynamic or malloc.mmap_threshold == OLD_MAXIMUM


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_reused_without_page_faults() -> None:
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
    command = [sys.executable, "-c", program, device_module.__file__]
    complied, *faults = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if complied != "True":
        pytest.skip("this glibc refused")
    # A block of 64 MiB has 16,384 pages, which only the first round may have to touch for the first time.
    assert all(int(count) < 100 for count in faults[1:]), faults


def test_without_malloc_trim_nothing_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, SimpleNamespace())
    assert return_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert return_freed_memory() is False


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_free_memory_below_used_memory_is_returned_to_the_system() -> None:
    program = """
import runpy, sys
process = runpy.run_path(sys.argv[1])
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
process["keep_freed_memory"]()
blocks = [bytearray(b"x" * (1 << 20)) for _ in range(64)]
above = bytearray(b"x" * (1 << 20))
del blocks
before = resident()
print(process["return_freed_memory"](), before - resident())
"""
    command = [sys.executable, "-c", program, device_module.__file__]
    complied, returned = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert complied == "True"
    assert int(returned) > 48 << 20


@pytest.fixture
def restored_products() -> Iterator[None]:
    """Restores the setting for float32 matmuls, if this torch has it."""
    settings: Any = getattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision=None))
    before = settings.fp32_precision
    yield
    settings.fp32_precision = before


@pytest.fixture
def products_setting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for torch's setting, which exists since 2.9."""
    setting = SimpleNamespace(fp32_precision="none")
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", setting, raising=False)
    return setting


@pytest.mark.usefixtures("restored_products")
def test_float32_products_keep_the_precision_of_float32() -> None:
    use_onednn_for_float32()
    generator = torch.Generator().manual_seed(3)
    for m, k, n in ((13, 509, 31), (257, 257, 1021), (1031, 127, 509)):
        a, b = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
        exact = a.double() @ b.double()
        error = (a @ b - exact).abs().max() / exact.abs().max()
        # float32 has 24 bits, 6e-8; bfloat16 has 8, and errs here by more than 1e-3.
        assert error < 5e-6, (m, k, n)


def test_a_library_that_would_round_to_bfloat16_is_not_used(
    monkeypatch: pytest.MonkeyPatch, products_setting: SimpleNamespace
) -> None:
    rounded = torch.Tensor.matmul
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: rounded(a.bfloat16().float(), b.bfloat16().float()), raising=True
    )
    assert use_onednn_for_float32() is False
    assert products_setting.fp32_precision == "none"


def test_a_torch_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "matmul", SimpleNamespace(), raising=False)
    assert use_onednn_for_float32() is False


def test_a_torch_without_onednn_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, products_setting: SimpleNamespace
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert use_onednn_for_float32() is False
    assert products_setting.fp32_precision == "none"


def test_tune_process_applies_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1021")
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    called: list[str] = []
    for name in ("limit_threads", "keep_freed_memory", "use_onednn_for_float32"):
        monkeypatch.setattr(device_module, name, lambda name=name: called.append(name))
    tune_process()
    assert called == ["limit_threads", "keep_freed_memory", "use_onednn_for_float32"]
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "1021"  # the user's choice is kept
    assert int(os.environ["LRU_CACHE_CAPACITY"]) < 1024
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    tune_process()
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024


@pytest.mark.parametrize("has_mkl", [True, False])
def test_inference_keeps_more_kernels_and_multiplies_float32_by_mkl(
    monkeypatch: pytest.MonkeyPatch, has_mkl: bool
) -> None:
    kept = []
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.setenv(name, "")  # restored by the end
    called: list[str] = []
    for name in ("limit_threads", "keep_freed_memory", "use_onednn_for_float32"):
        monkeypatch.setattr(device_module, name, lambda name=name: called.append(name))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    for inference in (False, True):
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            monkeypatch.delenv(name)
        called.clear()
        tune_process(inference=inference)
        kept.append([int(os.environ[x]) for x in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")])
        assert ("use_onednn_for_float32" in called) == (not inference or not has_mkl)
    assert kept[0][0] < kept[1][0] and kept[0][1] < kept[1][1]


@pytest.mark.parametrize(
    ("threads", "num_cpus", "variable", "expected"), [(3, 2, None, 2), (3, 5, None, 3), (3, 2, "3", 3)]
)
def test_threads_are_at_most_the_cpus_of_the_process_unless_the_user_says_how_many(
    monkeypatch: pytest.MonkeyPatch, threads: int, num_cpus: int, variable: str | None, expected: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(device_module, "num_cpus", lambda: num_cpus)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        device_module.limit_threads()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)

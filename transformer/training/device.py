"""Devices, dtypes and memory, and process-wide CPU settings for scripts."""

import ctypes
import os
import sys
from typing import Any

import torch

from transformer.errors import DeviceError
from transformer.machine import num_cpus
from transformer.training.cuda import avoid_cudnn_attention, warn_once, why_unavailable, why_unsupported

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
# Messages of torch's libraries on CPU and GPU; the last is oneDNN's for any failed allocation.
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "could not create a primitive")


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `mps`; `auto` is CUDA or the CPU.

    On a machine that has a card, `auto` warns if it is the CPU. On CUDA, attention leaves out cuDNN (cuda.py).
    DeviceError if torch sees no such device, has no kernels for it, or sees fewer than `torchrun` started processes.
    """
    if name == "auto":
        reason = why_unsupported() if torch.cuda.is_available() else why_unavailable()
        if reason is not None:
            warn_once(f"device=auto takes the CPU: {reason}; see docs/GPU.md, or choose: cpu, cuda")
        name = "cuda" if torch.cuda.is_available() and reason is None else "cpu"
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(f"device=mps: torch {torch.__version__} sees no Apple GPU; use cpu or auto")
        if is_distributed:
            raise DeviceError("device=mps: one process only; torch has no collective operations on Apple GPUs")
    if name.startswith("cuda"):
        reason = why_unsupported(torch.device(name).index) if torch.cuda.is_available() else why_unavailable()
        if not torch.cuda.is_available():
            detail = "" if reason is None else f": {reason}"
            raise DeviceError(f"device={name}: torch {torch.__version__} sees no CUDA device; use cpu or auto{detail}")
        if reason is not None:
            raise DeviceError(f"device={name}: {reason}; install a torch that has them (docs/GPU.md), or use cpu")
        if is_distributed and not has_own_cuda_device():
            raise DeviceError(
                f"{num_local_processes()} processes on this machine, but {torch.cuda.device_count()} CUDA devices; "
                "start as many processes with --nproc-per-node, or compute on the CPU: train.device=cpu, --device cpu"
            )
        avoid_cudnn_attention()
    return torch.device(name)


def num_local_processes() -> int:
    """How many processes `torchrun` started on this machine, as far as known."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", int(os.environ.get("LOCAL_RANK", "0")) + 1))


def has_own_cuda_device() -> bool:
    """Whether each process that `torchrun` started on this machine can have a CUDA device of its own."""
    return torch.cuda.is_available() and num_local_processes() <= torch.cuda.device_count()


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for a precision; `auto` is bfloat16 where it is native, else float32.

    `tf32` is float32 that CUDA multiplies as TensorFloat-32, a setting of the process that the next call takes back.
    DeviceError if it cannot, or for an unknown precision. Warns of bfloat16 on a card that emulates it.
    """
    dtypes = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    # `int8`, an option of `Translator`, has the dtype of `auto` outside the quantized layers.
    if precision not in (*dtypes, "auto", "int8"):
        raise DeviceError(f"precision={precision!r} is not one of auto, {', '.join(dtypes)}")
    if precision == "tf32" and not _is_ampere(device):
        raise DeviceError(f"precision=tf32: device={device.type} does not multiply it; use auto, fp32, bf16 or fp16")
    _TF32.use(precision == "tf32")
    if precision == "bf16" and device.type == "cuda" and not _is_ampere(device):
        card, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        warn_once(
            f"precision=bf16: {card} (compute capability {major}.{minor}) emulates bfloat16, which is slow; use fp16, "
            "which it multiplies, or fp32"
        )
    if precision in dtypes:
        return dtypes[precision]
    if device.type != "cpu":  # there may be bfloat16 on an Apple GPU; float32 is what its users expect
        is_native = _is_ampere(device)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        is_native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if is_native else torch.float32


def _is_ampere(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16 and TensorFloat-32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class _TensorFloat32:
    """Torch's setting for products in TensorFloat-32, as it was before and as `tf32` wants it."""

    def __init__(self) -> None:
        self._before: str | None = None  # None: not changed by us

    @property
    def is_in_use(self) -> bool:
        return self._before is not None

    def use(self, is_wanted: bool) -> None:
        settings: Any = torch.backends.cuda.matmul
        # Before torch 2.9, it is a bool.
        name, wanted = ("fp32_precision", "tf32") if hasattr(settings, "fp32_precision") else ("allow_tf32", True)
        if is_wanted and self._before is None:
            self._before = getattr(settings, name)
            setattr(settings, name, wanted)
        elif not is_wanted and self._before is not None:
            setattr(settings, name, self._before)
            self._before = None


_TF32 = _TensorFloat32()


def precision_name(dtype: torch.dtype) -> str:
    """What is computed in, such as `bfloat16`; `tf32` for float32 with such products."""
    return "tf32" if dtype == torch.float32 and _TF32.is_in_use else str(dtype).removeprefix("torch.")


def empty_cache(device: torch.device) -> None:
    """Return memory that torch keeps for later to a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def tune_process(*, inference: bool = False) -> None:
    """Apply the CPU settings below to this process; scripts call it first.

    Args:
        inference: the process translates or scores, and does not train.
    """
    # oneDNN caches a kernel, and torch's layer above it an entry with buffers, per shape: 1,024 of both by default.
    # In training shapes rarely repeat across batches, while the layers of one batch need far fewer entries. In decoding
    # they do, and a kernel takes as long to make as the small product that it computes.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256" if inference else "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "32" if inference else "16")
    limit_threads()
    keep_freed_memory()
    # Weights are prepacked for inference, and MKL needs no kernels for products of a few queries and keys.
    if not (inference and torch.backends.mkl.is_available()):
        use_onednn_for_float32()


def limit_threads() -> None:
    """Use as many threads as the process has CPUs, unless OMP_NUM_THREADS is set.

    torch's default does not know of the quota of a container, which more threads use up waiting for each other.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), num_cpus()))


def keep_freed_memory() -> bool:
    """Stop malloc from returning large freed blocks to the system; False if unsupported.

    By default glibc maps each large tensor afresh and unmaps it when freed, so every step pays a page fault for every
    4 KiB it touches.
    """
    mallopt = _libc("mallopt")
    # Older versions refuse a threshold above 32 MiB. Setting any parameter freezes the threshold, which otherwise
    # adapts, so it is set first.
    if mallopt is None or not any(mallopt(_M_MMAP_THRESHOLD, value) for value in (1 << 30, 32 << 20)):
        return False
    settings = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(parameter, value) for parameter, value in settings)


def return_freed_memory() -> bool:
    """Return free memory to the system (malloc_trim); False if unsupported.

    The kept memory fragments into pieces that fit no tensor of the next batch's shape: without an occasional trim, a
    process grows to several times the memory that it uses.
    """
    malloc_trim = _libc("malloc_trim")
    return malloc_trim is not None and malloc_trim(0) == 1


def _libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None


def use_onednn_for_float32() -> bool:
    """Use oneDNN for float32 CPU matmuls if full precision is kept; returns whether.

    Torch's default library for them picks slow kernels on some processors. The setting that selects oneDNN also permits
    it to round inputs to bfloat16. oneDNN does so only where that is faster, which a matmul with a known result
    reveals; then the setting is reverted.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if not torch.backends.mkldnn.is_available() or not hasattr(settings, "fp32_precision"):
        return False
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    # 1 + 2^-12 is exact in float32 and rounds to 1 in bfloat16; so do 256 times that and the sum of 256.
    factor = torch.full((256, 256), 1 + 2**-12)
    if not torch.equal(factor @ torch.ones(256, 256), torch.full((256, 256), 256 + 2**-4)):
        settings.fp32_precision = before
        return False
    return True

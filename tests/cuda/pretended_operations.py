"""What torch's operations do on CUDA besides computing: which start kernels, wait, or refuse their tensors."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import transformer

_PACKAGE, _TORCH = (str(Path(module.__file__).parent) for module in (transformer, torch))
# Calls of the device that start no kernel, besides views, which their schemas tell.
_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"}
_NO_KERNEL |= {"_unsafe_view", "is_same_size", "record_stream"}
# Calls whose result depends on values, so that the host reads them.
_READS_VALUES = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "multinomial"}
_READS_VALUES |= {"_unique", "_unique2", "unique_dim", "unique_consecutive"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_GROUPS = ("_foreach", "_fused")  # operations of many tensors
# Besides pointwise operations, those that take a number of the CPU, a tensor (), beside tensors of the device.
_TAKES_NUMBER = {"fill", "fill_", "masked_fill", "masked_fill_"}


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """Arguments or results with a function applied to all but their lists; torch's pytree takes three times as long."""
    if type(x) in (list, tuple):
        return type(x)([mapped(function, part) for part in x])
    return function(x)


def tensors_in(*arguments: Any) -> list[Tensor]:
    """The tensors among arguments and in their lists."""
    found = []
    for x in arguments:
        if isinstance(x, Tensor):
            found.append(x)
        elif type(x) in (list, tuple):
            found += tensors_in(*x)
    return found


@functools.cache
def is_kernel(func: Any, name: str) -> bool:
    """Whether an operation starts a kernel."""
    return name not in _NO_KERNEL and not any(x.alias_info and not x.alias_info.is_write for x in func._schema.returns)


def check_devices(func: Any, name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """RuntimeError for tensors of both devices, where CUDA refuses them."""
    on_host = [x for x in tensors if not x.is_cuda]
    takes_number = torch.Tag.pointwise in func.tags or name in _TAKES_NUMBER or name.startswith(_GROUPS)
    if not on_host or (takes_number and all(x.dim() == 0 for x in on_host)):
        return
    is_index = name in _INDEXING and args[0].is_cuda  # indices may be on the host
    if is_index and (len(args) < 3 or args[2].is_cuda or args[2].dim() == 0):
        return
    raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu!")


def reads_values(func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """The operation in words if the host waits for the device in it, or for a copy to it; else None."""
    if name in _READS_VALUES:
        return name
    if name in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        is_mask = [index.dtype in (torch.bool, torch.uint8) for index in indices]
        if not all(index.is_cuda for index in indices):
            return f"{name} by an index of the host"
        if any(is_mask) and not (all(is_mask) and len(args) > 2 and args[2].numel() == 1):  # which only fills
            return f"{name} by a mask"
    if name == "repeat_interleave" and kwargs.get("output_size") is None and func._overloadname == "Tensor":
        return "repeat_interleave without output_size"
    if name == "where" and any(isinstance(x, Tensor) and not x.is_cuda for x in args):
        return "where with a number of the host"
    return None


def is_cuda(device: object) -> bool:
    """Whether a device is the pretended one, which C++ takes for `meta`."""
    return device is not None and torch.device(device).type in ("cuda", "meta")  # type: ignore[arg-type]


def named(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    defaults = {x.name: x.default_value for x in func._schema.arguments if x.has_default_value()}
    names = [x.name for x in func._schema.arguments]
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation changes."""
    given = named(func, args, kwargs)
    changed = [x.name for x in func._schema.arguments if x.alias_info is not None and x.alias_info.is_write]
    return tensors_in(*(given.get(name) for name in changed))


def place() -> str:
    """The innermost lines of the package that are being executed, or the innermost of its caller."""
    frame, ours, others = sys._getframe(1), [], []
    while frame is not None:
        path, line = frame.f_code.co_filename, frame.f_lineno
        if path.startswith(_PACKAGE):
            ours.append(f"transformer{path.removeprefix(_PACKAGE)}:{line}")
        elif not path.startswith(_TORCH) and not Path(path).name.startswith("pretended"):
            others.append(f"{Path(path).name}:{line}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join((ours or others or ["nowhere"])[:3])


@contextlib.contextmanager
def borrowed_device_guard() -> Iterator[None]:
    """Give CUDA the guard of `meta`: torch for CPUs has none, and that of torch for CUDA asks the driver."""
    library = Path(_TORCH, "lib", "libc10.so")
    if not library.exists():
        yield
        return
    # By the numbers of c10::DeviceType.
    guards = (ctypes.c_void_p * 15).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    before, guards[1] = guards[1], guards[14]
    try:
        yield
    finally:
        guards[1] = before

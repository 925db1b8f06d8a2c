"""A pretended CUDA device: CUDA's paths run on a machine without one, with numbers that a CPU computes.

    with PretendedCuda() as cuda:
        ...  # code for device="cuda"
    assert not cuda.waits

A tensor on it says `cuda:0` to Python and holds a tensor of the CPU, or one without values for sizes of any kind. An
operation on tensors of both devices is an error, as on CUDA. What makes the host wait for the device is recorded with
its place, kernels are counted, the bytes of living tensors are added up, and attention takes the kernel that torch
would take. Values that are copied to the host without waiting are scrambled until it waits.

It cannot see which dtypes a CUDA kernel supports, the rounding and determinism of kernels, NCCL or compilers.

To C++ the tensors are of `meta`: a build of torch for CPUs lacks streams for CUDA, which autograd would ask for. All
operations pass a dispatch mode in the place of FakeTensorMode, with which torch does not initialise CUDA.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any
from unittest import mock

import pretended_attention
import torch
from pretended_operations import (
    borrowed_device_guard,
    check_devices,
    is_cuda,
    is_kernel,
    mapped,
    named,
    place,
    reads_values,
    tensors_in,
    written,
)
from pretended_streams import Graph, Pending, refill, torch_cuda
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)


class CudaTensor(Tensor):
    """A tensor on the pretended device; `held` has its values, or its shape on `meta`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> CudaTensor:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, layout=held.layout, device="meta"
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        pass

    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_meta = property(lambda _: False)

    def new_tensor(self, data: object, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:
        """Made on the CPU and copied, which waits, as torch does it."""
        return torch.tensor(data, dtype=dtype or self.dtype).to(CUDA)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")

    def __repr__(self, **_: object) -> str:
        return f"CudaTensor({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if PretendedCuda.current is None:
            raise RuntimeError(f"{func}: a tensor of a pretended CUDA device that is gone")
        return PretendedCuda.current.run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sends the operations of one thread to a device."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes 2 s

    def __init__(self, cuda: PretendedCuda) -> None:
        super().__init__()
        self._mode_key, self._cuda = torch._C._TorchDispatchModeKey.FAKE, cuda

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._cuda.run(func, args, kwargs or {})


class PretendedCuda:
    """The device, inside of `with`, in this thread and those that start inside.

    Args:
        capability: of the card; (7, 5) is a T4, (8, 0) an A100, (9, 0) an H100.
        has_values: without them, tensors have shapes only, at no cost; the host reads zeros.
        memory: bytes that the card has; torch.OutOfMemoryError beyond. None: unlimited.

    Attributes:
        waits: `operation at file:line < caller`, for each time that the host waits for the device.
        calls: how many of each operation; `num_kernels` are those that start one.
        attention: how often each kernel of F.scaled_dot_product_attention was taken, or "varlen".
        live_bytes, peak_bytes: of the tensors that live, and the most since the last `reset`.
    """

    current: PretendedCuda | None = None

    def __init__(
        self, *, capability: tuple[int, int] = (9, 0), has_values: bool = True, memory: int | None = None
    ) -> None:
        self.capability, self.has_values, self.memory = capability, has_values, memory
        self.waits: list[str] = []
        self.calls: Counter[str] = Counter()
        self.attention: Counter[str] = Counter()
        self.num_kernels = self.live_bytes = self.peak_bytes = 0
        self.pending = Pending()
        self.graph: Graph | None = None  # that captures
        self._holders: dict[int, int] = {}  # tensors that share each storage
        self._pinned: set[StorageWeakRef] = set()
        self.rng_state = torch.Generator().manual_seed(0).get_state()
        self._lock, self._stack = threading.RLock(), contextlib.ExitStack()

    def reset(self) -> None:
        """Forget what was recorded and counted; the peak begins with the tensors that live."""
        for record in (self.waits, self.calls, self.attention):
            record.clear()
        self.num_kernels, self.peak_bytes = 0, self.live_bytes

    def __enter__(self) -> PretendedCuda:
        assert PretendedCuda.current is None
        PretendedCuda.current = self
        self._stack.enter_context(borrowed_device_guard())
        for module, name, value in self._replaced():
            self._stack.enter_context(mock.patch.object(module, name, value))
        # `Module.to` replaces parameters, and torch.tensor(..., device="cuda") begins on the CPU.
        future, core = torch.__future__, torch._C
        for read, write in (
            (future.get_overwrite_module_params_on_conversion, future.set_overwrite_module_params_on_conversion),
            (core._only_lift_cpu_tensors, core._set_only_lift_cpu_tensors),
        ):
            self._stack.callback(write, read())
            write(True)
        self._stack.enter_context(self._in_this_thread())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        PretendedCuda.current = None

    @contextlib.contextmanager
    def _in_this_thread(self) -> Iterator[None]:
        with torch.autograd.set_multithreading_enabled(False), _Mode(self):
            yield

    def _replaced(self) -> list[tuple[Any, str, Any]]:
        """What in Python's side of torch is about the device, or asks for the kind that C++ does not see."""
        run_thread = threading.Thread.run

        def run_thread_here(thread: threading.Thread) -> None:
            with self._in_this_thread():
                run_thread(thread)

        supported = [*_get_foreach_kernels_supported_devices(), "meta"]
        return [
            *((torch.cuda, name, value) for name, value in torch_cuda(self).items()),
            (threading.Thread, "run", run_thread_here),
            (Tensor, "pin_memory", lambda x, *_: self._pinned_memory(x.clone())),
            (Tensor, "is_pinned", lambda x, *_: self._is_pinned(x)),
            (torch.nn.functional, "scaled_dot_product_attention", self._attend),
            (torch.nn.functional, "dropout", self._dropout),
            (torch.utils._foreach_utils, "_get_foreach_kernels_supported_devices", lambda: supported),
        ]

    def wait(self, operation: str, number: int | None = None) -> None:
        """Record that the host waits for the device; copies arrive, or the first `number` that were issued."""
        if self.graph is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {operation}")
        self.waits.append(f"{operation} at {place()}")
        self.pending.arrive(number)

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Do an operation where its tensors are, or where it makes one."""
        with self._lock:
            name = func._schema.name.partition("::")[2]
            if name in ("_to_copy", "copy_"):
                return self._copy(func, name, args, kwargs)
            tensors = tensors_in(*args, *kwargs.values())
            makes = is_cuda(kwargs.get("device"))
            if not makes and not any(isinstance(x, CudaTensor) for x in tensors):
                return self._on_the_host(func, args, kwargs)
            check_devices(func, name, args, tensors)
            if (reason := reads_values(func, name, args, kwargs)) is not None:
                self.wait(reason)
            if makes:
                kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
                kwargs["device"] = self._place_of_values
            return self._compute(func, name, args, kwargs)

    def _on_the_host(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if not kwargs.get("pin_memory"):
            return func(*args, **kwargs)
        return self._pinned_memory(func(*args, **{**kwargs, "pin_memory": False}))

    def _pinned_memory(self, x: Tensor) -> Tensor:
        self._pinned.add(StorageWeakRef(x.untyped_storage()))
        return x

    def _is_pinned(self, x: Tensor) -> bool:
        return StorageWeakRef(x.untyped_storage()) in self._pinned

    def _compute(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call an operation of the device for the tensors that are held."""
        if name == "_local_scalar_dense" and not self.has_values:
            return 0
        starts_kernel = is_kernel(func, name)
        self.calls[name] += 1
        self.num_kernels += starts_kernel
        self.attention += Counter(["varlen"] if name in ("_varlen_attn", "_varlen_attn_out") else [])

        def call() -> Any:
            held_args = mapped(_held, list(args))
            held_kwargs = {key: mapped(_held, value) for key, value in kwargs.items()}
            special = pretended_attention.operation(name)
            with self._own_rng(func):
                if special is None:
                    return func(*held_args, **held_kwargs)
                return special(named(func, held_args, held_kwargs), self.has_values)

        if self.graph is not None and starts_kernel:
            changed = [x.held for x in written(func, args, kwargs) if isinstance(x, CudaTensor)]
            self.graph.changed += [(held, held.clone()) for held in changed]
        result = call()
        if self.graph is not None and starts_kernel:
            self.graph.operations.append(lambda: refill(result, call()))
        known = {id(_held(x)): x for x in tensors_in(*args, *kwargs.values())}  # in place, the same tensor comes back

        def placed(x: Any) -> Any:
            return known[id(x)] if id(x) in known else self.wrap(x) if isinstance(x, Tensor) else x

        return mapped(placed, result)

    @property
    def _place_of_values(self) -> torch.device:
        return torch.device("cpu" if self.has_values else "meta")

    @contextlib.contextmanager
    def _own_rng(self, func: Any) -> Iterator[None]:
        """Draw random numbers of this device, not of the CPU."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self.rng_state)
        try:
            yield
        finally:
            self.rng_state = torch.get_rng_state()
            torch.set_rng_state(before)

    def wrap(self, held: Tensor) -> CudaTensor:
        """Put a tensor of the host onto the device."""
        made, storage = CudaTensor(held), held.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(made, self._release, key, size).atexit = False
        if self._holders[key] == 1:
            self.live_bytes += size
            if self.memory is not None and self.live_bytes > self.memory:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return made

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self.live_bytes -= size
            del self._holders[key]

    def _copy(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Copy within a device, or from one to the other, which waits unless the host's memory is pinned."""
        is_async = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        into, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        comes, device = isinstance(source, CudaTensor), kwargs.get("device")
        goes = isinstance(into, CudaTensor) if into is not None else comes if device is None else is_cuda(device)
        if not comes and not goes:
            return self._on_the_host(func, args, kwargs)
        if comes and goes:
            options = {key: kwargs[key] for key in ("dtype", "memory_format") if key in kwargs}
            return self._compute(func, name, args, options)
        values = _held(source)
        if into is None:
            made = torch.empty_like(values, dtype=kwargs.get("dtype"), device=self._place_of_values if goes else "cpu")
            into = self.wrap(made) if goes else self._pinned_memory(made) if is_async else made  # as torch does
        if not (is_async and self._is_pinned(into if comes else source)):
            self.wait(f"copy {'from' if comes else 'to'} the device")
            is_async = False
        self._transfer(_held(into), values, is_late=is_async and comes)
        return into

    def _transfer(self, into: Tensor, values: Tensor, *, is_late: bool) -> None:
        values = torch.zeros(values.shape, dtype=values.dtype) if values.is_meta else values

        def transfer() -> None:
            if is_late:
                self.pending.issue(into, values)
            else:
                into.copy_(values)

        if self.graph is not None:
            self.graph.operations.append(transfer)
        transfer()

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        """F.scaled_dot_product_attention."""
        if not q.is_cuda:
            return torch._C._nn.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, **options)
        dropout, is_causal = options.get("dropout_p", 0.0), options.get("is_causal", False)
        kernel = pretended_attention.choose_kernel(q, k, v, attn_mask, dropout, is_causal, self.capability)
        self.attention[kernel] += 1
        return pretended_attention.attend(kernel, q, k, v, attn_mask, dropout, is_causal, options.get("scale"))

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: ARG002
        """F.dropout, which takes a kernel of its own on CUDA."""
        if isinstance(x, CudaTensor) and training and 0 < p < 1:
            return torch.ops.aten.native_dropout(x, p, True)[0]
        return torch.dropout(x, p, training)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, CudaTensor) else x

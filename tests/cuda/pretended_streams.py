"""The module torch.cuda of the pretended device: streams, events and graphs, where all happens at once and in order."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from pretended import PretendedCuda


class Pending:
    """Copies to the host that nothing has waited for."""

    def __init__(self) -> None:
        self._copies: list[Callable[[], object]] = []
        self.num_issued = self._num_arrived = 0

    def issue(self, into: Tensor, values: Tensor) -> None:
        """Scramble a tensor of the host, which is to get the values."""
        values = values.clone()
        into.fill_(math.nan if into.dtype.is_floating_point else into.dtype is not torch.bool and -1)
        self._copies.append(lambda: into.copy_(values))
        self.num_issued += 1

    def arrive(self, number: int | None = None) -> None:
        """Let the copies arrive, of which the first `number` were issued."""
        while self._copies and (number is None or self._num_arrived < number):
            self._copies.pop(0)()
            self._num_arrived += 1


class Stream:
    """A stream; there is no other order of operations than the host's."""

    cuda_stream, device = 0, torch.device("cuda", 0)

    def __init__(self, cuda: PretendedCuda) -> None:
        self._cuda = cuda

    def synchronize(self) -> None:
        self._cuda.wait("Stream.synchronize")

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(self._cuda)
        event.record()
        return event

    def wait_stream(self, stream: Stream) -> None:
        """The device waits, not the host."""

    def wait_event(self, event: Event) -> None:
        """The device waits, not the host."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Event:
    """An event: copies to the host that were issued before it have arrived when it is over."""

    def __init__(self, cuda: PretendedCuda) -> None:
        self._cuda, self._number = cuda, 0

    def record(self, *_: object) -> None:
        self._number = self._cuda.pending.num_issued

    def synchronize(self) -> None:
        self._cuda.wait("Event.synchronize", self._number)

    def query(self) -> bool:
        self._cuda.pending.arrive(self._number)
        return True

    def wait(self, *_: object) -> None:
        """The device waits, not the host."""

    def elapsed_time(self, _: Event) -> float:
        return 1.0


class Graph:
    """A CUDA graph: the operations that were captured, done again with the same tensors."""

    def __init__(self) -> None:
        self.operations: list[Callable[[], object]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []  # while capturing: tensors written in place, and what they held

    def replay(self) -> None:
        for operation in self.operations:
            operation()

    def reset(self) -> None:
        self.operations.clear()

    def pool(self) -> tuple[int, int]:
        return (0, 0)


@contextlib.contextmanager
def capturing(cuda: PretendedCuda, graph: Graph) -> Iterator[None]:
    """Capture what is done inside; it changes nothing that was there before, as on CUDA."""
    cuda.graph = graph
    try:
        yield
    finally:
        cuda.graph = None
        for changed, before in reversed(graph.changed):
            changed.copy_(before)
        graph.changed.clear()


def refill(results: Any, again: Any) -> None:
    """Put the results of a repeated operation where those of the first are."""
    for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
        if isinstance(old, Tensor) and old is not new:
            old.copy_(new)


def torch_cuda(cuda: PretendedCuda) -> dict[str, Any]:
    """The functions and classes of torch.cuda, as the device answers to them."""

    def set_rng_state(state: Tensor, *_: object) -> None:
        cuda.rng_state = state.clone()

    total, (major, minor) = cuda.memory or 80 << 30, cuda.capability
    properties = SimpleNamespace(name="pretended", major=major, minor=minor, total_memory=total)
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "get_device_capability": lambda *_: cuda.capability,
        "get_device_name": lambda *_: properties.name,
        "get_device_properties": lambda *_: properties,
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
        "synchronize": lambda *_: cuda.wait("synchronize"),
        "empty_cache": lambda: None,
        "get_rng_state": lambda *_: cuda.rng_state.clone(),
        "set_rng_state": set_rng_state,
        "manual_seed_all": lambda seed: set_rng_state(torch.Generator().manual_seed(seed).get_state()),
        "_is_in_bad_fork": lambda: False,
        "is_current_stream_capturing": lambda: cuda.graph is not None,
        "memory_allocated": lambda *_: cuda.live_bytes,
        "max_memory_allocated": lambda *_: cuda.peak_bytes,
        "reset_peak_memory_stats": lambda *_: setattr(cuda, "peak_bytes", cuda.live_bytes),
        "mem_get_info": lambda *_: (total - cuda.live_bytes, total),
        "Stream": lambda *_, **__: Stream(cuda),
        "current_stream": lambda *_: Stream(cuda),
        "stream": lambda _: contextlib.nullcontext(),
        "Event": lambda *_, **__: Event(cuda),
        "CUDAGraph": lambda *_, **__: Graph(),
        "graph": lambda graph, *_, **__: capturing(cuda, graph),
        "graph_pool_handle": lambda: (0, 0),
    }

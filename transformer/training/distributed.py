"""Data-parallel training over torch.distributed (section 5.2: eight GPUs).

An update contains the same sentence pairs for any number of processes: each rank accumulates the gradients of its
shard, and `GradientReducer` sums them once per update (reduction.py).

Values on the host (stop? save?) are exchanged by gloo on the CPU, so that no rank synchronizes with its GPU for them.
"""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from transformer.errors import UserError, WorkerError
from transformer.training.device import has_own_cuda_device

T = TypeVar("T")

# For collectives: all ranks have about the same to do, except that one may write a checkpoint meanwhile.
_COLLECTIVE_TIMEOUT = timedelta(minutes=15)
# For barriers: one process may train a tokenizer, encode a corpus or read from a slow pipe while the others wait.
_BARRIER_TIMEOUT = timedelta(days=2)
_POLL_S = 0.05
# Cluster schedulers set some of these too.
_SET_BY_TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    """Raise WorkerError for backend errors caused by another process."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise WorkerError(
            f"another process of this job has exited or does not respond ({reason}); rerun the same command to resume"
        ) from None


class Abandoned(BaseException):
    """A rank has left the work that all ranks share; no `except Exception` in that work holds it."""


class _Leaving:
    """Takes the place of the value of a rank that leaves."""


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process and its communication; by default, a single process.

    All processes must call the same methods in the same order. Each method that waits for others raises WorkerError if
    one of them has exited or does not respond (on CUDA, torchrun may terminate the others first).
    """

    rank: int = 0  # only rank 0 writes files and messages
    size: int = 1
    local_rank: int = 0  # on this machine
    store: Store | None = None  # shared by all; barriers on it may last longer than collectives
    _barriers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[T]:
        """The items of this rank: every `size`-th, starting at `rank`."""
        return list(items[self.rank :: self.size])

    def print0(self, line: str) -> None:
        """Print a line on rank 0 only."""
        if self.is_main:
            print(line, flush=True)

    @_worker_errors()
    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all ranks."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total

    @_worker_errors()
    def max(self, *values: float) -> list[float]:
        """The maximum of each value over all ranks."""
        largest = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.tolist()

    @_worker_errors()
    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in order. `Abandoned` if a rank has called `abandon` instead."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        if any(isinstance(value, _Leaving) for value in values):
            raise Abandoned
        return values

    def abandon(self) -> NoReturn:
        """Leave work whose next exchange is `all_gather`; raises `Abandoned`, there and here."""
        self.all_gather(_Leaving())
        raise Abandoned

    @_worker_errors()
    def any_rank(self, flag: str, *, is_set: bool) -> bool:
        """Whether this or another rank has set a flag so far; waits for none."""
        if self.store is None:
            return is_set
        return bool(self.store.add(f"flag {flag}", int(is_set)) > 0)

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """The result of `make`, called on rank 0 only; may take days."""
        made = [make() if self.is_main else None]
        if self.size > 1:
            self._barrier()
            with _worker_errors():
                dist.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]

    def stream_from_main(self, items: Iterable[T]) -> Iterator[T]:
        """The items of rank 0, broadcast one by one as they arrive."""
        iterator, end = iter(items), None
        while (item := self.broadcast_from_main(lambda: next(iterator, end))) is not end:
            yield item

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block on rank 0, local ranks 0, then all others."""
        # So each finds the files of the first, whether or not the machines share a file system.
        turn = (self.rank > 0) + (self.local_rank > 0)
        for _ in range(turn):
            self._barrier()
        yield
        for _ in range(turn, 2):
            self._barrier()

    @_worker_errors()
    def _barrier(self) -> None:
        if self.store is None:
            return
        deadline = time.monotonic() + _BARRIER_TIMEOUT.total_seconds()
        key = f"barrier {next(self._barriers)}"
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.size:
            if self.store.add("failures", 0) or time.monotonic() > deadline:
                raise RuntimeError("it failed while others were waiting")
            time.sleep(_POLL_S)

    @_worker_errors()
    def start_sum(self, x: Tensor) -> Callable[[], None]:
        """Begin to sum x over all ranks, in place; returns what waits for it, on CUDA without the host."""
        work = dist.all_reduce(x, async_op=True)

        @_worker_errors()
        def wait() -> None:
            work.wait()

        return wait

    def broadcast_state(self, model: nn.Module, optimizer: torch.optim.Optimizer, num_updates: int) -> None:
        """Broadcast weights and, after `num_updates` updates, Adam moments from rank 0."""
        # So only rank 0 reads the run directory, and machines may initialise differently.
        if self.size == 1:
            return
        tensors = list(model.state_dict().values())
        if num_updates:
            trained = (parameter for parameter in optimizer.param_groups[0]["params"] if parameter.requires_grad)
            for parameter in trained:
                state = optimizer.state[parameter]
                if not self.is_main:
                    state["step"] = torch.tensor(float(num_updates), device=parameter.device)
                    state |= {moment: torch.zeros_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
                tensors += (state["exp_avg"], state["exp_avg_sq"])
        for tensor in tensors:
            with _worker_errors():
                dist.broadcast(tensor, src=0)


SINGLE_PROCESS = DistributedContext()


@contextlib.contextmanager
def init_distributed() -> Iterator[DistributedContext]:
    """Connect the processes that `torchrun` started; without it, `SINGLE_PROCESS`.

    Tensors are exchanged by gloo on a CPU and by NCCL on CUDA, where each process uses the device of its local rank.
    With fewer devices than processes, `resolve_device` accepts the CPU only. The first `UserError` of any process
    propagates; the other processes exit with status 2. WorkerError if the processes cannot connect.
    """
    if not os.environ.keys() >= _SET_BY_TORCHRUN:
        yield SINGLE_PROCESS
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    if has_own_cuda_device():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank)
    with _worker_errors(), _silent_stdout():
        shared, rank, size = next(rendezvous("env://", timeout=_COLLECTIVE_TIMEOUT))
        # After a restart, the store may still hold the addresses of the previous attempt's processes.
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_COLLECTIVE_TIMEOUT)
    try:
        yield DistributedContext(rank, size, local_rank, store)
    except BaseException as error:
        if not _is_first_failure(store) and isinstance(error, (UserError, OSError, KeyboardInterrupt)):
            raise SystemExit(2) from None
        raise
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Silence the greeting of gloo in torch 2.8 to 2.10."""
    # It bypasses Python and goes to file descriptor 1, as translations do.
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)


def _is_first_failure(store: Store) -> bool:
    try:
        return bool(store.add("failures", 1) == 1)
    except RuntimeError:  # the store's process has exited
        return True

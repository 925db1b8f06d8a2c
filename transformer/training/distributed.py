"""Several processes, on one machine or many, that do the work of one (section 5.2 had eight GPUs).

`torchrun` starts the processes; `joined` makes them a `World`. An update has the same sentence pairs however many
processes share it: each adds up the gradients of its own pairs, and `sum_gradients` adds up those sums. That is one
exchange per update, of the float32 gradients of the master weights, by a few large reductions. DistributedDataParallel
would start it during the last backward pass, but it reduces what autograd computed (with bfloat16, rounded gradients of
the wrong model), averages over processes where the loss is divided by tokens, and waits for the backward pass of a
process that has no batch. At these sizes the exchange is a small part of an update, which here sums over many batches.

Numbers of the host (may we stop? is it time to save?) travel by gloo and on the CPU, so that no GPU is waited for.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from transformer.errors import DeviceError, UserError, WorkerError

T = TypeVar("T")

# How long to wait for the others where all have about the same to do; beside that, a checkpoint may be written.
_ANSWER_TIMEOUT = timedelta(minutes=15)
# And where one alone prepares what all need: it learns a tokenizer, encodes a corpus, reads from a slow pipe.
_PREPARATION_TIMEOUT = timedelta(days=2)
_POLL_S = 0.05
# Some of these are set elsewhere too, by schedulers of clusters.
_SET_BY_TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# Of one reduction: large enough to use the network well, small beside the model. In elements.
_BUCKET_NUMEL = 1 << 24


@dataclass(frozen=True)
class World:
    """The processes that share the work, seen from one of them. By default there is only this one: nothing is sent.

    All processes must call the same methods in the same order. WorkerError, from each method that waits for others,
    if one of them has ended or does not answer (on CUDA, torchrun may be quicker to end the others).

    Attributes:
        rank: the number of this process; 0 alone writes files and messages.
        size: how many processes there are.
        local_rank: the number of this process on its machine.
        store: keys and values that all see, for the waiting that may take long.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Store | None = None
    _waits: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of the items: every `size`-th from its rank on. Those of all ranks are all items."""
        return list(items[self.rank :: self.size])

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.is_main:
            print(line, flush=True)

    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all processes, of x's shape, dtype and device."""
        if self.size == 1:
            return x
        total = x.clone()
        with _connection():
            dist.all_reduce(total)
        return total

    def max(self, *values: float) -> list[float]:
        """The largest of each of these numbers over all processes."""
        if self.size == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64)
        with _connection():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.tolist()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        with _connection():
            dist.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, however long that takes there. No other calls it."""
        if self.size == 1:
            return make()
        made = [make() if self.is_main else None]
        self._wait()
        with _connection():
            dist.broadcast_object_list(made, src=0)
        (value,) = made
        return value  # type: ignore[return-value]

    def each_from_main(self, items: Iterable[T]) -> Iterator[T]:
        """The items of the first process one by one, each as soon as it is there."""
        iterator, end = iter(items), None
        while (item := self.from_main(lambda: next(iterator, end))) is not end:
            yield item

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Inside, first the first process works, then the first of each other machine, then the rest.

        What one has written, the next ones find, whether machines share a file system or not.
        """
        turn = (self.rank > 0) + (self.local_rank > 0)
        for _ in range(turn):
            self._wait()
        yield
        for _ in range(turn, 2):
            self._wait()

    def _wait(self) -> None:
        """Until all processes are here, for days if need be."""
        if self.store is None:
            return
        deadline = time.monotonic() + _PREPARATION_TIMEOUT.total_seconds()
        with _connection():
            key = f"wait {next(self._waits)}"
            self.store.add(key, 1)
            while self.store.add(key, 0) < self.size:
                if self.store.add("failures", 0) or time.monotonic() > deadline:
                    raise RuntimeError("it failed while others were waiting")
                time.sleep(_POLL_S)


ALONE = World()


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Inside, the processes that `torchrun` has started are a world; without `torchrun` this process is one by itself.

    Tensors are exchanged by gloo on a CPU and by NCCL on CUDA, where each process gets the device of its local rank.
    Of errors that a user can mend, the first of any process goes on its way; the other processes exit with status 2.

    Raises:
        DeviceError: a machine has CUDA devices, but fewer than processes.
        WorkerError: the processes do not find each other.
    """
    if not os.environ.keys() >= _SET_BY_TORCHRUN:
        yield ALONE
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        if local_rank >= torch.cuda.device_count():
            raise DeviceError(
                f"process {local_rank} of this machine: there are {torch.cuda.device_count()} CUDA devices; start as "
                "many processes with --nproc-per-node, or hide the devices with CUDA_VISIBLE_DEVICES="
            )
        torch.cuda.set_device(local_rank)
    with _connection(), _silent_stdout():
        shared, rank, size = next(rendezvous("env://", timeout=_ANSWER_TIMEOUT))
        # A restart may find the store of the attempt before it, with the addresses of processes that are gone.
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", shared)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_ANSWER_TIMEOUT)
    try:
        yield World(rank, size, local_rank, store)
    except BaseException as error:
        if not _is_first_failure(store) and isinstance(error, (UserError, OSError, KeyboardInterrupt)):
            raise SystemExit(2) from None
        raise
    finally:
        dist.destroy_process_group()


def sum_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Replace each gradient by its sum over all processes; one that is missing counts as zeros."""
    if world.size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    while gradients:
        ends = itertools.accumulate(gradient.numel() for gradient in gradients)
        number = max(1, sum(end <= _BUCKET_NUMEL for end in ends))
        bucket, gradients = gradients[:number], gradients[number:]
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _connection():
            dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [part.view_as(like) for part, like in zip(parts, bucket, strict=True)])


def begin_alike(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, world: World) -> None:
    """Give every process the first one's weights and, after `step` steps of the optimizer, its moments.

    So only the first needs to see the run directory; and it does not matter if machines initialise differently.
    """
    if world.size == 1:
        return
    tensors = list(model.state_dict().values())
    if step:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            state = optimizer.state[parameter]
            if not world.is_main:
                state["step"] = torch.tensor(float(step), device=parameter.device)
                state |= {moment: torch.zeros_like(parameter) for moment in ("exp_avg", "exp_avg_sq")}
            tensors += (state["exp_avg"], state["exp_avg_sq"])
    for tensor in tensors:
        with _connection():
            dist.broadcast(tensor, src=0)


def rank_seed(seed: int, step: int, rank: int) -> int:
    """Names the random numbers of a process that begins to take part in a run after `step` updates."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """WorkerError for what the backends raise when another process is gone or silent."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise WorkerError(
            f"another process of this job has ended or does not answer ({reason}); the same command goes on from what "
            "is saved"
        ) from None


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Standard output is for translations: gloo of torch 2.8 to 2.10 greets there, past Python."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _is_first_failure(store: Store) -> bool:
    try:
        return bool(store.add("failures", 1) == 1)
    except RuntimeError:  # nobody is there to be told
        return True

"""Torch's random numbers: their state in this process, and numbers that nothing else draws from."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from transformer.errors import InUseError

# Torch's RNG state by kind of device.
RNGState = dict[str, Tensor]
_TRAINING = threading.RLock()  # held by the thread that trains


def get_rng_state() -> RNGState:
    """Torch's RNG state in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: RNGState) -> None:
    """Restore torch's RNG state in this process."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def kept_rng_state() -> Iterator[None]:
    """Leave torch's RNG state as it was, whatever is drawn inside."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch's random numbers, of which a process has one source, for this thread.

    InUseError if another thread does; threads that do not ask are not kept from drawing.
    """
    if not _TRAINING.acquire(blocking=False):
        raise InUseError(
            "another thread of this process is training, and torch's random numbers are one sequence per process: wait "
            "until it ends, or train in another process"
        )
    try:
        yield
    finally:
        _TRAINING.release()


@contextlib.contextmanager
def process_kept() -> Iterator[None]:
    """Leave random numbers and default dtype of the process as they were; inside, the dtype is float32.

    InUseError as of `one_thread`.
    """
    dtype = torch.get_default_dtype()
    with one_thread(), kept_rng_state():
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


class OwnRNG:
    """Random numbers of one computation, from the state at its creation on; others in its thread draw none of them."""

    def __init__(self) -> None:
        self._state, self._is_in_use = get_rng_state(), False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let torch draw these numbers, as of `process_kept`; may be nested."""
        with one_thread():
            is_nested = self._is_in_use
        if is_nested:
            yield
            return
        with process_kept():
            set_rng_state(self._state)
            self._is_in_use = True
            try:
                yield
            finally:
                self._state, self._is_in_use = get_rng_state(), False

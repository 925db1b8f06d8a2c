"""Torch's random numbers: their state in this process, and numbers that nothing else draws from."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

# Torch's RNG state by kind of device.
RNGState = dict[str, Tensor]


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


class OwnRNG:
    """Random numbers of one computation, from the state at its creation on; others in the process draw none of them."""

    def __init__(self) -> None:
        self._state, self._is_in_use = get_rng_state(), False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let torch draw these numbers; may be nested."""
        if self._is_in_use:
            yield
            return
        with kept_rng_state():
            set_rng_state(self._state)
            self._is_in_use = True
            try:
                yield
            finally:
                self._state, self._is_in_use = get_rng_state(), False

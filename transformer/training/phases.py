"""The phases of an update by name, so that whoever measures can time them; by default nobody does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

# What happens inside `with phase("forward"):` is that phase. They are data, forward, backward and optimizer.
Phase = Callable[[str], AbstractContextManager[object]]


def untimed(name: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """A phase that nobody times."""
    return nullcontext()

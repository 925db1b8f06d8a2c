"""The layers of packed batches as one compiled graph, where a compiler works."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transformer.errors import one_line
from transformer.model.transformer import Transformer
from transformer.progress import say
from transformer.training.device import is_out_of_memory
from transformer.training.packed.cuda_batch import Shape, packed_states

_COMPILERS = ("torch._dynamo", "torch._inductor")


class CompiledStates:
    """`packed_states` by torch.compile, one graph for each shape; uncompiled once the compiler has failed.

    The model itself stays as it is: validation, checkpoints and copies do not know of the graph. Masks of dropout are
    other ones than without compiling.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options  # of torch.compile
        self._compiled: Any = None
        self._is_proven = False
        self.is_on = True

    def __call__(self, model: Transformer, numbers: Tensor, shape: Shape, *positions: Tensor) -> Tensor:
        if not self.is_on:
            return packed_states(model, numbers, shape, *positions)
        if self._compiled is None:
            self._compiled = torch.compile(packed_states, fullgraph=True, dynamic=False, **self._options)
        found: Tensor = self._compiled(model, numbers, shape, *positions)
        return found

    def confirm(self) -> None:
        """An update has gone through: from now on, only errors of the compiler are errors of compiling."""
        self._is_proven = self._compiled is not None

    def gives_up(self, error: BaseException) -> bool:
        """Compute uncompiled from now on if the compiler may be the reason of an error; says so, and returns whether.

        Without a C compiler or Triton there is no telling by its type, so all errors of the first update count, but for
        a lack of memory.
        """
        of_compiler = type(error).__module__.startswith(_COMPILERS)
        if not self.is_on or is_out_of_memory(error) or (self._is_proven and not of_compiler):
            return False
        self.is_on = False
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        say(one_line(f"torch.compile failed ({reason}); training goes on without it, slower"))
        return True

"""What a search asks of a decoder, whatever model is behind it; and the start of every search.

Dimension key: B sentences, W hypotheses of each, R = B·W rows, sentence by sentence; V vocabulary, t tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from transformer.inference.exchange import to_device
from transformer.inference.rules import whole_numbers


class SearchState(Protocol):
    """The decoder's state, which a search reorders but never reads.

    A state that keeps one row per hypothesis:

        @dataclass(frozen=True)
        class Cache:
            past: Tensor  # (R, t, D)

            def select(self, rows: Tensor) -> Cache:
                return Cache(self.past[rows.flatten()])
    """

    def select(self: State, rows: Tensor) -> State:
        """Repeat, reorder and drop hypotheses and sentences.

        Args:
            rows: (B', W') int64: hypothesis j of sentence i continues old row rows[i, j]. Old rows are numbered
                sentence by sentence. All entries of a row belong to one old sentence; sentences keep their order.
        """


State = TypeVar("State", bound=SearchState)
# From the last tokens (R,) int64 and a state: logits (R, V) of the next token, and the state after the last.
Decode = Callable[[Tensor, State], tuple[Tensor, State]]
BosId = int | Sequence[Sequence[int]]
EosId = int | Collection[int]
Device = torch.device | str


def prefill(
    decode: Decode[State], state: State, max_lengths: Sequence[int], bos_id: BosId, eos_id: EosId, device: Device
) -> tuple[list[int], frozenset[int], Tensor, State]:
    """Check the arguments of a search and decode the start tokens.

    Returns limits, ids of </s>, logits (B, V) of the first token and the state before it.
    """
    limits = whole_numbers("max_lengths", max_lengths)
    if min(limits, default=1) < 1:
        raise ValueError(f"max_lengths has {min(limits)}: every limit must be at least 1")
    eos_ids = frozenset(eos_id if isinstance(eos_id, Collection) else [eos_id])
    if not all(isinstance(token, int) for token in eos_ids):
        raise TypeError(f"eos_id={eos_id!r} must be an int or a collection of ints")
    prompts = [[bos_id]] * len(limits) if isinstance(bos_id, int) else bos_id
    lengths = {len(prompt) if isinstance(prompt, Sequence) else 0 for prompt in prompts}
    if len(prompts) != len(limits) or len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"bos_id must be an int or {len(limits)} equally long prompts, one per sentence")
    logits = torch.empty((0, 1), device=device)
    if limits:
        prompts = [whole_numbers("bos_id", prompt) for prompt in prompts]
        for tokens in to_device(prompts, device).unbind(1):  # (B,)
            logits, state = decode(tokens, state)
    return limits, eos_ids, logits, state

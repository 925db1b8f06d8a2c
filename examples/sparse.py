"""Longformer (Beltagy et al. 2020) and BigBird (Zaheer et al. 2020): attention to a few positions of many.

A position attends to a window around it and to some global tokens, which attend to all and are attended by all; in
BigBird to random blocks besides: O(n (w + g + r)) pairs instead of n². This is full attention under a mask, of which
only what is visible is computed. The table: questions, at the front, are about items anywhere behind them.

    python examples/sparse.py
"""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from masks import check_lengths, check_mask
from options import read_options, run
from recall import Recall, answered, train
from report import print_end, print_table
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from transformer import DotProductAttention, KeyValue, MultiHeadAttention
from transformer.model.alternatives.relative import WrappedAttention


class Pattern(NamedTuple):
    """What a query attends to."""

    block: int  # so many queries are computed together; a random block has so many keys
    window: int  # w: keys with |i - j| ≤ w / 2, as in Longformer
    whole_blocks: bool = False  # the blocks that these keys are in instead, as in BigBird
    first: int = 0  # so many tokens at the beginning are global,
    last: int = 0  # and at the end
    num_random: int = 0  # random blocks per block of queries

    def keys(self, length: int, seed: int) -> list[tuple[list[int], list[int]]]:
        """By block, keys that all its queries see, global and random, and the others near to it; each key once."""
        size, reach, draw, found = self.block, self.window // 2, random.Random(seed), []
        everywhere = {*range(min(self.first, length)), *range(max(0, length - self.last), length)}
        blocks = [range(start, min(start + size, length)) for start in range(0, length, size)]
        for block in blocks:
            around = reach // size * size if self.whole_blocks else reach
            near = {*range(max(0, block[0] - around), min(length, block[0] + size + around))}
            others = [other for other in blocks if not {other[0], other[-1]} & (near | everywhere)]
            drawn = draw.sample(others, min(self.num_random, len(others)))
            far = everywhere.union(*drawn)
            found.append((sorted(far), sorted(near - far)))
        return found


class SparseAttention(WrappedAttention):
    """Attention of `inner` by a pattern; random blocks are drawn once for each length, alike for all heads."""

    def __init__(self, inner: DotProductAttention, pattern: Pattern, seed: int = 1) -> None:
        super().__init__(inner)
        self.pattern, self.seed = pattern, seed
        self._plans: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `DotProductAttention.forward`. ValueError for keys of other positions, or a mask not (B, 1, 1, n)."""
        check_lengths(q, k)
        check_mask(mask, q.size(2))
        batch, length = len(q), q.size(2)
        keys, visible = self.plan(length)  # (blocks, M), (blocks, block, M)
        if mask is not None:
            visible = visible & mask[:, 0, 0][:, keys][:, :, None]  # (B, blocks, block, M)
        visible = visible.expand(batch, *visible.shape[-3:]).flatten(0, 1)[:, None]  # (B · blocks, 1, block, M)
        of_blocks = F.pad(q, (0, 0, 0, keys.size(0) * self.pattern.block - length)).unflatten(2, (len(keys), -1))
        # Blocks as sentences of their own: (B · blocks, H, block, d).
        blocks = (x.transpose(1, 2).flatten(0, 1) for x in (of_blocks, k[:, :, keys], v[:, :, keys]))
        context = self.inner(*blocks, visible).unflatten(0, (batch, -1)).transpose(1, 2)
        context = context.flatten(2, 3)[:, :, :length]  # (B, H, n, d_v)
        # Global tokens attend to all positions.
        for rows in (slice(0, self.pattern.first), slice(max(0, length - self.pattern.last), length)):
            if rows.start < rows.stop:
                of_global = self.inner(q[:, :, rows], k, v, mask)  # (B, H, g, d_v)
                context = torch.cat((context[:, :, : rows.start], of_global, context[:, :, rows.stop :]), dim=2)
        return context

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        visible = self.visible(q.size(2))
        return self.inner.weights(q, k, visible if mask is None else visible & mask)

    def visible(self, length: int) -> Tensor:
        """The pattern as a mask of full attention, (n, n)."""
        keys, visible = self.plan(length)
        found = visible.new_zeros(*visible.shape[:2], length, dtype=torch.int64)
        found = found.scatter_add(2, keys[:, None].expand_as(visible), visible.long()).flatten(0, 1)[:length]
        found[: self.pattern.first] = found[max(0, length - self.pattern.last) :] = 1
        return found > 0

    def plan(self, length: int) -> tuple[Tensor, Tensor]:
        """By block of queries, the keys computed (blocks, M) and for which queries (blocks, block, M)."""
        if length not in self._plans:
            size, found = self.pattern.block, self.pattern.keys(length, self.seed)
            keys = pad_sequence([torch.tensor(far + near) for far, near in found], True, -1)  # (blocks, M)
            is_far = torch.arange(keys.size(1)) < torch.tensor([len(far) for far, _ in found])[:, None]
            queries = torch.arange(len(keys) * size).view(-1, size, 1)
            is_near = (queries - keys[:, None]).abs() <= self.pattern.window // 2  # (blocks, block, M)
            visible = (is_near | is_far[:, None] | self.pattern.whole_blocks) & (keys >= 0)[:, None]
            self._plans[length] = keys.clamp(min=0), visible
        return self._plans[length]


class LongformerAttention(MultiHeadAttention):
    """Attention to w neighbours and g global tokens, the first, whose rows have projections of their own."""

    def __init__(self, d_model: int, num_heads: int, *, window: int, num_global: int, **options: Any) -> None:
        attention = SparseAttention(DotProductAttention(), Pattern(max(32, window), window, first=num_global))
        super().__init__(d_model, num_heads, attention=attention, **options)
        self.num_global, self.of_global = num_global, MultiHeadAttention(d_model, num_heads, **options)
        self.of_global.w_o = self.w_o

    def forward(self, x: Tensor, memory: Tensor | KeyValue | None = None, *, mask: Any = None) -> Tensor:
        rows = super().forward(x, memory, mask=mask)
        return torch.cat((self.of_global(x[:, : self.num_global], x, mask=mask), rows[:, self.num_global :]), dim=1)


def main(argv: list[str] | None = None) -> None:
    options = read_options(__doc__, argv, updates=300, items=112, questions=16)
    start, num_heads, d_model, size = time.perf_counter(), 4, 64, options.questions
    length = options.items + size
    task = {"batch": 32, "num_items": options.items, "num_questions": size, "first": True}
    patterns = {
        "window": Pattern(size, 2 * size),
        "window and random blocks": Pattern(size, 2 * size, num_random=2),
        "window and global tokens (Longformer)": Pattern(size, 2 * size, first=size),
        "all three, in blocks (BigBird)": Pattern(size, 3 * size, True, first=size, last=size, num_random=1),
        "full": Pattern(length, 2 * length),
    }
    rows = []
    for name, pattern in patterns.items():
        torch.manual_seed(options.seed)
        attention = SparseAttention(DotProductAttention(), pattern)
        model = Recall([MultiHeadAttention(d_model, num_heads, attention=attention)], options.items, d_model)
        train(model, options.updates, lr=6e-3, **task)
        correct, distance = answered(model, **task)
        near, far = (f"{100 * correct[which].mean():.1f} %" for which in (distance <= size, distance > size))
        rows.append((name, f"{100 * attention.visible(length).float().mean():.0f} %", near, far))
    print_table(("attention", "pairs of positions", f"answers up to {size} away", "farther"), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

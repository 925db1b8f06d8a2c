"""Reformer (Kitaev et al. 2020): attention to the positions in the same bucket of a hash of the vectors.

A softmax is mostly its largest scores, and those are of vectors of similar direction. Locality-sensitive hashing puts
such vectors into the same bucket; sorted by bucket and cut into chunks, each attends to its own chunk and the one
before: O(R n c) pairs for R rounds and chunks of c instead of n², and hashing by products with vectors of all buckets.
Queries and keys must be the same vectors.
The table: a model trained with few rounds, or with full attention, answers with any number of them.

    python examples/lsh.py
"""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from masks import check_lengths, check_mask
from options import read_options, run
from recall import Recall, answered, train
from report import print_end, print_table
from torch import Tensor

from transformer import DotProductAttention, MultiHeadAttention, causal_mask

SELF_SCORE = -1e5  # a position attends to itself only if there is no other, because q·k is largest there


class SharedQueryKey(MultiHeadAttention):
    """Multi-head attention with W^Q = W^K; the keys have length 1 (`keys` of the attentions here)."""

    def __init__(self, d_model: int, num_heads: int, attention: DotProductAttention) -> None:
        super().__init__(d_model, num_heads, attention=attention)
        self.w_k = self.w_q


class FullAttention(DotProductAttention):
    """What LSH attention approximates: softmax(QKᵀ/√d_k)V, k_j = q_j / |q_j|, itself as a last resort."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.dropout(self.weights(q, k, mask)) @ v

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        check_lengths(q, k)
        itself = torch.eye(q.size(2), dtype=torch.bool, device=q.device)
        return super().scores(q, k).masked_fill(itself, self_score(q.dtype))

    def keys(self, k: Tensor, start: int) -> Tensor:  # noqa: ARG002
        return F.normalize(k, dim=-1)


class LSHAttention(FullAttention):
    """Attention within buckets, of which hyperplanes drawn for each call are the borders.

    Args:
        num_buckets: even, or 1; it, `chunk` and `num_rounds` are at least 1 (else ValueError).
        chunk: c; a position meets those of its bucket in its own chunk of c and in the one before.
        num_rounds: R, with other hyperplanes each.
    """

    def __init__(self, num_buckets: int, chunk: int, num_rounds: int = 1, *, causal: bool = True) -> None:
        super().__init__()
        if num_buckets < 1 or (num_buckets % 2 and num_buckets != 1):
            raise ValueError(f"num_buckets={num_buckets} is neither a positive even number nor 1")
        if chunk < 1 or num_rounds < 1:
            raise ValueError(f"chunk={chunk} and num_rounds={num_rounds} must be at least 1")
        self.num_buckets, self.chunk, self.num_rounds, self.causal = num_buckets, chunk, num_rounds, causal

    def buckets(self, q: Tensor) -> Tensor:
        """h(x) = argmax [xR; -xR], R random by head and round: (B, H, n, d_k) to (B, H, rounds, n) int64."""
        planes = torch.randn(q.size(1), self.num_rounds, q.size(3), max(1, self.num_buckets // 2)).to(q)
        rotated = q[:, :, None] @ planes  # (B, H, rounds, n, buckets / 2)
        return torch.cat((rotated, -rotated), dim=-1)[..., : self.num_buckets].argmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `DotProductAttention.forward`. ValueError for keys of other positions, or a mask not (B, 1, 1, n)."""
        check_lengths(q, k)
        check_mask(mask, q.size(2))
        length, size = q.size(2), self.chunk
        # Padding, and what fills the last chunk, is in a bucket of its own, behind all others.
        buckets = self.buckets(q) if mask is None else self.buckets(q).masked_fill(~mask, self.num_buckets)
        buckets = F.pad(buckets, (0, -length % size), value=self.num_buckets)  # (B, H, R, L), L a multiple of c
        order = buckets.argsort(dim=-1, stable=True)  # by bucket, then by position
        slots = order.argsort(dim=-1)  # the place of each position in that order
        num_chunks = order.size(-1) // size

        def chunks(x: Tensor) -> Tensor:  # (B, H, L, d) to (B, H, R, L / c, c, d)
            x = F.pad(x, (0, 0, 0, order.size(-1) - x.size(2)))[:, :, None].expand(*order.shape, -1)
            return _in_order(x, order).unflatten(3, (-1, size))

        def with_previous(x: Tensor) -> Tensor:  # (B, H, R, L / c, 2c, d); the first chunk gets the last, never met
            return x if num_chunks == 1 else torch.cat((x.roll(1, dims=3), x), dim=4)

        # A query and a key meet in the rounds in which its code is the key's, or one more.
        codes = chunks((buckets * 2 * num_chunks + slots // size).int().mT)  # of all rounds: (B, H, R, L / c, c, R)
        has_met = (codes[..., None, :] - with_previous(codes)[..., None, :, :]) >> 1 == 0  # (B, H, R, L / c, c, 2c, R)
        positions = order.unflatten(3, (-1, size))[..., None]  # (B, H, R, L / c, c, 1)
        behind = positions - with_previous(positions).mT  # (B, H, R, L / c, c, 2c)
        visible = has_met.diagonal(dim1=2, dim2=6).movedim(-1, 2) & ((behind >= 0) | (not self.causal))
        scores = chunks(q) @ with_previous(chunks(k)).mT / math.sqrt(q.size(-1))
        scores = scores - has_met.sum(dim=-1, dtype=q.dtype).clamp(min=1).log()
        scores = scores.masked_fill(behind == 0, self_score(q.dtype)).masked_fill(~visible, torch.finfo(q.dtype).min)
        total = scores.logsumexp(dim=-1, keepdim=True)
        context = self.dropout((scores - total).exp()) @ with_previous(chunks(v))
        # Back in place; rounds are weighted by the sums of their exponentials.
        context, total = (_in_order(x.flatten(3, 4), slots) for x in (context, total))  # (B, H, R, L, d_v or 1)
        return (total.softmax(dim=2) * context).sum(dim=2)[:, :, :length]

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        return self(q, k, torch.eye(q.size(2), dtype=q.dtype, device=q.device).expand(*q.shape[:2], -1, -1), mask)


def self_score(dtype: torch.dtype) -> float:
    """SELF_SCORE, or what float16 has room for; still above the score of what is not visible."""
    return max(SELF_SCORE, torch.finfo(dtype).min / 2)


def _in_order(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x (B, H, R, L, d) by their numbers (B, H, R, L)."""
    return x.gather(3, order[..., None].expand_as(x))


def main(argv: list[str] | None = None) -> None:
    options = read_options(__doc__, argv, updates=400, items=64, chunk=16)
    start, d_model, num_heads = time.perf_counter(), 64, 4
    task = {"batch": 32, "num_items": options.items, "num_questions": options.items}
    attentions: dict[str, FullAttention] = {"full attention": FullAttention()}
    for num_rounds in (1, 2, 4, 8):
        name = f"{num_rounds} round{'s' if num_rounds > 1 else ''}"
        attentions[name] = LSHAttention(2 * math.ceil(options.items / options.chunk), options.chunk, num_rounds)
    masks = {"full attention": causal_mask(2 * options.items)}  # hashing has the order by itself
    rows = []
    for trained in ("full attention", "1 round", "4 rounds"):
        torch.manual_seed(options.seed)
        module = SharedQueryKey(d_model, num_heads, attentions[trained])
        model = Recall([module], options.items, d_model)
        train(model, options.updates, lr=6e-3, mask=masks.get(trained), **task)
        cells = []
        for name, attention in attentions.items():
            module.attention = attention
            correct, _ = answered(model, batches=2, mask=masks.get(name), **task)
            cells.append(f"{100 * correct.mean():.1f} %")
        rows.append((trained, *cells))
    print_table(("trained with", *attentions), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

"""Linformer (Wang et al. 2020): keys and values projected along the length, from n to k of them.

Attention matrices that were learned have nearly low rank, so a few combinations of keys and values may do:
softmax(Q (EK)ᵀ / √d_k) FV with E and F of size (k, n), learned, in O(n k). The combinations mix all positions: there is
no causal form, and the length has a limit. The table: questions about one of n items each, by the size k.

    python examples/linformer.py
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from masks import check_mask
from options import demand, read_options, run
from recall import Recall, answered, train
from report import print_end, print_table
from torch import Tensor, nn

from transformer import DotProductAttention, MultiHeadAttention
from transformer.model.alternatives.relative import WrappedAttention


class LengthProjection(nn.Module):
    """E or F: from up to `max_length` positions to k of them, `size`. To share it, give it to several attentions."""

    def __init__(self, size: int, max_length: int) -> None:
        super().__init__()
        if not 1 <= size <= max_length:
            raise ValueError(f"size={size} is not from 1 to max_length={max_length}")
        self.weight = nn.Parameter(torch.empty(size, max_length))  # √n E: at its own scale Adam's updates drown E
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Means of k segments: of all positions alike, as one segment, up to each by itself, if k = n."""
        size, max_length = self.weight.shape
        segments = F.one_hot(torch.arange(max_length) * size // max_length, size).T.float()  # (k, n)
        with torch.no_grad():
            self.weight.copy_(segments / segments.sum(dim=1, keepdim=True) * max_length**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, n, d) to (B, H, k, d); ValueError if n is past the limit."""
        if x.size(2) > self.weight.size(1):
            raise ValueError(f"{x.size(2)} positions are more than max_length={self.weight.size(1)}")
        return self.weight[:, : x.size(2)] * self.weight.size(1) ** -0.5 @ x


class LinformerAttention(WrappedAttention):
    """softmax(Q (EK)ᵀ / √d_k) FV, by `inner`.

    Args:
        inner: the attention to the k projected keys.
        keys_projection, values_projection: E and F, for all heads; by default one for both.
    """

    def __init__(
        self,
        inner: DotProductAttention,
        keys_projection: LengthProjection,
        values_projection: LengthProjection | None = None,
    ) -> None:
        super().__init__(inner)
        self.e, self.f = keys_projection, values_projection or keys_projection

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `DotProductAttention.forward`; ValueError unless `mask` is that of padding, (B, 1, 1, n)."""
        check_mask(mask, k.size(2))
        if mask is not None:
            k, v = (x.masked_fill(~mask.mT, 0.0) for x in (k, v))  # or padding would enter the combinations
        return self.inner(q, self.e(k), self.f(v))

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """What multiplies the values: softmax(Q (EK)ᵀ / √d_k) F, of any sign: (B, H, n, n)."""
        return self(q, k, torch.eye(k.size(2), dtype=q.dtype, device=q.device).expand(*k.shape[:2], -1, -1), mask)


def best_of_rank(weights: Tensor, rank: int) -> Tensor:
    """The nearest matrix of a rank to each of weights (..., n, n), by singular value decomposition."""
    u, s, vh = torch.linalg.svd(weights)
    return u[..., :rank] * s[..., None, :rank] @ vh[..., :rank, :]


def main(argv: list[str] | None = None) -> None:
    options = read_options(__doc__, argv, updates=300, items=64)
    start, d_model, num_heads, length = time.perf_counter(), 64, 4, 2 * options.items
    demand(length >= 16, f"--items {options.items} is less than 8, of which k = 1 is a sixteenth of the positions")
    task = {"batch": 32, "num_items": options.items, "num_questions": options.items}

    def trained(attention: DotProductAttention) -> tuple[Recall, str]:
        torch.manual_seed(options.seed)
        model = Recall([MultiHeadAttention(d_model, num_heads, attention=attention)], options.items, d_model)
        train(model, options.updates, lr=6e-3, **task)
        return model, f"{100 * answered(model, **task)[0].mean():.1f} %"

    model, accuracy = trained(DotProductAttention())
    rows = [("full", "", "0", accuracy)]
    q, k, v = torch.randn(3, 1, num_heads, length, d_model // num_heads)
    exact = DotProductAttention()(q, k, v)
    for size in (length // 16, length // 4, length // 2, length):
        attention = LinformerAttention(DotProductAttention(), LengthProjection(size, length))
        with torch.no_grad():
            segments = (attention(q, k, v) - exact).norm() / exact.norm()
            low_rank = best_of_rank(DotProductAttention().weights(q, k), size) @ v
            best = (low_rank - exact).norm() / exact.norm()
        rows.append((f"k = {size}", f"{segments:.2f}", f"{best:.2f}", trained(attention)[1]))
    header = (
        "attention",
        "relative error, means of segments",
        "of the best matrix of rank k",
        "answers after training",
    )
    print_table(header, rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

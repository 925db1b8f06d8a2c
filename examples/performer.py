"""Performer (Choromanski et al. 2021): the softmax kernel by random features, FAVOR+.

exp(q·k / √d_k) is the mean of φ(q)·φ(k) over random φ. So attention is φ(Q) (φ(K)ᵀ V), divided by φ(Q) (φ(K)ᵀ 1): no
matrix of all pairs, O(n m d_k) for m features, and causal by running sums. Features are positive, or a small sum of
weights would drown in noise of both signs, and orthogonal, which lowers their variance.
The table: how near that is by m, and how much of what a sequence lists can be told apart through it.

    python examples/performer.py
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from masks import check_lengths, check_mask
from options import read_options, run
from recall import Recall, answered, train
from report import print_end, print_table
from torch import Tensor

from transformer import DotProductAttention, MultiHeadAttention, causal_mask

_CHUNK = 64  # positions per step of the running sums: fewer means larger sums, more means more pairs


def gaussian_rows(num_features: int, d_k: int, *, orthogonal: bool = True) -> Tensor:
    """W of N(0, I) rows, (m, d_k); if orthogonal, in blocks of d_k rows, each with the norm of a Gaussian row."""
    rows = torch.randn(num_features, d_k)
    if not orthogonal:
        return rows
    blocks = []
    for _ in range(-(-num_features // d_k)):
        q, r = torch.linalg.qr(torch.randn(d_k, d_k))
        # The signs that the library has chosen are undone: with them directions are not uniform, and for d_k = 5 the
        # mean was off by 10 %.
        blocks.append((q * r.diagonal().sign()).mT)
    return torch.cat(blocks)[:num_features] * rows.norm(dim=1, keepdim=True)


def log_features(x: Tensor, rows: Tensor) -> Tensor:
    """log φ(x) √m = Wx̃ - |x̃|²/2 with x̃ = x / d_k^¼: E[φ(q)·φ(k)] = exp(q·k / √d_k); (..., d_k) to (..., m)."""
    x = x * x.size(-1) ** -0.25
    return x @ rows.to(x).mT - x.square().sum(dim=-1, keepdim=True) / 2


def trigonometric_features(x: Tensor, rows: Tensor) -> Tensor:
    """exp(|x̃|²/2) [cos Wx̃, sin Wx̃] / √m, of the same mean, of both signs: what came before; (..., d_k) to (..., 2m)."""
    x = x * x.size(-1) ** -0.25
    angles = x @ rows.to(x).mT
    scale = (x.square().sum(dim=-1, keepdim=True) / 2).exp() * len(rows) ** -0.5
    return torch.cat((angles.cos(), angles.sin()), dim=-1) * scale


class PerformerAttention(DotProductAttention):
    """φ(Q) (φ(K)ᵀ V) / φ(Q) (φ(K)ᵀ 1) with m positive features, causal or not; drawn anew by `redraw`.

    No weight is on later positions, but it is not causal to the bit: as in the authors' code, the features of all keys
    are divided by the largest of them, and 10⁻⁶ is added. So a later key of much larger features dims earlier ones.
    """

    def __init__(self, num_features: int, d_k: int, *, causal: bool = True, orthogonal: bool = True) -> None:
        super().__init__()
        self.causal, self.orthogonal = causal, orthogonal
        self.rows: Tensor
        self.register_buffer("rows", torch.empty(num_features, d_k))
        self.redraw()

    def redraw(self) -> None:
        """Draw other features."""
        self.rows = gaussian_rows(*self.rows.shape, orthogonal=self.orthogonal).to(self.rows)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `DotProductAttention.forward`. ValueError for a mask not (B, 1, 1, n), if causal for other positions."""
        check_mask(mask, k.size(2))
        if self.causal:
            check_lengths(q, k)
        # Factors of a query's features, and of the features of all keys, cancel: the largest becomes exp(0).
        phi_q, phi_k = log_features(q, self.rows), log_features(k, self.rows)  # (B, H, n, m)
        if mask is not None:  # nor is padding ever the largest
            phi_k = phi_k.masked_fill(~mask.mT, torch.finfo(k.dtype).min)
        phi_q = (phi_q - phi_q.amax(dim=-1, keepdim=True).detach()).exp() + 1e-6
        phi_k = (phi_k - phi_k.amax(dim=(-2, -1), keepdim=True).detach()).exp() + 1e-6
        if mask is not None:
            phi_k = phi_k.masked_fill(~mask.mT, 0.0)
        v = F.pad(v, (0, 1), value=1.0)  # a last column that sums the weights: (B, H, n, d_v + 1)
        sums = running_sums(phi_q, phi_k, v) if self.causal else phi_q @ (phi_k.mT @ v)
        return sums[..., :-1] / sums[..., -1:].clamp(min=1e-7)  # they are above 10⁻⁶, or there is no key: 0

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        return self(q, k, torch.eye(k.size(2), dtype=q.dtype, device=q.device).expand(*k.shape[:2], -1, -1), mask)


def running_sums(phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
    """φ(q_i) Σ_{j ≤ i} φ(k_j)ᵀ v_j, chunk by chunk: (B, H, n, m), twice, and (B, H, n, d) to (B, H, n, d)."""
    length = v.size(2)
    chunks = (F.pad(x, (0, 0, 0, -length % _CHUNK)).unflatten(2, (-1, _CHUNK)) for x in (phi_q, phi_k, v))
    phi_q, phi_k, v = chunks  # (B, H, n / c, c, m or d)
    sums = phi_k.mT @ v  # of each chunk: (B, H, n / c, m, d)
    before = sums.cumsum(dim=2) - sums
    inside = (phi_q @ phi_k.mT).tril() @ v
    return (phi_q @ before + inside).flatten(2, 3)[:, :, :length]


def errors(num_features: int, deviation: float, length: int = 256, d_k: int = 32, draws: int = 20) -> list[str]:
    """Median relative errors of causal attention by positive and other features; `deviation` is that of the scores."""
    q, k, v = torch.randn(3, 1, 4, length, d_k)
    q, k = (x * deviation**0.5 for x in (q, k))
    exact, found = DotProductAttention()(q, k, v, causal_mask(length)), []
    ones = F.pad(v, (0, 1), value=1.0)
    for _ in range(draws):
        rows = gaussian_rows(num_features // 2, d_k)  # of each a cosine and a sine
        noisy = running_sums(trigonometric_features(q, rows), trigonometric_features(k, rows), ones)
        results = PerformerAttention(num_features, d_k)(q, k, v), noisy[..., :-1] / noisy[..., -1:]
        found.append(torch.stack([(result - exact).norm() / exact.norm() for result in results]))
    return [f"{error:.2f}" for error in torch.stack(found).median(dim=0).values]


def main(argv: list[str] | None = None) -> None:
    options = read_options(__doc__, argv, updates=600, items=64)
    start, d_model, num_heads = time.perf_counter(), 64, 4
    task = {"batch": 32, "num_items": options.items, "num_questions": options.items}
    rows: list[tuple[str, ...]] = []
    for num_features in (16, 64, 256, None):
        torch.manual_seed(options.seed)
        d_k = d_model // num_heads
        attention = DotProductAttention() if num_features is None else PerformerAttention(num_features, d_k)
        model = Recall([MultiHeadAttention(d_model, num_heads, attention=attention)], options.items, d_model)
        mask = causal_mask(2 * options.items) if num_features is None else None
        train(model, options.updates, lr=6e-3, mask=mask, **task)
        cells = ["0"] * 4 if num_features is None else errors(num_features, 0.25) + errors(num_features, 1.0)
        name = "full" if num_features is None else f"m = {num_features}"
        rows.append((name, *cells, f"{100 * answered(model, mask=mask, **task)[0].mean():.1f} %"))
    kinds = (f"{kind}, scores of deviation {size}" for size in ("¼", "1") for kind in ("error", "trigonometric"))
    print_table(("attention", *kinds, "answers after training"), rows)
    print_end(time.perf_counter() - start, model)


if __name__ == "__main__":
    run(main)

"""Performer: the softmax kernel as the mean of products of random features."""

from __future__ import annotations

import itertools
import math
import re

import performer
import pytest
import torch
from performer import PerformerAttention, gaussian_rows, log_features, running_sums, trigonometric_features
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer import DotProductAttention, causal_mask, padding_mask

B, H, N, D, M = 2, 3, 67, 5, 13
DRAWS = 20_011


def inputs(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    q, k, v = (torch.randn(B, H, N, size, dtype=torch.float64) for size in (D, D, 7))
    return scale * q, scale * k, v


def estimates(x: Tensor, y: Tensor, num_features: int, *, orthogonal: bool) -> Tensor:
    """φ(x)·φ(y) / m for many draws."""
    torch.manual_seed(2)
    found = []
    for _ in range(DRAWS // 10):
        rows = gaussian_rows(num_features, len(x), orthogonal=orthogonal).double()
        found.append((log_features(x, rows) + log_features(y, rows)).exp().mean())
    return torch.stack(found)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_estimate_of_the_softmax_kernel_is_unbiased(orthogonal: bool) -> None:
    torch.manual_seed(3)
    x, y = 0.7 * torch.randn(2, D, dtype=torch.float64)
    found = estimates(x, y, D, orthogonal=orthogonal)
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - (x @ y / math.sqrt(D)).exp()) < 4 * error
    assert error < 0.05 * found.mean()


@pytest.mark.parametrize("kind", ["positive", "trigonometric"])
def test_the_variance_is_that_of_lemma_2(kind: str) -> None:
    """With z = x̃ + ỹ and δ = x̃ - ỹ: e^|z|² SM² (1 - e^-|z|²) / m and e^|z|² SM⁻² (1 - e^-|δ|²)² / 2m."""
    torch.manual_seed(4)
    x, y = 0.8 * torch.randn(2, D, dtype=torch.float64)
    torch.manual_seed(2)
    rows = gaussian_rows(DRAWS, D, orthogonal=False).double()
    scaled = x * D**-0.25, y * D**-0.25
    kernel = (scaled[0] @ scaled[1]).exp()
    z, delta = (scaled[0] + scaled[1]).square().sum(), (scaled[0] - scaled[1]).square().sum()
    if kind == "positive":
        found = (log_features(x, rows) + log_features(y, rows)).exp()
        expected = z.exp() * kernel**2 * (1 - (-z).exp())
    else:
        products = trigonometric_features(x, rows) * trigonometric_features(y, rows) * DRAWS
        found = products[:DRAWS] + products[DRAWS:]  # the cosine and the sine of each row
        expected = z.exp() / kernel**2 * (1 - (-delta).exp()) ** 2 / 2
    assert abs(found.mean() - kernel) < 4 * found.std() / math.sqrt(DRAWS)
    assert found.var().item() == pytest.approx(expected.item(), rel=0.15)


def test_orthogonal_rows_lower_the_variance() -> None:
    torch.manual_seed(3)
    x, y = 0.7 * torch.randn(2, D, dtype=torch.float64)
    assert estimates(x, y, D, orthogonal=True).var() < 0.9 * estimates(x, y, D, orthogonal=False).var()


def test_rows_are_orthogonal_in_blocks_with_norms_of_gaussian_rows() -> None:
    torch.manual_seed(5)
    rows = gaussian_rows(3 * D + 2, D)
    assert rows.shape == (3 * D + 2, D)
    for block in rows.split(D):
        products = block @ block.T
        assert_close(products, products.diagonal().diag(), atol=1e-5, rtol=0)
    # |w|² is χ² with D degrees of freedom: mean D, variance 2D.
    squares = gaussian_rows(4001, D).square().sum(dim=1)
    assert squares.mean().item() == pytest.approx(D, abs=4 * math.sqrt(2 * D / 4001))
    assert squares.var().item() == pytest.approx(2 * D, rel=0.2)


def masked_dense(attention: PerformerAttention, q: Tensor, k: Tensor, visible: Tensor) -> Tensor:
    """The weights with all pairs: features as in the paper, stabilised as documented."""
    rows, scale = attention.rows.to(q), D**-0.25
    logs = [scale * x @ rows.T - (scale * x).square().sum(-1, keepdim=True) / 2 for x in (q, k)]
    phi_q = (logs[0] - logs[0].amax(-1, keepdim=True)).exp() + 1e-6
    is_key = visible.any(-2)[..., None]  # by any query: (B or 1, 1, N, 1)
    phi_k = (logs[1] - logs[1].where(is_key, -torch.inf).amax((-2, -1), keepdim=True)).exp() + 1e-6
    weights = torch.einsum("bhim,bhjm->bhij", phi_q, phi_k) * visible
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_running_sums_are_the_masked_matrix_of_all_pairs(causal: bool, padded: bool) -> None:
    q, k, v = inputs()
    attention = PerformerAttention(M, D, causal=causal).double()
    padding = padding_mask((torch.arange(N) < torch.tensor([[N], [41]])).long()) if padded else None
    visible = causal_mask(N) if causal else torch.ones(1, 1, N, N, dtype=torch.bool)
    expected = masked_dense(attention, q, k, visible if padding is None else visible & padding)
    assert_close(attention(q, k, v, padding), expected @ v)
    assert_close(attention.weights(q, k, padding), expected)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_running_sums_do_not_depend_on_their_chunks(length: int) -> None:
    phi_q, phi_k, v = (torch.rand(1, 2, length, size, dtype=torch.float64) for size in (M, M, 3))
    assert_close(running_sums(phi_q, phi_k, v), (phi_q @ phi_k.mT).tril() @ v)


def test_later_positions_have_no_effect_on_values_or_keys_before() -> None:
    q, k, v = (x.requires_grad_() for x in inputs())
    attention = PerformerAttention(M, D).double()
    gradients = torch.autograd.grad(attention(q, k, v)[:, :, 31].sum(), (q, k, v))
    assert all((gradient[:, :, 32:] == 0).all() and (gradient[:, :, 31] != 0).any() for gradient in gradients)


def test_the_error_falls_as_one_over_the_root_of_the_features() -> None:
    q, k, v = inputs(scale=0.35)
    exact = DotProductAttention()(q, k, v)
    errors = []
    for num_features in (80, 320, 1280):
        torch.manual_seed(6)
        attention = PerformerAttention(num_features, D, causal=False).double()
        squares = []
        for _ in range(53):
            attention.redraw()
            squares.append((attention(q, k, v) - exact).square().sum())
        errors.append(torch.stack(squares).mean().sqrt())
    for larger, smaller in itertools.pairwise(errors):
        assert (larger / smaller).item() == pytest.approx(2, rel=0.15)


def test_cost_grows_with_the_length_and_the_features() -> None:
    def flops(length: int, num_features: int) -> int:
        q, v = torch.randn(1, 1, length, D), torch.randn(1, 1, length, 6)
        with FlopCounterMode(display=False) as counter:
            PerformerAttention(num_features, D)(q, q, v)
        return counter.get_total_flops()

    # Features of queries and keys, sums to and from them, and pairs inside of chunks of 64; 7 = d_v and the weights.
    assert flops(128, M) == 2 * 128 * (2 * M * D + 2 * M * 7 + 64 * (M + 7))
    assert flops(256, M) == 2 * flops(128, M)


def test_a_mask_that_is_not_that_of_padding_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape(f"mask (1, 1, {N}, {N}) is not (B, 1, 1, {N}), that of padding")):
        PerformerAttention(M, D)(*inputs(), causal_mask(N))


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    performer.main(["--updates", "2", "--items", "5"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    assert [row[0] for row in rows] == ["m = 16", "m = 64", "m = 256", "full"]
    for column in (1, 3):
        errors = [float(row[column]) for row in rows]
        assert errors[-1] == 0 and errors[0] > errors[2]


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_the_largest_of_the_keys_either(causal: bool) -> None:
    """Features of the other keys are so much smaller that 10⁻⁶ would drown them."""
    q, k, v = inputs()
    attention = PerformerAttention(M, D, causal=causal).double()
    real = torch.arange(N) < 41
    short = attention(q[:, :, :41], 5 * k[:, :, :41], v[:, :, :41])
    keys = torch.where(real[:, None], 5 * k, 0 * k)
    assert_close(attention(q, keys, v, real.expand(B, 1, 1, N))[:, :, :41], short)
    assert (attention(q, keys, v)[:, :, :41] - short).abs().max() > 1e-3, "as keys they would count"


@pytest.mark.parametrize("causal", [False, True])
def test_a_query_without_keys_gets_zeros(causal: bool) -> None:
    """Before padding on the left nothing is visible, and NaN would spread by the next layer."""
    q, k, v = (x.requires_grad_() for x in inputs())
    mask = padding_mask((torch.arange(N) >= torch.tensor([[9], [N]])).long())
    found = PerformerAttention(M, D, causal=causal).double()(q, k, v, mask)
    assert (found[1] == 0).all() and (found[0, :, :9] == 0).all() == causal and (found[0, :, 9:] != 0).any()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.square().sum(), (q, k, v)))


def test_much_larger_features_behind_dim_those_before() -> None:
    """What the docstring says of the stabilizer: weights are causal, their sizes are not to the bit."""
    q, k, v = inputs()
    attention = PerformerAttention(M, D).double()
    for scale, low, high in ((1, 0.0, 1e-4), (5, 1e-3, 1.0)):
        alone = attention(q[:, :, :31], scale * k[:, :, :31], v[:, :, :31])
        assert low < (attention(q, scale * k, v)[:, :, :31] - alone).abs().max() < high

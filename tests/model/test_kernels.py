"""Dropout by packed 16-bit words within the bounds of chance, softmax, the choice of kernel, and mask checks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.model import kernels
from transformer.model.attention import DotProductAttention
from transformer.model.kernels import Dropout, check_mask, onednn_multiplies_float32, prefers_fused, softmax
from transformer.model.layers import FeedForward
from transformer.model.transformer import Transformer

NUM = 1_000_003  # a prime: no multiple of the four elements that share a word


def rounded(p: float) -> float:
    """The multiple of 1/65536 that replaces p."""
    return round(p * 65536) / 65536


def assert_binomial(count: int, num: int, p: float) -> None:
    """Within five standard deviations of `num` draws with probability p: one false alarm in 1.7 million."""
    assert abs(count - num * p) <= 5 * math.sqrt(num * p * (1 - p)), (count / num, p)


# Dropout


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.3, 1 / 3, 0.5, 0.9, 0.9999])  # of these, only 0.5 is a multiple of 1/65536
def test_the_fraction_dropped_is_p_and_the_rest_is_scaled(p: float) -> None:
    torch.manual_seed(3)
    y = Dropout(p)(torch.ones(NUM))
    assert_binomial(int((y == 0).sum()), NUM, rounded(p))
    kept = y[y != 0]
    assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(p))))


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.5])
def test_the_mean_stays(p: float) -> None:
    torch.manual_seed(3)
    x = torch.rand(NUM, dtype=torch.float64)
    # A kept element varies by x² p / (1 - p).
    deviation = (x.square().sum() * p / (1 - p)).sqrt()
    assert (Dropout(p)(x).sum() - x.sum()).abs() < 5 * deviation


def test_the_four_elements_of_a_word_are_dropped_independently() -> None:
    torch.manual_seed(3)
    p, num_words = 0.3, 250_007
    dropped = (Dropout(p)(torch.ones(num_words, 4)) == 0).double()
    together = dropped.T @ dropped  # [i, j]: how often both are dropped
    for i in range(4):
        for j in range(4):
            assert_binomial(int(together[i, j]), num_words, rounded(p) if i == j else rounded(p) ** 2)
    next_word = (dropped[:-1].T @ dropped[1:]).flatten()
    for count in next_word:
        assert_binomial(int(count), num_words - 1, rounded(p) ** 2)


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    x, dropout = torch.ones(7, 11), Dropout(0.5)
    draws = []
    for seed in (3, 3, 5):
        torch.manual_seed(seed)
        draws.append(dropout(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(dropout(x), draws[2])  # and the next call goes on


@pytest.mark.parametrize("num", [1, 4, 5, 4099])
def test_the_random_words_are_those_of_random_(num: int) -> None:
    p, x = 0.3, torch.ones(num)
    torch.manual_seed(3)
    words = torch.empty(-(-num // 4), dtype=torch.int64).random_(-(2**63), None)
    # A word is four 16-bit numbers from -32768 on, of which the lowest round(65536 p) drop their element.
    expected = [number >= round(p * 65536) - 32768 for number in words.view(torch.int16).tolist()]
    torch.manual_seed(3)
    assert (Dropout(p)(x) != 0).tolist() == expected[:num]


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_dropout_is_the_identity_out_of_training_or_if_p_is_0(p: float, training: bool) -> None:
    x = torch.randn(5, 7)
    state = torch.get_rng_state()
    assert Dropout(p).train(training)(x) is x
    assert torch.equal(torch.get_rng_state(), state)  # and draws nothing


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (3,), (5,), (2, 3, 5), (7, 11), (3, 0, 5)])
def test_any_shape_is_kept_and_each_element_is_zero_or_scaled(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    x = torch.rand(shape) + 1
    y = Dropout(0.25)(x)
    assert y.shape == x.shape
    assert_close(y, torch.where(y == 0, 0.0, x * 4 / 3))


def test_the_last_elements_of_a_shape_that_is_no_multiple_of_four_are_dropped_as_often_as_others() -> None:
    torch.manual_seed(3)
    p, num_draws = 0.3, 2003
    dropped = sum((Dropout(p)(torch.ones(7)) == 0).long() for _ in range(num_draws))
    for count in dropped:
        assert_binomial(int(count), num_draws, rounded(p))


def test_elements_that_are_not_contiguous_are_handled() -> None:
    torch.manual_seed(3)
    x = (torch.rand(11, 7) + 1).T
    y = Dropout(0.5)(x)
    assert_close(y, torch.where(y == 0, 0.0, 2 * x))
    assert 0 < (y == 0).sum() < y.numel()


def test_the_gradient_goes_through_the_same_mask() -> None:
    torch.manual_seed(3)
    x = torch.rand(7, 11, requires_grad=True)
    upstream = torch.randn(7, 11)
    y = Dropout(0.25)(x)
    y.backward(upstream)
    assert_close(x.grad, torch.where(y == 0, 0.0, upstream * 4 / 3))
    assert 0 < (y == 0).sum() < y.numel()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    y = Dropout(0.1)(torch.ones(NUM, dtype=dtype))
    assert y.dtype == dtype
    kept = y[y != 0]
    assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(0.1))))


def test_a_p_below_half_of_the_smallest_step_drops_nothing() -> None:
    x = torch.randn(NUM)
    assert torch.equal(Dropout(1e-6)(x), x)


def test_a_p_that_rounds_to_one_is_still_a_probability() -> None:
    # p in [0, 1) is allowed up to its end, where 65536 p rounds to 65536.
    torch.manual_seed(3)
    y = Dropout(1 - 1e-6)(torch.ones(NUM))
    assert_binomial(int((y != 0).sum()), NUM, 1 / 65536)
    assert y.isfinite().all()


def test_other_devices_use_the_dropout_of_torch() -> None:
    y = Dropout(0.1)(torch.empty(7, 11, device="meta"))
    assert y.shape == (7, 11)
    assert y.device.type == "meta"


def test_compiled_code_uses_the_dropout_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = torch.ones(7, 11)
    torch.manual_seed(3)
    expected = torch.nn.functional.dropout(x, 0.3)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3)(x), expected)


def test_vmap_draws_a_mask_for_each_example() -> None:
    torch.manual_seed(3)
    y = torch.func.vmap(Dropout(0.5), randomness="different")(torch.ones(3, 1009))
    for row in y:
        assert_binomial(int((row == 0).sum()), 1009, 0.5)
    assert (y[0] != y[1]).any()


@pytest.mark.parametrize("p", [1.0, -0.1, 1.5, math.nan, math.inf])
def test_a_p_outside_of_its_range_is_an_error_in_every_constructor(p: float) -> None:
    for make in (
        lambda: Dropout(p),
        lambda: DotProductAttention(p),
        lambda: FeedForward(3, 5, dropout=p),
        lambda: Transformer(31, 6, 1, 3, 29, dropout=p),
        lambda: Transformer(31, 6, 0, dropout=p),
    ):
        with pytest.raises(ValueError, match=rf"dropout={p} is not in \[0, 1\)"):
            make()


# Softmax


@pytest.mark.parametrize("num_keys", [1, 2, 7, 15, 16, 17, 61])  # below 16, rows are padded
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_softmax_is_exp_over_its_sum(num_keys: int, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    scores = (5 * torch.randn(2, 3, 5, num_keys)).to(dtype)
    powers = scores.double().exp()
    y = softmax(scores)
    assert y.dtype == dtype
    assert_close(y, (powers / powers.sum(-1, keepdim=True)).to(dtype))


@pytest.mark.parametrize("num_keys", [7, 17])
def test_the_gradient_of_softmax_is_that_of_its_formula(num_keys: int) -> None:
    torch.manual_seed(3)
    scores = torch.randn(5, num_keys, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, num_keys, dtype=torch.float64)
    y = softmax(scores)
    y.backward(upstream)
    y = y.detach()
    assert_close(scores.grad, y * (upstream - (upstream * y).sum(-1, keepdim=True)))


@pytest.mark.parametrize("num_keys", [3, 17])
def test_softmax_of_bfloat16_sums_in_float32(num_keys: int) -> None:
    # Equal scores: each weight is 1 / num_keys, rounded to bfloat16 once.
    scores = torch.full((1, num_keys), 2.0, dtype=torch.bfloat16)
    assert torch.equal(softmax(scores), torch.full_like(scores, 1 / num_keys))


def test_softmax_takes_the_lowest_number_for_a_masked_score() -> None:
    lowest = torch.finfo(torch.float32).min
    assert_close(softmax(torch.tensor([lowest, 1.0, lowest])), torch.tensor([0.0, 1.0, 0.0]))
    assert_close(softmax(torch.full((5,), lowest)), torch.full((5,), 0.2))


# The choice of kernel


def empty(num_positions: int, dtype: torch.dtype, device: str = "cpu", num_heads: int = 1) -> Tensor:
    return torch.empty(11, num_heads, num_positions, 7, dtype=dtype, device=device)


@pytest.fixture(params=[True, False])
def by_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether oneDNN multiplies float32."""
    monkeypatch.setattr(
        torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision="bf16" if request.param else "")
    )
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    return bool(request.param)


@pytest.mark.parametrize(
    ("dtype", "with_gradient", "without"),
    [(torch.float32, 192, 160), (torch.bfloat16, 320, 1024), (torch.float64, 1, 1)],
)
def test_a_cpu_uses_the_fused_kernel_if_there_are_many_queries_and_keys(
    by_onednn: bool, dtype: torch.dtype, with_gradient: int, without: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_SMALL", 0)
    monkeypatch.setattr(kernels, "_FEW_HEADS", 0)
    if dtype == torch.float32 and not by_onednn:
        with_gradient = without = 16
    for num_keys, grad in ((with_gradient, True), (without, False)):
        with torch.set_grad_enabled(grad):
            assert prefers_fused(empty(9, dtype), empty(num_keys, dtype))
            assert dtype == torch.float64 or not prefers_fused(empty(9, dtype), empty(num_keys - 1, dtype))
            assert not prefers_fused(empty(8, dtype), empty(4001, dtype))  # few queries, as in decoding


@pytest.mark.parametrize(
    ("num_queries", "num_keys", "dtype", "expected"),
    [
        (1, 4096 // 7, torch.float32, True),
        (1, 4096 // 7 + 1, torch.float32, False),
        (3, 4096 // (3 * 7), torch.float32, True),
        (3, 4096 // (3 * 7) + 1, torch.float32, False),
        (1, 3, torch.bfloat16, False),
    ],
)
def test_small_products_of_onednn_use_the_fused_kernel_only_without_gradients(
    num_queries: int, num_keys: int, dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "onednn_multiplies_float32", lambda: True)
    q, k = empty(num_queries, dtype, num_heads=3), empty(num_keys, dtype, num_heads=3)
    assert not prefers_fused(q, k)
    with torch.no_grad():
        assert prefers_fused(q, k) == expected
        monkeypatch.setattr(kernels, "onednn_multiplies_float32", lambda: False)
        assert not prefers_fused(q, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_heads_use_the_fused_kernel_without_gradients_in_float32(dtype: torch.dtype) -> None:
    for num_heads, is_few in ((2, True), (3, False)):  # of 11 sentences
        q, k = empty(5, dtype, num_heads=num_heads), empty(4001, dtype, num_heads=num_heads)
        assert not prefers_fused(q, k)
        with torch.no_grad():
            assert prefers_fused(q, k) == (is_few and dtype == torch.float32)


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch has no such setting")
def test_the_library_of_float32_products_is_that_of_torchs_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "bf16"
        assert onednn_multiplies_float32()
        settings.fp32_precision = "none"
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        assert not onednn_multiplies_float32()
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
        assert onednn_multiplies_float32()
    finally:
        settings.fp32_precision = before


def test_devices_other_than_a_cpu_always_use_the_fused_kernel() -> None:
    on_meta = empty(1, torch.float32, device="meta")
    assert prefers_fused(on_meta, on_meta)


def test_an_exported_graph_uses_the_fused_kernel_at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert prefers_fused(empty(1, torch.float32), empty(1, torch.float32))


@pytest.mark.parametrize("fused", [False, True])
def test_equation_1_runs_on_the_preferred_kernel(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(kernels, "prefers_fused", lambda *_: fused)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *_, **__: calls.append("fused"))
    x = torch.randn(1, 1, 3, 7)
    DotProductAttention()(x, x, x)
    assert calls == ["fused"] * fused


# Mask checks


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (5, 1), (1, 1), (2, 3, 5, 7), (1, 3, 1, 7), (2, 1, 1, 1)])
def test_masks_that_broadcast_pass(shape: tuple[int, ...]) -> None:
    check_mask(torch.ones(shape, dtype=torch.bool), (2, 3, 5, 7))


@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 7), (7, 5), (2, 3, 5, 6), (3, 1, 5, 7), (2, 2, 5, 7), (1,) * 5])
def test_a_mask_that_does_not_broadcast_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"is neither \(Q, M\) nor broadcastable to \(B, H, Q, M\) = \(2, 3, 5, 7\)"):
        check_mask(torch.ones(shape, dtype=torch.bool), (2, 3, 5, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_mask_that_is_not_bool_is_an_error(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"mask is {dtype}; it must be bool, True where a query may attend"):
        check_mask(torch.ones(5, 7, dtype=dtype), (2, 3, 5, 7))


def test_what_is_no_mask_at_all_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"^mask is a list; it must be a bool tensor or a PackedMask$"):
        check_mask([[True]], (1, 1, 1, 1))  # type: ignore[arg-type]

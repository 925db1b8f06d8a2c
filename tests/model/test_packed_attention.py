"""Attention within sentences that stand end to end: equation 1 for each, by any kernel; what is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model import packed_attention as packed_module
from transformer.model.alternatives.scores import CosineAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.packed_attention import Packing, flash_attention, packed_attention

H, D_K, D_V = 3, 8, 5
QUERIES, KEYS = (3, 1, 5), (2, 7, 4)


def starts(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def packing(queries: tuple[int, ...] = QUERIES, keys: tuple[int, ...] = KEYS, *, is_causal: bool = False) -> Packing:
    return Packing(starts(queries), starts(keys), max(queries, default=0), max(keys, default=0), is_causal)


def random(lengths: tuple[int, ...], size: int, seed: int) -> Tensor:
    """(1, H, N, size) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, H, sum(lengths), size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("is_causal", [False, True])
def test_each_sentence_has_the_attention_that_it_has_alone(is_causal: bool) -> None:
    keys = QUERIES if is_causal else KEYS
    q, k, v = random(QUERIES, D_K, 1), random(keys, D_K, 2), random(keys, D_V, 3)
    expected = []
    for one, other, values in zip(q.split(QUERIES, 2), k.split(keys, 2), v.split(keys, 2), strict=True):
        scores = one @ other.mT / math.sqrt(D_K)
        if is_causal:
            scores = scores + torch.full(scores.shape[-2:], -math.inf).triu(1)
        expected.append(scores.softmax(-1) @ values)
    found = packing(keys=keys, is_causal=is_causal).attend(DotProductAttention(), q, k, v)
    assert_close(found, torch.cat(expected, dim=2), rtol=1e-12, atol=1e-12)


def test_sentences_without_tokens_change_nothing() -> None:
    q, k = random(QUERIES, D_K, 1), random(KEYS, D_K, 2)
    expected = packed_attention(q, k, k, packing())
    found = packed_attention(q, k, k, packing((3, 0, 1, 5, 0), (2, 0, 7, 4, 0)))
    assert_close(found, expected, rtol=0, atol=0)


def test_weights_are_dropped_in_training_only() -> None:
    attention, options = DotProductAttention(dropout=0.5), packing()
    q, k = random(QUERIES, D_K, 1), random(KEYS, D_K, 2)
    assert not torch.equal(options.attend(attention, q, k, k), options.attend(attention, q, k, k))
    attention.eval()
    expected = options.attend(DotProductAttention(), q, k, k)
    assert_close(options.attend(attention, q, k, k), expected, rtol=0, atol=0)


# Flash attention


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("is_first_version", [False, True])
def test_varlen_attn_is_called_with_heads_last_whatever_its_version(
    monkeypatch: pytest.MonkeyPatch, is_causal: bool, is_first_version: bool
) -> None:
    calls: list[Any] = []

    def first(q: Tensor, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, is_causal: bool = False) -> Any:
        calls.append(((-1, 0) if is_causal else (-1, -1), k.shape, v.shape, cu_q, cu_k, max_q, max_k))
        return q

    def later(*inputs: Any, window_size: tuple[int, int] = (-1, -1)) -> Any:
        return first(*inputs, is_causal=window_size == (-1, 0))

    monkeypatch.setattr(packed_module, "_fits_flash", lambda *_: True)
    monkeypatch.setattr(packed_module, "_flash", packed_module._by_window(first if is_first_version else later))
    q, k, given = random(QUERIES, D_K, 1), random(KEYS, D_K, 2), packing(is_causal=is_causal)
    assert torch.equal(packed_attention(q, k, k, given), q)
    ((window, *others),) = calls
    assert window == (-1, 0 if is_causal else -1)
    assert others == [(13, H, D_K), (13, H, D_K), given.query_starts, given.key_starts, 5, 7]
    with pytest.raises(ValueError, match=r"^dropout=0\.1 of attention weights: flash attention .* has none$"):
        packed_attention(q, k, k, given, dropout=0.1)


def test_a_torch_without_varlen_attn_computes_with_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_module, "_flash", None)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert flash_attention() is None
    monkeypatch.setattr(packed_module, "_fits_flash", lambda *_: True)
    q, k = random(QUERIES, D_K, 1), random(KEYS, D_K, 2)
    assert packed_attention(q, k, k, packing()).shape == q.shape


def test_varlen_attn_is_found_once() -> None:
    pytest.importorskip("torch.nn.attention.varlen")  # since torch 2.10
    assert flash_attention() is flash_attention()
    assert flash_attention() is not None


# What is refused


def attend(options: Packing, num_rows: int = 1, memory: tuple[int, ...] = KEYS) -> Tensor:
    layer = MultiHeadAttention(H * D_K, H).double()
    x, y = (torch.ones(num_rows, sum(lengths), H * D_K, dtype=torch.float64) for lengths in (QUERIES, memory))
    result: Tensor = layer(x, y, mask=options)
    return result


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attend(packing(), 2), "2 rows with packed sentences; they stand in one row, (1, N, D)"),
        (
            lambda: attend(packing(is_causal=True)),
            "causal packed attention has as many keys as queries, not 13 and 9",
        ),
        (
            lambda: attend(packing(keys=(2, 7, 3))),
            "packed sentences end at [9, 12], not at [9, 13] queries and keys",
        ),
        (
            lambda: attend(packing()._replace(query_starts=starts(QUERIES).long())),
            "starts of packed sentences are (4,) torch.int64, (4,) torch.int32; both must be (sentences + 1,) int32",
        ),
        (
            lambda: attend(packing(keys=(2, 11))),
            "starts of packed sentences are (4,) torch.int32, (3,) torch.int32; both must be (sentences + 1,) int32",
        ),
        (
            lambda: attend(packing((), ())),
            "packed sentences end at [0, 0], not at [9, 13] queries and keys",
        ),
        (
            lambda: attend(Packing(starts(())[:0], starts(())[:0], 5, 7)),
            "starts of packed sentences are (0,) torch.int32, (0,) torch.int32; both must be (sentences + 1,) int32",
        ),
        (
            lambda: attend(Packing([0, 9], [0, 13], 9, 13)),  # type: ignore[arg-type]
            "starts of packed sentences are ([0, 9], [0, 13]); both must be tensors, (sentences + 1,) int32",
        ),
        (
            lambda: attend(packing()._replace(query_starts=torch.tensor([2, 3, 4, 9]).int())),
            "packed sentences start at [2, 3, 4, 9]; starts begin with 0 and do not decrease",
        ),
        (
            lambda: attend(packing()._replace(key_starts=torch.tensor([-2, 2, 9, 13]).int())),
            "packed sentences start at [-2, 2, 9, 13]; starts begin with 0 and do not decrease",
        ),
        (
            lambda: attend(packing()._replace(key_starts=torch.tensor([0, 9, 2, 13]).int())),
            "packed sentences start at [0, 9, 2, 13]; starts begin with 0 and do not decrease",
        ),
        (
            lambda: attend(packing()._replace(longest_key=6)),
            "a packed sentence has 7 tokens, more than the longest, 6",
        ),
        (
            lambda: attend(packing()._replace(longest_query=None)),
            "the longest packed sentences have (None, 7) tokens; both must be whole numbers",
        ),
        (
            lambda: attend(packing()._replace(longest_key=math.nan)),
            "the longest packed sentences have (5, nan) tokens; both must be whole numbers",
        ),
        (
            lambda: attend(packing(keys=(5, 1, 3), is_causal=True), memory=(5, 1, 3)),
            "causal packed attention has the starts [0, 5, 6, 9] of keys, not those of queries, [0, 3, 4, 9]",
        ),
    ],
)
def test_what_would_be_computed_wrongly_in_silence_is_an_error(call: Callable[[], Tensor], message: str) -> None:
    assert attend(packing()).shape == (1, 9, H * D_K)
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


class Shifted(DotProductAttention):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(q + 1, k, v, mask)


class Squared(DotProductAttention):
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return super().scores(q, k) ** 2


class Halved(DotProductAttention):
    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().weights(q, k, mask) / 2


def hooked(register: str) -> DotProductAttention:
    attention = DotProductAttention()
    getattr(attention, register)(lambda *_: None)
    return attention


def with_method(name: str) -> DotProductAttention:
    attention: Any = DotProductAttention()
    setattr(attention, name, lambda *inputs: inputs[0])
    return attention


def with_dropout(change: Callable[[nn.Module], Any]) -> DotProductAttention:
    attention = DotProductAttention()
    change(attention.dropout)
    return attention


def with_another_dropout() -> DotProductAttention:
    attention: Any = DotProductAttention()
    attention.dropout = nn.AlphaDropout()
    return attention


@pytest.mark.parametrize(
    "attention",
    [
        *(Shifted(), Squared(), Halved()),
        *map(hooked, ("register_forward_hook", "register_forward_pre_hook")),
        *map(with_method, ("forward", "weights", "scores")),
        with_dropout(lambda dropout: dropout.register_forward_hook(lambda *_: None)),
        with_dropout(lambda dropout: dropout.register_forward_pre_hook(lambda *_: None)),
        with_dropout(lambda dropout: setattr(dropout, "forward", torch.sin)),
        with_another_dropout(),
    ],
)
def test_an_attention_that_computes_more_than_equation_1_is_refused(attention: DotProductAttention) -> None:
    layer = MultiHeadAttention(H * D_K, H, attention=attention)
    x = torch.ones(1, 9, H * D_K)
    name = type(attention).__name__
    with pytest.raises(TypeError, match=f"^{name} computes more than equation 1; packed attention would ignore it$"):
        layer(x, mask=packing(keys=QUERIES))


def test_an_attention_that_transforms_queries_and_keys_alone_has_the_output_of_each_sentence() -> None:
    torch.manual_seed(1)
    layer = MultiHeadAttention(H * D_K, H, attention=CosineAttention(H, D_K, temperature=0.3)).double()
    x = torch.randn(1, sum(QUERIES), H * D_K, dtype=torch.float64)
    expected = torch.cat([layer(sentence) for sentence in x.split(QUERIES, 1)], dim=1)
    assert_close(layer(x, mask=packing(keys=QUERIES)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_it_is_compiled_in_one_graph() -> None:
    layer = MultiHeadAttention(H * D_K, H).double()
    x = torch.randn(1, sum(QUERIES), H * D_K, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    mask = packing(keys=QUERIES)
    assert_close(compiled(x, mask=mask), layer(x, mask=mask), rtol=1e-12, atol=1e-12)

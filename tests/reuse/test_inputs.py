"""What modules do with unusual inputs: wrong masks, empty batches, other callers' conventions."""

import math

import pytest
import torch
from torch import nn

from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.kernels import Dropout
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import DecoderState


@pytest.mark.parametrize("length", [7, 60])  # kernels change in between
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_masks_that_are_not_bool_are_refused(variant, build, length: int, dtype: torch.dtype) -> None:
    encoder, x = build(variant).encoder, torch.randn(2, length, 22)
    with pytest.raises(TypeError, match="bool, True where a query may attend"):
        encoder(x, torch.ones(2, 1, 1, length, dtype=dtype))


@pytest.mark.parametrize("length", [7, 60])
@pytest.mark.parametrize("shape", [(2, "L"), (2, "L", "L"), ("L", "L", "L"), ("L",), (3, 1, 1, "L"), (2, 1, 1, 5)])
def test_masks_of_an_ambiguous_or_wrong_shape_are_refused(length: int, shape: tuple[int | str, ...]) -> None:
    mask = torch.ones([length if size == "L" else size for size in shape], dtype=torch.bool)
    with pytest.raises(ValueError, match="neither \\(Q, M\\) nor broadcastable to \\(B, H, Q, M\\)"):
        MultiHeadAttention(22, 2)(torch.randn(2, length, 22), mask=mask)


def test_the_mask_is_no_positional_argument() -> None:
    x = torch.randn(2, 7, 22)
    with pytest.raises(TypeError, match="positional argument"):
        MultiHeadAttention(22, 2)(x, x, torch.ones(7, 7, dtype=torch.bool))


@pytest.mark.parametrize("keyword", ["key", "attn_mask", "key_padding_mask", "need_weights", "is_causal"])
def test_keywords_of_torch_are_refused(keyword: str) -> None:
    x = torch.randn(2, 7, 22)
    with pytest.raises(TypeError, match=keyword):
        MultiHeadAttention(22, 2)(x, **{keyword: None})


def test_hypotheses_that_do_not_divide_among_the_sentences_are_refused(build, ids) -> None:
    model = build()
    for rows in (1, 3):
        with pytest.raises(ValueError, match="not a multiple of the memory's 2"):
            model(ids(2, 7), ids(rows, 5))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_dropout_outside_of_0_to_1_is_refused_everywhere(p: float) -> None:
    makers = [
        lambda: Dropout(p),
        lambda: DotProductAttention(p),
        lambda: FeedForward(6, 11, dropout=p),
        lambda: Layer(MultiHeadAttention(6, 2), FeedForward(6, 11), dropout=p),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="not in \\[0, 1\\)"):
            make()


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float64, torch.bfloat16))],
)
@pytest.mark.parametrize(
    ("batch", "num_source", "num_target"),
    [(0, 5, 4), (0, 60, 50), (2, 0, 4), (2, 0, 50), (2, 5, 0), (2, 60, 0), (0, 0, 0), (2, 0, 0), (1, 1, 1)],
)
def test_empty_batches_and_sequences_pass_through(
    variant, build, ids, batch: int, num_source: int, num_target: int, dtype: torch.dtype
) -> None:
    model = build(variant).to(dtype)
    logits = model(ids(batch, num_source), ids(batch, num_target))
    assert logits.shape == (batch, num_target, 53) and logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_decoding_goes_on_after_the_last_sentence_was_dropped(variant, build, ids) -> None:
    model = build(variant).eval()
    state = model.encode(ids(3, 7))
    nothing = torch.empty(0, 2, dtype=torch.long)
    for step in (0, 1):
        dropped = state.select(nothing)
        hidden, dropped = model.decode(ids(0, 1), dropped)
        assert hidden.shape == (0, 1, 22) and dropped.length == step + 1
        assert model.decode(ids(0, 1), dropped.select(nothing))[0].shape == (0, 1, 22)
        _, state = model.decode(ids(3, 1), state)


def test_encoder_decoder_and_attention_take_empty_batches_directly(build) -> None:
    model = build()
    assert model.encoder(torch.randn(0, 7, 22)).shape == (0, 7, 22)
    hidden, _ = model.decoder(torch.randn(0, 7, 22), DecoderState(torch.randn(0, 5, 22)))
    assert hidden.shape == (0, 7, 22)
    assert MultiHeadAttention(22, 2)(torch.randn(0, 7, 22), torch.randn(0, 5, 22)).shape == (0, 7, 22)


@pytest.mark.parametrize("num_keys", [7, 60])
def test_a_sentence_of_padding_alone_has_finite_outputs_and_gradients(variant, build, ids, num_keys: int) -> None:
    model, src = build(variant), ids(2, num_keys)
    src[0] = 0
    logits = model(src, ids(2, num_keys))
    logits.logsumexp(-1).sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_int32_ids_and_sequences_of_other_layouts(build, ids) -> None:
    model, src, tgt = build().eval(), ids(2, 7), ids(2, 5)
    assert torch.equal(model(src.int(), tgt.int()), model(src, tgt))
    assert torch.equal(model(src.T.contiguous().T, tgt), model(src, tgt))  # not contiguous
    x = torch.randn(7, 2, 22).transpose(0, 1)
    assert isinstance(model.encoder, nn.Module) and model.encoder(x).shape == (2, 7, 22)

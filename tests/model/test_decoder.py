"""The decoder and its state, against torch.nn with the same weights and against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.model.attention import MultiHeadAttention
from transformer.model.decoder import Decoder, DecoderLayer
from transformer.model.masks import causal_mask, padding_mask
from transformer.model.options import LayerOptions, NormPlacement

B, W, S, T, D_MODEL, H, D_FF = 3, 2, 7, 5, 15, 3, 29
OPTIONS: LayerOptions = {"d_model": D_MODEL, "num_heads": H, "d_ff": D_FF, "attention_bias": True, "dropout": 0.0}


def randomise(module: nn.Module) -> None:
    """Give every parameter, biases and norms included, a value that a mistake would show."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Copy our weights into torch's attention."""
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


def copy_decoder_layer(ours: DecoderLayer, theirs: nn.TransformerDecoderLayer) -> None:
    """Copy our weights into torch's layer."""
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())
    theirs.norm1.load_state_dict(ours.residual_1.norm.state_dict())
    theirs.norm2.load_state_dict(ours.residual_2.norm.state_dict())
    theirs.norm3.load_state_dict(ours.residual_3.norm.state_dict())


def torch_layer(norm: NormPlacement, norm_eps: float = 1e-6) -> nn.TransformerDecoderLayer:
    """Torch's layer of our sizes; its activation is ReLU unless told otherwise."""
    return nn.TransformerDecoderLayer(
        D_MODEL, H, D_FF, 0.0, layer_norm_eps=norm_eps, batch_first=True, norm_first=norm == "pre", dtype=torch.float64
    )


def make_memory() -> tuple[Tensor, Tensor, Tensor]:
    """Random encoder output (B, S, D), its mask, and torch's mask, which is True at padding."""
    torch.manual_seed(5)
    ids = torch.ones(B, S, dtype=torch.int64)
    ids[1, 4:] = 0
    ids[2, 2:] = 0
    return torch.randn(B, S, D_MODEL, dtype=torch.float64, requires_grad=True), padding_mask(ids), ids == 0


def make_decoder(norm: NormPlacement = "post", num_layers: int = 2, **options: Any) -> Decoder:
    decoder = Decoder(num_layers, **OPTIONS, norm=norm, **options).double()
    randomise(decoder)
    return decoder


def assert_same_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    upstream = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (actual, expected)), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_layer_equals_that_of_torch_nn(norm: NormPlacement, norm_eps: float) -> None:
    ours = DecoderLayer(**OPTIONS, norm=norm, norm_eps=norm_eps).double()
    theirs = torch_layer(norm, norm_eps)
    randomise(ours)
    copy_decoder_layer(ours, theirs)
    memory, memory_mask, is_padding = make_memory()
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64, requires_grad=True)
    causal = causal_mask(T)
    actual, extended = ours(x, ours.cross_attention.keys_values(memory), None, causal, memory_mask)
    expected = theirs(x, memory, tgt_mask=~causal[0, 0], memory_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])
    assert extended.keys.shape == extended.values.shape == (B, H, T, 5)
    # And without any mask.
    actual, _ = ours(x, ours.cross_attention.keys_values(memory))
    assert_close(actual, theirs(x, memory))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_stack_equals_that_of_torch_nn(norm: NormPlacement) -> None:
    ours = make_decoder(norm, num_layers=3)
    # torch's stack has a final norm only if it is given one: the paper's has none.
    final = nn.LayerNorm(D_MODEL, eps=1e-6, dtype=torch.float64) if norm == "pre" else None
    theirs = nn.TransformerDecoder(torch_layer(norm), 3, norm=final)
    for our_layer, their_layer in zip(ours.layers, theirs.layers, strict=True):
        copy_decoder_layer(our_layer, their_layer)
    if final is not None:
        final.load_state_dict(ours.norm.state_dict())
    memory, memory_mask, is_padding = make_memory()
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64, requires_grad=True)
    actual, state = ours(x, ours.start(memory, memory_mask))
    expected = theirs(x, memory, tgt_mask=~causal_mask(T)[0, 0], memory_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])
    assert state.length == T


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("chunks", [(5,), (1, 1, 1, 1, 1), (2, 3), (1, 4), (4, 1), (3, 1, 1)])
def test_decoding_in_chunks_of_any_sizes_equals_decoding_at_once(chunks: tuple[int, ...], norm: NormPlacement) -> None:
    decoder = make_decoder(norm)
    state = decoder.start(*make_memory()[:2])
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64)
    expected, expected_state = decoder(x, state)
    outputs, done = [], 0
    for chunk in x.split(list(chunks), dim=1):
        assert state.length == done
        y, state = decoder(chunk, state)
        outputs.append(y)
        done += chunk.size(1)
    assert_close(torch.cat(outputs, dim=1), expected)
    assert state.length == expected_state.length == T
    assert_close(state.past, expected_state.past)


def test_decoding_does_not_change_the_state_that_it_starts_from() -> None:
    decoder = make_decoder()
    start = decoder.start(*make_memory()[:2])
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64)
    y, after = decoder(x, start)
    assert start.past is None
    past = [(kv.keys.clone(), kv.values.clone()) for kv in after.past]
    first, _ = decoder(x[:, :1], after)
    second, _ = decoder(x[:, :1], after)
    assert torch.equal(first, second)
    assert_close([tuple(kv) for kv in after.past], past)
    assert torch.equal(decoder(x, start)[0], y)


@pytest.mark.parametrize("with_mask", [True, False])
def test_hypotheses_share_the_memory_of_their_sentence_as_if_it_were_repeated(with_mask: bool) -> None:
    decoder = make_decoder()
    memory, mask, _ = make_memory()
    mask = mask if with_mask else None
    shared = decoder.start(memory, mask)
    repeated_mask = None if mask is None else mask.repeat_interleave(W, 0)
    repeated = decoder.start(memory.repeat_interleave(W, 0), repeated_mask)
    x = torch.randn(B * W, T, D_MODEL, dtype=torch.float64)
    for chunk in x.split([1, 3, 1], dim=1):
        y, shared = decoder(chunk, shared)
        expected, repeated = decoder(chunk, repeated)
        assert_close(y, expected)
        assert [kv.keys.size(0) for kv in shared.memory] == [B] * 2
        assert [kv.keys.size(0) for kv in shared.past] == [B] * 2


def test_selected_hypotheses_go_on_as_if_they_had_always_been_in_that_order() -> None:
    decoder = make_decoder()
    start = decoder.start(*make_memory()[:2])
    x = torch.randn(B * W, T, D_MODEL, dtype=torch.float64)
    rows = torch.tensor([1, 1, 2, 3, 5, 4])  # a duplicate, the same, a swap: each within its sentence
    _, state = decoder(x[:, :3], start)
    new = torch.randn(B * W, 2, D_MODEL, dtype=torch.float64)
    y, _ = decoder(new, state.select(rows))
    expected, _ = decoder(torch.cat([x[rows, :3], new], dim=1), start)
    assert_close(y, expected[:, 3:])


def test_before_the_first_position_there_is_nothing_to_select() -> None:
    state = make_decoder().start(*make_memory()[:2])
    assert state.length == 0
    assert state.select(torch.tensor([0, 0])) is state


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positional": "shaw", "max_relative_position": 3},
        {"positional": "t5"},
        {"positional": "rotary", "d_k": 6},
        {"attention_score": "additive"},
        {"attention_score": "location"},
    ],
)
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_any_history_of_selections_is_as_if_each_hypothesis_had_been_decoded_alone(
    seed: int, with_mask: bool, options: dict[str, Any]
) -> None:
    # One hypothesis per sentence at first, then W; sentences leave; what is nobody's is dropped now and then.
    decoder = make_decoder(**options)
    memory, mask, _ = make_memory()
    mask = mask if with_mask else None
    state = decoder.start(memory, mask)
    torch.manual_seed(seed)
    sentences, width = torch.arange(B), 1
    inputs = torch.zeros(B, 0, D_MODEL, dtype=torch.float64)  # of each hypothesis, all so far
    was_dropped = False
    for step, num_new in enumerate([1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1]):
        inputs = torch.cat([inputs, torch.randn(len(inputs), num_new, D_MODEL, dtype=torch.float64)], dim=1)
        y, state = decoder(inputs[:, -num_new:], state)
        owners = sentences.repeat_interleave(width)
        expected, _ = decoder(inputs, decoder.start(memory[owners], None if mask is None else mask[owners]))
        assert_close(y, expected[:, -num_new:])
        assert state.length == inputs.size(1)
        new_width = 1 if step == 8 else 5
        parents = torch.randint(width, (len(sentences), new_width))
        rows = torch.arange(len(sentences))[:, None] * width + parents
        if step in (3, 6):
            kept = torch.tensor([0, 2][: len(sentences) - 1])
            sentences, rows = sentences[kept], rows[kept]
            state = state.keep_sentences(kept)
        num_past = state.past[0].keys.size(2)
        state, inputs, width = state.select(rows.flatten()), inputs[rows.flatten()], new_width
        was_dropped |= state.past[0].keys.size(2) < num_past
    assert was_dropped


def test_positions_that_are_nobodys_are_dropped() -> None:
    decoder = make_decoder()
    state = decoder.start(*make_memory()[:2])
    for _ in range(5):
        _, state = decoder(torch.randn(B * W, 1, D_MODEL, dtype=torch.float64), state)
    assert state.past[0].keys.size(2) == 5 * W
    assert state.select(torch.arange(B * W)).past is state.past
    state = state.select(torch.arange(B).repeat_interleave(W) * W)  # all go on from the first of each sentence
    assert [x.size(2) for kv in state.past for x in kv] == [5] * 4
    assert state.lineage.all()
    assert state.length == 5


@pytest.mark.parametrize("with_mask", [True, False])
def test_kept_sentences_go_on_as_if_the_others_had_never_been(with_mask: bool) -> None:
    decoder = make_decoder()
    memory, mask, _ = make_memory()
    start = decoder.start(memory, mask if with_mask else None)
    x = torch.randn(B * W, T, D_MODEL, dtype=torch.float64)
    expected, _ = decoder(x, start)
    _, state = decoder(x[:, :2], start)
    rows = torch.tensor([0, 1, 4, 5])  # the hypotheses of sentences 0 and 2
    state = state.keep_sentences(torch.tensor([0, 2])).select(rows)
    assert state.memory[0].keys.size(0) == 2
    y, _ = decoder(x[rows, 2:], state)
    assert_close(y, expected[rows, 2:])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_weights_are_those_that_the_layers_mix_values_with(norm: NormPlacement) -> None:
    decoder = make_decoder(norm)
    memory, memory_mask, is_padding = make_memory()
    state = decoder.start(memory, memory_mask)
    x = torch.randn(B, T, D_MODEL, dtype=torch.float64)
    weights = decoder.attention_weights(x, state)
    assert len(weights) == 2

    def mix(attention: MultiHeadAttention, layer_weights: Tensor, source: Tensor) -> Tensor:
        mixed = layer_weights @ attention.keys_values(source).values
        return attention.w_o(torch.cat(mixed.unbind(1), dim=-1))

    for layer, (self_weights, cross_weights) in zip(decoder.layers, weights, strict=True):
        assert torch.equal(self_weights.triu(1), torch.zeros_like(self_weights))
        assert torch.equal(cross_weights == 0, is_padding[:, None, None].expand_as(cross_weights))
        for each in (self_weights, cross_weights):
            assert_close(each.sum(-1), torch.ones(B, H, T, dtype=torch.float64))
        expected = layer.residual_1(x, lambda y, m=layer.self_attention, w=self_weights: mix(m, w, y))
        expected = layer.residual_2(expected, lambda _, m=layer.cross_attention, w=cross_weights: mix(m, w, memory))
        expected = layer.residual_3(expected, layer.feed_forward)
        x, _ = layer(x, layer.cross_attention.keys_values(memory), None, causal_mask(T), memory_mask)
        assert_close(x, expected)


def test_a_stack_has_its_own_weights_in_every_layer_and_attention() -> None:
    torch.manual_seed(3)
    first, second = Decoder(2, **OPTIONS).layers
    assert (first.self_attention.w_q.weight != second.self_attention.w_q.weight).all()
    assert (first.self_attention.w_q.weight != first.cross_attention.w_q.weight).all()


def test_layers_norms_and_sizes_follow_their_options() -> None:
    decoder = Decoder(5, d_model=11, num_heads=3, d_ff=29, d_k=7, d_v=5, norm="pre", norm_eps=0.01)
    assert len(decoder.layers) == 5
    assert [m.eps for m in decoder.modules() if isinstance(m, nn.LayerNorm)] == [0.01] * 16
    y, state = decoder(torch.randn(2, 13, 11), decoder.start(torch.randn(2, 17, 11)))
    assert y.shape == (2, 13, 11)
    assert state.past[4].keys.shape == (2, 3, 13, 7)
    assert state.past[4].values.shape == (2, 3, 13, 5)
    assert state.memory[4].keys.shape == (2, 3, 17, 7)
    assert state.memory[4].values.shape == (2, 3, 17, 5)

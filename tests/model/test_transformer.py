"""Encoder, decoder and its state, and the paper's model, against torch.nn and against the laws that they owe.

tests/model/alternatives/test_laws.py has those of the model with every alternative. Laws that hold up to rounding are
checked in float64, where rounding cannot hide a mistake, and with both implementations of equation 1.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from transformer.model.attention import MultiHeadAttention, causal_mask, padding_mask
from transformer.model.layers import FeedForward, Layer
from transformer.model.packed_attention import Packing
from transformer.model.transformer import Decoder, DecoderState, Encoder, Transformer

V, D_MODEL, N, H, D_FF, D_K, D_V = 31, 11, 2, 3, 29, 7, 5
B, S, T, W = 3, 7, 5, 2

both_kernels = pytest.mark.usefixtures("kernel")


def randomise(module: nn.Module) -> None:
    """Give every parameter, biases and norms included, a value that would show a mistake."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)


def make_layer(*, has_cross: bool) -> Layer:
    cross = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V) if has_cross else None
    return Layer(MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V), FeedForward(D_MODEL, D_FF), cross, dropout=0.0)


def make_decoder(num_layers: int = 2, *, has_cross: bool = True) -> Decoder:
    decoder = Decoder(make_layer(has_cross=has_cross) for _ in range(num_layers)).double()
    randomise(decoder)
    return decoder


def make_start() -> DecoderState:
    """Of three sentences of which two have padding."""
    torch.manual_seed(5)
    ids = torch.arange(S) < torch.tensor([[7], [4], [2]])
    return DecoderState(torch.randn(B, S, D_MODEL, dtype=torch.float64), padding_mask(ids.long()))


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# Stacks


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Copy our weights into torch's attention."""
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


def pair_of_stacks(num_layers: int, *, is_decoder: bool) -> tuple[Any, Any]:
    """Ours and torch's, with the same weights; torch's activation is ReLU and its final norm optional."""
    d_model = 15
    ours: Any = (Decoder if is_decoder else Encoder)(
        Layer(
            MultiHeadAttention(d_model, H, bias=True),
            FeedForward(d_model, D_FF),
            MultiHeadAttention(d_model, H, bias=True) if is_decoder else None,
            dropout=0.0,
        )
        for _ in range(num_layers)
    ).double()
    randomise(ours)
    layer_class = nn.TransformerDecoderLayer if is_decoder else nn.TransformerEncoderLayer
    layer = layer_class(d_model, H, D_FF, 0.0, layer_norm_eps=1e-6, batch_first=True, dtype=torch.float64)
    theirs: Any = (
        nn.TransformerDecoder(layer, num_layers)
        if is_decoder
        else nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
    )
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        copy_attention(a.self_attention, b.self_attn)
        b.linear1.load_state_dict(a.feed_forward.w_1.state_dict())
        b.linear2.load_state_dict(a.feed_forward.w_2.state_dict())
        norms = [a.norm_1, a.norm_2]
        if is_decoder:
            copy_attention(a.cross_attention, b.multihead_attn)
            norms.insert(1, a.norm_cross)
        for i, norm in enumerate(norms, start=1):
            getattr(b, f"norm{i}").load_state_dict(norm.state_dict())
    return ours, theirs


def assert_same_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    upstream = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (actual, expected)), strict=True):
        assert_close(a, e)


def test_an_encoder_equals_that_of_torch_nn() -> None:
    ours, theirs = pair_of_stacks(3, is_decoder=False)
    x, mask = random(B, S, 15).requires_grad_(), make_start().memory_mask
    actual, expected = ours(x, mask), theirs(x, src_key_padding_mask=~mask[:, 0, 0])
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x])


def test_a_decoder_equals_that_of_torch_nn() -> None:
    ours, theirs = pair_of_stacks(3, is_decoder=True)
    x, memory, mask = random(B, T, 15).requires_grad_(), random(B, S, 15).requires_grad_(), make_start().memory_mask
    actual, state = ours(x, DecoderState(memory, mask))
    causal = ~causal_mask(T)[0, 0]
    expected = theirs(x, memory, tgt_mask=causal, memory_key_padding_mask=~mask[:, 0, 0])
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])
    assert state.length == T


def test_a_stack_ends_with_a_norm_only_if_it_is_given_one() -> None:
    norm = nn.LayerNorm(D_MODEL).double()
    nn.init.normal_(norm.weight)
    x, layers = random(B, S, D_MODEL), [make_layer(has_cross=False).double() for _ in range(2)]
    assert_close(Encoder(layers, norm)(x), norm(Encoder(layers)(x)))
    actual, _ = Decoder(layers, norm)(x, DecoderState())
    assert_close(actual, norm(Decoder(layers)(x, DecoderState())[0]))


def test_a_stack_has_its_own_weights_in_every_layer_and_attention() -> None:
    model = Transformer(V, D_MODEL, N, H, D_FF, d_k=D_K)
    for stack in (model.encoder, model.decoder):
        first, second = stack.layers
        assert (first.self_attention.w_q.weight != second.self_attention.w_q.weight).all()
        assert (first.feed_forward.w_1.weight != second.feed_forward.w_1.weight).all()
    assert (first.self_attention.w_q.weight != first.cross_attention.w_q.weight).all()


@both_kernels
@pytest.mark.parametrize("chunks", [(5,), (1, 1, 1, 1, 1), (2, 3), (1, 4), (4, 1), (3, 1, 1)])
@pytest.mark.parametrize("has_cross", [True, False])
def test_decoding_in_chunks_of_any_sizes_equals_decoding_at_once(chunks: tuple[int, ...], has_cross: bool) -> None:
    decoder = make_decoder(has_cross=has_cross)
    state = make_start() if has_cross else DecoderState()
    x = random(B, T, D_MODEL)
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
    decoder, start = make_decoder(), make_start()
    x, memory = random(B, T, D_MODEL), start.memory.clone()
    y, after = decoder(x, start)
    assert start.past == ()
    assert torch.equal(start.memory, memory)
    past = [(kv.keys.clone(), kv.values.clone()) for kv in after.past]
    first, _ = decoder(x[:, :1], after)
    second, _ = decoder(x[:, :1], after)
    assert torch.equal(first, second)
    assert_close([tuple(kv) for kv in after.past], past)
    assert torch.equal(decoder(x, start)[0], y)


def test_memory_is_projected_once() -> None:
    decoder, x = make_decoder(), random(B, T, D_MODEL)
    _, state = decoder(x[:, :1], make_start())
    memory = state.memory
    _, state = decoder(x[:, 1:2], state)
    for before, after, layer in zip(memory, state.memory, decoder.layers, strict=True):
        assert before is after
        assert_close(before, layer.cross_attention.project(make_start().memory))


@pytest.mark.parametrize("with_mask", [True, False])
def test_beams_share_the_memory_of_their_sentence_as_if_it_were_repeated(with_mask: bool) -> None:
    decoder, start = make_decoder(), make_start()
    mask = start.memory_mask if with_mask else None
    shared = DecoderState(start.memory, mask)
    repeated_mask = None if mask is None else mask.repeat_interleave(W, 0)
    repeated = DecoderState(start.memory.repeat_interleave(W, 0), repeated_mask)
    x = random(B * W, T, D_MODEL)
    for chunk in x.split([1, 3, 1], dim=1):
        y, shared = decoder(chunk, shared)
        expected, repeated = decoder(chunk, repeated)
        assert_close(y, expected)
        assert [kv.keys.size(0) for kv in shared.memory] == [B] * 2
        assert [kv.keys.size(0) for kv in shared.past] == [B * W] * 2


def test_caches_have_the_sizes_of_keys_and_values() -> None:
    decoder = make_decoder(5)
    y, state = decoder(random(2, 13, D_MODEL), DecoderState(random(2, 17, D_MODEL)))
    assert y.shape == (2, 13, D_MODEL)
    assert len(state.past) == len(state.memory) == 5
    assert state.past[4].keys.shape == (2, H, 13, D_K)
    assert state.past[4].values.shape == (2, H, 13, D_V)
    assert state.memory[4].keys.shape == (2, H, 17, D_K)
    assert state.memory[4].values.shape == (2, H, 17, D_V)


# Decoder-only


@both_kernels
@pytest.mark.parametrize("chunks", [(7,), (1,) * 7, (3, 4), (2, 1, 4)])
def test_a_decoder_without_cross_attention_decodes_left_padded_prompts_in_chunks(chunks: tuple[int, ...]) -> None:
    decoder, x = make_decoder(has_cross=False), random(B, 7, D_MODEL)
    lengths = torch.tensor([7, 4, 1])
    is_real = torch.arange(7) >= 7 - lengths[:, None]  # (B, 7), padding first
    outputs, state, done = [], DecoderState(), 0
    for chunk in x.split(list(chunks), dim=1):
        done += chunk.size(1)
        y, state = decoder(chunk, state, is_real[:, None, None, :done])
        outputs.append(y)
    assert state.memory is None
    assert state.memory_mask is None
    assert state.length == 7
    actual = torch.cat(outputs, dim=1)
    assert actual.isfinite().all()
    for b, length in enumerate(lengths.tolist()):
        alone, _ = decoder(x[b : b + 1, 7 - length :], DecoderState())
        assert_close(actual[b : b + 1, 7 - length :], alone)


def test_a_mask_of_the_decoder_is_joined_with_the_causal_one() -> None:
    decoder, x = make_decoder(has_cross=False), random(B, T, D_MODEL)
    mask = torch.ones(B, 1, T, T, dtype=torch.bool)
    assert_close(decoder(x, DecoderState(), mask)[0], decoder(x, DecoderState())[0])


# The state


def owners_start(start: DecoderState, owners: Tensor) -> DecoderState:
    """A fresh state of these sentences, one for each row."""
    if start.memory is None:
        return start
    return DecoderState(start.memory[owners], None if start.memory_mask is None else start.memory_mask[owners])


SELECTIONS = {
    "the same": [[0, 1], [2, 3], [4, 5]],
    "reordered": [[1, 0], [2, 3], [5, 4]],
    "repeated hypotheses": [[1, 1], [2, 2], [5, 4]],
    "fewer beams": [[1], [2], [4]],
    "more beams": [[0, 1, 1, 0, 1], [2, 2, 2, 2, 2], [5, 4, 5, 4, 4]],
    "the first dropped": [[3, 2], [4, 5]],
    "the last dropped": [[1, 0], [3, 3]],
    "two dropped, more beams": [[3, 2, 3]],
    "all but two dropped, one beam": [[0], [5]],
    "a repeated sentence": [[0, 1], [0, 0], [2, 3], [5, 4]],
    "all repeated": [[0, 0]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2,
}


@pytest.mark.parametrize("kind", ["encoder", "encoder without mask", "decoder-only"])
@pytest.mark.parametrize("rows", SELECTIONS.values(), ids=SELECTIONS)
def test_selected_rows_go_on_as_if_their_prefixes_were_decoded_anew(rows: list[list[int]], kind: str) -> None:
    decoder, start = make_decoder(has_cross=kind != "decoder-only"), make_start()
    if kind != "encoder":
        start = DecoderState() if kind == "decoder-only" else DecoderState(start.memory)
    prefixes, index = random(B * W, 3, D_MODEL), torch.tensor(rows)
    _, state = decoder(prefixes, start)
    state = state.select(index)
    assert state.length == 3
    new = random(index.numel(), 2, D_MODEL)
    actual = [decoder(new, state)[0]]  # at once, and in two steps
    y, state = decoder(new[:, :1], state)
    actual.append(torch.cat([y, decoder(new[:, 1:], state)[0]], dim=1))
    inputs = torch.cat([prefixes[index.flatten()], new], dim=1)
    expected, _ = decoder(inputs, owners_start(start, (index // W).flatten()))
    for y in actual:
        assert_close(y, expected[:, 3:])


def test_all_sentences_may_be_dropped() -> None:
    decoder = make_decoder()
    _, state = decoder(random(B * W, 3, D_MODEL), make_start())
    state = state.select(torch.empty(0, W, dtype=torch.int64))
    assert state.length == 3
    y, state = decoder(random(0, 1, D_MODEL), state)
    assert y.shape == (0, 1, D_MODEL)
    assert (len(state.past[0].keys), len(state.memory[0].keys), len(state.memory_mask)) == (0, 0, 0)


@pytest.mark.parametrize(
    "rows", [[[0], [1], [2]], [[0] * 5, [1] * 5, [2] * 5], [[0], [2]], [[1, 1]], [[0], [0], [1], [2]]]
)
@pytest.mark.parametrize("with_mask", [True, False])
def test_sentences_may_be_selected_before_the_first_position(rows: list[list[int]], with_mask: bool) -> None:
    decoder, start = make_decoder(), make_start()
    start = start if with_mask else DecoderState(start.memory)
    index = torch.tensor(rows)
    state = start.select(index)
    assert state.length == 0
    x = random(index.numel(), T, D_MODEL)
    assert_close(decoder(x, state)[0], decoder(x, owners_start(start, index.flatten()))[0])


def test_before_the_first_position_a_decoder_only_state_has_nothing_to_select() -> None:
    assert DecoderState().select(torch.tensor([[1, 0], [2, 2]])) == DecoderState()


def test_memory_is_copied_only_if_the_number_of_sentences_changes() -> None:
    # As many sentences are the same ones: beam search selects at every step, and copies would slow it down.
    decoder = make_decoder()
    _, state = decoder(random(B * W, 1, D_MODEL), make_start())
    assert state.select(torch.tensor(SELECTIONS["more beams"])).memory is state.memory
    fewer = state.select(torch.tensor(SELECTIONS["the first dropped"]))
    assert_close(fewer.memory, tuple(type(kv)(kv.keys[1:], kv.values[1:]) for kv in state.memory))
    assert_close(fewer.memory_mask, state.memory_mask[1:])


def test_selecting_does_not_change_the_state() -> None:
    decoder, x = make_decoder(), random(B * W, 1, D_MODEL)
    _, state = decoder(random(B * W, 3, D_MODEL), make_start())
    before, _ = decoder(x, state)
    state.select(torch.tensor(SELECTIONS["two dropped, more beams"]))
    assert torch.equal(decoder(x, state)[0], before)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["encoder", "encoder without mask", "decoder-only"])
def test_any_history_of_selections_is_as_if_each_hypothesis_had_been_decoded_alone(seed: int, kind: str) -> None:
    # One hypothesis per sentence at first, then 5, then one again; sentences leave in between.
    decoder, start = make_decoder(has_cross=kind != "decoder-only"), make_start()
    if kind != "encoder":
        start = DecoderState() if kind == "decoder-only" else DecoderState(start.memory)
    torch.manual_seed(seed)
    state, sentences, beam_size = start, torch.arange(B), 1
    inputs = torch.zeros(B, 0, D_MODEL, dtype=torch.float64)  # of each hypothesis, all so far
    for step, num_new in enumerate([1, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1]):
        inputs = torch.cat([inputs, random(len(inputs), num_new, D_MODEL)], dim=1)
        y, state = decoder(inputs[:, -num_new:], state)
        expected, _ = decoder(inputs, owners_start(start, sentences.repeat_interleave(beam_size)))
        assert_close(y, expected[:, -num_new:])
        assert state.length == inputs.size(1)
        new_beam_size = 1 if step == 8 else 5
        rows = torch.arange(len(sentences))[:, None] * beam_size
        rows = rows + torch.randint(beam_size, (len(sentences), new_beam_size))
        if step in (3, 6):
            kept = torch.tensor([0, 2][: len(sentences) - 1])
            sentences, rows = sentences[kept], rows[kept]
        state, inputs, beam_size = state.select(rows), inputs[rows.flatten()], new_beam_size
    assert len(sentences) == 1


def test_a_state_moves_to_a_device_with_all_that_it_holds() -> None:
    decoder = make_decoder()
    for state in (make_start(), decoder(random(B, T, D_MODEL), make_start())[1]):
        moved = state.to("meta")
        tensors = pytree.tree_leaves(moved)
        assert len(tensors) == len(pytree.tree_leaves(state)) > 1
        assert {tensor.device.type for tensor in tensors} == {"meta"}
        assert moved.length == state.length
    assert DecoderState().to("meta") == DecoderState()


# The paper's model


def make_model(**options: Any) -> Transformer:
    """A small model with parameters, norms included, that would show a mistake; float64, eval."""
    torch.manual_seed(3)
    options = {"num_layers": N, "num_heads": H, "d_ff": D_FF, "d_k": D_K, "d_v": D_V, **options}
    model = Transformer(V, D_MODEL, **options).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def make_ids(lengths: tuple[int, ...], num_columns: int, seed: int = 5) -> Tensor:
    """Random ids (B, num_columns), of which the first `lengths` are not padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (len(lengths), num_columns), generator=generator)
    return ids * (torch.arange(num_columns) < torch.tensor(lengths)[:, None])


SRC, TGT = make_ids((7, 4, 2), S), make_ids((5, 3, 4), T, seed=7)


@pytest.mark.parametrize(("num_layers", "num_decoder_layers"), [(3, 1), (1, 3), (2, None)])
def test_encoder_and_decoder_may_have_different_depths(num_layers: int, num_decoder_layers: int | None) -> None:
    model = make_model(num_layers=num_layers, num_decoder_layers=num_decoder_layers)
    assert len(model.encoder.layers) == num_layers
    assert len(model.decoder.layers) == (num_decoder_layers or num_layers)
    state, logits = model.encode(SRC), []
    for token in TGT.split(1, dim=1):
        hidden, state = model.decode(token, state)
        logits.append(model.logits(hidden))
    assert len(state.past) == len(state.memory) == (num_decoder_layers or num_layers)
    assert_close(torch.cat(logits, dim=1), model(SRC, TGT))


@both_kernels
def test_padding_columns_change_nothing_in_float32_either() -> None:
    model = make_model().float()
    expected = model(SRC, TGT)
    more_src = torch.cat([SRC, torch.zeros(B, 3, dtype=torch.int64)], 1)
    # Not to the bit: sums over more keys are taken in another order.
    assert_close(model(more_src, TGT), expected, rtol=1e-6, atol=1e-5)


@both_kernels
def test_a_source_without_tokens_gives_finite_numbers_and_leaves_the_others_alone() -> None:
    model = make_model()
    src = SRC.clone()
    src[1] = 0
    logits = model(src, TGT)
    assert logits.isfinite().all()
    assert_close(logits[[0, 2]], model(SRC, TGT)[[0, 2]])
    logits.square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


def test_any_id_may_be_the_padding() -> None:
    model, other = make_model(), make_model(pad_id=13)
    swapped = torch.arange(V)
    swapped[0], swapped[13] = 13, 0
    with torch.no_grad():
        other.embedding.weight.copy_(model.embedding.weight[swapped])
    assert_close(other(swapped[SRC], swapped[TGT])[..., swapped], model(SRC, TGT))


def test_encoding_and_decoding_start_from_embeddings_and_positions() -> None:
    model = make_model()
    captured: list[Tensor] = []
    for stack in (model.encoder, model.decoder):
        stack.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    state = model.encode(SRC)
    assert_close(captured[0], model.source_positions(model.embedding(SRC)))
    assert_close(state.memory, model.encoder(captured[0], padding_mask(SRC)))
    assert_close(state.memory_mask, padding_mask(SRC))
    _, state = model.decode(TGT[:, :2], state)
    model.decode(TGT[:, 2:], state)
    embedded = model.target_positions(model.embedding(TGT, is_target=True))
    assert_close(torch.cat(captured[2:], dim=1), embedded)


@both_kernels
def test_sinusoids_let_inputs_be_longer_than_any_before() -> None:
    model = make_model()
    src, tgt = make_ids((307, 5), 307), make_ids((263, 263), 263)
    whole = model(src, tgt)
    state, logits = model.encode(src), []
    for chunk in tgt.split([251, 12], dim=1):  # the table grows between the chunks
        hidden, state = model.decode(chunk, state)
        logits.append(model.logits(hidden))
    assert_close(torch.cat(logits, dim=1), whole)


def test_both_stacks_end_normalised() -> None:
    torch.manual_seed(3)
    model = Transformer(V, D_MODEL, N, H, D_FF, d_k=D_K).double().eval()
    state = model.encode(SRC)
    hidden, _ = model.decode(TGT, state)
    for x in (state.memory, hidden):
        zeros = torch.zeros(x.shape[:-1], dtype=x.dtype)
        assert_close(x.mean(-1), zeros)
        assert_close(x.square().mean(-1), zeros + 1, rtol=1e-4, atol=0.0)  # short of 1 by the epsilon


def test_without_dropout_training_and_eval_are_the_same() -> None:
    model = make_model(dropout=0.0)
    assert torch.equal(model.train()(SRC, TGT), model.eval()(SRC, TGT))


def test_dropout_falls_on_the_sum_of_embeddings_and_positions() -> None:
    model = make_model(dropout=0.5)
    captured: list[Tensor] = []
    for stack in (model.encoder, model.decoder):
        stack.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    model.eval()(SRC, TGT)
    model.train()(SRC, TGT)
    clean_src, clean_tgt, src, tgt = captured
    assert_close(clean_src, model.source_positions(model.embedding(SRC)))
    assert_close(clean_tgt, model.target_positions(model.embedding(TGT)))
    for clean, dropped in ((clean_src, src), (clean_tgt, tgt)):
        assert_close(dropped, torch.where(dropped == 0, 0.0, 2 * clean))
        assert 0.3 < (dropped == 0).double().mean() < 0.7


def test_the_defaults_are_the_papers_base_model() -> None:
    with torch.device("meta"):
        model = Transformer(37)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (6, 6)
    attentions = [m for m in model.modules() if isinstance(m, MultiHeadAttention)]
    assert len(attentions) == 18
    assert {(m.num_heads, m.attention.dropout.p, tuple(m.w_q.weight.shape), m.w_q.bias) for m in attentions} == {
        (8, 0.0, (512, 512), None)
    }
    layers = (*model.encoder.layers, *model.decoder.layers)
    assert {tuple(layer.feed_forward.w_1.weight.shape) for layer in layers} == {(2048, 512)}
    assert {layer.feed_forward.activation for layer in layers} == {nn.functional.relu}
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert model.dropout.p == 0.1
    assert {layer.dropout.p for layer in layers} == {0.1}
    assert {layer.feed_forward.dropout.p for layer in layers} == {0.0}
    assert {type(layer) for layer in layers} == {Layer}
    assert {type(stack.norm) for stack in (model.encoder, model.decoder)} == {nn.Identity}
    assert (model.pad_id, model.max_length) == (0, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_k": None}, "d_model=11 is not a multiple of num_heads=3; change one or give d_k"),
        ({"dropout": 1.0}, r"dropout=1.0 is not in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout=-0.1 is not in \[0, 1\)"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**options)


def test_the_same_seed_builds_the_same_model() -> None:
    models = []
    for seed in (3, 3, 5):
        torch.manual_seed(seed)
        models.append(Transformer(V, D_MODEL, N, H, D_FF, d_k=D_K))
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
    assert (models[0].embedding.weight != models[2].embedding.weight).any()


class Step(nn.Module):
    """One step of decoding, as a module that can be exported."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tgt: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = self.model.decode(tgt, state)
        return self.model.logits(hidden), state


def test_a_step_of_decoding_can_be_exported_with_its_state() -> None:
    model = make_model()
    _, state = model.decode(TGT[:, :3], model.encode(SRC))
    expected, expected_state = Step(model)(TGT[:, 3:4], state)
    exported = torch.export.export(Step(model), (TGT[:, 3:4], state)).module()
    logits, after = exported(TGT[:, 3:4], state)
    assert_close(logits, expected)
    assert_close(after.past, expected_state.past)
    assert after.length == 4


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_logits_at_every_length() -> None:
    model = make_model(num_layers=1)
    compiled = torch.compile(model, backend="eager", dynamic=True, fullgraph=True)
    for src, tgt in ((SRC, TGT), (make_ids((19, 17), 19), make_ids((23, 11), 23))):
        assert_close(compiled(src, tgt), model(src, tgt))


def test_a_decoder_mask_of_the_new_positions_alone_is_refused() -> None:
    model = Transformer(53, 22, 1, 2, 29)
    _, state = model.decode(torch.ones(2, 3, dtype=torch.int64), model.encode(torch.ones(2, 5, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"mask \(2, 1, 1, 1\) is not of all 4 keys, past and new"):
        model.decoder(torch.randn(2, 1, 22), state, torch.ones(2, 1, 1, 1, dtype=torch.bool))


def test_sentences_end_to_end_are_refused_by_the_decoder() -> None:
    starts = torch.tensor([0, 4]).int()
    message = r"^mask is a Packing; sentences end to end are for the decoder's layers, one by one$"
    with pytest.raises(TypeError, match=message):
        make_decoder()(torch.zeros(1, 4, D_MODEL), make_start(), Packing(starts, starts, 4, 4))  # type: ignore[arg-type]

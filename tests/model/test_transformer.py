"""The whole model: the laws that it owes, for the paper's arrangement and for the others on offer.

Laws that hold up to rounding are checked in float64, where rounding cannot hide a mistake, and with both
implementations of equation 1.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.inference.prepared import can_prepare, prepare_linears
from transformer.inference.search import beam_search
from transformer.model import attention as attention_module
from transformer.model import restricted as restricted_module
from transformer.model.decoder import Decoder, DecoderLayer, DecoderState
from transformer.model.encoder import Encoder, EncoderLayer
from transformer.model.transformer import Transformer

V, D_MODEL, N, H, D_FF, D_K, D_V = 31, 11, 2, 3, 29, 7, 5
B, S, T, W = 3, 7, 5, 2

# The paper's arrangement, two that differ from it in everything else, and the alternatives that it weighs.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"d_k": D_K, "d_v": D_V},
    "pre-norm": {"d_k": D_K, "d_v": D_V, "norm": "pre", "tie": "decoder"},
    "learned": {"d_k": D_K, "positional": "learned", "max_positions": 61, "tie": "none", "attention_bias": True},
    "dot": {"attention_score": "dot", "attention_temperature": 3.0},
    "general": {"attention_score": "general", "positional": "none"},
    "additive": {"attention_score": "additive", "positional": "t5"},
    "cosine": {"attention_score": "cosine", "positional": "rotary", "d_k": 6},
    "location": {"attention_score": "location", "max_positions": 61},
    "shaw": {"positional": "shaw", "max_relative_position": 2},
    "t5": {"positional": "t5", "norm": "pre"},
    "rotary": {"positional": "rotary", "d_k": 6},
    "restricted": {"attention_window": 3},
    "restricted shaw": {"attention_window": 3, "positional": "shaw", "max_relative_position": 1},
    "restricted t5": {"attention_window": 3, "positional": "t5"},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a restricted attention cut even these short sentences into blocks."""
    monkeypatch.setattr(restricted_module, "_MIN_BLOCK", 1)


@pytest.fixture(params=["written out", "fused"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with either implementation of equation 1, whatever the sizes."""
    monkeypatch.setattr(attention_module, "_fused_kernel_wins", lambda *_: request.param == "fused")


both_kernels = pytest.mark.usefixtures("kernel")


def make_model(**options: Any) -> Transformer:
    """A small model with parameters, biases and norms included, that a mistake would show; float64, eval."""
    torch.manual_seed(3)
    options = {"d_k": D_K, "d_v": D_V, **options}
    model = Transformer(V, D_MODEL, N, H, D_FF, **options).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=list(VARIANTS))
def model(request: pytest.FixtureRequest) -> Transformer:
    return make_model(**VARIANTS[request.param])


def make_ids(lengths: tuple[int, ...], num_columns: int, seed: int = 5) -> Tensor:
    """Random ids (B, num_columns), of which the first `lengths` are not padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (len(lengths), num_columns), generator=generator)
    return ids * (torch.arange(num_columns) < torch.tensor(lengths)[:, None])


SRC, TGT = make_ids((7, 4, 2), S), make_ids((5, 3, 4), T, seed=7)


@both_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_columns", [T, 53])
def test_future_tokens_change_not_a_bit_of_the_outputs_before_them(
    model: Transformer, num_columns: int, dtype: torch.dtype
) -> None:
    model = model.to(dtype)
    tgt = make_ids((num_columns,) * B, num_columns)
    before = model(SRC, tgt)
    for t in (0, 1, 3, num_columns - 2):
        changed = tgt.clone()
        changed[:, t + 1 :] = changed[:, t + 1 :] % (V - 1) + 1
        after = model(SRC, changed)
        # Hidden weights are exactly 0 on either kernel, so this holds without a tolerance.
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert (after[:, t + 1] != before[:, t + 1]).any(-1).all()


def test_every_output_depends_on_every_source_token_and_on_its_own_and_earlier_targets(model: Transformer) -> None:
    src, tgt = make_ids((S,), S), make_ids((T,), T)
    captured: list[Tensor] = []
    for stack in (model.encoder, model.decoder):
        stack.register_forward_pre_hook(lambda _, args: captured.append(args[0].requires_grad_()))
    logits = model(src, tgt)
    x_src, x_tgt = captured
    for t in range(T):
        d_src, d_tgt = torch.autograd.grad(logits[0, t].square().sum(), (x_src, x_tgt), retain_graph=True)
        assert (d_src[0].abs().amax(-1) > 0).all()
        assert_close(d_tgt[0].abs().amax(-1) > 0, torch.arange(T) <= t)


@both_kernels
@pytest.mark.parametrize("num_extra", [1, 3])
def test_padding_columns_change_nothing(model: Transformer, num_extra: int) -> None:
    expected = model(SRC, TGT)
    extra = torch.zeros(B, num_extra, dtype=torch.int64)
    more_src, more_tgt = torch.cat([SRC, extra], 1), torch.cat([TGT, extra], 1)
    assert_close(model(more_src, TGT), expected)
    assert_close(model(SRC, more_tgt)[:, :T], expected)
    assert_close(model(more_src, more_tgt)[:, :T], expected)


@both_kernels
def test_padding_columns_change_nothing_in_float32_either() -> None:
    model = make_model().float()
    expected = model(SRC, TGT)
    more_src = torch.cat([SRC, torch.zeros(B, 3, dtype=torch.int64)], 1)
    # Not to the bit: sums over more keys are taken in another order.
    assert_close(model(more_src, TGT), expected, rtol=1e-6, atol=1e-5)


@both_kernels
def test_a_batch_of_mixed_lengths_equals_one_sentence_at_a_time(model: Transformer) -> None:
    logits = model(SRC, TGT)
    for b in range(B):
        src, tgt = (ids[b, ids[b] != 0][None] for ids in (SRC, TGT))
        assert_close(logits[b : b + 1, : tgt.size(1)], model(src, tgt))


@both_kernels
def test_what_stands_at_padding_has_no_effect() -> None:
    model = make_model(tie="none")
    expected = model(SRC, TGT)
    with torch.no_grad():
        model.embeddings.source_weight[0] = 1e3
    assert_close(model(SRC, TGT), expected)


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
        other.embeddings.source_weight.copy_(model.embeddings.source_weight[swapped])
    assert_close(other(swapped[SRC], swapped[TGT])[..., swapped], model(SRC, TGT))


@both_kernels
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (2, 3), (1, 4), (4, 1)])
def test_decoding_step_by_step_equals_decoding_at_once(model: Transformer, chunks: tuple[int, ...]) -> None:
    state, logits = model.encode(SRC), []
    for chunk in TGT.split(list(chunks), dim=1):
        hidden, state = model.decode(chunk, state)
        logits.append(model.logits(hidden))
    assert state.length == T
    assert_close(torch.cat(logits, dim=1), model(SRC, TGT))


@both_kernels
def test_hypotheses_of_a_sentence_need_no_copy_of_its_source(model: Transformer) -> None:
    tgt = make_ids((T,) * (B * W), T)
    state, logits = model.encode(SRC), []
    for chunk in tgt.split([2, 1, 2], dim=1):
        hidden, state = model.decode(chunk, state)
        logits.append(model.logits(hidden))
    assert_close(torch.cat(logits, dim=1), model(SRC.repeat_interleave(W, 0), tgt))


@both_kernels
def test_selected_hypotheses_of_kept_sentences_go_on_as_if_alone(model: Transformer) -> None:
    tgt = make_ids((T,) * (B * W), T)
    _, state = model.decode(tgt[:, :2], model.encode(SRC))
    rows = torch.tensor([1, 0, 4, 4])  # of sentences 0 and 2
    state = state.keep_sentences(torch.tensor([0, 2])).select(rows)
    new = make_ids((3,) * 4, 3, seed=11)
    hidden, _ = model.decode(new, state)
    alone = model(SRC[[0, 0, 2, 2]], torch.cat([tgt[rows, :2], new], 1))
    assert_close(model.logits(hidden), alone[:, 2:])


@dataclass(frozen=True)
class Retold:
    """A state for the search that remembers tokens only, so that each step is computed anew."""

    src: Tensor  # (B, S)
    prefixes: Tensor  # (R, t)

    def select(self, rows: Tensor) -> Retold:
        return Retold(self.src, self.prefixes[rows])

    def keep_sentences(self, sentences: Tensor) -> Retold:
        return Retold(self.src[sentences], self.prefixes)


@both_kernels
def test_a_beam_finds_what_it_finds_without_memory(model: Transformer) -> None:
    def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = model.decode(tokens[:, None], state)
        return model.logits(hidden[:, -1]), state

    def retell(tokens: Tensor, state: Retold) -> tuple[Tensor, Retold]:
        state = Retold(state.src, torch.cat((state.prefixes, tokens[:, None]), dim=1))
        src = state.src.repeat_interleave(len(tokens) // len(state.src), dim=0)
        return model(src, state.prefixes)[:, -1], state

    options = {"bos_id": 1, "eos_id": 2, "beam": 3, "nbest": 3}
    limits = [11, 5, 7]
    expected = beam_search(retell, Retold(SRC, SRC.new_zeros(B, 0)), limits, **options)
    for found, wanted in zip(beam_search(decode, model.encode(SRC), limits, **options), expected, strict=True):
        assert [hypothesis.ids for hypothesis in found] == [hypothesis.ids for hypothesis in wanted]
        assert_close([h.log_prob for h in found], [h.log_prob for h in wanted])


@pytest.mark.skipif(not can_prepare(torch.zeros(1)), reason="torch has no kernel here")
def test_weights_may_be_laid_out_for_inference(model: Transformer) -> None:
    model = model.float()
    expected = model(SRC, TGT)
    prepare_linears(model)
    with torch.no_grad():
        assert_close(model(SRC, TGT), expected, rtol=1e-4, atol=1e-4)


def test_training_is_decoding_from_an_empty_state(model: Transformer) -> None:
    state = model.encode(SRC)
    assert state.length == 0
    hidden, _ = model.decode(TGT, state)
    assert hidden.shape == (B, T, D_MODEL)
    logits = model(SRC, TGT)
    assert logits.shape == (B, T, V)
    assert torch.equal(model.logits(hidden), logits)


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


def test_learned_positions_end_where_they_end() -> None:
    model = make_model(positional="learned", max_positions=6)
    model(SRC[:, :6], TGT)
    message = "position 7 is past max_positions=6"
    with pytest.raises(ValueError, match=message):
        model(SRC, TGT)
    _, state = model.decode(TGT, model.encode(SRC[:, :6]))
    with pytest.raises(ValueError, match=message):
        model.decode(TGT[:, :2], state)


def test_source_and_target_have_learned_positions_of_their_own() -> None:
    model = Transformer(V, D_MODEL, N, H, D_FF, d_k=D_K, positional="learned", max_positions=17)
    assert (model.source_positions.table != model.target_positions.table).all()


def test_only_pre_norm_has_final_norms() -> None:
    names = {norm: set(make_model(norm=norm).state_dict()) for norm in ("post", "pre")}
    final = {f"{stack}.norm.{kind}" for stack in ("encoder", "decoder") for kind in ("weight", "bias")}
    assert names["pre"] - names["post"] == final
    assert names["post"] < names["pre"]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_stack_ends_normalised_wherever_its_norms_stand(norm: str) -> None:
    torch.manual_seed(3)
    model = Transformer(V, D_MODEL, N, H, D_FF, d_k=D_K, norm=norm).double().eval()
    memory: list[Tensor] = []
    model.encoder.register_forward_hook(lambda *args: memory.append(args[-1]))
    hidden, _ = model.decode(TGT, model.encode(SRC))
    for x in (*memory, hidden):
        zeros = torch.zeros(x.shape[:-1], dtype=x.dtype)
        assert_close(x.mean(-1), zeros)
        assert_close(x.square().mean(-1), zeros + 1, rtol=1e-4, atol=0.0)  # short of 1 by the epsilon


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights of every attention that follows, in order."""
    weights: list[Tensor] = []
    original = attention_module.masked_softmax

    def recording(*args: Any) -> Tensor:
        weights.append(original(*args))
        return weights[-1]

    monkeypatch.setattr(attention_module, "_fused_kernel_wins", lambda *_: False)
    monkeypatch.setattr(attention_module, "masked_softmax", recording)
    return weights


def test_attention_maps_are_the_weights_of_the_forward_pass(model: Transformer, recorded: list[Tensor]) -> None:
    maps = model.attention_maps(SRC, TGT)
    recorded.clear()
    model(SRC, TGT)
    # The encoder's layers, then self- and cross-attention of each of the decoder's.
    assert len(recorded) == 3 * N
    if maps.encoder[0].shape == recorded[0].shape:  # restricted attention computes them block by block
        assert_close(maps.encoder, recorded[:N])
    assert_close(maps.decoder, recorded[N::2])
    assert_close(maps.cross, recorded[N + 1 :: 2])


def test_rows_of_attention_maps_sum_to_one_and_are_zero_where_nothing_may_be_seen(model: Transformer) -> None:
    maps = model.attention_maps(SRC, TGT)
    is_source = (SRC != 0)[:, None, None]
    window = getattr(model.encoder.layers[0].self_attention, "window", 2 * S)
    is_near = (torch.arange(S) - torch.arange(S)[:, None]).abs() <= window // 2
    expected = {
        "encoder": (is_source & is_near).expand(B, H, S, S),
        "decoder": torch.ones(B, H, T, T, dtype=torch.bool).tril(),
        "cross": is_source.expand(B, H, T, S),
    }
    for name, visible in expected.items():
        layers = getattr(maps, name)
        assert len(layers) == N
        for weights in layers:
            assert torch.equal(weights > 0, visible)
            # Padding that is far from all tokens of a restricted encoder sees nothing.
            assert_close(weights.sum(-1), visible.any(-1).double())


def test_attention_maps_of_different_layers_and_heads_differ(model: Transformer) -> None:
    maps = model.attention_maps(SRC, TGT)
    for layers in (maps.encoder, maps.decoder, maps.cross):
        assert (layers[0] - layers[1]).abs().max() > 1e-6
        assert (layers[0][:, 0] - layers[0][:, 1]).abs().max() > 1e-6


def test_the_state_dict_has_every_parameter_once_and_nothing_else(model: Transformer) -> None:
    state = model.state_dict()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert list(state) == list(parameters)  # no buffer
    assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == len(state)
    for tensor in state.values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_weights_survive_safetensors(model: Transformer) -> None:
    expected = model(SRC, TGT)
    data = safetensors.torch.save(model.state_dict())  # which refuses shared storage
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.load_state_dict(safetensors.torch.load(data))
    assert torch.equal(model(SRC, TGT), expected)


def test_a_copy_is_tied_as_the_model_is_and_apart_from_it(model: Transformer) -> None:
    other = copy.deepcopy(model)
    assert torch.equal(other(SRC, TGT), model(SRC, TGT))
    assert list(other.state_dict()) == list(model.state_dict())
    before = model(SRC, TGT)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(SRC, TGT), before)


def test_every_parameter_has_a_part_in_the_output() -> None:
    # Without attention biases: that of the keys moves all scores of a query alike, which no softmax sees.
    for options in VARIANTS.values():
        model = make_model(**{**options, "attention_bias": False})
        model(SRC, TGT).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().max() > 1e-9, name


def test_without_dropout_training_and_eval_are_the_same() -> None:
    model = make_model(dropout=0.0)
    assert torch.equal(model.train()(SRC, TGT), model.eval()(SRC, TGT))


@both_kernels
@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_kind_of_dropout_is_on_in_training_only(kind: str) -> None:
    model = make_model(**{"dropout": 0.0, kind: 0.3})
    clean = make_model(dropout=0.0)
    expected = clean(SRC, TGT)
    assert torch.equal(model(SRC, TGT), expected)
    model.train()
    assert (model(SRC, TGT) != model(SRC, TGT)).any()
    # The encoder has it too.
    keys = [model.encode(SRC).memory[0].keys for _ in range(2)]
    assert (keys[0] != keys[1]).any()
    assert torch.equal(model.eval()(SRC, TGT), expected)


def test_dropout_falls_on_the_sum_of_embeddings_and_positions() -> None:
    model = make_model(dropout=0.5)
    captured: list[Tensor] = []
    for stack in (model.encoder, model.decoder):
        stack.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    model.eval()(SRC, TGT)
    model.train()(SRC, TGT)
    clean_src, clean_tgt, src, tgt = captured
    assert_close(clean_src, model.source_positions(model.embeddings.source(SRC)))
    assert_close(clean_tgt, model.target_positions(model.embeddings.target(TGT)))
    for clean, dropped in ((clean_src, src), (clean_tgt, tgt)):
        assert_close(dropped, torch.where(dropped == 0, 0.0, 2 * clean))
        assert 0.3 < (dropped == 0).double().mean() < 0.7


def test_the_defaults_are_the_papers_base_model() -> None:
    with torch.device("meta"):
        model = Transformer(37)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (6, 6)
    attentions = [m for m in model.modules() if isinstance(m, attention_module.MultiHeadAttention)]
    assert {(m.num_heads, m.dropout, tuple(m.w_q.weight.shape), m.w_q.bias) for m in attentions} == {
        (8, 0.0, (512, 512), None)
    }
    assert {tuple(layer.feed_forward.w_1.weight.shape) for layer in model.encoder.layers} == {(2048, 512)}
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert model.dropout == 0.1
    assert {layer.residual_1.dropout for layer in (*model.encoder.layers, *model.decoder.layers)} == {0.1}
    assert {layer.feed_forward.dropout for layer in model.encoder.layers} == {0.0}
    assert not any(layer.residual_1.is_pre_norm for layer in model.decoder.layers)


def test_the_norms_epsilon_reaches_every_norm() -> None:
    model = make_model(norm="pre", norm_eps=0.01)
    assert [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)] == [0.01] * (N * (2 + 3) + 2)


def test_layers_and_model_agree_on_defaults() -> None:
    of_model = inspect.signature(Transformer).parameters
    for layer in (EncoderLayer, DecoderLayer):
        for name, parameter in inspect.signature(layer).parameters.items():
            assert parameter.default == of_model[name].default, name
    for stack in (Encoder, Decoder):
        for name, parameter in inspect.signature(stack).parameters.items():
            assert name == "options" or parameter.default == of_model[name].default, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positional": "alibi"}, "positional='alibi' is not one of 'sinusoidal', 'learned', 'shaw', 't5', 'rotary', "),
        ({"positional": "rotary"}, "positional='rotary' turns pairs of channels and d_k=7 is odd"),
        ({"positional": "shaw", "attention_score": "cosine"}, "positional='shaw' is not defined for"),
        ({"attention_score": "bilinear"}, "attention_score='bilinear' is not one of 'scaled_dot', 'dot', 'general', "),
        ({"attention_temperature": 0.0}, "attention_temperature=0.0 is not a finite number above 0"),
        ({"attention_window": 4}, "attention_window=4 is not odd and positive"),
        ({"attention_window": 3, "attention_score": "location"}, "attention_window is not defined for"),
        ({"positional": "shaw", "max_relative_position": 0}, "max_relative_position=0 is less than 1"),
        ({"norm": "sandwich"}, "norm='sandwich' is not one of 'post', 'pre'"),
        ({"tie": "some"}, "tie='some' is not one of 'all', 'decoder', 'none'"),
        ({"d_k": None}, "d_model=11 is not a multiple of num_heads=3"),
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
    assert (models[0].embeddings.source_weight != models[2].embeddings.source_weight).any()

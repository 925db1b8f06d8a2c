"""The laws that a model owes, for the paper's and with every alternative to its parts.

Laws that hold up to rounding are checked in float64, where rounding cannot hide a mistake, and with both
implementations of equation 1.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import DecoderState, Transformer

V, D_MODEL, N, H, D_FF, D_K, D_V = 31, 11, 2, 3, 29, 7, 5
B, S, T, W = 3, 7, 5, 2

# The paper's model, two that differ from it in everything else, and the alternatives, alone and together.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "pre-norm": {"norm": "pre", "tie": "decoder"},
    "learned": {"positional": "learned", "max_positions": 61, "tie": "none", "attention_bias": True},
    "dot": {"attention_score": "dot", "attention_temperature": 3.0},
    "general": {"attention_score": "general", "positional": "none"},
    "additive": {"attention_score": "additive", "positional": "t5"},
    "cosine": {"attention_score": "cosine", "positional": "rotary", "d_k": 6},
    "location": {"attention_score": "location", "max_positions": 61},
    "temperature": {"attention_temperature": 0.5, "activation": "swish"},
    "shaw": {"positional": "shaw", "max_relative_position": 2},
    "shaw general": {"positional": "shaw", "attention_score": "general", "attention_temperature": 2.0},
    "t5": {"positional": "t5", "norm": "pre"},
    "alibi": {"positional": "alibi"},
    "alibi additive": {"positional": "alibi", "attention_score": "additive", "num_decoder_layers": 1},
    "rotary": {"positional": "rotary", "d_k": 6},
    "local": {"attention_window": 3},
    "local shaw": {"attention_window": 3, "positional": "shaw", "max_relative_position": 1},
    "local t5": {"attention_window": 3, "positional": "t5"},
    "local alibi": {"attention_window": 3, "positional": "alibi"},
    "local rotary cosine": {"attention_window": 3, "positional": "rotary", "attention_score": "cosine", "d_k": 6},
    "grouped": {"num_heads": 4, "num_kv_heads": 2, "attention_bias": True, "activation": "gelu"},
    "multi-query": {"num_kv_heads": 1, "positional": "rotary", "d_k": 6, "norm": "pre"},
    "grouped shaw": {"num_heads": 4, "num_kv_heads": 2, "positional": "shaw", "attention_score": "general"},
    "multi-query local alibi": {"num_kv_heads": 1, "positional": "alibi", "attention_window": 3},
    "different depths": {"num_decoder_layers": 3, "num_layers": 1},
    "output bias": {"output_bias": True, "activation": "swish", "attention_bias": True},
    "output bias decoder": {"output_bias": True, "tie": "decoder"},
    "output bias none": {"output_bias": True, "tie": "none"},
}

pytestmark = pytest.mark.usefixtures("small_blocks")  # let local attention cut even short sentences into blocks
both_kernels = pytest.mark.usefixtures("kernel")


def make_model(**options: Any) -> Transformer:
    """A small model with parameters, biases and norms included, that would show a mistake; float64, eval."""
    torch.manual_seed(3)
    sizes = {"d_model": D_MODEL, "num_layers": N, "num_heads": H, "d_ff": D_FF, "d_k": D_K, "d_v": D_V}
    model = build_model(V, ModelConfig(**{**sizes, **options})).double().eval()
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


# Causality and padding


@both_kernels
@pytest.mark.parametrize(
    ("num_columns", "dtype"),
    [
        (53, torch.float32),
        (T, torch.bfloat16),
        pytest.param(T, torch.float32, marks=pytest.mark.slow),
        pytest.param(53, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
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
        # Masked weights are exactly 0 on either kernel, so this holds without a tolerance.
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
@pytest.mark.parametrize("num_extra", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_padding_columns_change_nothing(model: Transformer, num_extra: int) -> None:
    expected = model(SRC, TGT)
    extra = torch.zeros(B, num_extra, dtype=torch.int64)
    more_src, more_tgt = torch.cat([SRC, extra], 1), torch.cat([TGT, extra], 1)
    assert_close(model(more_src, TGT), expected)
    assert_close(model(SRC, more_tgt)[:, :T], expected)
    assert_close(model(more_src, more_tgt)[:, :T], expected)


@both_kernels
def test_a_batch_of_mixed_lengths_equals_one_sentence_at_a_time(model: Transformer) -> None:
    logits = model(SRC, TGT)
    for b in range(B):
        src, tgt = (ids[b, ids[b] != 0][None] for ids in (SRC, TGT))
        assert_close(logits[b : b + 1, : tgt.size(1)], model(src, tgt))


@both_kernels
@pytest.mark.parametrize("options", [{}, {"attention_window": 3}, {"num_kv_heads": 1}])
def test_the_embedding_of_padding_has_no_effect(options: dict[str, Any]) -> None:
    model = make_model(tie="none", **options)
    expected = model(SRC, TGT)
    with torch.no_grad():
        model.embedding.weight[0] = 1e3
    assert_close(model(SRC, TGT), expected)


@both_kernels
def test_a_source_without_tokens_gives_finite_numbers_and_leaves_the_others_alone(model: Transformer) -> None:
    src = SRC.clone()
    src[1] = 0
    logits = model(src, TGT)
    assert logits.isfinite().all()
    assert_close(logits[[0, 2]], model(SRC, TGT)[[0, 2]])


# The decoder's state


def test_training_is_decoding_from_an_empty_state(model: Transformer) -> None:
    state = model.encode(SRC)
    assert state.length == 0
    hidden, _ = model.decode(TGT, state)
    assert hidden.shape == (B, T, D_MODEL)
    logits = model(SRC, TGT)
    assert logits.shape == (B, T, V)
    assert torch.equal(model.logits(hidden), logits)


@both_kernels
@pytest.mark.parametrize(
    "chunks", [(1, 1, 1, 1, 1), (2, 3), *(pytest.param(chunks, marks=pytest.mark.slow) for chunks in ((1, 4), (4, 1)))]
)
def test_decoding_step_by_step_equals_decoding_at_once(model: Transformer, chunks: tuple[int, ...]) -> None:
    state, logits = model.encode(SRC), []
    for chunk in TGT.split(list(chunks), dim=1):
        hidden, state = model.decode(chunk, state)
        logits.append(model.logits(hidden))
    assert state.length == T
    assert_close(torch.cat(logits, dim=1), model(SRC, TGT))


@both_kernels
def test_beams_of_a_sentence_need_no_copy_of_its_source(model: Transformer) -> None:
    tgt = make_ids((T,) * (B * W), T)
    state, logits = model.encode(SRC), []
    for chunk in tgt.split([2, 1, 2], dim=1):
        hidden, state = model.decode(chunk, state)
        logits.append(model.logits(hidden))
    assert_close(torch.cat(logits, dim=1), model(SRC.repeat_interleave(W, 0), tgt))


@both_kernels
def test_selected_hypotheses_of_two_sentences_go_on_as_if_alone(model: Transformer) -> None:
    tgt = make_ids((T,) * (B * W), T)
    _, state = model.decode(tgt[:, :2], model.encode(SRC))
    rows = torch.tensor([[1, 0], [4, 4]])  # of sentences 0 and 2
    state = state.select(rows)
    new = make_ids((3,) * 4, 3, seed=11)
    hidden, _ = model.decode(new, state)
    alone = model(SRC[[0, 0, 2, 2]], torch.cat([tgt[rows.flatten(), :2], new], 1))
    assert_close(model.logits(hidden), alone[:, 2:])


@both_kernels
def test_any_history_of_selections_is_as_if_each_hypothesis_had_been_decoded_alone(model: Transformer) -> None:
    # One hypothesis per sentence at first, then 5, then one again; sentences leave in between.
    torch.manual_seed(7)
    state, sentences, beam_size = model.encode(SRC), torch.arange(B), 1
    prefixes = torch.zeros(B, 0, dtype=torch.int64)  # of each hypothesis, all tokens so far
    for step, num_new in enumerate([1, 1, 2, 1, 1, 3, 1]):
        prefixes = torch.cat([prefixes, torch.randint(1, V, (len(prefixes), num_new))], dim=1)
        hidden, state = model.decode(prefixes[:, -num_new:], state)
        expected = model(SRC[sentences.repeat_interleave(beam_size)], prefixes)
        assert_close(model.logits(hidden), expected[:, -num_new:])
        assert state.length == prefixes.size(1)
        new_beam_size = 1 if step == 5 else 5
        rows = torch.arange(len(sentences))[:, None] * beam_size
        rows = rows + torch.randint(beam_size, (len(sentences), new_beam_size))
        if step in (2, 4):
            kept = torch.tensor([0, 2][: len(sentences) - 1])
            sentences, rows = sentences[kept], rows[kept]
        state, prefixes, beam_size = state.select(rows), prefixes[rows.flatten()], new_beam_size


@dataclass(frozen=True)
class Recomputed:
    """A state that remembers tokens only, so that each step is computed anew."""

    src: Tensor  # (R, S)
    prefixes: Tensor  # (R, t)

    def select(self, rows: Tensor) -> Recomputed:
        return Recomputed(self.src[rows.flatten()], self.prefixes[rows.flatten()])


def search(
    decode: Callable[[Tensor, Any], tuple[Tensor, Any]], state: Any, limits: list[int], beam_size: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """A beam search without </s>: sentences leave at their limits. By sentence, ids (W, limit) and log P (W,)."""
    found, sentences = {}, torch.arange(len(limits))
    prefixes = torch.ones(len(limits), 1, dtype=torch.int64)
    log_probs = torch.zeros(len(limits), 1, dtype=torch.float64)  # (B, W)
    while len(sentences):
        logits, state = decode(prefixes[:, -1], state)
        candidates = log_probs[..., None] + logits.log_softmax(-1).view(*log_probs.shape, V)  # (B, W, V)
        parents = torch.arange(len(sentences))[:, None] * log_probs.size(1)
        log_probs, best = candidates.flatten(1).topk(beam_size)
        rows = parents + best // V  # (B, W)
        prefixes = torch.cat([prefixes[rows.flatten()], best.view(-1, 1) % V], dim=1)
        is_over = torch.tensor([limits[i] == prefixes.size(1) - 1 for i in sentences.tolist()])
        for i in is_over.nonzero().flatten().tolist():
            ids = prefixes.view(len(sentences), beam_size, -1)[i, :, 1:]
            found[int(sentences[i])] = ids, log_probs[i]
        kept = ~is_over
        prefixes = prefixes.view(len(sentences), beam_size, -1)[kept].flatten(0, 1)
        state, sentences, log_probs = state.select(rows[kept]), sentences[kept], log_probs[kept]
    return found


@both_kernels
def test_a_beam_search_finds_what_it_finds_without_a_cache(model: Transformer) -> None:
    def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = model.decode(tokens[:, None], state)
        return model.logits(hidden[:, -1]), state

    def recompute(tokens: Tensor, state: Recomputed) -> tuple[Tensor, Recomputed]:
        state = Recomputed(state.src, torch.cat((state.prefixes, tokens[:, None]), dim=1))
        return model(state.src, state.prefixes)[:, -1], state

    limits = [7, 3, 5]
    found = search(decode, model.encode(SRC), limits, beam_size=3)
    expected = search(recompute, Recomputed(SRC, SRC.new_zeros(B, 0)), limits, beam_size=3)
    assert found.keys() == {0, 1, 2}
    for i, (ids, log_probs) in found.items():
        assert ids.shape == (3, limits[i])
        assert torch.equal(ids, expected[i][0])
        assert_close(log_probs, expected[i][1])


# Weights


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


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_weights_make_a_new_model_the_same(options: dict[str, Any]) -> None:
    model, other = make_model(**options), make_model(**options)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(SRC, TGT), model(SRC, TGT))


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, pytest.param(lambda model: pickle.loads(pickle.dumps(model)), marks=pytest.mark.slow)],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_is_tied_as_the_model_is_and_apart_from_it(
    model: Transformer, duplicate: Callable[[Transformer], Transformer]
) -> None:
    other = duplicate(model)
    assert torch.equal(other(SRC, TGT), model(SRC, TGT))
    assert list(other.state_dict()) == list(model.state_dict())
    before = model(SRC, TGT)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(SRC, TGT), before)
    assert (other(SRC, TGT) == 0).all()


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_has_a_part_in_the_output(options: dict[str, Any]) -> None:
    # Without attention biases: that of the keys moves all scores of a query alike, which no softmax sees.
    model = make_model(**{**options, "attention_bias": False})
    model(SRC, TGT).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_same_seed_builds_the_same_model(options: dict[str, Any]) -> None:
    model, other = make_model(**options), make_model(**options)
    assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_weights_may_be_laid_out_for_inference(model: Transformer) -> None:
    from transformer.inference.prepacked import can_prepack, prepack_linears  # the model itself needs nothing of it

    if not can_prepack(torch.zeros(1)):
        pytest.skip("torch has no kernel here")
    model = model.float()
    expected = model(SRC, TGT)
    prepack_linears(model)
    with torch.no_grad():
        assert_close(model(SRC, TGT), expected, rtol=1e-4, atol=1e-4)


# Dropout


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_without_dropout_training_and_eval_are_the_same(options: dict[str, Any]) -> None:
    model = make_model(**options, dropout=0.0)
    assert torch.equal(model.train()(SRC, TGT), model.eval()(SRC, TGT))


@pytest.mark.parametrize(
    ("kind", "kernel"),
    [
        ("dropout", "fused"),
        ("attention_dropout", "fused"),
        ("attention_dropout", "written out"),
        ("activation_dropout", "fused"),
        pytest.param("dropout", "written out", marks=pytest.mark.slow),
        pytest.param("activation_dropout", "written out", marks=pytest.mark.slow),
    ],
    indirect=["kernel"],
)
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_each_kind_of_dropout_is_on_in_training_only(options: dict[str, Any], kind: str, kernel: None) -> None:  # noqa: ARG001
    model = make_model(**{**options, "dropout": 0.0, kind: 0.3})
    clean = make_model(**options, dropout=0.0)
    expected = clean(SRC, TGT)
    assert torch.equal(model(SRC, TGT), expected)
    model.train()
    assert (model(SRC, TGT) != model(SRC, TGT)).any()
    # The encoder has it too.
    memories = [model.encode(SRC).memory for _ in range(2)]
    assert (memories[0] != memories[1]).any()
    assert torch.equal(model.eval()(SRC, TGT), expected)

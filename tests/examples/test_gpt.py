"""GPT-2: Hugging Face's model, its published sizes, causality, the cache; n-grams against sums by hand."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
import torch
from gpt import GPT, SIZES, NGram, Recent, main, nll
from report import count_parameters
from torch import Tensor, nn

from transformer import DecoderState, UserError, greedy_search, sample

CONTEXT, VOCAB_SIZE = 19, 31


def gpt(num_layers: int = 2) -> GPT:
    torch.manual_seed(1)
    model = GPT(VOCAB_SIZE, num_layers, 12, 3, context=CONTEXT).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def ids_of(*shape: int) -> Tensor:
    return torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(2))


def hugging_face_of(model: GPT) -> nn.Module:
    """The same model of the library `transformers`, whose matrices are transposed, and those of q, k and v one."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "n_positions": CONTEXT,
        "n_embd": 12,
        "n_layer": len(model.decoder.layers),
        "n_head": 3,
    }
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).double().eval()
    weights = {"wte.weight": model.tokens.weight, "wpe.weight": model.positions.weight}
    for number, layer in enumerate(model.decoder.layers):
        qkv = [layer.self_attention.w_q, layer.self_attention.w_k, layer.self_attention.w_v]
        weights |= {
            f"h.{number}.attn.c_attn.weight": torch.cat([linear.weight for linear in qkv]).T,
            f"h.{number}.attn.c_attn.bias": torch.cat([linear.bias for linear in qkv]),
        }
        names = {
            "attn.c_proj": layer.self_attention.w_o,
            "mlp.c_fc": layer.feed_forward.w_1,
            "mlp.c_proj": layer.feed_forward.w_2,
        }
        for name, linear in names.items():
            weights |= {f"h.{number}.{name}.weight": linear.weight.T, f"h.{number}.{name}.bias": linear.bias}
        for name, norm in {"ln_1": layer.norm_1, "ln_2": layer.norm_2}.items():
            weights |= {f"h.{number}.{name}.weight": norm.weight, f"h.{number}.{name}.bias": norm.bias}
    weights |= {"ln_f.weight": model.decoder.norm.weight, "ln_f.bias": model.decoder.norm.bias}
    theirs.transformer.load_state_dict(weights)
    return theirs


@torch.no_grad()
def test_logits_are_those_of_hugging_face() -> None:
    model, ids = gpt(), ids_of(3, 17)
    logits, _ = model(ids)
    torch.testing.assert_close(logits, hugging_face_of(model)(ids).logits, rtol=0, atol=1e-10)


@torch.no_grad()
def test_greedy_search_continues_prompts_as_hugging_face_does() -> None:
    model, prompts = gpt(), ids_of(5, 3)
    ours = greedy_search(model.decode, DecoderState(), [13] * 5, bos_id=prompts.tolist(), eos_id=())
    theirs = hugging_face_of(model).generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=13,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=VOCAB_SIZE,
    )
    assert [list(found.ids) for found in ours] == theirs[:, 3:].tolist()


@pytest.mark.parametrize(
    ("size", "count"), [("small", 124_439_808), ("medium", 354_823_168), ("large", 774_030_080), ("xl", 1_557_611_200)]
)
def test_the_published_sizes_have_their_number_of_parameters(size: str, count: int) -> None:
    num_layers, d_model, _ = SIZES[size]
    with torch.device("meta"):
        model = GPT(50257, *SIZES[size], context=1024)
    assert count_parameters(model) == count
    assert count_parameters(model.decoder) == pytest.approx(12 * num_layers * d_model**2, rel=2e-3)


@torch.no_grad()
def test_no_bit_of_a_logit_depends_on_later_tokens() -> None:
    model, ids = gpt(), ids_of(2, CONTEXT)
    changed = ids.clone()
    changed[:, 11:] = (ids[:, 11:] + 1) % VOCAB_SIZE
    (before, _), (after, _) = model(ids), model(changed)
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.isclose(before[:, 11:], after[:, 11:]).all(dim=-1).any()


@torch.no_grad()
@pytest.mark.parametrize("parts", [[1] * 13, [5, 1, 7], [12, 1]])
def test_logits_with_the_cache_are_those_without(parts: list[int]) -> None:
    model, ids, state, logits = gpt(), ids_of(3, 13), DecoderState(), []
    for part in ids.split(parts, dim=1):
        found, state = model(part, state)
        logits.append(found)
    torch.testing.assert_close(torch.cat(logits, dim=1), model(ids)[0], rtol=0, atol=1e-10)
    assert state.length == 13


def test_the_loss_of_a_new_model_is_that_of_a_uniform_guess() -> None:
    torch.manual_seed(1)
    model = GPT(1009, 3, 48, 4, context=29).eval()
    assert model.loss(torch.randint(1009, (7, 30))).item() == pytest.approx(math.log(1009), rel=0.01)


def test_what_layers_add_begins_smaller_the_deeper_the_model_is() -> None:
    """So that the residual stream of 2N sub-layers has the same variance at any depth N."""
    for num_layers in (2, 8):
        layer = GPT(5, num_layers, 64, 4, context=3).decoder.layers[0]  # type: ignore[index]
        for linear in (layer.self_attention.w_o, layer.feed_forward.w_2):
            assert linear.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * num_layers), rel=0.1)
        assert layer.feed_forward.w_1.weight.std().item() == pytest.approx(0.02, rel=0.1)


@torch.no_grad()
def test_the_loss_in_training_is_that_of_one_token_after_the_other() -> None:
    model, ids = gpt(), ids_of(3, 14)
    assert nll(model.decode, DecoderState(), ids) == pytest.approx(model.loss(ids).item(), abs=1e-10)


# n-grams


def witten_bell(text: list[int], history: list[int], token: int) -> Fraction:
    """P(token | history) by counting in the text anew; histories at its beginning count as any other."""
    shorter = witten_bell(text, history[1:], token) if history else Fraction(1, VOCAB_SIZE)
    ends = range(len(history), len(text))
    following = [text[end] for end in ends if text[end - len(history) : end] == history]
    kinds = len(set(following))
    return (following.count(token) + kinds * shorter) / (len(following) + kinds) if following else shorter


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_of_an_n_gram_are_those_of_the_equation(order: int) -> None:
    text = (ids_of(211) % 5).tolist()
    model = NGram(text, order, VOCAB_SIZE)
    for start in (0, 50, 100):
        history = text[start : start + order + 2]
        used = history[len(history) - order + 1 :]
        expected = [float(witten_bell(text, used, token)) for token in range(VOCAB_SIZE)]
        found = model.probabilities(tuple(history))
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
        assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_an_unseen_history_counts_for_nothing() -> None:
    model = NGram([1, 2, 1, 3, 1, 2], 3, VOCAB_SIZE)
    assert torch.equal(model.probabilities((17, 1)), model.probabilities((1,)))


def test_samples_of_an_n_gram_continue_their_own_history() -> None:
    """After 5, the token in front of it decides; `top_k` leaves out all that was never seen."""
    model = NGram([3, 5, 7] * 11 + [4, 5, 8] * 11, 3, VOCAB_SIZE)
    state, prompts = Recent(torch.empty(3, 0, dtype=torch.long)), [[7, 3], [8, 4], [3, 5]]
    found = sample(model.decode, state, [4, 2, 3], bos_id=prompts, eos_id=(), top_k=1, num_samples=2)
    expected = [[[5, 7, 3, 5]] * 2, [[5, 8]] * 2, [[7, 3, 5]] * 2]
    assert [[list(one.ids) for one in samples] for samples in found] == expected


def test_the_example_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "3", "--num-layers", "1", "--d-model", "16", "--context", "16", "--batch", "2"])
    lines = capsys.readouterr().out.splitlines()
    names = [re.split(r" \| ", line.strip("| "))[0] for line in lines[2:-2]]
    assert names == ["1-gram", "3-gram", "5-gram", "7-gram", "GPT"]
    losses = [float(line.strip("| ").split()[-1]) for line in lines[2:-2]]
    assert losses[0] > losses[1] > losses[2], "counts of more characters in front predict better, to a point"
    assert losses[2] < losses[3] < losses[4]


def test_a_context_without_a_place_behind_the_prompt_is_an_error() -> None:
    with pytest.raises(UserError, match="--context 4 has no place behind 'The '"):
        main(["--context", "4"])


@torch.no_grad()
def test_no_position_is_behind_the_context_with_the_cache_or_without() -> None:
    model, ids = gpt(), ids_of(2, CONTEXT + 1)
    _, state = model(ids[:, :CONTEXT])
    for following, before in ((ids, None), (ids[:, -1:], state)):
        with pytest.raises(ValueError, match="more positions than the context has"):
            model(following, before)
    with pytest.raises(ValueError, match="more positions than the context has"):
        sample(model.decode, DecoderState(), [CONTEXT + 1], bos_id=1, eos_id=())

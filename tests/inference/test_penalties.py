"""Length penalties: their values, the order that they give, and pruning by each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracle import BOS, EOS, A, Oracle, assert_same, chain, everything, random_oracle
from torch import Tensor

from transformer.inference.constraints import constrained_beam_search
from transformer.inference.penalties import PENALTIES, Penalty, length_penalty, no_penalty, power_penalty
from transformer.inference.rules import MinLength, NoRepeatNgram, Rule
from transformer.inference.sampling import sample
from transformer.inference.search import beam_search


def test_the_length_penalty_is_that_of_wu_et_al() -> None:
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(13, 2.0) == 9.0
    assert length_penalty(19, 0.5) == 2.0
    assert length_penalty(13, 0.6) == pytest.approx(3**0.6)


@pytest.mark.parametrize("penalty", PENALTIES.values())
@pytest.mark.parametrize("length", [1, 2, 17, 1009])
def test_without_alpha_there_is_no_penalty(length: int, penalty: Penalty) -> None:
    assert penalty(length, 0.0) == 1.0


@pytest.mark.parametrize("alpha", [-1.0, -1e-9, float("nan")])
@pytest.mark.parametrize("is_constrained", [False, True])
def test_beam_search_refuses_an_alpha_by_which_it_would_prune_wrongly(alpha: float, is_constrained: bool) -> None:
    options: Any = {"bos_id": BOS, "eos_id": EOS, "alpha": alpha}
    oracle = random_oracle(0)
    with pytest.raises(ValueError, match=rf"^alpha={alpha} must be at least 0$"):
        if is_constrained:
            constrained_beam_search(oracle, oracle.start([0]), [5], [[[A]]], **options)
        else:
            beam_search(oracle, oracle.start([0]), [5], **options)


def test_the_power_is_that_of_the_length() -> None:
    assert power_penalty(1, 3.0) == 1.0
    assert power_penalty(7, 1.0) == 7.0
    assert power_penalty(13, 2.0) == 169.0
    assert power_penalty(2**20, 10.0) == 2.0**200
    assert no_penalty(13, 2.0) == 1.0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("penalty", PENALTIES.values())
def test_no_penalty_falls_with_the_length(penalty: Penalty, alpha: float) -> None:
    values = [penalty(length, alpha) for length in range(1, 101)]
    assert values == sorted(values)


@pytest.mark.parametrize(("name", "ids"), [("none", [EOS]), ("gnmt", [EOS]), ("power", [A, EOS])])
def test_the_penalty_decides_between_a_probable_short_sentence_and_a_longer_one(name: str, ids: list[int]) -> None:
    # log 0.5 = -0.693 against log 0.45 = -0.799: over (7/6)^0.6 -0.728, over 2^0.6 -0.527
    oracle = chain({BOS: (0.5, 0.5), A: (0.9, 0.1)})
    ((best,),) = oracle.beam([11], 3, alpha=0.6, penalty=PENALTIES[name])
    assert best.ids == ids


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(seed: int, name: str, alpha: float) -> None:
    limits, penalty, oracle = [5, 2, 4, 1], PENALTIES[name], random_oracle(seed)
    found = oracle.beam(limits, 5**5, alpha=alpha, nbest=1, penalty=penalty)
    for sentence, (best,) in enumerate(found):
        assert_same([best], everything(oracle, sentence, limits[sentence], alpha, penalty=penalty)[:1])


def test_greedy_search_and_samples_are_scored_by_it_too() -> None:
    oracle = Oracle(lambda _, prefix: [0.0, 1.0] if len(prefix) < 6 else [9.0, 0.0])
    (greedy,) = oracle.greedy([11], alpha=2.0, penalty=power_penalty)
    assert greedy.score == greedy.log_prob / 49
    ((drawn,),) = sample(
        oracle, oracle.start([0]), [11], bos_id=BOS, eos_id=EOS, temperature=1e-9, alpha=2.0, penalty=power_penalty
    )
    assert drawn == greedy


PAD, END, START, V = 0, 2, 1, 37


@pytest.fixture(scope="module")
def marian() -> Any:
    """A small random model of Hugging Face."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.MarianConfig(
        vocab_size=V,
        d_model=22,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=29,
        decoder_ffn_dim=29,
        max_position_embeddings=31,
        init_std=0.9,
        dropout=0.0,
        pad_token_id=PAD,
        eos_token_id=END,
        forced_eos_token_id=None,
        decoder_start_token_id=START,
    )
    model = transformers.MarianMTModel(config).eval()
    model.final_logits_bias[0, END] = 7.0  # so that sentences end
    return model


@dataclass(frozen=True)
class MarianState:
    """What Marian has read and said, without a cache."""

    memory: Tensor  # (R, S, D)
    inputs: Tensor  # (R, t)

    def select(self, rows: Tensor) -> MarianState:
        return MarianState(self.memory[rows.flatten()], self.inputs[rows.flatten()])


@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 5, "no_repeat_ngram_size": 1}])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_the_best_translations_and_their_scores_are_those_of_hugging_face(
    marian: Any, alpha: float, options: dict[str, int]
) -> None:
    src = torch.randint(3, V, (11, 5), generator=torch.Generator().manual_seed(7))

    def decode(tokens: Tensor, state: MarianState) -> tuple[Tensor, MarianState]:
        inputs = torch.cat((state.inputs, tokens[:, None]), dim=1)
        out = marian(encoder_outputs=(state.memory,), decoder_input_ids=inputs, use_cache=False)
        return out.logits[:, -1], MarianState(state.memory, inputs)

    memory = marian.get_encoder()(src).last_hidden_state
    state = MarianState(memory, torch.empty((len(src), 0), dtype=torch.int64))
    rules: list[Rule] = []
    if n := options.get("no_repeat_ngram_size"):
        rules.append(NoRepeatNgram(n))
    if n := options.get("min_new_tokens"):
        rules.append(MinLength([n + 1] * len(src), (END,)))
    found = beam_search(
        decode,
        state,
        [23] * len(src),
        bos_id=START,
        eos_id=END,
        beam=4,
        alpha=alpha,
        penalty=power_penalty,
        rules=rules,
    )
    theirs = marian.generate(
        src,
        num_beams=4,
        do_sample=False,
        length_penalty=alpha,
        early_stopping="never",
        max_new_tokens=23,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    assert sum(best.ids[-1] == END for (best,) in found) >= 9
    pairs = list(zip((best for (best,) in found), theirs.sequences[:, 1:].tolist(), strict=True))
    is_same = [best.ids == ids[: len(best.ids)] for best, ids in pairs]
    scores = [(best.score, score) for (best, _), score in zip(pairs, theirs.sequences_scores.tolist(), strict=True)]
    for same, (ours, score) in zip(is_same, scores, strict=True):
        assert ours == pytest.approx(score, rel=1e-4) if same else ours < score
    # With a penalty, ours stops once a beam has finished, and may miss a better one.
    assert all(is_same) if alpha == 0 else any(is_same)

"""Greedy and beam search on chains with known best sequences, and against exhaustive search.

Nothing here is a neural network: `decode` looks probabilities up.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracle import (
    BOS,
    EOS,
    NEVER,
    A,
    B,
    Memory,
    Oracle,
    Prefix,
    assert_same,
    chain,
    everything,
    log_prob_of,
    memoryless,
    random_oracle,
)
from torch import Tensor

from transformer.inference import search
from transformer.inference.exchange import STEPS_PER_LOOK
from transformer.inference.penalties import length_penalty
from transformer.inference.rules import NoRepeatNgram
from transformer.inference.search import Hypothesis, SearchState, beam_search, greedy_search

# The length penalty


def test_the_penalty_counts_the_end_of_the_sentence() -> None:
    oracle = chain({BOS: (0.0, 1.0), A: (0.5, 0.5)})
    ((best,),) = oracle.beam([7], 3, alpha=1.0)
    (greedy,) = chain({BOS: (0.0, 1.0), A: (0.6, 0.4)}).greedy([7], alpha=1.0)
    assert best.ids == greedy.ids == [A, EOS]
    assert best.score == pytest.approx(math.log(0.5) / (7 / 6))
    assert greedy.score == pytest.approx(math.log(0.6) / (7 / 6))


def test_alpha_decides_between_a_probable_short_sentence_and_a_longer_one() -> None:
    #          0.5
    #  <s> ----------> </s>     log 0.5  = -0.693, penalty 1
    #   |0.5    0.9     ^
    #   +-> a ----------+       log 0.45 = -0.799, penalty (7/6)^alpha: -0.684 at alpha 1, -0.728 at 0.6
    table = {BOS: (0.5, 0.5), A: (0.9, 0.1)}
    for alpha, ids in ((0.0, [EOS]), (0.6, [EOS]), (1.0, [A, EOS])):
        ((best,),) = chain(table).beam([11], 3, alpha=alpha)
        assert best.ids == ids


# Greedy search


def test_greedy_takes_the_most_probable_token_until_the_end() -> None:
    #       0.6      0.7      0.8
    #  <s> ----> a ----> b -----> </s>
    oracle = chain({BOS: (0.1, 0.6, 0.3), A: (0.2, 0.1, 0.7), B: (0.8, 0.1, 0.1)})
    (found,) = oracle.greedy([7], alpha=2.0)
    assert found.ids == [A, B, EOS]
    assert found.log_prob == pytest.approx(math.log(0.6 * 0.7 * 0.8))
    assert found.score == pytest.approx(found.log_prob / (8 / 6) ** 2)


def test_greedy_normalises_the_logits() -> None:
    (found,) = Oracle(lambda _, __: [5.0, 5.0 + math.log(3), NEVER]).greedy([2])
    assert found.ids == [A, A]
    assert found.log_prob == pytest.approx(2 * math.log(3 / 4))


def test_greedy_stops_each_sentence_at_its_own_limit() -> None:
    oracle = chain({BOS: (0.1, 0.9), A: (0.1, 0.9)})
    assert [found.ids for found in oracle.greedy([3, 1, 5, 2])] == [[A] * 3, [A], [A] * 5, [A] * 2]


def test_greedy_does_not_decode_sentences_that_are_over() -> None:
    endless = chain({BOS: (0.1, 0.9), A: (0.1, 0.9)})
    endless.greedy([3, 1, 5, 2])
    assert endless.num_rows == [4, 3, 2, 1, 1]
    ending = Oracle(lambda sentence, prefix: [1.0, 0.0] if len(prefix) == sentence else [0.0, 1.0])
    assert [found.ids for found in ending.greedy([7, 7, 7])] == [[EOS], [A, EOS], [A, A, EOS]]
    assert ending.num_rows == [3, 2, 1]


# Beam search on chains


def test_a_beam_finds_the_sentence_that_greedy_search_walks_past() -> None:
    #        0.6       0.35
    #  <s> ------> a -------> a ...     greedy: 0.6 * 0.35 * 0.35 ...
    #   |          | 0.34
    #   | 0.4      v
    #   +---> b -> </s>                 b: 0.4 * 0.9 = 0.36; a: 0.6 * 0.34 = 0.204
    #          0.9
    table = {BOS: (0.0, 0.6, 0.4), A: (0.34, 0.35, 0.31), B: (0.9, 0.05, 0.05)}
    assert chain(table).greedy([3])[0].ids == [A, A, A]
    ((best, second),) = chain(table).beam([3], 3, nbest=2, alpha=0.0)
    assert best.ids == [B, EOS]
    assert best.log_prob == best.score == pytest.approx(math.log(0.4 * 0.9))
    assert second.ids == [A, EOS]
    assert second.score == pytest.approx(math.log(0.6 * 0.34))


def test_a_sentence_is_over_when_no_unfinished_hypothesis_can_win() -> None:
    # After </s> with 0.98, nothing that begins with the other 0.02 can have more.
    oracle = chain({BOS: (0.98, 0.02), A: (0.9, 0.1)})
    ((best,),) = oracle.beam([101], 3, alpha=0.0)
    assert best.ids == [EOS]
    assert oracle.num_rows == [1]


def test_a_sentence_goes_on_while_a_longer_one_can_win_by_the_penalty_at_its_limit() -> None:
    # log 0.6 against log 0.4 over the penalty of 19 tokens, 4: all that follows might be certain, and nearly is.
    def logits(_: int, prefix: Prefix) -> list[float]:
        if not prefix:
            return [math.log(0.6), math.log(0.4)]
        return [-20.0, 0.0] if len(prefix) < 18 else [0.0, -20.0]

    ((best,),) = Oracle(logits).beam([19], 23, alpha=1.0)
    assert best.ids == [A] * 18 + [EOS]
    assert best.score == pytest.approx(math.log(0.4) / 4, abs=1e-5)
    # Within 2 tokens none can: log 0.4 / (7 / 6) is less than log 0.6.
    short = Oracle(logits)
    assert short.beam([2], 23, alpha=1.0)[0][0].ids == [EOS]
    assert short.num_rows == [1]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("beam", [1, 2, 3, 7])
def test_improbable_sentences_do_not_end_the_search_however_many_have_finished(beam: int, alpha: float) -> None:
    # Next to a sentence that is nearly certain, all else is improbable, but among the best of a beam.
    def logits(_: int, prefix: Prefix) -> list[float]:
        end, a, b = (0.002, 0.997, 0.001) if len(prefix) < 11 else (0.998, 0.001, 0.001)
        return [math.log(end), math.log(a), math.log(b)]

    ((best,),) = Oracle(logits).beam([101], beam, alpha=alpha)
    assert best.ids == [A] * 11 + [EOS]


def test_a_sentence_is_over_when_enough_have_finished_and_the_best_of_them_beats_the_others_as_they_are() -> None:
    # a a ... could still win by the penalty at the limit, but after two steps it has 0.16 and two have finished.
    oracle = chain({BOS: (0.6, 0.4), A: (0.6, 0.4)})
    ((best,),) = oracle.beam([101], 2, alpha=1.0)
    assert best.ids == [EOS]
    assert oracle.num_rows == [1, 1]
    assert math.log(0.16) / length_penalty(101, 1.0) > best.score


def test_hypotheses_cut_at_the_limit_have_no_end_and_come_after_those_that_finished() -> None:
    # a a a a has 0.9^4 = 0.6561; what ends has 0.1 at the most.
    oracle = chain({BOS: (0.1, 0.9), A: (0.1, 0.9)})
    (found,) = oracle.beam([4], 7, nbest=7, alpha=0.0)
    assert [h.ids for h in found] == [[EOS], [A, EOS], [A, A, EOS], [A, A, A, EOS], [A, A, A, A]]
    assert [h.score for h in found] == pytest.approx(
        [math.log(p) for p in (0.1, 0.09, 0.081, 0.0729, 0.6561)], abs=1e-5
    )


def test_a_sentence_that_nothing_ended_gives_its_cut_hypotheses_best_first() -> None:
    oracle = chain({BOS: (0.0, 0.7, 0.3), A: (0.0, 0.6, 0.4), B: (0.0, 0.8, 0.2)})
    (found,) = oracle.beam([2], 2, nbest=2, alpha=1.0)
    # a a 0.42, a b 0.28, b a 0.24, b b 0.06
    assert [h.ids for h in found] == [[A, A], [A, B]]
    assert [h.score for h in found] == pytest.approx([math.log(p) / (7 / 6) for p in (0.42, 0.28)], abs=1e-5)


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_a_limit_of_one_token_gives_one_token(search: str) -> None:
    ends, goes_on = chain({BOS: (0.6, 0.4)}), chain({BOS: (0.4, 0.6)})
    for oracle, ids in ((ends, [EOS]), (goes_on, [A])):
        (found,) = oracle.greedy([1]) if search == "greedy" else oracle.beam([1], 1)[0]
        assert found.ids == ids


def test_sentences_leave_the_batch_when_they_are_over() -> None:
    # Sentence i ends for certain after i tokens; until then one row, then two, a and b being alike.
    def logits(sentence: int, prefix: Prefix) -> list[float]:
        return [9.0, 0.0, 0.0, NEVER] if len(prefix) == sentence else [-9.0, 0.0, 0.0, NEVER]

    oracle = Oracle(logits)
    found = oracle.beam([7, 7, 7, 7], 2, alpha=0.0)
    assert [len(best.ids) for (best,) in found] == [1, 2, 3, 4]
    assert oracle.num_rows == [4, 3 * 2, 2 * 2, 1 * 2]


def test_sentences_leave_the_batch_at_their_limits() -> None:
    oracle = memoryless(0.0, 0.5, 0.5)
    oracle.beam([3, 1, 5, 3], 2)
    assert oracle.num_rows == [4, 3 * 2, 3 * 2, 1 * 2, 1 * 2]


# A caller may forbid a token, say </s> for a minimum length, by a logit of -inf


def test_a_forbidden_end_does_not_finish_a_hypothesis() -> None:
    oracle = memoryless(0.0, 0.7, 0.3)
    (found,) = oracle.beam([3], 11, nbest=11)
    assert [h.ids for h in found if EOS in h.ids] == []
    assert found[0].ids == [A, A, A]


def test_forbidden_ends_do_not_end_the_search() -> None:
    # Only a a a a </s> is possible.
    oracle = Oracle(lambda _, prefix: [NEVER, 0.0] if len(prefix) < 4 else [0.0, NEVER])
    ((best,),) = oracle.beam([7], 3)
    assert best.ids == [A, A, A, A, EOS]


def test_what_is_impossible_is_not_among_the_best() -> None:
    oracle = memoryless(0.5, 0.5, 0.0)
    (found,) = oracle.beam([2], 7, nbest=7, alpha=0.0)
    assert [h.ids for h in found] == [[EOS], [A, EOS], [A, A]]


def test_a_beam_wider_than_the_vocabulary_is_filled_when_there_is_enough_to_fill_it_with() -> None:
    oracle = memoryless(0.2, 0.5, 0.3)
    (found,) = oracle.beam([3], 5, nbest=5, alpha=0.0)
    assert oracle.num_rows[:3] == [1, 2, 4]
    assert found[0].ids == [EOS]
    assert len(found) == 5


def test_a_vocabulary_of_one_token_and_the_end_is_enough_for_a_beam_of_two() -> None:
    def logits(_: int, __: Prefix) -> list[float]:
        return [math.log(0.3), math.log(0.7)]

    oracle = Oracle(logits)
    (found,) = oracle.beam([5], 2, nbest=2, alpha=0.0)
    assert [h.ids for h in found] == [[EOS], [A, EOS]]
    # Two have finished after two steps, but 0.7^t is more than 0.3 until t is 4.
    assert oracle.num_rows == [1, 1, 1, 1]
    assert [h.score for h in found] == pytest.approx([math.log(0.3), math.log(0.7 * 0.3)])


# Beam search against exhaustive search


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(seed: int, alpha: float) -> None:
    limits = [5, 2, 4, 1]
    oracle = random_oracle(seed)
    found = oracle.beam(limits, 5**5, alpha=alpha, nbest=1)
    for sentence, (best,) in enumerate(found):
        assert_same([best], everything(oracle, sentence, limits[sentence], alpha)[:1])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences_in_order(seed: int, alpha: float) -> None:
    oracle = random_oracle(seed)
    for sentence, found in enumerate(oracle.beam([5, 4], 5**5, alpha=alpha, nbest=17)):
        assert_same(found, everything(oracle, sentence, (5, 4)[sentence], alpha)[:17])


@pytest.mark.parametrize("vocab_size", [2, 3, 7])
def test_vocabularies_of_any_size_are_searched_through(vocab_size: int) -> None:
    oracle = random_oracle(11, vocab_size)
    (found,) = oracle.beam([4], 7**4, alpha=0.6, nbest=4)
    assert_same(found, everything(oracle, 0, 4, 0.6)[:4])


# Invariants of any beam size

LIMITS = [7, 1, 13, 5, 2, 11, 3]


@pytest.mark.parametrize("seed", range(11))
def test_a_beam_of_one_is_greedy_search(seed: int) -> None:
    oracle = random_oracle(seed, vocab_size=13)
    assert_same([best for (best,) in oracle.beam(LIMITS, 1)], oracle.greedy(LIMITS))


@pytest.mark.parametrize("beam", [2, 3, 5, 17])
@pytest.mark.parametrize("seed", range(5))
def test_every_hypothesis_has_the_probability_of_its_own_path(seed: int, beam: int) -> None:
    # The oracle knows the whole path: a state that is reordered wrongly gives other probabilities.
    oracle = random_oracle(seed, vocab_size=7)
    for sentence, found in enumerate(oracle.beam(LIMITS, beam, nbest=beam, alpha=0.6)):
        for hypothesis in found:
            log_prob = log_prob_of(oracle, sentence, hypothesis.ids)
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert hypothesis.score == pytest.approx(log_prob / ((5 + len(hypothesis.ids)) / 6) ** 0.6, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_hypotheses_have_the_probability_of_their_own_paths(seed: int) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    for sentence, found in enumerate(oracle.greedy(LIMITS)):
        assert found.log_prob == pytest.approx(log_prob_of(oracle, sentence, found.ids), abs=1e-4)


@pytest.mark.parametrize("beam", [2, 3, 5, 17])
@pytest.mark.parametrize("seed", range(5))
def test_hypotheses_are_distinct_within_their_limit_and_sorted_with_the_cut_ones_last(seed: int, beam: int) -> None:
    for limit, found in zip(LIMITS, random_oracle(seed, 7).beam(LIMITS, beam, nbest=beam), strict=True):
        assert 1 <= len(found) <= beam
        assert len({tuple(h.ids) for h in found}) == len(found)
        assert all(EOS not in h.ids[:-1] and 1 <= len(h.ids) <= limit for h in found)
        assert all(h.ids[-1] == EOS or len(h.ids) == limit for h in found)
        order = [(h.ids[-1] != EOS, -h.score) for h in found]
        assert order == sorted(order)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_asking_for_more_hypotheses_does_not_change_the_better_ones(seed: int, alpha: float) -> None:
    # A sentence stops only when no unfinished hypothesis can be among its nbest; a larger nbest goes on for longer,
    # and what it finds then comes after these.
    oracle = random_oracle(seed, vocab_size=7)
    fewer = oracle.beam(LIMITS, 5, alpha=alpha, nbest=1)
    for nbest in range(2, 6):
        more = oracle.beam(LIMITS, 5, alpha=alpha, nbest=nbest)
        for one, other in zip(fewer, more, strict=True):
            assert_same(one, other[: len(one)])
        fewer = more


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_a_sentence_is_translated_alike_alone_and_in_a_batch(seed: int, beam: int) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    together = oracle.beam(LIMITS, beam, nbest=beam)
    greedy_together = oracle.greedy(LIMITS)
    for sentence, limit in enumerate(LIMITS):
        memory = oracle.start([sentence])
        (alone,) = beam_search(oracle, memory, [limit], bos_id=BOS, eos_id=EOS, beam=beam, nbest=beam)
        assert_same(together[sentence], alone)
        assert_same([greedy_together[sentence]], greedy_search(oracle, memory, [limit], bos_id=BOS, eos_id=EOS))


def test_the_work_of_a_beam_is_that_many_rows_per_unfinished_sentence() -> None:
    oracle = random_oracle(3, vocab_size=7)
    oracle.beam(LIMITS, 3)
    alive = [sum(limit > t for limit in LIMITS) for t in range(max(LIMITS))]
    assert oracle.num_rows[0] == len(LIMITS)
    assert all(rows % 3 == 0 and rows <= 3 * n for rows, n in zip(oracle.num_rows[1:], alive[1:], strict=False))


def test_the_number_of_steps_does_not_grow_when_sentences_end() -> None:
    # Each ends within 3 tokens or so: a limit of a thousand must not be walked to.
    oracle = memoryless(0.8, 0.1, 0.1)
    oracle.beam([1009] * 3, 4, alpha=0.6)
    assert len(oracle.num_rows) < 17


# Prompts, several </s>, NaN

Search = Callable[..., list[list[Hypothesis]]]


def greedy(oracle: Oracle, limits: Sequence[int], **options: Any) -> list[list[Hypothesis]]:
    return [[found] for found in oracle.greedy(limits, **options)]


def beam_of_1(oracle: Oracle, limits: Sequence[int], **options: Any) -> list[list[Hypothesis]]:
    return oracle.beam(limits, 1, **options)


def beam_of_3(oracle: Oracle, limits: Sequence[int], **options: Any) -> list[list[Hypothesis]]:
    return oracle.beam(limits, 3, nbest=3, **options)


each_search = pytest.mark.parametrize("search", [greedy, beam_of_1, beam_of_3])
PROMPTS = [[BOS, A, B], [BOS, B, B], [BOS, 4, EOS], [BOS, A, B], [BOS, A, 4], [BOS, 4, 4], [BOS, B, A]]


@each_search
@pytest.mark.parametrize("seed", range(5))
def test_a_search_after_a_prompt_is_a_search_for_what_follows_the_prompt(search: Search, seed: int) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    prompted = Oracle(lambda sentence, prefix: oracle.logits(sentence, (*PROMPTS[sentence][1:], *prefix)))
    assert search(oracle, LIMITS, bos_id=PROMPTS) == search(prompted, LIMITS)


@each_search
def test_a_prompt_of_one_token_is_the_same_as_its_id(search: Search) -> None:
    oracle = random_oracle(0, vocab_size=7)
    assert search(oracle, LIMITS, bos_id=((BOS,),) * len(LIMITS)) == search(oracle, LIMITS)


@each_search
@pytest.mark.parametrize(
    "bos_id", [[], [[BOS]], [[BOS]] * 3, [[BOS, A], [BOS]], [[], []], [BOS, BOS], [2.5, [1]], torch.ones(2, 3)]
)
def test_prompts_must_be_one_per_sentence_and_equally_long(search: Search, bos_id: Any) -> None:
    with pytest.raises(ValueError, match=r"^bos_id must be an int or 2 equally long prompts, one per sentence$"):
        search(random_oracle(0), [5, 7], bos_id=bos_id)


@each_search
@pytest.mark.parametrize("prompt", [[0.7], [BOS, None], "ab"])
def test_prompts_consist_of_ints(search: Search, prompt: Any) -> None:
    with pytest.raises(TypeError, match=r"^bos_id=.* must be a collection of ints$"):
        search(random_oracle(0), [5, 7], bos_id=[prompt, [BOS] * len(prompt)])


@pytest.mark.parametrize("eos_ids", [(EOS, A), (EOS, A, B)])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences_with_several_ends(
    seed: int, eos_ids: tuple[int, ...]
) -> None:
    oracle = random_oracle(seed)
    for sentence, found in enumerate(oracle.beam([5, 4], 5**4, eos_id=eos_ids, nbest=11)):
        assert_same(found, everything(oracle, sentence, (5, 4)[sentence], 0.6, eos_ids)[:11])


def test_each_of_several_ends_stops_greedy_search() -> None:
    table = {BOS: (0.1, 0.6, 0.3), A: (0.2, 0.1, 0.7), B: (0.8, 0.1, 0.1)}
    for eos_id, ids in (((EOS, B), [A, B]), (frozenset([A]), [A]), ([EOS], [A, B, EOS])):
        assert chain(table).greedy([7], eos_id=eos_id)[0].ids == ids


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy_search_with_several_ends(seed: int) -> None:
    oracle = random_oracle(seed, vocab_size=13)
    found = greedy(oracle, LIMITS, eos_id={EOS, 5, 7})
    assert any(h.ids[-1] in (5, 7) for (h,) in found)
    for one, other in zip(beam_of_1(oracle, LIMITS, eos_id={EOS, 5, 7}), found, strict=True):
        assert_same(one, other)


@each_search
def test_without_an_end_each_sentence_goes_to_its_limit(search: Search) -> None:
    for limit, found in zip(LIMITS, search(random_oracle(0, vocab_size=7), LIMITS, eos_id=()), strict=True):
        assert {len(h.ids) for h in found} == {limit}


@pytest.mark.parametrize("eos_ids", [(), (0,), (0, 1), (0, 1, 2)])
def test_a_beam_stays_full_however_many_ends_there_are(eos_ids: tuple[int, ...]) -> None:
    oracle = Oracle(lambda _, __: [-5.0, -5.0, -5.0, 0.0, 0.1, 0.2, 0.3])
    oracle.beam([5], 3, eos_id=eos_ids)
    assert oracle.num_rows == [1, 3, 3, 3, 3]


def test_a_vocabulary_of_ends_alone_gives_one_token() -> None:
    oracle = Oracle(lambda _, __: [math.log(0.3), math.log(0.7)])
    (found,) = oracle.beam([5], 3, nbest=3, eos_id=(EOS, A))
    assert [h.ids for h in found] == [[A], [EOS]]
    assert oracle.num_rows == [1]


@each_search
@pytest.mark.parametrize("eos_id", [None, 2.0, "2", [2, None], [2.0], torch.tensor([2])])
def test_ends_must_be_ids(search: Search, eos_id: Any) -> None:
    with pytest.raises(TypeError, match=r"^eos_id=.* must be an int or a collection of ints$"):
        search(random_oracle(0), [5], eos_id=eos_id)


@each_search
@pytest.mark.parametrize("limits", [[0], [5, 0], [3, -7]])
def test_limits_must_allow_a_token(search: Search, limits: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"^max_lengths has {min(limits)}: every limit must be at least 1$"):
        search(random_oracle(0), limits)


@each_search
@pytest.mark.parametrize("length", [0, 2])
def test_where_logits_are_nan_a_sentence_ends_with_an_empty_hypothesis(search: Search, length: int) -> None:
    # Until it is broken, sentence 3 cannot end.
    oracle = random_oracle(2, vocab_size=7)

    def logits(sentence: int, prefix: Prefix) -> list[float]:
        end, *others = oracle.logits(sentence, prefix)
        if sentence != 3:
            return [end, *others]
        return [NEVER, *others] if len(prefix) < length else [end, math.nan, *others[1:]]

    broken = Oracle(logits)
    found = search(broken, [11] * 5)
    assert found[3] == [Hypothesis([], NEVER, NEVER)]
    expected = search(oracle, [11] * 5)
    assert found[:3] + found[4:] == expected[:3] + expected[4:]
    alone = Oracle(lambda _, prefix: logits(3, prefix))
    assert search(alone, [11]) == [[Hypothesis([], NEVER, NEVER)]]
    assert len(alone.num_rows) == length + 1


def test_what_has_finished_before_logits_became_nan_counts() -> None:
    oracle = Oracle(lambda _, prefix: [math.log(0.4), math.log(0.6)] if not prefix else [math.nan, 0.0])
    (found,) = oracle.beam([7], 2, nbest=2)
    assert [h.ids for h in found] == [[EOS]]


# The state and the device


def test_the_documented_example_of_a_state_works() -> None:
    doc = SearchState.__doc__
    assert doc is not None
    names: dict[str, Any] = {"dataclass": dataclass, "Tensor": Tensor}
    exec("from __future__ import annotations\n" + textwrap.dedent(doc.split("hypothesis:\n")[1]), names)
    oracle = random_oracle(0, vocab_size=7)

    def decode(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        past = torch.cat((state.past, tokens[:, None, None]), dim=1)  # (R, t, 1)
        rows = [oracle.logits(0, tuple(path[1:])) for path in past[:, :, 0].tolist()]
        return torch.tensor(rows, dtype=torch.float32), names["Cache"](past)

    state = names["Cache"](torch.zeros((1, 0, 1), dtype=torch.int64))
    assert beam_search(decode, state, [7], bos_id=BOS, eos_id=EOS, beam=3) == oracle.beam([7], 3)


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("steps", [2, 3, 17])
def test_greedy_outputs_do_not_depend_on_how_often_the_host_looks(
    seed: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = random_oracle(seed, vocab_size=7).greedy(LIMITS)
    monkeypatch.setitem(STEPS_PER_LOOK, "cpu", steps)
    oracle = random_oracle(seed, vocab_size=7)
    assert oracle.greedy(LIMITS) == expected
    assert len(oracle.num_rows) <= max(LIMITS)  # no position past the last limit is decoded


def test_rows_that_are_over_leave_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS_PER_LOOK, "cpu", 3)
    # Sentence i ends for certain after i tokens.
    oracle = Oracle(lambda sentence, prefix: [0.0, NEVER] if len(prefix) >= sentence else [NEVER, 0.0])
    assert [len(found.ids) for found in oracle.greedy([11] * 5)] == [1, 2, 3, 4, 5]
    assert oracle.num_rows == [5, 5, 5, 2, 2, 2]


def test_rules_see_every_hypothesis_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS_PER_LOOK, "cpu", 3)
    expected = random_oracle(5, vocab_size=7).beam(LIMITS, 1, rules=[NoRepeatNgram(2)])
    found = random_oracle(5, vocab_size=7).greedy(LIMITS, rules=[NoRepeatNgram(2)])
    assert [[one] for one in found] == expected


# Borders


@pytest.mark.parametrize(
    "name",
    [
        *("NOTHING", "BosId", "Decode", "Device", "EosId", "Key", "Outputs", "State"),
        *("generate", "prefill", "prefixes_of"),
    ],
)
def test_what_has_moved_to_other_modules_is_still_here(name: str) -> None:
    assert name in search.__all__ and hasattr(search, name)


def test_no_sentences_give_no_hypotheses() -> None:
    oracle = random_oracle(0)
    assert oracle.greedy([]) == []
    assert oracle.beam([], 3) == []
    assert oracle.num_rows == []


@pytest.mark.parametrize(("nbest", "beam"), [(4, 3), (0, 3), (-1, 3), (1, 0)])
def test_more_hypotheses_than_the_beam_holds_are_refused(nbest: int, beam: int) -> None:
    with pytest.raises(ValueError, match=rf"nbest={nbest} must be between 1 and beam={beam}"):
        random_oracle(0).beam([5], beam, nbest=nbest)


def test_search_does_not_record_gradients() -> None:
    weight = torch.zeros(3, requires_grad=True)

    class Nothing:
        def select(self, _: Tensor) -> Nothing:
            return self

    def decode(tokens: Tensor, state: Nothing) -> tuple[Tensor, Nothing]:
        logits = weight.expand(len(tokens), 3)
        assert not (logits * 2).requires_grad
        return logits, state

    for limits in itertools.repeat([3, 2], 2):
        greedy_search(decode, Nothing(), limits, bos_id=BOS, eos_id=EOS)
        beam_search(decode, Nothing(), limits, bos_id=BOS, eos_id=EOS, beam=2)


def test_logits_in_half_precision_are_added_up_in_full() -> None:
    # 101 tokens of log 0.5 each are -70.0068; sums in bfloat16 would stand still at a coarser number.
    def decode(tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return torch.tensor([NEVER, 0.0, 0.0, NEVER], dtype=torch.bfloat16).expand(len(tokens), 4), memory

    memory = Memory(torch.zeros(1, dtype=torch.int64), torch.zeros((1, 0), dtype=torch.int64))
    (greedy,) = greedy_search(decode, memory, [101], bos_id=BOS, eos_id=EOS)
    ((best,),) = beam_search(decode, memory, [101], bos_id=BOS, eos_id=EOS, beam=2)
    assert greedy.log_prob == pytest.approx(101 * math.log(0.5), rel=1e-5)
    assert best.log_prob == pytest.approx(101 * math.log(0.5), rel=1e-5)


# Hypotheses that are the same to a caller


def text_of(ids: Sequence[int]) -> str:
    """Two tokens that are spelled alike."""
    return "".join("" if token == EOS else "x" if token in (A, B) else str(token) for token in ids)


def distinct(found: Sequence[Hypothesis]) -> list[Hypothesis]:
    return list({text_of(h.ids): h for h in reversed(found)}.values())[::-1]


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_an_exhaustive_beam_finds_the_best_of_each_text(seed: int, alpha: float) -> None:
    oracle, limit = random_oracle(seed), 4
    wanted = sorted(distinct(everything(oracle, 0, limit, alpha)), key=lambda h: -h.score)
    (found,) = oracle.beam([limit], 1009, nbest=11, alpha=alpha, key=text_of)
    assert_same(found, wanted[:11])


@pytest.mark.parametrize("seed", range(23))
@pytest.mark.parametrize("beam", [2, 3, 5])
def test_with_a_key_the_best_is_the_same_and_the_others_are_distinct_and_sorted(seed: int, beam: int) -> None:
    oracle = random_oracle(seed)
    limits = [3, 11, 7]
    plain, keyed = (oracle.beam(limits, beam, nbest=beam, alpha=1.0, key=key) for key in (None, text_of))
    for before, found in zip(plain, keyed, strict=True):
        assert found[0] == before[0]
        assert len({text_of(h.ids) for h in found}) == len(found) >= len({text_of(h.ids) for h in before})
        ended = [h.score for h in found if h.ids[-1] == EOS]
        assert ended == sorted(ended, reverse=True)


def test_a_list_is_filled_up_by_searching_on() -> None:
    # a and b spell the same; each ends with 0.5 at every step.
    oracle = memoryless(0.5, 0.3, 0.2)
    (plain,) = oracle.beam([17], 3, nbest=3, alpha=0.0)
    assert [text_of(h.ids) for h in plain] == ["", "x", "x"]
    (found,) = oracle.beam([17], 3, nbest=3, alpha=0.0, key=text_of)
    assert [h.ids for h in found] == [[EOS], [A, EOS], [A, A, EOS]]
    assert [h.log_prob for h in found] == pytest.approx([math.log(p) for p in (0.5, 0.15, 0.045)], abs=1e-5)


def test_of_equal_hypotheses_the_better_is_kept_whenever_it_comes() -> None:
    # With a large alpha the longer one scores more.
    oracle = chain({BOS: (0.4, 0.6, 0.0), A: (0.5, 0.5, 0.0), B: (1.0, 0.0, 0.0)})
    (found,) = oracle.beam([3], 5, nbest=2, alpha=2.0, key=lambda ids: len(ids) < 3)
    best = {is_short: max(hs, key=lambda h: h.score) for is_short, hs in by_length(oracle).items()}
    assert_same(found, sorted(best.values(), key=lambda h: -h.score))


def by_length(oracle: Oracle) -> dict[bool, list[Hypothesis]]:
    complete = everything(oracle, 0, 3, 2.0)
    return {is_short: [h for h in complete if (len(h.ids) < 3) == is_short] for is_short in (True, False)}


def test_where_all_is_the_same_there_is_one() -> None:
    (found,) = memoryless(0.5, 0.3, 0.2).beam([7], 3, nbest=3, key=lambda _: None)
    assert len(found) == 1
    (cut,) = memoryless(0.0, 0.6, 0.4).beam([3], 3, nbest=3, key=text_of)
    assert [h.ids for h in cut] == [[A, A, A]]


def test_cut_hypotheses_fill_up_no_list_of_a_search_that_had_ended() -> None:
    oracle = memoryless(0.5, 0.3, 0.2)
    (found,) = oracle.beam([5], 2, nbest=2, alpha=0.0, key=lambda ids: EOS in ids)
    assert [h.ids for h in found] == [[EOS]]

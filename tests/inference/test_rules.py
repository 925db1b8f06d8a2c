"""Rules of a search: against Hugging Face's, against exhaustive search, and in every search alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracle import BOS, EOS, NEVER, A, B, Oracle, assert_same, chain, everything, log_prob_of, memoryless, random_oracle
from torch import Tensor

from transformer.inference.rules import Forbidden, ForcedPrefix, MinLength, NoRepeatNgram, Rule, apply_rules
from transformer.inference.sampling import sample
from transformer.inference.search import Hypothesis, beam_search, greedy_search

LIMITS = [7, 1, 13, 5, 2, 11, 3]
PREFIXES = [[A, B, A], [], [B], [4, 4, 4, A], [A], [4, B], []]
SHORTEST = [5, 0, 1, 5, 2, 7, 3]


def some_rules(sentences: Sequence[int] = range(7)) -> dict[str, list[Rule]]:
    """Rules and lists of them, for these sentences of `LIMITS`."""
    prefixes, shortest = [PREFIXES[i] for i in sentences], [SHORTEST[i] for i in sentences]
    plain: list[Rule] = [NoRepeatNgram(2), MinLength(shortest, (EOS,)), Forbidden((5,))]
    return {
        "no bigram twice": [NoRepeatNgram(2)],
        "no trigram twice": [NoRepeatNgram(3)],
        "minimum": [MinLength(shortest, (EOS,))],
        "forbidden": [Forbidden((5, A))],
        "prefix": [ForcedPrefix(prefixes)],
        "all": [ForcedPrefix(prefixes, plain)],
    }


each_list = pytest.mark.parametrize("name", some_rules())


def samples(oracle: Oracle, limits: Sequence[int], first: int = 0, **options: Any) -> list[Hypothesis]:
    generators = [np.random.default_rng((3, first + i)) for i in range(len(limits))]
    memory = oracle.start(range(first, first + len(limits)))
    found = sample(oracle, memory, limits, bos_id=BOS, eos_id=EOS, generator=generators, **options)
    return [one for (one,) in found]


def obeys(ids: Sequence[int], name: str, sentence: int) -> bool:
    """Whether a hypothesis that has ended obeys a list of rules, told without tensors."""
    prefix = PREFIXES[sentence] if name in ("prefix", "all") else []
    if ids[: len(prefix)] != prefix:
        return False
    n = {"no bigram twice": 2, "no trigram twice": 3, "all": 2}.get(name, 0)
    if n:
        ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        # The last piece of each free n-gram has been chosen after all that is before it.
        if any(ngrams[i] in ngrams[:i] for i in range(len(ngrams)) if i + n > len(prefix)):
            return False
    if name in ("minimum", "all") and len(ids) < SHORTEST[sentence]:
        return False
    forbidden = {"forbidden": (5, A), "all": (5,)}.get(name, ())
    return not any(token in forbidden for token in ids[len(prefix) :])


# Each rule


def test_an_ngram_is_not_completed_twice() -> None:
    #            0    1    2    3    4
    prefixes = torch.tensor([[1, 2, 3, 1, 2], [1, 1, 1, 1, 1], [4, 3, 2, 1, 0], [2, 2, 3, 2, 2]])
    x = torch.zeros(4, 5)
    assert forbidden_by(NoRepeatNgram(3), prefixes, x) == [[3], [1], [], [3]]
    assert forbidden_by(NoRepeatNgram(2), prefixes, x) == [[3], [1], [], [2, 3]]
    assert forbidden_by(NoRepeatNgram(1), prefixes, x) == [[1, 2, 3], [1], [0, 1, 2, 3, 4], [2, 3]]
    assert forbidden_by(NoRepeatNgram(5), prefixes, x) == [[], [1], [], []]
    assert forbidden_by(NoRepeatNgram(6), prefixes, x) == [[], [], [], []]
    assert not x.any(), "the argument is as it was"


def forbidden_by(rule: Rule, prefixes: Tensor, log_probs: Tensor) -> list[list[int]]:
    after = rule(log_probs, prefixes, range(len(prefixes)))
    assert torch.equal(after[after > NEVER], log_probs[after > NEVER])
    return [(row == NEVER).nonzero()[:, 0].tolist() for row in after]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 17, 101])
def test_ngrams_are_forbidden_as_by_hugging_face(size: int, length: int) -> None:
    process = pytest.importorskip("transformers").generation.logits_process
    torch.manual_seed(length)
    prefixes, log_probs = torch.randint(0, 5, (13, length)), torch.randn(13, 7)
    wanted = process.NoRepeatNGramLogitsProcessor(size)(prefixes, log_probs.clone())
    assert torch.equal(NoRepeatNgram(size)(log_probs, prefixes, range(13)), wanted)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6])
def test_the_minimum_is_that_of_hugging_face_but_counts_the_end(length: int) -> None:
    process = pytest.importorskip("transformers").generation.logits_process
    prefixes, log_probs = torch.zeros((11, length), dtype=torch.int64), torch.randn(11, 7)
    wanted = process.MinNewTokensLengthLogitsProcessor(0, 5, [EOS, B])(prefixes, log_probs.clone())
    assert torch.equal(MinLength([6] * 11, (EOS, B))(log_probs, prefixes, range(11)), wanted)


def test_each_sentence_has_its_minimum() -> None:
    oracle = memoryless(0.8, 0.2)
    assert [len(h.ids) for h in oracle.greedy([9] * 4, rules=[MinLength([0, 1, 5, 3], (EOS,))])] == [1, 1, 5, 3]


def test_a_forbidden_token_costs_what_it_would_have_had() -> None:
    # log P stays the model's: 0.3 * 0.5, not normalised to 0.6 * 0.5.
    oracle = chain({BOS: (0.2, 0.5, 0.3), A: (0.5, 0.25, 0.25), B: (0.5, 0.25, 0.25)})
    (found,) = oracle.greedy([7], rules=[Forbidden((A,))])
    assert found.ids == [B, EOS]
    assert found.log_prob == pytest.approx(np.log(0.3 * 0.5))


def test_a_prefix_is_part_of_the_output_and_of_its_probability() -> None:
    oracle = chain({BOS: (0.2, 0.5, 0.3), A: (0.5, 0.25, 0.25), B: (0.25, 0.5, 0.25)})
    (found,) = oracle.greedy([7], rules=[ForcedPrefix([[B, B]])])
    assert found.ids == [B, B, A, EOS]
    assert found.log_prob == pytest.approx(np.log(0.3 * 0.25 * 0.5 * 0.5))


def test_a_prefix_may_have_what_other_rules_forbid() -> None:
    oracle = memoryless(0.1, 0.6, 0.3)
    rules = [ForcedPrefix([[A, A, A, A]], [NoRepeatNgram(1), MinLength([9], (EOS,))])]
    (found,) = oracle.greedy([9], rules=rules)
    assert found.ids == [], "after a a a a b nothing is left, as the minimum forbids the end"
    (found,) = oracle.greedy([9], rules=[ForcedPrefix([[A, A, A, A]], [NoRepeatNgram(1)])])
    assert found.ids == [A, A, A, A, B, EOS]


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_an_ngram_has_a_token(size: int) -> None:
    with pytest.raises(ValueError, match=f"^size={size} of an n-gram must be a whole number of at least 1$"):
        NoRepeatNgram(size)


@pytest.mark.parametrize("make", [tuple, set, iter, np.array, torch.tensor])
def test_ids_may_come_in_any_collection(make: Any) -> None:
    log_probs, prefixes = torch.zeros(2, 7), torch.zeros((2, 0), dtype=torch.int64)
    rules = [(Forbidden(make([2, 5])), [2, 5]), (MinLength([3, 0], make([2, 5])), [2, 5])]
    for rule, wanted in rules:
        assert forbidden_by(rule, prefixes, log_probs)[0] == wanted


@pytest.mark.parametrize("wrong", [3, 2.5, [2.5], ["3"], [None], torch.tensor([1.5])])
def test_what_is_no_collection_of_ints_is_refused_at_once(wrong: Any) -> None:
    for name, make in (
        ("ids", Forbidden),
        ("lengths", lambda x: MinLength(x, (EOS,))),
        ("eos_ids", lambda x: MinLength([3], x)),
        ("prefix", lambda x: ForcedPrefix([x])),
    ):
        with pytest.raises(TypeError, match=rf"^{name}=.* must be a collection of ints$"):
            make(wrong)
    with pytest.raises(TypeError, match=r"^max_lengths=.* must be a collection of ints$"):
        greedy_search(oracle := random_oracle(1, 7), oracle.start([0]), wrong, bos_id=BOS, eos_id=EOS)


def test_nothing_may_be_forbidden() -> None:
    log_probs = torch.randn(2, 5)
    assert torch.equal(Forbidden(())(log_probs, torch.empty((2, 0)), [0, 1]), log_probs)


@pytest.mark.parametrize("token", [-1, 7, 99])
@pytest.mark.parametrize("kind", ["forbidden", "prefix", "minimum"])
def test_ids_outside_the_vocabulary_are_refused(token: int, kind: str) -> None:
    limits = "0" if token < 0 and kind == "prefix" else "0 to 6"
    with pytest.raises(ValueError, match=rf"^a rule has the id {token}: it must be from {limits}$"):
        rules: dict[str, Any] = {
            "forbidden": lambda: Forbidden([A, token]),
            "prefix": lambda: ForcedPrefix([[], [token, A]]),
            "minimum": lambda: MinLength([3, 3], (token,)),
        }
        random_oracle(0, vocab_size=7).beam([5, 5], 3, rules=[rules[kind]()])


def test_rules_are_applied_in_order() -> None:
    seen = []

    def rule(number: int) -> Rule:
        def lowered(log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
            seen.append((number, float(log_probs[0, 0]), tuple(prefixes.shape), list(sentences)))
            return log_probs - number

        return lowered

    after = apply_rules([rule(2), rule(3)], torch.zeros(2, 5), torch.zeros((2, 7), dtype=torch.int64), [4, 4])
    assert after[0, 0] == -5
    assert seen == [(2, 0.0, (2, 7), [4, 4]), (3, -2.0, (2, 7), [4, 4])]


# Every search


@each_list
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_that_obeys(seed: int, name: str) -> None:
    oracle, limits = random_oracle(seed), [5, 1, 5, 5, 2, 4, 3]
    rules = {**some_rules(), "minimum": [MinLength(SHORTEST, (EOS,))], "forbidden": [Forbidden((A,))]}[name]
    if name == "all":
        rules = [ForcedPrefix(PREFIXES, [NoRepeatNgram(2), MinLength(SHORTEST, (EOS,))])]
    found = oracle.beam(limits, 5**5, alpha=0.6, nbest=3, rules=rules)
    for sentence, hypotheses in enumerate(found):
        wanted = [h for h in everything(oracle, sentence, limits[sentence], 0.6) if obeys(h.ids, name, sentence)]
        ended = [h for h in hypotheses if h.ids[-1:] == [EOS]]
        assert_same(ended, wanted[:3])


@each_list
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy_search_with_rules(seed: int, name: str) -> None:
    oracle, rules = random_oracle(seed, vocab_size=7), some_rules()[name]
    assert_same([best for (best,) in oracle.beam(LIMITS, 1, rules=rules)], oracle.greedy(LIMITS, rules=rules))


@each_list
def test_cold_samples_are_greedy_search_with_rules(name: str) -> None:
    oracle, rules = random_oracle(11, vocab_size=7), some_rules()[name]
    assert_same(samples(oracle, LIMITS, temperature=1e-6, rules=rules), oracle.greedy(LIMITS, rules=rules))


SEARCHES = ("greedy", "beam", "sample")


def find(search: str, oracle: Oracle, sentences: Sequence[int], limits: Sequence[int], **o: Any) -> list[Any]:
    memory = oracle.start(sentences)
    if search == "sample":
        return [[found] for found in samples(oracle, limits, sentences[0], **o)]
    if search == "greedy":
        return [[found] for found in greedy_search(oracle, memory, limits, bos_id=BOS, eos_id=EOS, **o)]
    return beam_search(oracle, memory, limits, bos_id=BOS, eos_id=EOS, beam=3, nbest=3, **o)


@each_list
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("seed", range(3))
def test_a_sentence_is_translated_alike_alone_and_in_a_batch(seed: int, search: str, name: str) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    together = find(search, oracle, range(7), LIMITS, rules=some_rules()[name])
    for i, limit in enumerate(LIMITS):
        (alone,) = find(search, oracle, [i], [limit], rules=some_rules([i])[name])
        assert_same(together[i], alone)


@each_list
@pytest.mark.parametrize("search", SEARCHES)
def test_hypotheses_obey_and_have_the_probability_of_their_paths(search: str, name: str) -> None:
    for seed in range(5):
        oracle = random_oracle(seed, vocab_size=7)
        found = find(search, oracle, range(7), LIMITS, rules=some_rules()[name])
        for sentence, hypotheses in enumerate(found):
            for h in hypotheses:
                assert h.ids
                assert h.log_prob == pytest.approx(log_prob_of(oracle, sentence, h.ids), abs=1e-4)
                if h.ids[-1] == EOS:
                    assert obeys(h.ids, name, sentence)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_rule_that_forbids_nothing_changes_nothing(search: str) -> None:
    oracle = random_oracle(5, vocab_size=8)
    plain, ruled = (
        find(search, oracle, range(7), LIMITS, rules=rules) for rules in ((), [lambda log_probs, *_: log_probs])
    )
    assert plain == ruled


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("length", [0, 2])
def test_where_rules_leave_nothing_there_is_an_empty_hypothesis(search: str, length: int) -> None:
    def nothing(log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        is_stuck = torch.tensor([sentence == 3 and prefixes.size(1) >= length for sentence in sentences])
        no_end = log_probs.index_fill(1, torch.tensor([EOS]), NEVER)
        return torch.where(is_stuck[:, None], NEVER, no_end if prefixes.size(1) < length else log_probs)

    oracle = random_oracle(2, vocab_size=7)
    found = find(search, oracle, range(7), [11] * 7, rules=[nothing])
    assert found[3] == [Hypothesis([], NEVER, NEVER)]
    assert all(h.ids for hypotheses in found[:3] + found[4:] for h in hypotheses)


@pytest.mark.parametrize("name", some_rules())
@pytest.mark.parametrize("search", ["greedy", "beam", "sample"])
def test_rules_that_can_be_read_once_hold_at_every_step(search: str, name: str) -> None:
    oracle, sentences = random_oracle(11, 7), range(len(LIMITS))
    wanted = find(search, oracle, sentences, LIMITS, rules=some_rules()[name])
    assert find(search, oracle, sentences, LIMITS, rules=(rule for rule in some_rules()[name])) == wanted


def test_a_prefix_and_the_rules_after_it_can_be_read_once() -> None:
    oracle, sentences = random_oracle(11, 7), range(len(LIMITS))
    once = ForcedPrefix(map(iter, PREFIXES), (rule for rule in [NoRepeatNgram(1)]))  # type: ignore[arg-type]
    wanted = find("beam", oracle, sentences, LIMITS, rules=[ForcedPrefix(PREFIXES, [NoRepeatNgram(1)])])
    assert find("beam", oracle, sentences, LIMITS, rules=[once]) == wanted


def test_rules_see_the_tokens_of_their_rows() -> None:
    seen: set[tuple[int, tuple[int, ...]]] = set()

    def record(log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        assert len(log_probs) == len(prefixes) == len(sentences)
        seen.update((i, tuple(ids)) for i, ids in zip(sentences, prefixes.tolist(), strict=True))
        return log_probs

    oracle = random_oracle(3, vocab_size=7)
    for beam, found in (
        (1, [[x] for x in oracle.greedy(LIMITS, rules=[record])]),
        (3, oracle.beam(LIMITS, 3, rules=[record])),
    ):
        for sentence, hypotheses in enumerate(found):
            for h, t in itertools.product(hypotheses, range(LIMITS[sentence])):
                assert (sentence, tuple(h.ids[:t])) in seen or t >= len(h.ids), beam

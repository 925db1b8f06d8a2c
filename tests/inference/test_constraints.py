"""Constrained beam search against exhaustive search, and against beam search where nothing is asked for."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
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
    everything,
    log_prob_of,
    random_oracle,
)
from torch import Tensor

from transformer.inference.automata import Phrases
from transformer.inference.constraints import constrained_beam_search
from transformer.inference.penalties import power_penalty
from transformer.inference.rules import Forbidden, ForcedPrefix, MinLength, NoRepeatNgram, Rule
from transformer.inference.search import Hypothesis, beam_search
from transformer.model.transformer import Transformer

LIMITS = [7, 3, 13, 5, 2, 11, 3]


def search(
    oracle: Oracle, limits: Sequence[int], constraints: Sequence[Phrases], beam: int, **options: Any
) -> list[list[Hypothesis]]:
    memory, settings = oracle.start(range(len(limits))), {"bos_id": BOS, "eos_id": EOS} | options
    return constrained_beam_search(oracle, memory, limits, constraints, beam=beam, **settings)


def contains(ids: Sequence[int], phrases: Phrases) -> bool:
    """Whether each phrase occurs as often as it is given, without overlap, by `str.count`."""
    text, counts = "".join(map(chr, ids)), Counter("".join(map(chr, phrase)) for phrase in phrases)
    return all(text.count(phrase) >= count for phrase, count in counts.items())


def random_constraints(seed: int, vocab_size: int, limits: Sequence[int] = LIMITS) -> list[list[list[int]]]:
    """Phrases of each sentence that together fit its limit; often repeated or begun alike, for some none."""
    rng = random.Random(seed)
    constraints = []
    for limit in limits:
        phrases: list[list[int]] = []
        for _ in range(rng.randrange(4)):
            if phrases and rng.random() < 0.3:
                phrase = rng.choice(phrases)
            else:
                phrase = [rng.randrange(1, vocab_size) for _ in range(rng.randrange(1, 4))]
            if sum(map(len, phrases)) + len(phrase) <= limit:
                phrases.append(phrase)
        constraints.append(phrases)
    return constraints


# Exhaustive search

EXAMPLES: list[list[list[int]]] = [
    [[4]],
    [[1, 2]],
    [[2, 2, 1]],
    [[1], [1]],
    [[1, 1], [1, 1]],
    [[1, 2], [2, 1]],
    [[1, 2], [1, 4]],
    [[3], [4], [1]],
    [[1, 4, 2], [4]],
    [[2, 3, 2, 3]],
]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("phrases", EXAMPLES, ids=str)
def test_a_beam_that_holds_everything_finds_the_best_that_contain_the_phrases(
    phrases: list[list[int]], alpha: float
) -> None:
    oracle = random_oracle(7)
    limits = [4, 5, 4]
    found = search(oracle, limits, [phrases] * 3, 5**5, alpha=alpha, nbest=11)
    for sentence, (limit, best) in enumerate(zip(limits, found, strict=True)):
        wanted = [h for h in everything(oracle, sentence, limit, alpha, with_cut=True) if contains(h.ids, phrases)]
        assert_same(best, wanted[:11])


@pytest.mark.parametrize("seed", range(13))
def test_so_it_does_with_random_phrases_and_several_ends(seed: int) -> None:
    oracle, limits, eos_ids = random_oracle(seed), [4, 2, 5], (EOS, 2)
    constraints = [
        [[t for t in p if t != 2] or [1] for p in phrases] for phrases in random_constraints(seed, 5, limits)
    ]
    found = search(oracle, limits, constraints, 5**5, nbest=7, eos_id=eos_ids)
    for sentence, (limit, phrases, best) in enumerate(zip(limits, constraints, found, strict=True)):
        wanted = [
            h for h in everything(oracle, sentence, limit, 0.6, eos_ids, with_cut=True) if contains(h.ids, phrases)
        ]
        assert_same(best[:1], wanted[:1])


def test_the_probable_sentence_gives_way_to_the_one_with_the_phrase() -> None:
    # <s> -> a 0.9, b 0.1; then </s> 0.8, a 0.1, b 0.1.
    def logits(_: int, prefix: Prefix) -> list[float]:
        return [math.log(p) if p else NEVER for p in ((0.8, 0.1, 0.1) if prefix else (0.0, 0.9, 0.1))]

    ((best, second),) = search(Oracle(logits), [3], [[[B]]], 3, alpha=0.0, nbest=2)
    assert best.ids == [B, EOS]
    assert best.log_prob == best.score == pytest.approx(math.log(0.1 * 0.8))
    assert second.ids == [A, B, EOS]
    assert second.log_prob == pytest.approx(math.log(0.9 * 0.1 * 0.8))


# Laws of any beam size


@pytest.mark.parametrize("beam", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("seed", range(17))
def test_every_phrase_occurs_whatever_the_beam(seed: int, beam: int) -> None:
    oracle, constraints = random_oracle(seed, 7), random_constraints(seed, 7)
    assert any(constraints)
    for sentence, found in enumerate(search(oracle, LIMITS, constraints, beam, nbest=beam)):
        assert found
        assert len({tuple(h.ids) for h in found}) == len(found)
        for h in found:
            assert contains(h.ids, constraints[sentence])
            assert EOS not in h.ids[:-1]
            assert h.ids[-1] == EOS or len(h.ids) == LIMITS[sentence]
            log_prob = log_prob_of(oracle, sentence, h.ids)
            assert h.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert h.score == pytest.approx(log_prob / ((5 + len(h.ids)) / 6) ** 0.6, abs=1e-4)


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(7))
def test_phrases_that_fill_the_whole_limit_occur(seed: int, beam: int) -> None:
    phrases = [[1, 2, 3], [1, 3], [1, 2, 3]]
    ((best, *_),) = search(random_oracle(seed), [8], [phrases], beam)
    assert contains(best.ids, phrases)
    assert len(best.ids) == 8


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(7))
def test_a_sentence_with_phrases_is_translated_alike_alone_and_in_a_batch(seed: int, beam: int) -> None:
    oracle, constraints = random_oracle(seed, 7), random_constraints(seed, 7)
    together = search(oracle, LIMITS, constraints, beam, nbest=beam)
    for sentence, limit in enumerate(LIMITS):
        (alone,) = constrained_beam_search(
            oracle,
            oracle.start([sentence]),
            [limit],
            [constraints[sentence]],
            bos_id=BOS,
            eos_id=EOS,
            beam=beam,
            nbest=beam,
        )
        assert together[sentence] == alone


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(7))
def test_sentences_without_phrases_are_found_as_by_beam_search_to_the_bit(seed: int, beam: int) -> None:
    oracle, constraints = random_oracle(seed, 7), random_constraints(seed, 7)
    options: Any = {"bos_id": BOS, "eos_id": EOS, "beam": beam, "nbest": beam, "key": len}
    plain = beam_search(oracle, oracle.start(range(7)), LIMITS, **options)
    assert search(oracle, LIMITS, [[]] * 7, **options) == plain
    found = search(oracle, LIMITS, constraints, **options)
    for one, other, phrases in zip(found, plain, constraints, strict=True):
        assert phrases or one == other


def test_without_phrases_there_is_as_much_work_as_in_beam_search() -> None:
    plain, other = random_oracle(3), random_oracle(3)
    beam_search(plain, plain.start(range(7)), LIMITS, bos_id=BOS, eos_id=EOS, beam=3)
    search(other, LIMITS, [()] * 7, 3)
    assert other.num_rows == plain.num_rows
    assert constrained_beam_search(other, other.start([]), [], [], bos_id=BOS, eos_id=EOS) == []


def test_the_work_does_not_grow_with_the_phrases() -> None:
    oracle = random_oracle(3, 11)
    search(oracle, [13] * 5, [[[1, 2, 3], [4, 5], [6]]] * 5, 3)
    assert max(oracle.num_rows) <= 5 * 3
    assert len(oracle.num_rows) <= 13


def test_a_phrase_that_the_model_would_say_anyway_changes_nothing() -> None:
    for seed in range(11):
        oracle = random_oracle(seed, 7)
        ((plain,),) = beam_search(oracle, oracle.start([0]), [5], bos_id=BOS, eos_id=EOS, beam=7**4)
        if len(plain.ids) > 2:
            ((found,),) = search(oracle, [5], [[plain.ids[1:-1]]], 7**4)
            assert_same([found], [plain])


def test_a_bank_without_hypotheses_leaves_its_slots_to_the_others() -> None:
    oracle = random_oracle(5, 11)
    search(oracle, [17], [[[9, 9, 9]]], 7)
    assert set(oracle.num_rows[1:]) == {7}


def test_a_phrase_begun_at_its_best_place_beats_one_that_is_forced_at_the_start() -> None:
    # a a a b c </s> is nearly certain; whatever else is said, b comes at a price of e^-5.
    path = [A, A, A, B, 4, EOS]

    def logits(_: int, prefix: Prefix) -> list[float]:
        row = [0.0] * 5
        row[path[len(prefix)] if len(prefix) < 6 else EOS] = 5.0
        return row

    for beam in (2, 3, 4, 7):
        ((best,),) = search(Oracle(logits), [11], [[[B, 4]]], beam)
        assert best.ids == path


@pytest.mark.parametrize("beam", [1, 3])
def test_prompts_belong_to_their_sentences(beam: int) -> None:
    oracle = random_oracle(1, 7)
    prompts = [[BOS, i] for i in range(7)]
    constraints = random_constraints(1, 7)
    prompted = Oracle(lambda sentence, prefix: oracle.logits(sentence, (*prompts[sentence][1:], *prefix)))
    found = search(oracle, LIMITS, constraints, beam, bos_id=prompts)
    assert found == search(prompted, LIMITS, constraints, beam)
    assert all(contains(h.ids, phrases) for (h,), phrases in zip(found, constraints, strict=True))


def test_constraints_and_rules_that_can_be_read_once_hold_at_every_step() -> None:
    oracle, phrases = random_oracle(13, vocab_size=7), [[[4, A], [B]], [], [[5]]]

    def find(constraints: Any, rules: Any) -> list[list[Hypothesis]]:
        options: dict[str, Any] = {"bos_id": BOS, "eos_id": EOS, "beam": 3, "rules": rules}
        return constrained_beam_search(oracle, oracle.start(range(3)), [7, 11, 5], constraints, **options)

    rules = [NoRepeatNgram(1), Forbidden((6,))]
    assert find((iter(of_sentence) for of_sentence in phrases), iter(rules)) == find(phrases, rules)


def test_of_outputs_with_equal_keys_the_best_counts() -> None:
    oracle = random_oracle(2, 5)
    phrases = [[1, 2]]
    (found,) = search(oracle, [4], [phrases], 5**4, nbest=3, key=len)
    wanted = {len(h.ids): h for h in reversed(everything(oracle, 0, 4, 0.6, with_cut=True)) if contains(h.ids, phrases)}
    assert_same(found, sorted(wanted.values(), key=lambda h: (h.ids[-1] != EOS, -h.score)))


# Rules and penalties

PREFIXES = [[], [3], [], [1, 3, 1], [], [4], []]
SHORTEST = [0, 3, 9, 2, 1, 5, 2]


def some_rules(sentences: Sequence[int] = range(7)) -> dict[str, list[Rule]]:
    """Rules of these sentences, by name."""
    prefixes, shortest = ([x[i] for i in sentences] for x in (PREFIXES, SHORTEST))
    return {
        "minimum": [MinLength(shortest, (EOS,))],
        "forbidden": [Forbidden((2,))],
        "no bigram twice": [NoRepeatNgram(2)],
        "prefix": [ForcedPrefix(prefixes, [NoRepeatNgram(2), MinLength(shortest, (EOS,))])],
    }


def obeys(ids: Sequence[int], name: str, sentence: int) -> bool:
    """Whether a hypothesis obeys a list of rules, told without tensors."""
    prefix = PREFIXES[sentence] if name == "prefix" else []
    pairs = list(itertools.pairwise(ids))
    after = range(max(0, len(prefix) - 1), len(pairs))  # pairs that end after the prefix
    is_long = len(ids) >= SHORTEST[sentence] or ids[-1] != EOS
    return {
        "minimum": is_long,
        "forbidden": 2 not in ids,
        "no bigram twice": len(set(pairs)) == len(pairs),
        "prefix": list(ids[: len(prefix)]) == prefix and is_long and not any(pairs[i] in pairs[:i] for i in after),
    }[name]


each_rule = pytest.mark.parametrize("name", some_rules())


@each_rule
@pytest.mark.parametrize("phrases", [x for x in EXAMPLES if len(x) < 3], ids=str)
def test_a_beam_that_holds_everything_finds_the_best_that_also_obey(phrases: list[list[int]], name: str) -> None:
    oracle, limits = random_oracle(11), [4, 5, 4, 5]
    found = search(oracle, limits, [phrases] * 4, 5**5, nbest=7, rules=some_rules()[name])
    for sentence, (limit, best) in enumerate(zip(limits, found, strict=True)):
        every = everything(oracle, sentence, limit, 0.6, with_cut=True)
        wanted = [h for h in every if contains(h.ids, phrases) and obeys(h.ids, name, sentence)]
        assert_same(best, wanted[:7] or [Hypothesis([], NEVER, NEVER)])


@each_rule
@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(7))
def test_no_output_lacks_a_phrase_or_breaks_a_rule(seed: int, beam: int, name: str) -> None:
    oracle, constraints = random_oracle(seed, 7), random_constraints(seed, 7)
    found = search(oracle, LIMITS, constraints, beam, nbest=beam, rules=some_rules()[name])
    for sentence, (phrases, best) in enumerate(zip(constraints, found, strict=True)):
        if best != [Hypothesis([], NEVER, NEVER)]:
            assert all(contains(h.ids, phrases) and obeys(h.ids, name, sentence) for h in best)
        elif name == "minimum":
            raise AssertionError("it can always be met")
        elif name == "forbidden":
            assert any(2 in phrase for phrase in phrases)


@each_rule
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_rules_are_those_of_the_sentence_alone_and_in_a_batch(seed: int, beam: int, name: str) -> None:
    oracle, constraints = random_oracle(seed, 7), random_constraints(seed, 7)
    constraints[3] = []
    options: Any = {"bos_id": BOS, "eos_id": EOS, "beam": beam, "nbest": beam}
    together = search(oracle, LIMITS, constraints, rules=some_rules()[name], **options)
    plain = oracle.beam(LIMITS, rules=some_rules()[name], **options)
    assert any(constraints)
    for i, limit in enumerate(LIMITS):
        options["rules"] = some_rules([i])[name]
        assert [together[i]] == constrained_beam_search(oracle, oracle.start([i]), [limit], [constraints[i]], **options)
        assert constraints[i] or together[i] == plain[i]


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(7))
def test_what_the_prefix_has_of_the_phrases_counts(seed: int, beam: int) -> None:
    # 1 2 3 is there, and of 5 6 5 the beginning: three tokens more will do.
    prefix, phrases = [4, 1, 2, 3, 5], [[1, 2, 3], [5, 6, 5], [4]]
    ((best, *_),) = search(random_oracle(seed, 7), [7], [phrases], beam, rules=[ForcedPrefix([prefix])])
    assert best.ids == [*prefix, 6, 5]
    ((longer, *_),) = search(random_oracle(seed, 7), [11], [phrases], beam, rules=[ForcedPrefix([prefix])])
    assert longer.ids[:5] == prefix and contains(longer.ids, phrases)


def test_rules_see_the_tokens_and_the_sentences_of_their_rows() -> None:
    oracle, constraints = random_oracle(1, 7), random_constraints(1, 7)
    seen: list[tuple[int, list[int]]] = []

    def record(log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        assert log_probs.shape == (len(prefixes), 7) and len(sentences) == len(prefixes)
        seen.extend(zip(sentences, prefixes.tolist(), strict=True))
        return log_probs

    assert search(oracle, LIMITS, constraints, 3, rules=[record]) == search(oracle, LIMITS, constraints, 3)
    assert {i for i, _ in seen} == set(range(7))
    for i, (best,) in enumerate(search(oracle, LIMITS, constraints, 3)):
        assert all((i, best.ids[:t]) in seen for t in range(len(best.ids)))


def test_of_phrases_that_the_rules_exclude_comes_the_empty_hypothesis() -> None:
    contradictory = [[1, 2, 3], [4, 1, 2, 5]]  # 1 2 twice, with something else behind it
    fine = [[1, 2, 3], [4, 1, 2]]
    found = search(random_oracle(2, 7), [13, 13], [contradictory, fine], 7, rules=[NoRepeatNgram(2)])
    assert found[0] == [Hypothesis([], NEVER, NEVER)]
    assert contains(found[1][0].ids, fine)


@pytest.mark.parametrize("alpha", [0.6, 1.5])
def test_scores_are_over_the_given_penalty(alpha: float) -> None:
    oracle, phrases = random_oracle(5), [[1, 2]]
    found = search(oracle, [5, 4], [phrases] * 2, 5**5, alpha=alpha, nbest=11, penalty=power_penalty)
    for sentence, (limit, best) in enumerate(zip([5, 4], found, strict=True)):
        every = everything(oracle, sentence, limit, alpha, penalty=power_penalty, with_cut=True)
        assert_same(best, [h for h in every if contains(h.ids, phrases)][:11])


# NaN, and what the model excludes


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_nan_logits_end_a_sentence_and_leave_the_others_alone(beam: int) -> None:
    fine = random_oracle(3, 7)
    constraints: list[list[list[int]]] = [[[1, 2]], [[3]], [[4, 4]]]

    def logits(sentence: int, prefix: Prefix) -> Sequence[float]:
        return [math.nan] * 7 if sentence == 1 and len(prefix) == 1 else fine.logits(sentence, prefix)

    found = search(Oracle(logits), [7, 7, 7], constraints, beam)
    wanted = search(fine, [7, 7, 7], constraints, beam)
    assert found[1] in ([Hypothesis([], NEVER, NEVER)], [h for h in found[1] if contains(h.ids, [[3]])])
    assert [found[0], found[2]] == [wanted[0], wanted[2]]


def test_of_a_phrase_with_probability_0_comes_the_empty_hypothesis() -> None:
    ((best,),) = search(Oracle(lambda _, __: [1.0, 0.0, NEVER, NEVER]), [5], [[[A, B]]], 3)
    assert best == Hypothesis([], NEVER, NEVER)


# A real decoder


@pytest.mark.parametrize("beam", [1, 3])
def test_a_decoder_with_a_cache_finds_what_one_without_does(beam: int) -> None:
    torch.manual_seed(3)
    model = Transformer(17, d_model=12, num_layers=2, num_heads=3, d_ff=7).eval()
    src = torch.tensor([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0], [10, 3, 0, 0, 0]])
    constraints: list[list[list[int]]] = [[[11, 12], [13]], [], [[5, 5, 5]]]
    limits = [11, 7, 5]

    def cached(tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = model.decode(tokens[:, None], state)
        return model.logits(hidden[:, -1]), state

    def uncached(tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        inputs = torch.cat((memory.inputs, tokens[:, None]), dim=1)
        sentences = memory.sentences.repeat_interleave(len(tokens) // len(memory.sentences))
        return model(src[sentences], inputs)[:, -1], replace(memory, inputs=inputs)

    options: Any = {"bos_id": 2, "eos_id": 3, "beam": beam, "nbest": beam}
    with torch.no_grad():
        one = constrained_beam_search(cached, model.encode(src), limits, constraints, **options)
        memory = Memory(torch.arange(3), torch.zeros((3, 0), dtype=torch.int64))
        other = constrained_beam_search(uncached, memory, limits, constraints, **options)
    for some, others, phrases in zip(one, other, constraints, strict=True):
        assert_same(some, others)
        assert all(contains(h.ids, phrases) for h in some)


# Arguments


@pytest.mark.parametrize(
    ("constraints", "error", "message"),
    [
        ([[]], ValueError, r"constraints are of 1 sentences, and there are 2"),
        ([[], [[]]], ValueError, r"constraints\[1\] has an empty phrase"),
        ([[], [[1, EOS]]], ValueError, r"constraints\[1\] has \[1, 0\]: 0 is an id of <s> or </s>"),
        ([[[BOS]], []], ValueError, r"constraints\[0\] has \[1009\]: 1009 is an id of <s> or </s>"),
        ([[[1], [1, 2], [4, 4, 4]], []], ValueError, r"constraints\[0\] has 6 tokens, more than the limit of 5"),
        ([[], [[9]]], ValueError, r"a phrase has the id 9, and the vocabulary has 7"),
        ([["ab"], []], TypeError, r"constraints\[0\] has 'ab': a phrase must be a list of ints"),
        ([[[1.5]], []], TypeError, r"constraints\[0\] has \[1.5\]: a phrase must be a list of ints"),
        ([[1, 2], []], TypeError, r"constraints\[0\] has 1: a phrase must be a list of ints"),
    ],
)
def test_constraints_that_cannot_be_met_are_refused(constraints: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"^{message}$"):
        search(random_oracle(0, 7), [5, 7], constraints, 3)


@pytest.mark.parametrize(("nbest", "beam"), [(0, 3), (4, 3), (1, 0)])
def test_as_many_as_the_beam_can_be_asked_for(nbest: int, beam: int) -> None:
    each: tuple[list[list[list[int]]], ...] = ([[]], [[[1]]])
    for constraints in each:
        with pytest.raises(ValueError, match=rf"^nbest={nbest} must be between 1 and beam={beam}$"):
            search(random_oracle(0), [5], constraints, beam, nbest=nbest)


@pytest.mark.parametrize("bos_id", [[[BOS]] * 3, [[BOS, 1], [BOS]], [[]]])
def test_prompts_must_be_one_per_sentence_and_equally_long(bos_id: Any) -> None:
    for constraints in ([[], [[1]]], [[[1]], [[1]]]):
        with pytest.raises(ValueError, match=r"^bos_id must be an int or 2 equally long prompts, one per sentence$"):
            search(random_oracle(0), [5, 7], constraints, 3, bos_id=bos_id)


def test_the_permutations_of_phrases_find_the_same() -> None:
    oracle, phrases = random_oracle(2, 7), [[1, 2], [3], [4, 5]]
    found = [search(oracle, [11], [list(order)], 5) for order in itertools.permutations(phrases)]
    assert all(one == found[0] for one in found)

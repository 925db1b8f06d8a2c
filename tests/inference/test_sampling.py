"""Sampling against Hugging Face's warpers and against the probabilities of toy chains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from transformer.errors import ConfigError
from transformer.inference.sampling import Sampling, sample, warp_logits
from transformer.inference.search import Hypothesis, greedy_search, length_penalty

EOS, A, B, BOS = 0, 1, 2, 3
NEVER = -math.inf
LIMITS = [7, 1, 13, 5, 2, 11, 3]
Path = tuple[int, ...]
Logits = Callable[[int, Path], Sequence[float]]


@dataclass(frozen=True)
class Memory:
    """A decoder's state: the number and all inputs of each row."""

    sentences: Tensor  # (R,)
    inputs: Tensor  # (R, t)

    def select(self, rows: Tensor) -> Memory:
        assert rows.shape == (len(rows), 1)
        assert rows.flatten().tolist() == sorted(rows.flatten().tolist())
        return Memory(self.sentences[rows[:, 0]], self.inputs[rows[:, 0]])


class Oracle:
    """A decoder that looks up the next token's logits by sentence and whole path, and counts its rows."""

    def __init__(self, logits: Logits) -> None:
        self.logits = logits
        self.num_rows: list[int] = []

    def __call__(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        self.num_rows.append(len(tokens))
        inputs = torch.cat((memory.inputs, tokens[:, None]), dim=1)
        rows = [
            self.logits(sentence, tuple(path[1:]))
            for sentence, path in zip(memory.sentences.tolist(), inputs.tolist(), strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float32), Memory(memory.sentences, inputs)

    def sample(self, limits: Sequence[int], *, first: int = 0, seed: int | None = 0, **options: Any) -> Any:
        if seed is not None:
            options["generator"] = torch.Generator().manual_seed(seed)
        memory = Memory(torch.arange(first, first + len(limits)), torch.zeros((len(limits), 0), dtype=torch.int64))
        return sample(self, memory, limits, **{"bos_id": BOS, "eos_id": EOS} | options)

    def greedy(self, limits: Sequence[int]) -> list[Hypothesis]:
        memory = Memory(torch.arange(len(limits)), torch.zeros((len(limits), 0), dtype=torch.int64))
        return greedy_search(self, memory, limits, bos_id=BOS, eos_id=EOS)


def random_oracle(seed: int, vocab_size: int = 7) -> Oracle:
    """Random logits for every sentence and path: mixing up two rows gives other numbers."""

    def logits(sentence: int, path: Path) -> list[float]:
        rng = np.random.default_rng((seed, sentence, len(path), *path))
        return (2 * rng.normal(size=vocab_size)).tolist()

    return Oracle(logits)


def probabilities_of_all(oracle: Oracle, limit: int, **options: Any) -> dict[Path, float]:
    """The probability of each output of sentence 0, by walking all paths."""
    found: dict[Path, float] = {}

    def walk(path: Path, probability: float) -> None:
        warped = warp_logits(torch.tensor([oracle.logits(0, path)]), **options)
        for token, p in enumerate(warped.double().softmax(dim=-1)[0].tolist()):
            if token == EOS or len(path) + 1 == limit:
                found[(*path, token)] = probability * p
            elif p:
                walk((*path, token), probability * p)

    walk((), 1.0)
    return {path: probability for path, probability in found.items() if probability}


def assert_distributed(counts: Counter[Any], probabilities: dict[Any, float]) -> None:
    """Pearson's chi-square is at most 4 standard deviations above its mean; nothing impossible is drawn."""
    total = sum(counts.values())
    assert set(counts) <= set(probabilities)
    assert sum(probabilities.values()) == pytest.approx(1)
    # What is expected less than 5 times is taken together.
    common = {x: p for x, p in probabilities.items() if p * total >= 5}
    rest = 1 - sum(common.values()), total - sum(counts[x] for x in common)
    cells = [(p, counts[x]) for x, p in common.items()] + [rest] * (rest[0] * total >= 5)
    chi_square = sum((count - p * total) ** 2 / (p * total) for p, count in cells)
    freedom = len(cells) - 1
    assert freedom > 0
    assert chi_square <= freedom + 4 * math.sqrt(2 * freedom)


# Temperature, top-k and top-p


def random_logits(seed: int, vocab_size: int, *, ties: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(11, vocab_size, generator=generator)
    logits[torch.rand(11, vocab_size, generator=generator) < 0.1] = NEVER
    logits[:, seed % vocab_size] = 0.5  # not all are forbidden
    return logits.round() if ties else logits


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocab_size", [2, 13, 101, 1009])
@pytest.mark.parametrize("seed", range(5))
def test_warping_is_hugging_faces(seed: int, vocab_size: int, ties: bool) -> None:
    logits = random_logits(seed, vocab_size, ties=ties)
    ids = torch.zeros((len(logits), 1), dtype=torch.int64)
    for temperature in (0.3, 1.0, 1.7):
        for top_k in (0, 1, 2, 5, 17, 2003):
            for top_p in (1e-9, 0.01, 0.37, 0.5, 0.9, 0.999, 1.0):
                expected = TemperatureLogitsWarper(temperature)(ids, logits)
                expected = TopKLogitsWarper(top_k)(ids, expected) if top_k else expected
                expected = TopPLogitsWarper(top_p)(ids, expected) if top_p < 1 else expected
                found = warp_logits(logits, temperature, top_k, top_p)
                torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_by_default_nothing_is_warped() -> None:
    logits = random_logits(0, 13, ties=False)
    torch.testing.assert_close(warp_logits(logits), logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be positive and finite; greedy_search is the limit 0"),
        ({"temperature": -1.0}, "temperature=-1.0 must be positive and finite"),
        ({"temperature": math.inf}, "temperature=inf must be positive and finite"),
        ({"temperature": math.nan}, "temperature=nan must be positive and finite"),
        ({"temperature": 1e-46}, r"temperature=1e-46 must be from 1.2e-38 to 3.4e\+38, the numbers of float32"),
        ({"temperature": 1e39}, r"temperature=1e\+39 must be from 1.2e-38 to 3.4e\+38"),
        ({"top_k": -1}, "top_k=-1 must be a positive whole number, or 0 to keep all tokens"),
        ({"top_k": 2.5}, "top_k=2.5 must be a positive whole number, or 0 to keep all tokens"),
        ({"top_p": 0.0}, "top_p=0.0 must be more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5 must be more than 0 and at most 1"),
        ({"top_p": math.nan}, "top_p=nan must be more than 0 and at most 1"),
        ({"num_samples": 0}, "num_samples=0 must be at least 1"),
        ({"bos_id": [[BOS]]}, "bos_id must be an int or 2 equally long prompts"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        random_oracle(0).sample([5, 7], **options)


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^seed={seed} must be a whole number of at least 0$"):
        Sampling(seed=seed)


def test_limits_and_ends_are_checked_as_in_the_other_searches() -> None:
    with pytest.raises(ValueError, match=r"^max_lengths has 0: every limit must be at least 1$"):
        random_oracle(0).sample([5, 0])
    with pytest.raises(TypeError, match=r"^eos_id=None must be an int or a collection of ints$"):
        random_oracle(0).sample([5], eos_id=None)


# The distribution


@pytest.mark.parametrize("options", [{"temperature": 1e-6}, {"top_k": 1}, {"top_p": 1e-6}])
@pytest.mark.parametrize("seed", range(5))
def test_without_randomness_it_is_greedy_search(seed: int, options: dict[str, Any]) -> None:
    oracle = random_oracle(seed, vocab_size=13)
    for expected, found in zip(oracle.greedy(LIMITS), oracle.sample(LIMITS, num_samples=2, **options), strict=True):
        for hypothesis in found:
            assert hypothesis.ids == expected.ids
            assert hypothesis.log_prob == pytest.approx(expected.log_prob, abs=1e-5)
            assert hypothesis.score == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.7}, {"temperature": 1.5, "top_k": 3}],
)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_outputs_have_the_probabilities_of_the_model(seed: int, options: dict[str, Any]) -> None:
    oracle = random_oracle(seed, vocab_size=4)
    (found,) = oracle.sample([3], num_samples=10_007, seed=seed, **options)
    counts = Counter(tuple(hypothesis.ids) for hypothesis in found)
    assert_distributed(counts, probabilities_of_all(oracle, 3, **options))


def drawn_by(monkeypatch: pytest.MonkeyPatch, number: float, logits: Sequence[float]) -> int:
    """The token that this random number between 0 and 1 draws."""
    numbers = torch.tensor([number], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: numbers)
    return Oracle(lambda _, __: logits).sample([1])[0][0].ids[0]


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (1 - 2**-27, 0), (1 - 2**-29, 1), (1 - 2**-53, 1)])
def test_improbable_tokens_are_drawn(monkeypatch: pytest.MonkeyPatch, number: float, token: int) -> None:
    # In float32, 1 + 2^-28 is 1.
    assert drawn_by(monkeypatch, number, [0.0, 28 * math.log(0.5), NEVER]) == token


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("seed", range(11))
def test_the_outermost_numbers_draw_no_forbidden_tokens(
    monkeypatch: pytest.MonkeyPatch, seed: int, number: float
) -> None:
    allowed = torch.randn(101, generator=torch.Generator().manual_seed(seed)).tolist()
    assert drawn_by(monkeypatch, number, [NEVER, *allowed, NEVER]) == (1 if number == 0 else 101)


def test_the_samples_of_a_sentence_are_independent() -> None:
    oracle = Oracle(lambda _, __: [math.log(0.5), math.log(0.3), math.log(0.2)])
    found = oracle.sample([1] * 5003, num_samples=2)
    counts = Counter((first.ids[0], second.ids[0]) for first, second in found)
    p = (0.5, 0.3, 0.2)
    assert_distributed(counts, {(i, j): p[i] * p[j] for i in range(3) for j in range(3)})


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "top_k": 3, "top_p": 0.9}])
@pytest.mark.parametrize("seed", range(3))
def test_hypotheses_have_the_models_probability_of_their_own_path(seed: int, options: dict[str, Any]) -> None:
    oracle = random_oracle(seed)
    for sentence, found in enumerate(oracle.sample(LIMITS, num_samples=5, alpha=0.7, **options)):
        for hypothesis in found:
            logits = [oracle.logits(sentence, tuple(hypothesis.ids[:t])) for t in range(len(hypothesis.ids))]
            log_probs = torch.tensor(logits).log_softmax(dim=-1)
            log_prob = sum(log_probs[t, token].item() for t, token in enumerate(hypothesis.ids))
            assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert hypothesis.score == hypothesis.log_prob / length_penalty(len(hypothesis.ids), 0.7)


# The generator


def test_the_seed_decides_what_is_drawn() -> None:
    oracle = random_oracle(0)
    assert oracle.sample(LIMITS, num_samples=3, seed=5) == oracle.sample(LIMITS, num_samples=3, seed=5)
    assert oracle.sample(LIMITS, num_samples=3, seed=5) != oracle.sample(LIMITS, num_samples=3, seed=7)


def test_without_a_generator_torchs_default_one_is_used() -> None:
    oracle = random_oracle(0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert oracle.sample(LIMITS, num_samples=3, seed=None) == oracle.sample(LIMITS, num_samples=3, seed=5)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_sentences_draw_the_same_in_one_batch_and_in_several(seed: int, num_samples: int) -> None:
    oracle = random_oracle(seed)
    generator = torch.Generator().manual_seed(seed)
    parts = [
        samples
        for i, j in ((0, 1), (1, 4), (4, 7))
        for samples in oracle.sample(LIMITS[i:j], first=i, num_samples=num_samples, seed=None, generator=generator)
    ]
    whole = oracle.sample(LIMITS, num_samples=num_samples, seed=seed)
    for one, other in zip(whole, parts, strict=True):
        assert [h.ids for h in one] == [h.ids for h in other]
        assert [h.log_prob for h in one] == pytest.approx([h.log_prob for h in other], abs=1e-4)


def test_the_outcome_of_a_sentence_does_not_change_what_others_draw() -> None:
    oracle = random_oracle(0)
    ending = Oracle(lambda i, path: [0.0] + [NEVER] * 6 if i in (0, 2) else oracle.logits(i, path))
    found, expected = ending.sample(LIMITS, num_samples=2), oracle.sample(LIMITS, num_samples=2)
    assert [h.ids for i in (0, 2) for h in found[i]] == [[EOS]] * 4
    assert [found[i] for i in (1, 3, 4, 5, 6)] == [expected[i] for i in (1, 3, 4, 5, 6)]


# The loop


def test_finished_rows_leave_the_batch() -> None:
    oracle = random_oracle(0)
    found = oracle.sample(LIMITS, num_samples=3)
    lengths = [len(hypothesis.ids) for samples in found for hypothesis in samples]
    assert len(set(lengths)) > 3
    # The first step is decoded once for all samples of a sentence.
    assert oracle.num_rows == [len(LIMITS), *[sum(n > t for n in lengths) for t in range(1, max(lengths))]]


def test_each_sentence_ends_at_an_end_or_at_its_own_limit() -> None:
    found = random_oracle(0).sample(LIMITS, num_samples=11, eos_id=(EOS, 5))
    assert {h.ids[-1] for samples in found for h in samples} >= {EOS, 5}
    for limit, samples in zip(LIMITS, found, strict=True):
        assert len(samples) == 11
        assert all(not {EOS, 5} & set(h.ids[:-1]) for h in samples)
        assert all(h.ids[-1] in (EOS, 5) or len(h.ids) == limit for h in samples)


def test_sampling_after_a_prompt_is_sampling_what_follows_the_prompt() -> None:
    oracle = random_oracle(0)
    prompts = [[BOS, A, B], [BOS, B, B], [BOS, 4, EOS]]
    prompted = Oracle(lambda sentence, path: oracle.logits(sentence, (*prompts[sentence][1:], *path)))
    assert oracle.sample([7, 3, 11], bos_id=prompts, num_samples=2) == prompted.sample([7, 3, 11], num_samples=2)


def test_where_logits_are_nan_a_sentence_ends_with_empty_hypotheses() -> None:
    oracle = random_oracle(0)
    broken = Oracle(lambda i, path: [math.nan] * 7 if i == 2 else oracle.logits(i, path))
    found, expected = broken.sample(LIMITS, num_samples=2), oracle.sample(LIMITS, num_samples=2)
    assert found[2] == [Hypothesis([], NEVER, NEVER)] * 2
    assert found[:2] + found[3:] == expected[:2] + expected[3:]


def test_no_sentences_give_no_hypotheses() -> None:
    oracle = random_oracle(0)
    assert oracle.sample([]) == []
    assert oracle.num_rows == []


def test_sampling_does_not_record_gradients() -> None:
    weight = torch.zeros(3, requires_grad=True)

    def decode(tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        logits = weight.expand(len(tokens), 3)
        assert not (logits * 2).requires_grad
        return logits, memory

    memory = Memory(torch.zeros(2, dtype=torch.int64), torch.zeros((2, 0), dtype=torch.int64))
    sample(decode, memory, [3, 2], bos_id=BOS, eos_id=EOS)


def test_the_lowest_temperatures_are_greedy_search() -> None:
    oracle = random_oracle(3)
    found = oracle.sample([5, 7], temperature=1.2e-38)
    assert [hypothesis.ids for (hypothesis,) in found] == [hypothesis.ids for hypothesis in oracle.greedy([5, 7])]


# A generator for each sentence


def drawn(oracle: Oracle, sentences: Sequence[int], limits: Sequence[int], **options: Any) -> list[list[Hypothesis]]:
    generators = [np.random.default_rng((7, sentence)) for sentence in sentences]
    memory = Memory(torch.tensor(sentences), torch.zeros((len(limits), 0), dtype=torch.int64))
    return sample(oracle, memory, limits, bos_id=BOS, eos_id=EOS, generator=generators, **options)


def test_samples_of_a_generator_each_depend_on_no_other_sentence() -> None:
    oracle = random_oracle(5)
    together = drawn(oracle, range(7), LIMITS, num_samples=3)
    for i, limit in enumerate(LIMITS):
        assert drawn(oracle, [i], [limit], num_samples=3) == [together[i]]
        assert drawn(oracle, [i], [limit], num_samples=2) == [together[i][:2]]
    assert drawn(oracle, [], []) == []


def test_samples_of_a_generator_each_follow_the_models_distribution() -> None:
    oracle = random_oracle(3, vocab_size=3)
    generators = [np.random.default_rng((11, i)) for i in range(2003)]
    memory = Memory(torch.zeros(2003, dtype=torch.int64), torch.zeros((2003, 0), dtype=torch.int64))
    found = sample(oracle, memory, [3] * 2003, bos_id=BOS, eos_id=EOS, generator=generators)
    assert_distributed(Counter(tuple(h.ids) for (h,) in found), probabilities_of_all(oracle, 3))


def test_generators_are_one_per_sentence() -> None:
    with pytest.raises(ValueError, match=r"^2 generators are not one per sentence, of 3$"):
        oracle = random_oracle(5)
        memory = Memory(torch.arange(3), torch.zeros((3, 0), dtype=torch.int64))
        generators = [np.random.default_rng(i) for i in range(2)]
        sample(oracle, memory, [3, 5, 7], bos_id=BOS, eos_id=EOS, generator=generators, num_samples=5)

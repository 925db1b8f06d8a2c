"""Log-probabilities of the pieces of given outputs."""

from __future__ import annotations

import itertools

import pytest
from oracle import BOS, EOS, A, B, log_prob_of, random_oracle

from transformer.inference.token_scores import token_log_probs

LIMITS = [7, 1, 13, 5, 2, 11, 3]


@pytest.mark.parametrize("seed", range(3))
def test_each_token_has_the_probability_after_those_before_it(seed: int) -> None:
    oracle = random_oracle(seed, vocab_size=7)
    outputs = [[h.ids for h in found] for found in oracle.beam(LIMITS, 3, nbest=3)]
    found = token_log_probs(oracle, oracle.start(range(7)), outputs, bos_id=BOS)
    for sentence, hypotheses in enumerate(outputs):
        assert len(found[sentence]) == len(hypotheses)
        for ids, log_probs in zip(hypotheses, found[sentence], strict=True):
            sums = [log_prob_of(oracle, sentence, ids[:t]) for t in range(len(ids) + 1)]
            assert log_probs == pytest.approx([b - a for a, b in itertools.pairwise(sums)], abs=1e-4)


def test_outputs_may_be_missing_empty_or_go_on_after_an_end() -> None:
    oracle = random_oracle(3, vocab_size=7)
    outputs = [[], [[]], [[A, EOS, B], [], [B]], [[EOS]]]
    found = token_log_probs(oracle, oracle.start(range(4)), outputs, bos_id=BOS)
    assert [[len(x) for x in hypotheses] for hypotheses in found] == [[], [0], [3, 0, 1], [1]]
    assert sum(found[2][0]) == pytest.approx(log_prob_of(oracle, 2, [A, EOS, B]), abs=1e-4)
    assert token_log_probs(oracle, oracle.start([]), [], bos_id=BOS) == []
    assert token_log_probs(oracle, oracle.start([0]), [[[]]], bos_id=BOS) == [[[]]]


def test_prompts_are_not_scored() -> None:
    oracle = random_oracle(3, vocab_size=7)
    ((found,),) = token_log_probs(oracle, oracle.start([0]), [[[A, EOS]]], bos_id=[[BOS, B, B]])
    whole = log_prob_of(oracle, 0, [B, B, A, EOS]) - log_prob_of(oracle, 0, [B, B])
    assert len(found) == 2
    assert sum(found) == pytest.approx(whole, abs=1e-4)

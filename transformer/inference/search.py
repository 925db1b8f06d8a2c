"""Beam search (section 6.1) over any decode callable; greedy search is in greedy.py.

The device computes the most probable next tokens. All else is on the host: which hypotheses go on, what they consist
of, when a sentence is over. A step reads from the device once, and writes to it once.

Dimension key: B unfinished sentences, W beams (alive hypotheses) per sentence, R = B·W rows, sentence by sentence;
V vocabulary, k tokens per row, C candidates per sentence, E ids of </s>, t tokens so far.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from transformer.inference.decoding import BosId, Decode, Device, EosId, SearchState, State, prefill
from transformer.inference.exchange import to_device, to_host
from transformer.inference.greedy import generate, greedy_search, prefixes_of
from transformer.inference.hypotheses import NOTHING, History, Hypothesis, Key, Outputs
from transformer.inference.penalties import Penalty, check_alpha, length_penalty
from transformer.inference.rules import Rule, ruled_log_probs
from transformer.inference.topk import grouped_topk, log_softmax_topk

__all__ = ["Hypothesis", "SearchState", "beam_search", "greedy_search"]
# They have moved to modules of their own.
__all__ += ["NOTHING", "BosId", "Decode", "Device", "EosId", "Key", "Outputs", "State"]
__all__ += ["generate", "prefill", "prefixes_of"]


@torch.no_grad()
def beam_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: BosId,
    eos_id: EosId,
    beam: int = 4,
    alpha: float = 0.6,
    nbest: int = 1,
    key: Key | None = None,
    penalty: Penalty = length_penalty,
    rules: Sequence[Rule] = (),
    device: Device = "cpu",
) -> list[list[Hypothesis]]:
    """Beam search, ranking hypotheses by log P / length penalty.

    Each step keeps the `beam` best alive hypotheses of a sentence. A hypothesis finishes if its </s> is among the
    `beam` best candidates. With `beam` 1 this is greedy search, but for tokens that are equally probable to the last
    bit, of which either may take another. A sentence leaves the batch when it is
        - pruned by bound: no alive hypothesis can score better than the `nbest` best finished ones any more;
        - finished: `beam` hypotheses are, and the best of them scores no less than the best alive one as it stands;
        - at its length limit: the alive hypotheses are cut.

    Args:
        beam: alive hypotheses per sentence.
        alpha: α of the length penalty, at least 0.
        nbest: hypotheses to return per sentence, at most `beam`.
        key: of hypotheses whose ids have equal keys, as a text spelled by other pieces, only the best counts. Until
            `nbest` are left, a finished sentence is searched on; its best hypothesis is that without `key`.
        decode, state, max_lengths, bos_id, eos_id, penalty, rules, device: as for `greedy_search`.

    Returns:
        Per sentence 1 to `nbest` hypotheses, best first; those cut at the limit come after all that finished. NaN
        logits, or rules that leave nothing, end a sentence, with the empty hypothesis of `greedy_search` if none has
        finished.

    Raises:
        TypeError, ValueError: as `greedy_search`; or `nbest` is more than `beam`, either is below 1, or α below 0.
    """
    check_alpha(alpha)
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest={nbest} must be between 1 and beam={beam}")
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)
    expansion = _MostProbable(beam, eos_ids)
    return search_beams(
        decode, state, logits, limits, expansion, beam=beam, alpha=alpha, nbest=nbest, key=key, penalty=penalty,
        rules=tuple(rules), device=device,
    )  # fmt: skip


class Continuations(NamedTuple):
    """How the alive hypotheses of each sentence go on, best first; on the host."""

    # Of those that do, some of which may be impossible (-inf), each (B, W').
    log_probs: Tensor
    rows: Tensor  # that they continue
    tokens: Tensor
    # Of those that end by </s>, all possible: place of the sentence, log P, row, token.
    ended: Sequence[tuple[int, float, int, int]]
    may_be_cut: Tensor | None = None  # (B, W'), those of the first that count where they reach the limit; None: all


class Expansion(Protocol):
    """Finds how hypotheses go on."""

    def __call__(self, logits: Tensor, ruled: Tensor | None, log_probs: Tensor) -> Continuations:
        """The continuations of the hypotheses with log-probabilities (B, W).

        They come from logits (R, V) or, if rules made some, log-probabilities `ruled` (R, V).
        """

    def keep(self, kept: Tensor) -> None:
        """Go on with these sentences, by their places in the last call."""


def search_beams(
    decode: Decode[State],
    state: State,
    logits: Tensor,
    limits: Sequence[int],
    expansion: Expansion,
    *,
    beam: int,
    alpha: float,
    nbest: int,
    key: Key | None,
    penalty: Penalty,
    rules: Sequence[Rule],
    device: Device,
) -> list[list[Hypothesis]]:
    """The loop of beam search, from what `prefill` returns; otherwise as `beam_search`."""
    history, length, ruled = History(), 0, None
    outputs, sentences = [Outputs(history, key) for _ in limits], list(range(len(limits)))
    last_divisors = [penalty(limit, alpha) for limit in limits]
    log_probs = torch.zeros((len(limits), 1))  # (B, W), on the host
    prefixes = torch.empty((len(limits), 0), dtype=torch.int64, device=device)  # (R, t), for rules alone
    while sentences:
        length += 1
        divisor = penalty(length, alpha)
        if rules:
            row_sentences = [sentence for sentence in sentences for _ in range(log_probs.size(1))]
            ruled = ruled_log_probs(logits, rules, prefixes, row_sentences)
        found = expansion(logits, ruled, log_probs)

        # Finished
        for i, log_prob, row, token in found.ended:
            outputs[sentences[i]].add_finished(log_prob / divisor, log_prob, (length - 1, row, token))

        # Over
        kept = []
        for i, (sentence, best) in enumerate(zip(sentences, found.log_probs[:, 0].tolist(), strict=True)):
            if length == limits[sentence]:
                _cut(outputs[sentence], found, i, length, divisor)
            elif not outputs[sentence].is_over(best / divisor, best / last_divisors[sentence], beam, nbest):
                kept.append(i)

        # Alive
        log_probs, rows, tokens = found[:3]
        if len(kept) < len(sentences):
            sentences, index = [sentences[i] for i in kept], torch.tensor(kept, dtype=torch.int64)
            log_probs, rows, tokens = log_probs[index], rows[index], tokens[index]
            expansion.keep(index)
        if sentences:
            history.append(rows.flatten(), tokens.flatten())
            rows, tokens = to_device(torch.stack((rows, tokens)), device).unbind()
            if rules:
                prefixes = torch.cat((prefixes[rows.flatten()], tokens.view(-1, 1)), dim=1)
            state = state.select(rows)  # before `decode`, which needs the memory of the old one
            logits, state = decode(tokens.flatten(), state)
    return [output.best(nbest) for output in outputs]


def _cut(output: Outputs, found: Continuations, i: int, length: int, divisor: float) -> None:
    """The alive hypotheses of the sentence at place i are at their limit."""
    counts = [True] * found.rows.size(1) if found.may_be_cut is None else found.may_be_cut[i].tolist()
    alive = zip(*(x[i].tolist() for x in found[:3]), strict=True)
    for log_prob, row, token in itertools.compress(alive, counts):
        output.add_cut(log_prob / divisor, log_prob, (length - 1, row, token))


class _MostProbable:
    """The most probable continuations of each sentence: the expansion of a beam search."""

    def __init__(self, beam: int, eos_ids: frozenset[int]) -> None:
        self._beam, self._eos_ids = beam, eos_ids

    def __call__(self, logits: Tensor, ruled: Tensor | None, log_probs: Tensor) -> Continuations:
        num_sentences, num_beams = log_probs.shape
        num_candidates = (1 + len(self._eos_ids)) * self._beam
        # Each beam has E continuations that end, so of (1 + E)·beam candidates at least `beam` go on.
        k = min(num_candidates, logits.size(-1))
        top = log_softmax_topk(logits, k) if ruled is None else grouped_topk(ruled, k)
        step_log_probs, tokens = to_host(*top)  # (R, k): one read from the device per step
        totals = log_probs[:, :, None] + step_log_probs.view(num_sentences, num_beams, k)
        best, index = totals.flatten(1).topk(min(num_candidates, num_beams * k))  # (B, C)
        index += torch.arange(0, totals.numel(), num_beams * k)[:, None]
        rows, tokens = index // k, tokens.take(index)
        num_alive = max(1, min(self._beam, best.size(1) - len(self._eos_ids) * num_beams))  # W'

        columns: list[int] = []  # of the alive ones, sentence by sentence
        places: list[tuple[int, int]] = []  # of those that end
        for i, ids in enumerate(tokens.tolist()):
            if self._eos_ids.isdisjoint(ids):
                columns += range(num_alive)
                continue
            is_end = [token in self._eos_ids for token in ids]
            places += [(i, column) for column in itertools.compress(range(self._beam), is_end)]
            columns += [column for column, ends in enumerate(is_end) if not ends][:num_alive] or [len(ids) - 1]
        values, numbers, ids_there = best.numpy(), rows.numpy(), tokens.numpy()  # which are read faster one by one
        ended = [
            (place[0], float(values[place]), int(numbers[place]), int(ids_there[place]))
            for place in places
            if values[place] > -math.inf
        ]
        if not places:
            return Continuations(best[:, :num_alive], rows[:, :num_alive], tokens[:, :num_alive], ended)
        if best.size(1) <= len(self._eos_ids) * num_beams:  # where all candidates end, none goes on
            best = best.masked_fill(torch.isin(tokens, torch.tensor([*self._eos_ids])), -torch.inf)
        chosen = torch.tensor(columns).view(num_sentences, num_alive)
        return Continuations(best.gather(1, chosen), rows.gather(1, chosen), tokens.gather(1, chosen), ended)

    def keep(self, kept: Tensor) -> None:
        """Nothing is kept but log-probabilities, which the search has."""

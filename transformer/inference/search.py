"""Greedy and beam search (section 6.1) as pure functions of a decode callable; no model is imported here.

Dimension key: B sentences still searched, W hypotheses alive per sentence, R = B·W, those of a sentence side by side;
V vocabulary, C candidates per sentence, t tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor


class SearchState(Protocol):
    """What the search needs of the decoder's memory; it never looks inside."""

    def select(self: State, rows: Tensor) -> State:
        """Make hypothesis i the continuation of old hypothesis rows[i]."""

    def keep_sentences(self: State, sentences: Tensor) -> State:
        """Forget all sentences but these."""


# Of tokens, whose largest element is found first; vocabularies are multiples of 8.
_GROUP_SIZE = 8
_ROWS_AT_A_TIME = 64

State = TypeVar("State", bound=SearchState)
# From the last tokens (R,) int64 and a state: logits (R, V) of the next token, and the state after the last.
Decode = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class Hypothesis:
    """One output: its ids with </s> (without, if it was cut at its limit), log P(Y|X) in nats, and its score."""

    ids: list[int]
    log_prob: float
    score: float


def length_penalty(length: int, alpha: float) -> float:
    """((5 + |Y|) / 6)^α of Wu et al. 2016, by which log P is divided; |Y| counts </s>."""
    return float(((5 + length) / 6) ** alpha)


@torch.no_grad()
def greedy_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: int,
    eos_id: int,
    alpha: float = 0.6,
    device: torch.device | str = "cpu",
) -> list[Hypothesis]:
    """Take the most probable token, until </s> or the sentence's own limit.

    Args:
        decode: gives the next token's logits.
        state: before the first token, one hypothesis per sentence.
        max_lengths: per sentence, the most tokens it may produce, </s> included; at least 1.
        bos_id, eos_id: the ids of <s> and </s>.
        alpha: of the penalty in the score; it changes no output.
        device: where `decode` wants its tokens.

    Returns:
        One hypothesis per sentence.
    """
    found: dict[int, Hypothesis] = {}
    sentences = torch.arange(len(max_lengths))  # which sentence each row is
    limits = torch.tensor(list(max_lengths), dtype=torch.int64)
    prefixes = torch.full((len(sentences), 1), bos_id, device=device)
    log_probs = torch.zeros(len(sentences), device=device)
    while len(sentences):
        logits, state = decode(prefixes[:, -1], state)
        best, tokens = top_log_probs(logits, 1)  # (B, 1)
        log_probs = log_probs + best[:, 0]
        prefixes = torch.cat((prefixes, tokens), dim=1)
        length = prefixes.size(1) - 1
        is_over = (tokens[:, 0] == eos_id).cpu() | (limits == length)
        if not is_over.any():
            continue
        for row in is_over.nonzero().flatten().tolist():
            log_prob = log_probs[row].item()
            ids = prefixes[row, 1:].tolist()
            found[int(sentences[row])] = Hypothesis(ids, log_prob, log_prob / length_penalty(length, alpha))
        rows = (~is_over).nonzero().flatten()
        sentences, limits, rows = sentences[rows], limits[rows], rows.to(device)
        prefixes, log_probs = prefixes[rows], log_probs[rows]
        state = state.keep_sentences(rows).select(rows)
    return [found[i] for i in range(len(max_lengths))]


@torch.no_grad()
def beam_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: int,
    eos_id: int,
    beam: int = 4,
    alpha: float = 0.6,
    nbest: int = 1,
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """Keep the `beam` most probable unfinished hypotheses; rank finished ones by log P / length penalty.

    A hypothesis finishes when </s> is among the `beam` best continuations of its sentence. A sentence is over when no
    unfinished one can still beat the `nbest` best finished (log P only falls; the penalty is at most that of its
    limit), when `beam` have finished and the best of them beats what the unfinished would score if they ended now, or
    at its limit; it then leaves the batch. With `beam` 1 this is greedy search.

    Args:
        decode: gives the next token's logits.
        state: before the first token, one hypothesis per sentence.
        max_lengths: per sentence, the most tokens it may produce, </s> included; at least 1.
        bos_id, eos_id: the ids of <s> and </s>.
        beam: hypotheses kept per sentence.
        alpha: α of the length penalty.
        nbest: how many hypotheses are wanted per sentence, at most `beam`.
        device: where `decode` wants its tokens.

    Returns:
        Per sentence up to `nbest` hypotheses, best first. Those cut at the limit come after all that finished.

    Raises:
        ValueError: `nbest` is more than `beam`, or one of them less than 1.
    """
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest={nbest} must be between 1 and beam={beam}")
    finished: list[list[Hypothesis]] = [[] for _ in max_lengths]
    cut: list[list[Hypothesis]] = [[] for _ in max_lengths]
    sentences = list(range(len(max_lengths)))
    prefixes = torch.full((len(sentences), 1, 1), bos_id, device=device)  # (B, W, 1 + t)
    log_probs = torch.zeros((len(sentences), 1), device=device)  # (B, W)
    while sentences:
        logits, state = decode(prefixes[:, :, -1].flatten(), state)  # (R, V)
        candidates = _candidates(logits, log_probs, beam, eos_id)
        length = prefixes.size(2)
        for i, prefix, log_prob in candidates.finished(prefixes):
            finished[sentences[i]].append(_hypothesis([*prefix[1:], eos_id], log_prob, alpha))
        parents, tokens, log_probs = candidates.alive()
        width = prefixes.size(1)
        prefixes = torch.cat((_take_rows(prefixes, parents), tokens[:, :, None]), dim=2)
        best_alive = log_probs[:, 0].tolist()
        keep = []
        for i, sentence in enumerate(sentences):
            limit = max_lengths[sentence]
            if length == limit:
                cut[sentence] = [
                    _hypothesis(ids[1:], log_prob, alpha)
                    for ids, log_prob in zip(prefixes[i].tolist(), log_probs[i].tolist(), strict=True)
                    if math.isfinite(log_prob)
                ]
            elif math.isfinite(best_alive[i]):
                attainable = [best_alive[i] / length_penalty(size, alpha) for size in (length, limit)]
                if not _is_over(finished[sentence], *attainable, beam=beam, nbest=nbest):
                    keep.append(i)
        rows = torch.arange(len(sentences), device=device)[:, None] * width + parents  # (B, W)
        if len(keep) < len(sentences):
            kept = torch.tensor(keep, dtype=torch.int64, device=device)
            sentences = [sentences[i] for i in keep]
            prefixes, log_probs, rows = prefixes[kept], log_probs[kept], rows[kept]
            state = state.keep_sentences(kept)
        state = state.select(rows.flatten())
    return [
        _ranked(done)[:nbest] + _ranked(rest)[: max(0, nbest - len(done))]
        for done, rest in zip(finished, cut, strict=True)
    ]


@dataclass(frozen=True)
class _Candidates:
    """The best continuations of each sentence, best first; every tensor is (B, C)."""

    log_probs: Tensor
    parents: Tensor  # which of the W hypotheses is continued
    tokens: Tensor
    is_eos: Tensor
    is_finished: Tensor  # </s>, and among the `beam` best
    width: int  # how many stay alive

    def finished(self, prefixes: Tensor) -> Iterator[tuple[int, list[int], float]]:
        """Of each finished hypothesis which sentence's it is, its prefix out of `prefixes` (B, W, 1 + t), its log P."""
        i, c = self.is_finished.nonzero(as_tuple=True)
        found = prefixes[i, self.parents[i, c]], self.log_probs[i, c]
        return zip(i.tolist(), *(x.tolist() for x in found), strict=True)

    def alive(self) -> tuple[Tensor, Tensor, Tensor]:
        """Parents, tokens and log-probabilities of the `width` best that do not end, each (B, W), best first."""
        order = self.is_eos.to(torch.int8).argsort(dim=1, stable=True)[:, : self.width]
        return self.parents.gather(1, order), self.tokens.gather(1, order), self.log_probs.gather(1, order)


def _candidates(logits: Tensor, log_probs: Tensor, beam: int, eos_id: int) -> _Candidates:
    (num_sentences, width), vocab_size = log_probs.shape, logits.size(-1)
    # The best continuations of a sentence are among the best of each of its hypotheses.
    steps, tokens = (
        x.view(num_sentences, width, -1) for x in top_log_probs(logits, min(2 * beam, vocab_size))
    )  # (B, W, min(2 * beam, V))
    # Each hypothesis has one </s> continuation, so that among 2 * beam candidates at least `beam` do not end.
    num_candidates = min(2 * beam, width * vocab_size)
    top, index = (log_probs[:, :, None] + steps).flatten(1).topk(num_candidates)  # (B, C)
    tokens = tokens.flatten(1).gather(1, index)
    is_eos = tokens == eos_id
    # A decode callable forbids a token by giving it a logit of -inf.
    is_finished = is_eos & (torch.arange(num_candidates, device=top.device) < beam) & top.isfinite()
    return _Candidates(top, index // steps.size(2), tokens, is_eos, is_finished, min(beam, num_candidates - width))


def top_log_probs(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most probable tokens of each row, best first.

    `topk` looks at a row's elements one by one; the largest of strided groups come from vector instructions. The k best
    are in the k groups whose largest elements are best.

    Args:
        logits: (R, V).
        k: at most V.

    Returns:
        Their log-probabilities, (R, k) float32, and their ids, (R, k) int64.
    """
    # On a CPU, as many rows at a time as its cache holds.
    blocks = logits.split(_ROWS_AT_A_TIME) if logits.device.type == "cpu" else (logits,)
    tops, indices = zip(*(_top_log_probs(block, k) for block in blocks), strict=True)
    return torch.cat(tops), torch.cat(indices)


def _top_log_probs(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    log_probs = logits.log_softmax(dim=-1, dtype=torch.float32)
    num_groups = log_probs.size(1) // _GROUP_SIZE
    if log_probs.size(1) % _GROUP_SIZE or k > num_groups:
        best_of_all = log_probs.topk(k)
        return best_of_all.values, best_of_all.indices
    groups = log_probs.view(-1, _GROUP_SIZE, num_groups)  # group g is the column [:, :, g]
    best = groups.amax(dim=1).topk(k).indices  # (R, k)
    candidates = groups.gather(2, best[:, None].expand(-1, _GROUP_SIZE, -1)).flatten(1)  # (R, _GROUP_SIZE * k)
    top, index = candidates.topk(k)
    return top, index // k * num_groups + best.gather(1, index % k)


def _take_rows(prefixes: Tensor, parents: Tensor) -> Tensor:
    return prefixes.gather(1, parents[:, :, None].expand(-1, -1, prefixes.size(2)))


def _hypothesis(ids: list[int], log_prob: float, alpha: float) -> Hypothesis:
    return Hypothesis(ids, log_prob, log_prob / length_penalty(len(ids), alpha))


def _is_over(finished: list[Hypothesis], now: float, at_most: float, *, beam: int, nbest: int) -> bool:
    """Whether a sentence needs no further search, by what its best unfinished hypothesis would score if it ended now,
    and by what it can score at most.
    """
    ranked = _ranked(finished)
    if len(ranked) >= nbest and ranked[nbest - 1].score >= at_most:
        return True
    # The bound is loose. Of many finished ones alone nothing follows: with a wide beam they may all be improbable.
    return len(ranked) >= beam and ranked[0].score >= now


def _ranked(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)

"""Greedy and beam search (section 6.1) over any decode callable.

Dimension key: B unfinished sentences, W beams (alive hypotheses) per sentence, R = B·W rows, sentence by sentence;
V vocabulary, C candidates per sentence, E ids of </s>, t tokens so far.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from transformer.inference.penalties import Penalty, check_alpha, length_penalty
from transformer.inference.rules import Rule, ruled_log_probs, whole_numbers
from transformer.inference.topk import grouped_topk, log_softmax_topk


class SearchState(Protocol):
    """The decoder's state, which a search reorders but never reads.

    A state that keeps one row per hypothesis:

        @dataclass(frozen=True)
        class Cache:
            past: Tensor  # (R, t, D)

            def select(self, rows: Tensor) -> Cache:
                return Cache(self.past[rows.flatten()])
    """

    def select(self: State, rows: Tensor) -> State:
        """Repeat, reorder and drop hypotheses and sentences.

        Args:
            rows: (B', W') int64: hypothesis j of sentence i continues old row rows[i, j]. Old rows are numbered
                sentence by sentence. All entries of a row belong to one old sentence; sentences keep their order.
        """


State = TypeVar("State", bound=SearchState)
# From the last tokens (R,) int64 and a state: logits (R, V) of the next token, and the state after the last.
Decode = Callable[[Tensor, State], tuple[Tensor, State]]
BosId = int | Sequence[Sequence[int]]
EosId = int | Collection[int]
Device = torch.device | str


@dataclass(frozen=True)
class Hypothesis:
    """One output of a search."""

    ids: list[int]  # with </s>, unless cut at the length limit
    log_prob: float  # log P(Y|X) in nats
    score: float  # log P over length penalty


NOTHING = Hypothesis([], -math.inf, -math.inf)  # where logits are NaN, or rules leave nothing
Key = Callable[[list[int]], Hashable]


@torch.no_grad()
def greedy_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: BosId,
    eos_id: EosId,
    alpha: float = 0.6,
    penalty: Penalty = length_penalty,
    rules: Sequence[Rule] = (),
    device: Device = "cpu",
) -> list[Hypothesis]:
    """Take the most probable token until </s> or the length limit.

    Args:
        decode: gives the next token's logits.
        state: before the first token, one hypothesis per sentence.
        max_lengths: per sentence, the most tokens it may produce, </s> included; at least 1.
        bos_id: the id of <s>; or a prompt for each sentence, <s> included, all equally long. Neither the output nor its
            length and log P include it.
        eos_id: the id of </s>, or several ids that all end a hypothesis.
        alpha: α of the length penalty in the score; it changes no output.
        penalty: the length penalty, from length and α.
        rules: that every hypothesis obeys, applied in this order.
        device: where `decode` wants its tokens.

    Returns:
        One hypothesis per sentence. Where logits are NaN, or rules leave nothing, it has no ids, and log P and score
        are -inf.

    Raises:
        TypeError: `eos_id` or `max_lengths` has something other than ints.
        ValueError: a limit is less than 1, or the prompts are not one per sentence, equally long and not empty.
    """
    rules = tuple(rules)
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)

    def best_token(logits: Tensor, rows: Sequence[int], outputs: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        if not rules:
            return log_softmax_topk(logits, 1)
        return grouped_topk(ruled_log_probs(logits, rules, prefixes_of(outputs, rows, logits.device), rows), 1)

    return generate(decode, state, logits, limits, eos_ids, best_token, alpha, penalty)


def generate(
    decode: Decode[State],
    state: State,
    logits: Tensor,
    limits: Sequence[int],
    eos_ids: Collection[int],
    next_token: Callable[[Tensor, Sequence[int], Sequence[Sequence[int]]], tuple[Tensor, Tensor]],
    alpha: float,
    penalty: Penalty = length_penalty,
) -> list[Hypothesis]:
    """Append the tokens that `next_token` picks: the loop of greedy search and sampling.

    Args:
        state, logits, limits: a row per hypothesis, otherwise as `prefill` returns them.
        next_token: from logits (R, V), the numbers of these rows, and the tokens of all rows so far, of which these
            have equally many: log-probabilities and tokens, (R, 1).
    """
    outputs: list[list[int]] = [[] for _ in limits]
    found, rows = [NOTHING] * len(limits), list(range(len(limits)))
    log_probs = torch.zeros((len(rows), 1), device=logits.device)
    while rows:
        step_log_probs, tokens = next_token(logits, rows, outputs)
        log_probs = log_probs + step_log_probs  # (R, 1)
        # One exchange with the device per step; float64 holds both exactly, and float32 ids below 2^24.
        dtype = torch.float32 if logits.device.type == "mps" else torch.float64  # which Apple GPUs do not have
        exchange = torch.cat((tokens.to(dtype), log_probs.to(dtype)), dim=1).tolist()
        kept = []
        for i, (row, (token, log_prob)) in enumerate(zip(rows, exchange, strict=True)):
            ids = outputs[row]
            ids.append(int(token))
            if token not in eos_ids and len(ids) < limits[row] and math.isfinite(log_prob):
                kept.append(i)
            elif math.isfinite(log_prob):
                found[row] = Hypothesis(ids, log_prob, log_prob / penalty(len(ids), alpha))
        if kept and len(kept) < len(rows):
            index = torch.tensor(kept, device=logits.device)
            tokens, log_probs, state = tokens[index], log_probs[index], state.select(index[:, None])
        rows = [rows[i] for i in kept]
        if rows:
            logits, state = decode(tokens[:, 0], state)
    return found


def prefixes_of(outputs: Sequence[Sequence[int]], rows: Sequence[int], device: Device) -> Tensor:
    """The tokens (R, t) of these rows, for rules."""
    return torch.tensor([outputs[row] for row in rows], dtype=torch.int64, device=device)


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
    rules = tuple(rules)
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)
    eos = torch.tensor(sorted(eos_ids), device=device)
    results, sentences = [Outputs(key) for _ in limits], list(range(len(limits)))
    prefixes = torch.empty((len(limits), 1, 0), dtype=torch.int64, device=device)  # (B, W, t)
    log_probs = torch.zeros((len(limits), 1), device=device)  # (B, W)
    while sentences:
        num_beams, length = prefixes.size(1), prefixes.size(2) + 1
        divisor = penalty(length, alpha)
        # Each beam has E continuations that end, so of (1 + E)·beam candidates at least `beam` go on.
        k = min((1 + len(eos)) * beam, logits.size(-1))
        if rules:
            row_sentences = [sentence for sentence in sentences for _ in range(num_beams)]
            top = grouped_topk(ruled_log_probs(logits, rules, prefixes.flatten(0, 1), row_sentences), k)
        else:
            top = log_softmax_topk(logits, k)
        (log_probs, parents, tokens), (end_log_probs, end_parents, ends) = _continuations(*top, log_probs, beam, eos)
        num_alive = tokens.size(1)
        exchange = torch.cat((log_probs, end_log_probs), dim=1).tolist()  # one with the device per step

        # Finished
        finished = [(i, j) for i, row in enumerate(exchange) for j, x in enumerate(row[num_alive:]) if x > -math.inf]
        if finished:
            b, f = torch.tensor(finished, device=device).unbind(1)
            outputs = torch.cat((prefixes[b, end_parents[b, f]], ends[b, f, None]), dim=1)
            for (i, j), ids in zip(finished, outputs, strict=True):
                log_prob = exchange[i][num_alive + j]
                results[sentences[i]].add_finished(log_prob / divisor, log_prob, ids)

        # Alive
        prefixes = torch.cat((gather_beams(prefixes, parents), tokens[:, :, None]), dim=2)  # (B, W', t)
        rows = torch.arange(len(sentences), device=device)[:, None] * num_beams + parents

        # Over
        kept = []
        for i, (sentence, row) in enumerate(zip(sentences, exchange, strict=True)):
            now, bound = row[0] / divisor, row[0] / penalty(limits[sentence], alpha)
            if length == limits[sentence]:
                for x, ids in zip(row[:num_alive], prefixes[i], strict=True):
                    results[sentence].add_cut(x / divisor, x, ids)
            elif not results[sentence].is_over(now, bound, beam, nbest):
                kept.append(i)
        if len(kept) < len(sentences):
            sentences, index = [sentences[i] for i in kept], torch.tensor(kept, dtype=torch.int64, device=device)
            prefixes, log_probs, rows = prefixes[index], log_probs[index], rows[index]
        if sentences:
            state = state.select(rows)
            logits, state = decode(prefixes[:, :, -1].flatten(), state)
    return [outputs.best(nbest) or [NOTHING] for outputs in results]


class Outputs:
    """The hypotheses of a sentence that are finished or cut, as they should be returned."""

    def __init__(self, key: Key | None) -> None:
        self._key = key
        self._outputs: list[tuple[float, float, Tensor]] = []  # score, log P, ids on the device
        self._keys: list[Hashable] = []  # if there is a key
        self._num_finished = 0
        self._highest = math.inf  # no later output may score more

    def add_finished(self, score: float, log_prob: float, ids: Tensor) -> None:
        """Insert by score."""
        self._num_finished += 1
        if score > self._highest:
            return
        key = None
        if self._key is not None:
            key = self._key(ids.tolist())
            if key in self._keys:
                same = self._keys.index(key)
                if self._outputs[same][0] >= score:
                    return
                del self._outputs[same], self._keys[same]
        place = bisect.bisect_right(self._outputs, -score, key=lambda output: -output[0])
        self._outputs.insert(place, (score, log_prob, ids))
        self._keys.insert(place, key)

    def add_cut(self, score: float, log_prob: float, ids: Tensor) -> None:
        """Append, unless a search for the best alone would have ended before."""
        if not math.isfinite(log_prob) or self._highest < math.inf:
            return
        key = None if self._key is None else self._key(ids.tolist())
        if key is None or key not in self._keys:
            self._outputs.append((score, log_prob, ids))
            self._keys.append(key)

    def is_over(self, now: float, bound: float, beam: int, nbest: int) -> bool:
        """Whether to stop, the best alive hypothesis scoring `now` as it is and at most `bound`."""
        has_all = len(self._outputs) >= nbest
        is_pruned = has_all and self._outputs[nbest - 1][0] >= bound
        # The bound is loose. Counting alone does not do: with many beams all that finished may be improbable.
        if self._num_finished >= beam and self._outputs[0][0] >= now:
            self._highest = self._outputs[0][0]  # what follows fills up the list
        return is_pruned or (has_all and self._highest < math.inf) or not math.isfinite(now)

    def best(self, nbest: int) -> list[Hypothesis]:
        """The first `nbest`."""
        return [Hypothesis(ids.tolist(), log_prob, score) for score, log_prob, ids in self._outputs[:nbest]]


def prefill(
    decode: Decode[State], state: State, max_lengths: Sequence[int], bos_id: BosId, eos_id: EosId, device: Device
) -> tuple[list[int], frozenset[int], Tensor, State]:
    """Check the arguments of a search and decode the start tokens.

    Returns limits, ids of </s>, logits (B, V) of the first token and the state before it.
    """
    limits = whole_numbers("max_lengths", max_lengths)
    if min(limits, default=1) < 1:
        raise ValueError(f"max_lengths has {min(limits)}: every limit must be at least 1")
    eos_ids = frozenset(eos_id if isinstance(eos_id, Collection) else [eos_id])
    if not all(isinstance(token, int) for token in eos_ids):
        raise TypeError(f"eos_id={eos_id!r} must be an int or a collection of ints")
    prompts = [[bos_id]] * len(limits) if isinstance(bos_id, int) else bos_id
    lengths = {len(prompt) if isinstance(prompt, Sequence) else 0 for prompt in prompts}
    if len(prompts) != len(limits) or len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"bos_id must be an int or {len(limits)} equally long prompts, one per sentence")
    logits = torch.empty((0, 1), device=device)
    if limits:
        for tokens in torch.tensor(prompts, device=device).unbind(1):  # (B,)
            logits, state = decode(tokens, state)
    return limits, eos_ids, logits, state


def _continuations(
    step_log_probs: Tensor, tokens: Tensor, log_probs: Tensor, beam: int, eos: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The best alive and the best finished continuations of each sentence, from the k best tokens (R, k) of each row.

    Both are log-probabilities (-inf where nothing finishes), the beams they continue, and tokens, each (B, C).
    """
    num_sentences, num_beams = log_probs.shape
    totals = log_probs[:, :, None] + step_log_probs.view(num_sentences, num_beams, -1)
    candidates = totals.flatten(1)
    top, index = candidates.topk(min((1 + len(eos)) * beam, candidates.size(1)))  # (B, C)
    parents, tokens = index // totals.size(2), tokens.view(num_sentences, -1).gather(1, index)
    is_eos = (tokens[:, :, None] == eos).any(dim=2)
    num_alive = max(1, min(beam, top.size(1) - len(eos) * num_beams))
    order = is_eos.to(torch.int8).argsort(dim=1, stable=True)[:, :num_alive]  # (B, W')
    alive = (x.gather(1, order) for x in (top.masked_fill(is_eos, -torch.inf), parents, tokens))
    return tuple(alive), (top.masked_fill(~is_eos, -torch.inf)[:, :beam], parents, tokens)


def gather_beams(x: Tensor, beams: Tensor) -> Tensor:
    """Select beams (B, W') of x (B, W, t)."""
    return x.gather(1, beams[:, :, None].expand(-1, -1, x.size(2)))

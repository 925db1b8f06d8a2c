"""Beam search for outputs that contain given phrases, by vectorised dynamic beam allocation.

Post and Vilar 2018 (Fast Lexically Constrained Decoding with Dynamic Beam Allocation for NMT) divide the beam among
banks: the hypotheses that have met equally many tokens of their constraints. Hu et al. 2019 (Improved Lexically
Constrained Decoding for Translation and Monolingual Rewriting) do so with sorted tensors, for whole batches.

Progress is kept by automata (automata.py), one per phrase, so that a phrase counts whatever precedes it.

Dimension key: as in search.py; P distinct phrases, A distinct tokens in them, S states of all automata of a sentence,
N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transformer.inference.automata import Automata, Phrases
from transformer.inference.decoding import BosId, Decode, Device, EosId, State, prefill
from transformer.inference.exchange import to_device, to_host
from transformer.inference.hypotheses import Hypothesis, Key
from transformer.inference.penalties import Penalty, check_alpha, length_penalty
from transformer.inference.rules import Rule, ruled_log_probs
from transformer.inference.search import Continuations, beam_search, search_beams


@torch.no_grad()
def constrained_beam_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    constraints: Sequence[Phrases],
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
    """Beam search for hypotheses that contain given phrases.

    A hypothesis may end once each of its phrases occurs in it, token after token. A phrase that is given n times must
    occur n times without overlap, as `str.count` counts; different phrases may overlap or contain each other. log P,
    scores and the end of the search are those of `beam_search`, to which sentences without phrases go by themselves.

    Without rules, phrases occur whatever the beam. Rules come first: where one forbids the next token of a phrase, the
    hypothesis has to find another place for it, for which a larger beam helps.

    Args:
        constraints: per sentence its phrases, each a list of token ids.
        beam: hypotheses per sentence. With more than there are tokens in its phrases, each bank has one at least.
        decode, state, max_lengths, bos_id, eos_id, alpha, nbest, key, penalty, rules, device: as for `beam_search`.

    Returns:
        Per sentence 1 to `nbest` hypotheses, best first. Each contains all phrases, but for the empty hypothesis of
        `beam_search`: for NaN logits, where the model gives all of them the probability 0, and where no hypothesis has
        found a way through the rules.

    Raises:
        TypeError: as `beam_search`; or a phrase has something other than ints.
        ValueError: as `beam_search`; or the constraints are not one list per sentence, a phrase is empty, has an id of
            <s> or </s> or one that the vocabulary has not, or all together are longer than the sentence's limit.
    """
    check_alpha(alpha)
    if not 1 <= nbest <= beam:
        raise ValueError(f"nbest={nbest} must be between 1 and beam={beam}")
    constraints, rules = [list(phrases) for phrases in constraints], tuple(rules)
    if len(constraints) != len(max_lengths):
        raise ValueError(f"constraints are of {len(constraints)} sentences, and there are {len(max_lengths)}")
    prompts = [] if isinstance(bos_id, int) else list(bos_id)
    lengths = {len(prompt) if isinstance(prompt, Sequence) else 0 for prompt in prompts}
    if not isinstance(bos_id, int) and (len(prompts) != len(max_lengths) or len(lengths) > 1):
        raise ValueError(f"bos_id must be an int or {len(max_lengths)} equally long prompts, one per sentence")
    special = set(eos_id) if isinstance(eos_id, Collection) else {eos_id}
    for i, (phrases, limit) in enumerate(zip(constraints, max_lengths, strict=True)):
        _check(phrases, special | ({bos_id} if isinstance(bos_id, int) else set()), limit, f"constraints[{i}]")
    options: Any = {"beam": beam, "alpha": alpha, "nbest": nbest, "key": key, "penalty": penalty, "device": device}
    free, bound = ([i for i, x in enumerate(constraints) if bool(x) == is_bound] for is_bound in (False, True))
    if not bound:
        return beam_search(decode, state, max_lengths, bos_id=bos_id, eos_id=eos_id, rules=rules, **options)
    results: dict[int, list[Hypothesis]] = {}
    for indices in filter(None, (free, bound)):
        prompt = bos_id if isinstance(bos_id, int) else [bos_id[i] for i in indices]
        options["rules"] = [_Renumbered(rule, indices) for rule in rules]
        part, limits = state.select(to_device(indices, device)[:, None]), [max_lengths[i] for i in indices]
        if indices is free:
            found = beam_search(decode, part, limits, bos_id=prompt, eos_id=eos_id, **options)
        else:
            limits, eos_ids, logits, part = prefill(decode, part, limits, prompt, eos_id, device)
            automata = Automata.of([constraints[i] for i in bound], logits.size(-1))
            expansion = _Constrained(automata, eos_ids, beam, device)
            found = search_beams(decode, part, logits, limits, expansion, **options)
        results |= zip(indices, found, strict=True)
    return [results[i] for i in range(len(constraints))]


@dataclass(frozen=True)
class _Renumbered:
    """A rule of the whole call, for a search of some of its sentences."""

    rule: Rule
    numbers: Sequence[int]  # of these sentences in the call

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        return self.rule(log_probs, prefixes, [self.numbers[sentence] for sentence in sentences])


def _check(phrases: Phrases, special: Collection[int], limit: int, name: str) -> None:
    for phrase in phrases:
        if not isinstance(phrase, Sequence) or not all(isinstance(token, int) for token in phrase):
            raise TypeError(f"{name} has {phrase!r}: a phrase must be a list of ints")
        if not phrase:
            raise ValueError(f"{name} has an empty phrase")
        if found := sorted(set(phrase) & set(special)):
            raise ValueError(f"{name} has {list(phrase)}: {found[0]} is an id of <s> or </s>")
    if (num_tokens := sum(map(len, phrases))) > limit:
        raise ValueError(f"{name} has {num_tokens} tokens, more than the limit of {limit}")


class _Constrained:
    """The continuations of sentences that all have phrases: an `Expansion` of `search_beams`."""

    def __init__(self, automata: Automata, eos_ids: Collection[int], beam: int, device: Device) -> None:
        self._automata, self._beam, self._device = automata, beam, device
        self._alphabet = to_device(automata.alphabet, device)  # (B, A); all else is on the host
        self._eos = torch.tensor(sorted(eos_ids))
        self._places = automata.starts[:, None]  # (B, W, P)

    def __call__(self, logits: Tensor, ruled: Tensor | None, log_probs: Tensor) -> Continuations:
        step_log_probs = ruled_log_probs(logits, (), self._alphabet, ()) if ruled is None else ruled
        num_beams = log_probs.size(1)
        top, tokens = step_log_probs.topk(min(self._beam + len(self._eos), logits.size(-1)))  # (R, K)
        wanted = self._alphabet.clamp(min=0)[:, None].expand(-1, num_beams, -1).flatten(0, 1)  # (R, A)
        # One read from the device per step.
        top, tokens, of_wanted = to_host(top, tokens, step_log_probs.gather(1, wanted))
        candidates = _candidates(top, tokens, of_wanted, log_probs, self._places, self._automata)
        ends = (x.tolist() for x in candidates.finished(self._eos, self._automata.totals, self._beam))
        log_probs, banks, parents, tokens, self._places = candidates.allocate(self._eos, self._beam)
        ended = [
            (i, log_prob, i * num_beams + parent, token)
            for i, columns in enumerate(zip(*ends, strict=True))
            for log_prob, parent, token in zip(*columns, strict=True)
            if log_prob > -math.inf
        ]
        rows = parents + torch.arange(0, len(top), num_beams)[:, None]
        return Continuations(log_probs, rows, tokens, ended, banks == self._automata.totals[:, None])

    def keep(self, kept: Tensor) -> None:
        self._places, self._automata = self._places[kept], self._automata.select(kept)
        self._alphabet = to_device(self._automata.alphabet, self._device)


@dataclass(frozen=True)
class _Candidates:
    """Continuations of the alive hypotheses of each sentence."""

    log_probs: Tensor  # (B, N)
    banks: Tensor  # (B, N): tokens of the phrases that are met
    parents: Tensor  # (B, N): the beams they continue
    tokens: Tensor  # (B, N)
    places: Tensor  # (B, N, P): states of the automata

    def finished(self, eos: Tensor, totals: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the `beam` best that meet all phrases, those that end.

        Returns log-probabilities, parents and tokens, each (B, C).
        """
        complete = self.log_probs.masked_fill(self.banks < totals[:, None], -torch.inf)
        top, index = complete.topk(min(beam, complete.size(1)))  # (B, C)
        tokens = self.tokens.gather(1, index)
        return top.masked_fill(~torch.isin(tokens, eos), -torch.inf), self.parents.gather(1, index), tokens

    def allocate(self, eos: Tensor, beam: int) -> tuple[Tensor, ...]:
        """Share the beam among the banks.

        Returns all fields, of hypotheses that go on, the most probable first (B, W'). One slot is the best of the
        highest bank's: it meets another token at each step, so that all phrases are met after as many steps as they
        have tokens. Then comes the best of each bank, then the second of each, and among those of equal rank the more
        probable, so that a bank without hypotheses leaves its slots to the others.
        """
        scores, order = self.log_probs.masked_fill(torch.isin(self.tokens, eos), -torch.inf).sort(
            dim=1, descending=True, stable=True
        )
        banks = self.banks.gather(1, order).masked_fill(scores == -torch.inf, -1)  # (B, N)
        by_bank, places = banks.sort(dim=1, stable=True)
        first = torch.searchsorted(by_bank, by_bank)  # of its bank
        rank = torch.empty_like(places).scatter_(1, places, torch.arange(banks.size(1)) - first)
        rank = torch.where(banks < 0, banks.size(1), rank + 1)
        rank = rank.masked_fill((rank == 1) & (banks == banks.amax(dim=1, keepdim=True)), 0)
        chosen = rank.argsort(dim=1, stable=True)[:, :beam].sort(dim=1).values  # (B, W')
        index = order.gather(1, chosen)
        fields = (x.gather(1, index) for x in (self.banks, self.parents, self.tokens))
        places_of_chosen = self.places.gather(1, index[:, :, None].expand(-1, -1, self.places.size(2)))
        return scores.gather(1, chosen), *fields, places_of_chosen


def _candidates(
    top: Tensor, tokens: Tensor, of_wanted: Tensor, log_probs: Tensor, places: Tensor, automata: Automata
) -> _Candidates:
    """Continuations by the K most probable tokens, and all those of the phrases.

    From log-probabilities and ids of the most probable tokens, both (R, K), and log-probabilities (R, A) of those of
    the phrases. Each token is there once: what is both is masked among the most probable.
    """
    num_sentences, num_beams = log_probs.shape
    top, tokens, of_wanted = (x.view(num_sentences, num_beams, -1) for x in (top, tokens, of_wanted))
    wanted = automata.alphabet[:, None].expand(-1, num_beams, -1)  # (B, W, A)
    of_wanted = of_wanted.masked_fill(wanted < 0, -torch.inf)
    is_wanted = (tokens[..., None] == wanted[:, :, None]).any(dim=3)
    of_both = torch.cat((top.masked_fill(is_wanted, -torch.inf), of_wanted), dim=2)
    num_top, num_wanted = tokens.size(2), wanted.size(2)
    symbols = [num_wanted] * num_top + list(range(num_wanted))  # of the candidates: columns of the automata
    next_places = automata.after(places)  # (B, W, A + 1, P)
    parents = torch.arange(num_beams)[:, None].expand(num_sentences, -1, len(symbols))
    return _Candidates(
        (of_both + log_probs[:, :, None]).flatten(1),
        automata.progress(next_places)[:, :, symbols].flatten(1),
        parents.flatten(1),
        torch.cat((tokens, wanted.clamp(min=0)), dim=2).flatten(1),  # a decoder reads those of masked ones too
        next_places[:, :, symbols].flatten(1, 2),
    )

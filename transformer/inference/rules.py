"""Rules that a search obeys: what a hypothesis may not, or must, go on with.

Dimension key: R rows (hypotheses), V vocabulary, t tokens so far, the same number in every row.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from transformer.inference.exchange import to_device


class Rule(Protocol):
    """Lowers the log-probabilities of the next token, mostly to -inf for those that it forbids.

    It may raise none: a beam search prunes by what a hypothesis can still reach. What is left is not normalised again,
    so log P of a hypothesis stays the model's own.
    """

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        """Log-probabilities (R, V) float32 after the rule.

        Args:
            log_probs: (R, V) float32, of the model or after other rules; not to be changed in place.
            prefixes: (R, t) int64, the tokens of each hypothesis, without <s> and without its prompt.
            sentences: of each row, the number of its sentence in the call of the search, from 0.
        """


def apply_rules(rules: Sequence[Rule], log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
    """One rule after the other; arguments and result as of a rule."""
    for rule in rules:
        log_probs = rule(log_probs, prefixes, sentences)
    return log_probs


def ruled_log_probs(logits: Tensor, rules: Sequence[Rule], prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
    """`log_softmax` of logits (R, V) in float32, then the rules."""
    return apply_rules(rules, logits.log_softmax(dim=-1, dtype=torch.float32), prefixes, sentences)


def whole_numbers(name: str, given: Iterable[int]) -> list[int]:
    """What is given as ints; TypeError, with its name, for other numbers and for what has none."""
    try:
        listed = list(given)
        return [operator.index(number) for number in listed]
    except TypeError:
        raise TypeError(f"{name}={given!r} must be a collection of ints") from None


@dataclass(frozen=True)
class Forbidden:
    """Tokens that no hypothesis has.

    Args:
        ids: of these tokens, possibly none.

    Raises:
        TypeError: they are no collection of ints.
        ValueError: a search applies it, and one of them is outside the vocabulary.
    """

    ids: Collection[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(whole_numbers("ids", self.ids)))

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:  # noqa: ARG002
        """Sets them to -inf."""
        if not self.ids:
            return log_probs
        _check_ids(self.ids, log_probs.size(1))
        return log_probs.index_fill(1, to_device(sorted(self.ids), log_probs.device), -torch.inf)


@dataclass(frozen=True)
class MinLength:
    """No </s> before a hypothesis has its minimum length.

    Args:
        lengths: per sentence, the fewest tokens of a hypothesis, </s> included.
        eos_ids: the ids of </s>.

    TypeError unless both are collections of ints.
    """

    lengths: Sequence[int]
    eos_ids: Collection[int]

    def __post_init__(self) -> None:
        for name in ("lengths", "eos_ids"):
            object.__setattr__(self, name, tuple(whole_numbers(name, getattr(self, name))))

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        """Sets </s> to -inf where a hypothesis that ends now would be too short."""
        length = prefixes.size(1) + 1
        is_short = [length < self.lengths[sentence] for sentence in sentences]
        if not any(is_short):
            return log_probs
        ended = Forbidden(self.eos_ids)(log_probs, prefixes, sentences)
        return torch.where(to_device(is_short, log_probs.device)[:, None] > 0, ended, log_probs)


@dataclass(frozen=True)
class NoRepeatNgram:
    """No n-gram comes twice in a hypothesis (Paulus et al. 2018, section 2.5, for n = 3).

    Args:
        size: n, at least 1, in tokens.
    """

    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.size, numbers.Integral) or self.size < 1:
            raise ValueError(f"size={self.size!r} of an n-gram must be a whole number of at least 1")

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:  # noqa: ARG002
        """Sets to -inf each token that followed the last n - 1 ones before."""
        if prefixes.size(1) < self.size:
            return log_probs
        ngrams = prefixes.unfold(1, self.size, 1)  # (R, t - n + 1, n)
        last = prefixes[:, prefixes.size(1) - self.size + 1 :]  # (R, n - 1)
        is_repeated = (ngrams[:, :, :-1] == last[:, None]).all(dim=2)  # (R, t - n + 1)
        # A column more takes what is not repeated: there is no exchange with the device.
        column = ngrams[:, :, -1].masked_fill(~is_repeated, log_probs.size(1))
        rows = torch.zeros((len(log_probs), log_probs.size(1) + 1), dtype=torch.bool, device=log_probs.device)
        return log_probs.masked_fill(rows.scatter(1, column, True)[:, :-1], -torch.inf)


@dataclass(frozen=True)
class ForcedPrefix:
    """Each hypothesis begins with its sentence's prefix; other rules hold after it.

    Args:
        prefixes: per sentence, the ids with which its hypotheses begin; possibly none.
        rules: that must not contradict a prefix, such as `NoRepeatNgram`.

    Raises:
        TypeError: a prefix is no collection of ints.
        ValueError: an id is negative; or a search applies it, and an id is outside the vocabulary.
    """

    prefixes: Sequence[Sequence[int]]
    rules: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", [whole_numbers("prefix", prefix) for prefix in self.prefixes])
        object.__setattr__(self, "rules", tuple(self.rules))
        for prefix in self.prefixes:
            _check_ids(prefix)

    def __call__(self, log_probs: Tensor, prefixes: Tensor, sentences: Sequence[int]) -> Tensor:
        """Sets all but the next token of the prefix to -inf, or where that is over, obeys the other rules."""
        t = prefixes.size(1)
        forced = [self.prefixes[sentence][t] if t < len(self.prefixes[sentence]) else -1 for sentence in sentences]
        if max(forced, default=-1) < 0:
            return apply_rules(self.rules, log_probs, prefixes, sentences)
        _check_ids([token for token in forced if token >= 0], log_probs.size(1))
        token = to_device(forced, log_probs.device)[:, None]  # (R, 1)
        is_token = torch.arange(log_probs.size(1), device=log_probs.device) == token  # (R, V)
        only = log_probs.masked_fill(~is_token, -torch.inf)
        if min(forced) >= 0:
            return only
        return torch.where(token >= 0, only, apply_rules(self.rules, log_probs, prefixes, sentences))


def _check_ids(ids: Collection[int], vocab_size: int | None = None) -> None:
    """ValueError unless all are in a vocabulary of this size, or of any."""
    for token in ids:
        if token < 0 or (vocab_size is not None and token >= vocab_size):
            known = "from 0" if vocab_size is None else f"from 0 to {vocab_size - 1}"
            raise ValueError(f"a rule has the id {token}: it must be {known}")

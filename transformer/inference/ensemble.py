"""Ensembles: several models translate together, by the mean of their probabilities at each step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.config import SearchConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, DataError, DeviceError
from transformer.inference.decoding import Decode, SearchState
from transformer.inference.translator import Translator
from transformer.model.transformer import Transformer


@dataclass(frozen=True)
class EnsembleState:
    """The states of all models."""

    states: tuple[SearchState, ...]

    def select(self, rows: Tensor) -> EnsembleState:
        """The same hypotheses of each state."""
        return EnsembleState(tuple(state.select(rows) for state in self.states))


def mean_probabilities(decodes: Sequence[Decode[Any]]) -> Decode[EnsembleState]:
    """The decode callable of an ensemble: the log of its mean probabilities.

    It gives float32 log-probabilities (R, V), of models with the same vocabulary, and has a state for each of them.
    """

    def decode(tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        decoded = [one(tokens, part) for one, part in zip(decodes, state.states, strict=True)]
        return mean_log_probs([logits for logits, _ in decoded]), EnsembleState(tuple(state for _, state in decoded))

    return decode


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """The log of the mean probabilities, in float32: (R, V), of logits (R, V) of each model."""
    log_probs = torch.stack([one.log_softmax(dim=-1, dtype=torch.float32) for one in logits])  # (N, R, V)
    return log_probs.logsumexp(dim=0) - math.log(len(logits))  # (R, V)


class Ensemble(Translator):
    """Translates text with several models of one vocabulary; otherwise as a `Translator`.

    The models may differ in architecture. `model` and the default settings are those of the first.

    Args:
        members: translators, at least one.
        search: defaults for the arguments of `translate`.

    Raises:
        ConfigError: there are no members, or one of them is an ensemble itself, or of another engine.
        DataError: they have other vocabularies, or translate between other languages or with another tag.
        DeviceError: they are on several devices.
    """

    def __init__(self, members: Sequence[Translator], search: SearchConfig | None = None) -> None:
        members = list(members)
        if not members:
            raise ConfigError("an ensemble needs at least one model")
        if any(getattr(member, "model", None) is None for member in members):
            raise ConfigError("an ensemble is of models of this project: one of its members is another engine's")
        if any(isinstance(member, Ensemble) for member in members):
            raise ConfigError("an ensemble cannot be a member of another: give the models themselves")
        first = members[0]
        for member in members[1:]:
            _check_alike(first, member)
        self._members = tuple(members)
        super().__init__(first.model, first.tokenizer, first.search if search is None else search)
        self.logits, self.languages = first.logits, first.languages
        # A tag that one of the models has not seen would be noise to it.
        self.tag, self.tags = first.tag, [tag for tag in first.tags if all(tag in one.tags for one in members)]
        self.needs_tag = any(member.needs_tag for member in members)
        self.too_long, self.split_sentences = first.too_long, first.split_sentences
        if all(member.origin for member in members):
            self.origin = " + ".join(str(member.origin) for member in members)

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        prepack: bool = True,
    ) -> Ensemble:
        """Load the models at each of several paths; all else as `Translator.load`."""
        paths = [path] if isinstance(path, str | Path) else path
        return cls([Translator.load(one, device=device, precision=precision, prepack=prepack) for one in paths])

    def prepack(self, *, quantize: bool = False) -> None:
        """Each member's `prepack`."""
        for member in self.members:
            member.prepack(quantize=quantize)
        self.logits = self.members[0].logits

    def identity(self) -> dict[str, object]:
        """Fingerprints and settings on which the translations of a text depend."""
        members = [member.identity() for member in self.members]
        return super().identity() | {name: [one[name] for one in members] for name in ("weights", "precision")}

    @property
    def model(self) -> Transformer:
        """The first model. AttributeError if another one is set: members have the models."""
        return self.members[0].model

    @model.setter
    def model(self, model: Transformer) -> None:
        if model is not self.model:
            raise AttributeError("an ensemble has several models: set that of one of its members")

    @property
    def members(self) -> tuple[Translator, ...]:
        return self._members

    @property
    def max_length(self) -> int:
        """The most pieces for which all models have positions."""
        return min(member.max_length for member in self.members)

    def _start(self, src: Tensor) -> EnsembleState:
        return EnsembleState(tuple(member._start(src) for member in self.members))

    def _decode(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        # Made here, so that a copy of the ensemble has its own models in it.
        return mean_probabilities([member._decode for member in self.members])(tokens, state)


def _check_alike(first: Translator, other: Translator) -> None:
    names = [str(x.origin or "a model") for x in (first, other)]
    prints = [_fingerprint(x.tokenizer) for x in (first, other)]
    if prints[0] != prints[1]:
        raise DataError(
            f"{names[1]}: its tokenizer ({prints[1]}) is not that of {names[0]} ({prints[0]}); the models of an "
            "ensemble need the same vocabulary"
        )
    if other.languages != first.languages:
        pairs = ["-".join(x.languages) if any(x.languages) else "no known languages" for x in (first, other)]
        hint = "" if all(any(x.languages) for x in (first, other)) else ": set the attribute languages"
        raise DataError(f"{names[1]}: translates {pairs[1]}, and {names[0]} {pairs[0]}; an ensemble has one task{hint}")
    if other.tag != first.tag:
        raise DataError(
            f"{names[1]}: its data.tag is {other.tag or 'null'}, and that of {names[0]} {first.tag or 'null'}; the "
            "models of an ensemble read the same source"
        )
    if other.device != first.device:
        raise DeviceError(f"{names[1]} is on {other.device}, and {names[0]} on {first.device}; load both to one device")


def _fingerprint(tokenizer: Tokenizer) -> str:
    """The first digits of the SHA-256 of a tokenizer, of source and target."""
    sides = [tokenizer.source, tokenizer] if tokenizer.is_separate else [tokenizer]
    return " and ".join(hashlib.sha256(side.model).hexdigest()[:12] for side in sides)

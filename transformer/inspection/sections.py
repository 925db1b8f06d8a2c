"""The sections of `transformer inspect`: what each computes, as data that JSON can hold."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from transformer.data.batching import Batch
from transformer.errors import ConfigError
from transformer.inference.alignment import single_model
from transformer.inference.translator import Translator
from transformer.inspection import ablation, components, gradients, heads, jacobians, lens, probe, spectra, stream
from transformer.inspection.examples import example_batches, usable_pairs
from transformer.progress import Stage, no_stage

# Within a minute of CPU on a model of a million parameters.
CHEAP = ("lens", "stream", "gradients", "jacobians", "spectra", "components", "heads")
_JACOBIAN_SENTENCES = 4
_DIGITS = 6  # significant ones in JSON


@dataclass(frozen=True)
class Subject:
    """What is looked into, and on what.

    Attributes:
        translator: of a single model, not prepacked.
        sources, references: sentences, and one reference of each at least.
        label_smoothing: of the loss whose gradients are measured.
        tokenize, beam: BLEU's tokenizer and the beam size of head ablation.
        word, senses: of the probe: (sense, sentence).
        stage: shows the progress of head ablation.
    """

    translator: Translator
    sources: Sequence[str] = ()
    references: Sequence[Sequence[str]] = ((),)
    label_smoothing: float = 0.1
    tokenize: str = "13a"
    beam: int = 1
    word: str | None = None
    senses: Sequence[tuple[str, str]] = ()
    stage: Stage = no_stage

    @functools.cached_property
    def usable(self) -> list[int]:
        """The places, from 0, of the pairs with text on both sides and within the limits."""
        return usable_pairs(self.translator, self.sources, self.references[0])

    def batches(self, number: int | None = None, *, batch_tokens: int = 2048) -> list[Batch]:
        """The first usable pairs, by default all, as `example_batches` makes them."""
        places = self.usable[:number]
        sides = ([side[i] for i in places] for side in (self.sources, self.references[0]))
        return example_batches(self.translator, *sides, batch_tokens=batch_tokens)


def inspect_section(name: str, subject: Subject) -> dict[str, Any]:
    """Compute one section, with numbers of six digits; ConfigError for a name that is none of `SECTIONS`."""
    if name not in SECTIONS:
        raise ConfigError(f"{name!r} is not one of the sections {', '.join(SECTIONS)}")
    single_model(subject.translator)
    found: dict[str, Any] = _rounded(SECTIONS[name](subject))
    return found


def _lens(subject: Subject) -> dict[str, Any]:
    translator, model = subject.translator, subject.translator.model
    source, first = _first_pair(subject)
    pieces = translator.tokenizer.pieces
    layers = [
        {**dataclasses.asdict(reading), "choices": pieces(reading.choices)}
        for reading in lens.read_sentence(model, first)
    ]
    return {
        "is_pre_norm": _is_pre_norm(model.decoder.norm),
        "depths": [dataclasses.asdict(depth) for depth in lens.logit_lens(model, subject.batches())],
        "example": {
            "source": source,
            "read": pieces(first.tgt_in[0].tolist()),
            "reference": pieces(first.tgt_out[0].tolist()),
            "layers": layers,
        },
    }


def _first_pair(subject: Subject) -> tuple[str, Batch]:
    """The first source that can be looked at, and its batch. DataError if there is none."""
    batch = subject.batches(1)[0]
    return subject.sources[subject.usable[0]], batch


def _stream(subject: Subject) -> dict[str, Any]:
    return dataclasses.asdict(stream.residual_stream(subject.translator.model, subject.batches()))


def _gradients(subject: Subject) -> dict[str, Any]:
    smoothing = subject.label_smoothing
    found = gradients.gradient_norms(subject.translator.model, subject.batches(), label_smoothing=smoothing)
    return {**dataclasses.asdict(found), "label_smoothing": smoothing}


def _jacobians(subject: Subject) -> dict[str, Any]:
    (batch,) = subject.batches(_JACOBIAN_SENTENCES, batch_tokens=sys.maxsize)
    found = jacobians.jacobian_rows(subject.translator.model, batch)
    return {"sentences": len(batch.src), "rows": [dataclasses.asdict(row) for row in found]}


def _spectra(subject: Subject) -> dict[str, Any]:
    return {"rows": [dataclasses.asdict(row) for row in spectra.weight_spectra(subject.translator.model)]}


def _components(subject: Subject) -> dict[str, Any]:
    return {"rows": [dataclasses.asdict(row) for row in components.component_rows(subject.translator.model)]}


def _heads(subject: Subject) -> dict[str, Any]:
    translator = subject.translator
    found = heads.head_statistics(translator.model, subject.batches(), translator.tokenizer)
    return {"rows": [dataclasses.asdict(row) for row in found]}


def _ablation(subject: Subject) -> dict[str, Any]:
    translator = subject.translator
    names = ablation.list_heads(translator.model)
    with subject.stage("ablating", "heads", len(names)) as advance:
        found = ablation.ablate_heads(
            translator,
            subject.sources,
            subject.references,
            heads=names,
            tokenize=subject.tokenize,
            advance=advance,
            beam=subject.beam,
        )
    return {**dataclasses.asdict(found), "beam": subject.beam}


def _probe(subject: Subject) -> dict[str, Any]:
    if subject.word is None:
        raise ConfigError("the section probe needs a word: --probe WORD")
    return dataclasses.asdict(probe.probe_word(subject.translator, subject.word, subject.senses))


SECTIONS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "lens": _lens,
    "stream": _stream,
    "gradients": _gradients,
    "jacobians": _jacobians,
    "spectra": _spectra,
    "components": _components,
    "heads": _heads,
    "ablation": _ablation,
    "probe": _probe,
}


def _is_pre_norm(norm: nn.Module) -> bool:
    return not isinstance(norm, nn.Identity)


def _rounded(value: Any) -> Any:
    """The same with numbers of six digits, and None for those that JSON has not."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value

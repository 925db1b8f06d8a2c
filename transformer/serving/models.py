"""The models of a server, found by languages or by name, and what is computed with them."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.data.languages import UNKNOWN_LANGUAGE, short_code
from transformer.errors import UserError
from transformer.hub import is_model_id
from transformer.inference.alignment import Links, align_translations
from transformer.inference.translator import Translation, Translator
from transformer.inspection.attention import sentence_attention, weights_json

# A tag that asks for a language, in the form of Johnson et al. (2017) or of OPUS-MT.
_LANGUAGE_TAG = re.compile(r"<2(?P<code>[^<>\s]+)>|>>(?P<opus>[^<>\s]+)<<")
MANY_LANGUAGES = "mul"  # which a model reads, by ISO 639-2


class NoSuchModelError(UserError):
    """No model of the server has the name or the languages of a request."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model for one direction.

    Attributes:
        name: of the run; unique but for the directions of a multilingual model.
        source, target: codes of the languages.
        translator: with its search settings, and the tag of the target language.
    """

    name: str
    source: str
    target: str
    translator: Translator

    @property
    def has_attention(self) -> bool:
        """Whether it has attention weights of its own; an ensemble has none."""
        return len(self.translator.members) == 1

    def nbest(self, num_alternatives: int) -> int:
        """How many translations to search for: the best and its alternatives, as far as the beam holds them."""
        return min(1 + num_alternatives, self.translator.search.beam)


class ServedModels:
    """The models of a server, in the order in which they are preferred."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = list(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self.models)

    def find(self, source: str = "", target: str = "", name: str = "") -> ServedModel:
        """The first model with this name and these languages; empty ones are any.

        A language may have its code of ISO 639-1 or 639-3. A model with the source `mul` or `und` reads any language,
        but one with the language itself is preferred. The source `auto` is the only one that the models have for this
        target: languages are not detected.

        Raises:
            NoSuchModelError: there is none, with the directions that there are, or the source is ambiguous.
        """
        named = [model for model in self.models if name in ("", model.name)]
        if not named:
            names = ", ".join(dict.fromkeys(model.name for model in self.models))
            raise NoSuchModelError(f"model {name!r} is not one of {names}")
        found = [model for model in named if not target or _is_same(target, model.target)]
        if source.lower() not in ("", "auto"):
            exact = [model for model in found if _is_same(source, model.source)]
            found = exact or [model for model in found if model.source in (UNKNOWN_LANGUAGE, MANY_LANGUAGES)]
        if not found:
            known = ", ".join(dict.fromkeys(f"{model.source} to {model.target}" for model in named))
            wanted = f"{source or 'any language'} to {target or 'any language'}"
            models = f"model {name!r} translates" if name else "the models translate"
            raise NoSuchModelError(f"{wanted} is not supported; {models} {known}")
        sources = dict.fromkeys(model.source for model in found)
        if source.lower() == "auto" and len(sources) > 1:
            raise NoSuchModelError(f"source auto: languages are not detected; give one of {', '.join(sources)}")
        return found[0]


def served(translators: Sequence[tuple[str, Translator]], *, is_tag_chosen: bool = False) -> ServedModels:
    """The models of runs.

    A multilingual model with a tag for each target language, such as `<2de>`, is one for each of these directions.

    Args:
        translators: with the runs, as they were given.
        is_tag_chosen: whether their tags are the only ones to use, possibly none.
    """
    paths = [given for given, _ in translators]
    models = []
    for given, translator in translators:
        source, target = (short_code(code) or UNKNOWN_LANGUAGE for code in translator.languages)
        name = _name(given, paths)
        tags = [translator.tag or ""] if is_tag_chosen else translator.tags
        targets = _targets(tags)
        if len(targets) == 1 and not translator.needs_tag and translator.tag is None:  # it reads texts without, too
            target, targets = next(iter(targets)) if target == UNKNOWN_LANGUAGE else target, {}
        for code, tag in targets.items():
            models.append(ServedModel(name, source, code, _with_tag(translator, tag, code)))
        if not targets:
            models.append(ServedModel(name, source, target, translator))
    return ServedModels(models)


def _targets(tags: Sequence[str]) -> dict[str, str]:
    """The tags that ask for a language, by its code; where several have the same short one, by their own."""
    own = {tag: code for tag in tags if (code := language_of(tag))}
    numbers = Counter(map(short_code, own.values()))
    return {short if numbers[short := short_code(code)] == 1 else code: tag for tag, code in own.items()}


def language_of(tag: str) -> str | None:
    """The code of the language that a tag asks for, or None."""
    found = _LANGUAGE_TAG.fullmatch(tag)
    return found and (found["code"] or found["opus"])


def _is_same(wanted: str, code: str) -> bool:
    """Whether a code that was asked for is that of a model's language, in any of its forms."""
    as_given = wanted.replace("_", "-").lower() == code.replace("_", "-").lower()
    return as_given or short_code(wanted).lower() == code.lower()


def _name(given: str, others: Sequence[str]) -> str:
    """The last part of a path, unless that of another run is the same; a hub id as it is."""
    if is_model_id(given):
        return given
    name = Path(given).resolve().name
    return name if [Path(other).resolve().name for other in others].count(name) == 1 else given


def _with_tag(translator: Translator, tag: str, target: str) -> Translator:
    """The same model, for one target language."""
    found = copy.copy(translator)
    found.tag, found.languages = tag, (translator.languages[0], target)
    return found


# What is computed. Equal ones are computed together: same model, same settings.


@dataclass(frozen=True)
class Translate:
    """Translates texts as `translate_nbest` does."""

    model: ServedModel
    nbest: int = 1
    token_scores: bool = False

    def __call__(self, texts: Sequence[str], first_number: int) -> list[list[Translation]]:
        return self.model.translator.translate_nbest(
            texts, nbest=self.nbest, token_scores=self.token_scores, first_number=first_number
        )


@dataclass(frozen=True)
class TranslateAndAlign:
    """Translates texts, and aligns the words of all translations."""

    translate: Translate

    def __call__(self, texts: Sequence[str], first_number: int) -> list[tuple[list[Translation], list[Links]]]:
        found = self.translate(texts, first_number)
        return list(zip(found, align_translations(self.translate.model.translator, texts, found), strict=True))


@dataclass(frozen=True)
class Attend:
    """The attention weights of sentences and a translation, as JSON."""

    model: ServedModel
    translation: str | None

    def __call__(self, texts: Sequence[str], first_number: int) -> list[str]:  # noqa: ARG002 (one sentence a request)
        return [weights_json(sentence_attention(self.model.translator, text, self.translation)) for text in texts]

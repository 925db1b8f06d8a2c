"""What the server answers, without HTTP: sizes are checked, lines wait for a batch, answers are put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from transformer.data.languages import language_name
from transformer.data.tokenizer import Tokenizer
from transformer.errors import UserError
from transformer.inference.alignment import Links
from transformer.inference.json_line import finite_or_none
from transformer.inference.translator import Translation
from transformer.serving.batching import Batcher, StoppingError, Work
from transformer.serving.documents import in_batches, translate_pages
from transformer.serving.models import Attend, ServedModel, ServedModels, Translate, TranslateAndAlign
from transformer.serving.schemas import (
    AttentionRequest,
    Direction,
    Health,
    Language,
    LibreAnswer,
    LibreRequest,
    ScoredTranslation,
    TranslatedLine,
    TranslatedText,
    TranslationsAnswer,
    TranslationsRequest,
)
from transformer.training.device import return_freed_memory

_LINE_END = re.compile(r"(\r\n|\r|\n)")
_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")


class TooLargeError(UserError):
    """A request has more text than the server accepts."""


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        max_texts, max_characters: in a request, of all its texts together.
        max_waiting: texts, by lines, that wait for a batch, of all requests.
        max_client_requests: requests that wait, of the same address.
        max_batch: texts, by lines, that are translated together.
    """

    max_texts: int = 128
    max_characters: int = 10_000
    max_waiting: int = 1024
    max_client_requests: int = 128
    max_batch: int = 64

    @property
    def max_body(self) -> int:
        """The most bytes of a request's body: in JSON a character takes at most 12, as an escaped surrogate pair."""
        return 12 * self.max_characters + 64 * self.max_texts + 4096


@dataclass(frozen=True)
class Pending(Generic[_Answer]):
    """An answer that waits for its results."""

    future: Future[list[Any]]
    finish: Callable[[list[Any]], _Answer]


@dataclass(frozen=True)
class _Split:
    """Texts by lines. Blank lines are not translated."""

    parts: list[list[str]]  # of each text: its lines at even places, and between them their ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Split:
        return cls([_LINE_END.split(text) for text in texts])

    @property
    def lines(self) -> list[list[str]]:
        return [parts[::2] for parts in self.parts]

    @property
    def to_translate(self) -> list[str]:
        return [line for lines in self.lines for line in lines if line.strip()]

    def by_line(self, results: Iterable[_Result], blank: _Result) -> list[list[_Result]]:
        """The results of what is to translate, for each line of each text."""
        found = iter(results)
        return [[next(found) if line.strip() else blank for line in lines] for lines in self.lines]

    def join(self, text: int, lines: Sequence[str]) -> str:
        """A text of other lines with the same ends."""
        ends = self.parts[text][1::2]
        return "".join(part for pair in zip(lines, [*ends, ""], strict=True) for part in pair)


class Service:
    """The answers of a server.

    Args:
        models: that it has, at least one.
        limits: of requests and of what waits.

    All methods with a `client`, its address, raise:
        NoSuchModelError: no model has the name or the languages.
        TooLargeError: there is too much text.
        RefusedError: too much waits, or the server stops.
    """

    def __init__(self, models: ServedModels, limits: Limits | None = None) -> None:
        self.models, self.limits = models, limits or Limits()
        self.batcher = Batcher(
            max_batch=self.limits.max_batch,
            max_waiting=self.limits.max_waiting,
            max_client_requests=self.limits.max_client_requests,
            rest=return_freed_memory,
        )

    def translate(self, request: LibreRequest, client: str) -> Pending[LibreAnswer]:
        """Translate as LibreTranslate does.

        Alternative k of a text has translation k of each line, or the best where there are fewer. Of HTML, there are no
        alternatives.
        """
        model = self.models.find(request.source, request.target)
        if request.format == "html":
            return self._translate_pages(request, model, client)
        split = self._split(request.q)
        work = Translate(model, model.nbest(request.alternatives))

        def finish(results: list[Any]) -> LibreAnswer:
            by_line: list[list[list[Translation]]] = split.by_line(results, [])
            return _libre_answer(request, [_alternatives(split, i, x, work.nbest) for i, x in enumerate(by_line)])

        return Pending(self.batcher.submit(work, split.to_translate, client), finish)

    def _translate_pages(self, request: LibreRequest, model: ServedModel, client: str) -> Pending[LibreAnswer]:
        pages = self._checked(request.q)
        found = in_batches(model, self.batcher, client, lambda translate: translate_pages(model, pages, translate))
        return Pending(found, lambda results: _libre_answer(request, [[page] for page in results]))

    def translations(self, request: TranslationsRequest, client: str) -> Pending[TranslationsAnswer]:
        """Translate with scores, tokens and alignments, line by line."""
        model = self.models.find(request.source, request.target, request.model)
        split = self._split(request.q)
        translate = Translate(model, model.nbest(request.alternatives), request.token_scores)

        def finish(results: list[Any]) -> TranslationsAnswer:
            pairs = results if request.alignment else [(found, None) for found in results]
            shown = [_scored(found, links, model.translator.tokenizer) for found, links in pairs]
            texts = [
                TranslatedText(lines=[TranslatedLine(source=x, translations=y) for x, y in zip(*text, strict=True)])
                for text in zip(split.lines, split.by_line(shown, []), strict=True)
            ]
            return TranslationsAnswer(model=model.name, source=model.source, target=model.target, texts=texts)

        work: Work = TranslateAndAlign(translate) if request.alignment else translate
        return Pending(self.batcher.submit(work, split.to_translate, client), finish)

    def attention(self, request: AttentionRequest, client: str) -> Pending[str]:
        """The attention weights of a sentence, as the JSON of `AttentionAnswer`."""
        model = self.models.find(request.source, request.target, request.model)
        self._check_size([request.q, request.translation or ""])
        work = Attend(model, request.translation)
        return Pending(self.batcher.submit(work, [request.q], client), lambda results: str(results[0]))

    def languages(self) -> list[Language]:
        """All languages, with those into which each is translated."""
        targets: dict[str, dict[str, None]] = {}
        for model in self.models:
            targets.setdefault(model.source, {})[model.target] = None
        for model in self.models:
            targets.setdefault(model.target, {})
        return [Language(code=code, name=language_name(code), targets=list(found)) for code, found in targets.items()]

    def directions(self) -> list[Direction]:
        """All models with their languages, the preferred ones first."""
        return [_direction(model) for model in self.models]

    def health(self) -> Health:
        """That requests are accepted. StoppingError if they are not."""
        if self.batcher.is_stopping:
            raise StoppingError("the server is stopping", 1)
        return Health(status="ok")

    def _split(self, q: str | list[str]) -> _Split:
        return _Split.of(self._checked(q))

    def _checked(self, q: str | list[str]) -> list[str]:
        texts = [q] if isinstance(q, str) else q
        self._check_size(texts)
        return texts

    def _check_size(self, texts: Sequence[str]) -> None:
        limits = self.limits
        if len(texts) > limits.max_texts:
            raise TooLargeError(f"{len(texts)} texts in a request; at most {limits.max_texts} are accepted")
        num_characters = sum(map(len, texts))
        if num_characters > limits.max_characters:
            raise TooLargeError(
                f"{num_characters} characters in a request; at most {limits.max_characters} are accepted: send parts"
            )


def _libre_answer(request: LibreRequest, found: Sequence[Sequence[str]]) -> LibreAnswer:
    """The answer with the translations of each text, the best first, in the form that the request has."""
    best, others = [texts[0] for texts in found], [[*texts[1:]] for texts in found]
    is_one = isinstance(request.q, str)
    answer = LibreAnswer(translatedText=best[0] if is_one else best)
    if request.alternatives:
        answer.alternatives = others[0] if is_one else others
    return answer


def _alternatives(split: _Split, text: int, lines: Sequence[Sequence[Translation]], nbest: int) -> list[str]:
    """The best translation of a text, and its other distinct ones."""
    chosen = ([found[k if k < len(found) else 0].text if found else "" for found in lines] for k in range(nbest))
    return list(dict.fromkeys(split.join(text, one) for one in chosen))


def _scored(
    translations: Sequence[Translation], links: Sequence[Links] | None, tokenizer: Tokenizer
) -> list[ScoredTranslation]:
    found = []
    for i, one in enumerate(translations):
        shown = ScoredTranslation(
            text=one.text,
            score=finite_or_none(one.score),
            log_prob=finite_or_none(one.log_prob),
            tokens=tokenizer.pieces(one.ids),
        )
        if one.token_log_probs:
            shown.token_log_probs = [finite_or_none(x) for x in one.token_log_probs]
        if links is not None:
            shown.alignment = links[i]
        found.append(shown)
    return found


def _direction(model: ServedModel) -> Direction:
    return Direction(
        name=model.name,
        source=model.source,
        source_name=language_name(model.source),
        target=model.target,
        target_name=language_name(model.target),
        beam=model.translator.search.beam,
        has_attention=model.has_attention,
    )

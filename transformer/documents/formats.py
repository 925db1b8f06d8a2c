"""A document in, its translation out: the formats, and how a `Translator` is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from transformer.documents.docx import DocxDocument
from transformer.documents.html import HtmlDocument
from transformer.documents.inline import Content
from transformer.documents.passages import DocumentNotes, Passage, translate_passages
from transformer.documents.sentences import Translate, Translated
from transformer.documents.srt import SrtDocument
from transformer.documents.text import TextDocument
from transformer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformer.inference.translator import Translator

__all__ = [
    "FORMATS",
    "MOST_BYTES",
    "DocumentNotes",
    "Translate",
    "Translated",
    "format_of",
    "translate_document",
    "translate_with",
]

MOST_BYTES = 64 << 20  # of a document


class Document(Protocol):
    """A document that has been read.

    Attributes:
        passages: to translate.
    """

    passages: list[Passage]

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the lines of each passage, or with None as it was."""


_READERS: dict[str, type[Document]] = {
    "text": TextDocument,
    "srt": SrtDocument,
    "html": HtmlDocument,
    "docx": DocxDocument,
}
FORMATS = tuple(_READERS)
_SUFFIXES = {".srt": "srt", ".html": "html", ".htm": "html", ".xhtml": "html", ".docx": "docx"}


def format_of(path: str) -> str | None:
    """The format that a file name says; None for plain lines, of which each is translated alone."""
    return _SUFFIXES.get(PurePath(path).suffix.lower())


def translate_document(
    data: bytes,
    form: str,
    translate: Translate,
    *,
    languages: tuple[str, str] = ("", ""),
    notes: DocumentNotes | None = None,
) -> bytes:
    """Translate a document: the same bytes, but for its sentences.

    Lines, paragraphs, subtitles and tags are kept, each once and tags inside the same tags, whatever the translations
    are; where no sentence changes, the bytes are the same. Placeholders are kept too, and none is made up.

    Args:
        data: the content of the file.
        form: one of `FORMATS`.
        translate: from sentences to translations, called twice at most; as of `translate_with`.
        languages: codes of source and target, by which sentences are split and joined.
        notes: counts what a user should know of.

    Raises:
        ConfigError: there is no such format.
        DataError: the document is damaged, hostile or larger than 64 MiB, or an optional package is not installed.
        ValueError: `translate` returned another number of translations than it got sentences.
    """
    if form not in _READERS:
        raise ConfigError(f"format={form!r} must be one of {', '.join(FORMATS)}")
    if len(data) > MOST_BYTES:
        raise DataError(f"has {len(data)} bytes, more than {MOST_BYTES}: split it")
    document = _READERS[form](data)  # type: ignore[call-arg]
    return document.written(translate_passages(document.passages, translate, languages, notes))


def translate_with(translator: Translator, *, alignment_layer: int | None = None) -> Translate:
    """The best translations of a model, aligned by its attention; not those of an ensemble or of another engine.

    The function raises DataError, which quotes the sentence, as of `Translator.translate`.

    Args:
        alignment_layer: of the decoder, from 1; by default the last.
    """
    from transformer.inference.alignment import has_attention, word_alignment  # which import torch

    def translate(sentences: list[str]) -> list[Translated]:
        try:
            found = [best for (best,) in translator.translate_nbest(sentences, nbest=1, split_sentences=False)]
        except DataError:
            _name_sentence(translator, sentences)
            raise
        if not has_attention(translator):
            return [Translated(one.text) for one in found]
        searched = [i for i, one in enumerate(found) if one.ids]
        sources, targets = [sentences[i] for i in searched], [found[i].text for i in searched]
        links = word_alignment(translator, sources, targets, layer=alignment_layer, too_long="skip")
        of_sentence = dict(zip(searched, links, strict=True))
        return [Translated(one.text, of_sentence.get(i, ())) for i, one in enumerate(found)]

    return translate


def _name_sentence(translator: Translator, sentences: Sequence[str]) -> None:
    """DataError for the first sentence that cannot be translated: its number would say nothing about a document."""
    for sentence in sentences:
        try:
            translator.check([sentence])
        except DataError as error:
            reason = str(error).removeprefix("sentence 1 ").removeprefix("text 1 ")
            raise DataError(f"the sentence {sentence[:50]!r} {reason}") from None

"""A document in, its translation out: the formats, and how a `Translator` is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from transformer.documents.docx import DocxDocument
from transformer.documents.html import HtmlDocument
from transformer.documents.inline import Content
from transformer.documents.passages import DocumentNotes, Passage, translate_passages
from transformer.documents.sentences import Align, Translate, Translated
from transformer.documents.srt import SrtDocument
from transformer.documents.text import TextDocument
from transformer.documents.tokens import Links
from transformer.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformer.inference.translator import Translator

__all__ = [
    "FORMATS",
    "MOST_BYTES",
    "Align",
    "DocumentNotes",
    "Translate",
    "Translated",
    "format_of",
    "functions_of",
    "is_unread",
    "translate_document",
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


# From bytes and the languages of source and target.
_READERS: dict[str, Callable[[bytes, tuple[str, str]], Document]] = {
    "text": lambda data, _: TextDocument(data),
    "srt": lambda data, _: SrtDocument(data),
    "html": HtmlDocument,
    "docx": lambda data, _: DocxDocument(data),
}
FORMATS = tuple(_READERS)
_SUFFIXES = {
    **{".srt": "srt", ".html": "html", ".htm": "html", ".xhtml": "html"},
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), "docx"),
}
# Files with more than text, of which each line would be translated with its marks, or which are no text.
_UNREAD = {
    *(".ass", ".sbv", ".ssa", ".sub", ".ttml", ".vtt", ".po", ".pot", ".tmx", ".xlf", ".xliff", ".xml"),
    *(".doc", ".dot", ".epub", ".odp", ".ods", ".odt", ".pdf", ".ppt", ".pptx", ".rtf", ".xls", ".xlsx"),
}


def format_of(path: str) -> str | None:
    """The format that a file name says; None for plain lines, of which each is translated alone."""
    return _SUFFIXES.get(PurePath(path).suffix.lower())


def is_unread(path: str) -> bool:
    """Whether a file name says a format of documents that is not read here, such as .vtt."""
    return PurePath(path).suffix.lower() in _UNREAD


def translate_document(
    data: bytes,
    form: str,
    translate: Translate,
    align: Align | None = None,
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
        translate: from sentences to translations, each a `Translated` or text alone; called twice at most.
        align: from sentences and translations to word alignments, called once at most, for those of which tags or line
            breaks need one and `translate` gave none. Without any, tags are placed and lines end by length.
        languages: codes of source and target, by which sentences are split and joined.
        notes: counts what a user should know of.

    Raises:
        ConfigError: there is no such format.
        DataError: the document is damaged, hostile or larger than 64 MiB, or an optional package is not installed.
        TypeError: they returned something else, such as a dict.
        ValueError: `translate` or `align` returned another number than it got sentences.
    """
    if form not in _READERS:
        raise ConfigError(f"format={form!r} must be one of {', '.join(FORMATS)}")
    if len(data) > MOST_BYTES:
        raise DataError(f"has {len(data)} bytes, more than {MOST_BYTES}: split it")
    document = _READERS[form](data, languages)
    found = translate_passages(document.passages, translate, align, languages=languages, notes=notes)
    return document.written(found)


def functions_of(translator: Translator, *, alignment_layer: int | None = None) -> tuple[Translate, Align | None]:
    """How `translate_document` asks a model: for its best translations, and for alignments by its attention.

    An ensemble and another engine have no attention, and so no second function. The first one raises DataError as of
    `Translator.translate`, which quotes the sentence.

    Args:
        alignment_layer: of the decoder, from 1; by default the last.
    """
    from transformer.inference.alignment import has_attention, word_alignment  # which import torch

    def translate(sentences: list[str]) -> list[Translated]:
        try:
            return [Translated(one) for one in translator.translate(sentences, split_sentences=False)]
        except DataError:
            _name_sentence(translator, sentences)
            raise

    def align(sentences: list[str], translations: list[str]) -> list[Links]:
        return [*word_alignment(translator, sentences, translations, layer=alignment_layer, too_long="skip")]

    return translate, align if has_attention(translator) else None


def _name_sentence(translator: Translator, sentences: Sequence[str]) -> None:
    """DataError for the first sentence that cannot be translated: its number would say nothing about a document."""
    for sentence in sentences:
        try:
            translator.check([sentence])
        except DataError as error:
            reason = str(error).removeprefix("sentence 1 ").removeprefix("text 1 ")
            raise DataError(f"the sentence {sentence[:50]!r} {reason}") from None

"""The one function for all formats, and how a translator is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretended_translators import identity, upper

from transformer.documents import formats
from transformer.documents.formats import FORMATS, Translated, format_of, functions_of, translate_document
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import word_alignment
from transformer.inference.translator import Translator


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.srt", "srt"),
        ("A.HTML", "html"),
        ("a.htm", "html"),
        ("x/a.xhtml", "html"),
        ("a.docx", "docx"),
        ("a.docm", "docx"),
        ("a.DOTX", "docx"),
        ("a.txt", None),
        ("a.html.gz", None),
        ("html", None),
        ("-", None),
        ("", None),
    ],
)
def test_the_name_says_the_format(name: str, form: str | None) -> None:
    assert format_of(name) == form
    assert form is None or form in FORMATS


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^format='pdf' must be one of text, srt, html, docx$"):
        translate_document(b"", "pdf", identity)


def test_a_document_beyond_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MOST_BYTES", 3)
    assert translate_document(b"abc", "text", identity) == b"abc"
    with pytest.raises(DataError, match=r"^has 4 bytes, more than 3: split it$"):
        translate_document(b"abcd", "text", identity)


@pytest.fixture(scope="module")
def translator(babbler: Path) -> Translator:
    return Translator.load(babbler, device="cpu")


def test_a_translator_is_asked_for_its_best_translations_and_their_alignment(translator: Translator) -> None:
    sentences = ["A man is sleeping.", "здесь", "", "Two dogs."]
    translate, align = functions_of(translator, alignment_layer=1)
    found = translate(sentences)
    assert found == [Translated(one) for one in translator.translate(sentences)]
    assert align is not None
    links = align(sentences[:1], [found[0].text])
    assert links == word_alignment(translator, sentences[:1], [found[0].text], layer=1) != [[]]


def test_an_ensemble_has_no_alignment() -> None:
    ensemble: Any = SimpleNamespace(members=(1, 2), translate=lambda texts, **_: ["Katze" for _ in texts])
    translate, align = functions_of(ensemble)
    assert (translate(["cat"]), align) == ([Translated("Katze")], None)


@pytest.mark.parametrize(
    ("page", "aligned"),
    [
        ("<p>A cat. A dog.</p><p>A bird.</p>", []),
        ("<p><b>A cat.</b> A dog.</p><img><p><a href=x>A bird.</a></p>", []),  # tags at the edges of sentences
        ("<p>A <b>cat</b>. A dog.</p>", ["A cat."]),
        ("<p>A cat.<p>A<br>cat.", ["A cat."]),
        ("<p><b>A cat. A</b> dog.", ["A cat.", "A dog."]),
        ("<p>Use {x}, Tom.", ["Use, Tom."]),  # the translation has lost it
        ("<p>Use {y}, Tom.", []),
        ("<p>The <i>same</i> thing.", []),  # it is not changed
    ],
)
def test_only_what_needs_an_alignment_is_aligned(page: str, aligned: list[str]) -> None:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        return [Translated(one if "same" in one else one.upper().replace("{Y}", "{y}")) for one in sentences]

    def align(sentences: list[str], translations: list[str]) -> list[list[tuple[int, int]]]:
        assert translations == [one.upper() for one in sentences]
        assert not seen  # once
        seen.extend(sentences)
        return [[(i, i) for i in range(len(one.split()))] for one in sentences]

    found = translate_document(page.encode(), "html", translate, align, languages=("en", "de"))
    assert found == translate_document(page.encode(), "html", upper, languages=("en", "de")) or "same" in page
    assert seen == aligned


def test_another_number_of_alignments_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^align returned 0 alignments of 1 sentences$"):
        translate_document(b"A <b>cat</b>.", "html", lambda _: [Translated("Eine Katze.")], lambda *_: [])


def test_a_sentence_that_cannot_be_translated_is_quoted(translator: Translator) -> None:
    translate, _ = functions_of(translator)
    long = "word " * 2000
    with pytest.raises(DataError, match=r"^the sentence 'word word .*' has \d+ pieces, more than the limit of 1024: "):
        translate(["A man is sleeping.", long.strip()])


def test_documents_of_a_model_keep_their_tags(translator: Translator) -> None:
    page = "<p>A <b>man</b> is <i>sleeping</i>. Two <a href=x>dogs</a> play.</p>"
    found = translate_document(page.encode(), "html", *functions_of(translator), languages=("en", "de")).decode()
    assert found != page
    for tag in ("<p>", "<b>", "</b>", "<i>", "</i>", "<a href=x>", "</a>", "</p>"):
        assert found.count(tag) == 1

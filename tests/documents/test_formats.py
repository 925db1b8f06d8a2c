"""The one function for all formats, and how a translator is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretended_translators import identity

from transformer.documents import formats
from transformer.documents.formats import FORMATS, Translated, format_of, translate_document, translate_with
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


def test_a_translator_gives_its_best_translations_with_their_alignment(translator: Translator) -> None:
    sentences = ["A man is sleeping.", "здесь", "", "Two dogs."]
    found = translate_with(translator, alignment_layer=1)(sentences)
    assert [one.text for one in found] == translator.translate(sentences)
    links = word_alignment(translator, [sentences[0]], [found[0].text], layer=1)[0]
    assert list(found[0].links) == links != []
    assert found[1:3] == [Translated("здесь", ()), Translated("", ())]


def test_an_ensemble_has_no_alignment() -> None:
    member = SimpleNamespace(text="Katze", ids=(5,))
    ensemble: Any = SimpleNamespace(members=(1, 2), translate_nbest=lambda texts, **_: [[member] for _ in texts])
    assert translate_with(ensemble)(["cat"]) == [Translated("Katze", ())]


def test_a_sentence_that_cannot_be_translated_is_quoted(translator: Translator) -> None:
    translate = translate_with(translator)
    long = "word " * 2000
    with pytest.raises(DataError, match=r"^the sentence 'word word .*' has \d+ pieces, more than the limit of 1024: "):
        translate(["A man is sleeping.", long.strip()])


def test_documents_of_a_model_keep_their_tags(translator: Translator) -> None:
    page = "<p>A <b>man</b> is <i>sleeping</i>. Two <a href=x>dogs</a> play.</p>"
    found = translate_document(page.encode(), "html", translate_with(translator), languages=("en", "de")).decode()
    assert found != page
    for tag in ("<p>", "<b>", "</b>", "<i>", "</i>", "<a href=x>", "</a>", "</p>"):
        assert found.count(tag) == 1

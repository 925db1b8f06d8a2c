"""The one function for all formats, and how a translator is asked."""

from __future__ import annotations

from collections.abc import Callable
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


PAGE = b"<p>A <b>man</b> is sleeping.</p><p>Two dogs are playing.</p>"
SHOUTED = b"<p>A <b>MAN</b> IS SLEEPING.</p><p>TWO DOGS ARE PLAYING.</p>"
# Functions that say the same as `upper`, in other forms.
FORMS: dict[str, Callable[[list[str]], Any]] = {
    "text": lambda sentences: [one.upper() for one in sentences],
    "a generator": lambda sentences: (one.upper() for one in sentences),
    "a tuple": lambda sentences: tuple(upper(sentences)),
    "links once": lambda sentences: [Translated(one.text, iter(one.links or ())) for one in upper(sentences)],  # type: ignore[arg-type]
    "its own list": lambda sentences: [sentences.pop(0).upper() for _ in range(len(sentences))],
}


@pytest.mark.parametrize("form", FORMS)
def test_translations_may_have_any_form_that_has_an_order(form: str) -> None:
    pytest.importorskip("sentencex")
    assert (
        translate_document(PAGE, "html", FORMS[form], lambda one, _: ([(i, i) for i in range(9)] for _ in one))
        == SHOUTED
    )


# What a function might return, of which some would be taken for other translations.
OTHERS: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    "nothing": (lambda _: None, "^translate returned a NoneType, not a list$"),
    "one text": (lambda _: "ab", "^translate returned a str, not a list$"),
    "a dictionary": (lambda sentences: dict(zip(sentences, sentences, strict=True)), "returned a dict, not a list$"),
    "a set": (lambda sentences: {*sentences}, "^translate returned a set, not a list$"),
    "pairs": (
        lambda sentences: [(one, None) for one in sentences],
        r"^translate returned \('A .* for a sentence, which",
    ),
    "no text": (lambda sentences: [Translated(None) for _ in sentences], "neither text nor a Translated$"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_are_no_translations_is_named(kind: str) -> None:
    pytest.importorskip("sentencex")
    translate, message = OTHERS[kind]
    with pytest.raises(TypeError, match=message):
        translate_document(PAGE, "html", translate)


def test_what_are_no_alignments_is_named() -> None:
    pytest.importorskip("sentencex")
    with pytest.raises(TypeError, match=r"^align returned a dict, not a list$"):
        translate_document(PAGE, "html", FORMS["text"], lambda *_: {})

"""Tags go where the words go that they are around; each comes back once, inside the same tags."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from pretended_translators import TRANSLATORS, identity, reverse, unaligned, upper

from transformer.documents.formats import Translate, Translated
from transformer.documents.pairs import tags_of, written_in_text
from transformer.documents.passages import DocumentNotes, translate_passages


def translated(text: str, translate: Translate) -> str:
    (lines,) = translate_passages([[tags_of(text)]], translate, languages=("en", "de"))
    return text if lines is None else written_in_text(lines[0])


def fixed(text: str, links: str, second: str | None = None) -> Translate:
    """Always the same translation, and another one the second time. Links as 0-1 2-0."""
    answers = [text] if second is None else [text, second]

    def translate(sentences: list[str]) -> list[Translated]:
        pairs = [tuple(map(int, link.split("-"))) for link in links.split()]
        answer = answers.pop(0)
        return [Translated(answer, [(a, b) for a, b in pairs]) for _ in sentences]

    return translate


@pytest.mark.parametrize(
    ("source", "translation", "links", "expected"),
    [
        ("the <b>red</b> car", "la voiture rouge", "0-0 2-1 1-2", "la voiture <b>rouge</b>"),
        ("<b>Warning:</b> it is hot.", "Achtung: es ist heiß.", "0-0 1-1 2-2 3-3", "<b>Achtung:</b> es ist heiß."),
        ("Hello <b>world</b>.", "Hallo Welt.", "0-0 1-1", "Hallo <b>Welt</b>."),
        ("Hello <b>world</b>, you", "du, Welt!", "2-0 1-1", "du, <b>Welt</b>!"),
        # Two tags that change places.
        (
            "<b>Yesterday</b> he <i>went</i> home.",
            "Er ging gestern nach Hause.",
            "1-0 2-1 0-2 3-3 3-4",
            "Er <i>ging</i> <b>gestern</b> nach Hause.",
        ),
        # One inside the other.
        ("<a>very <b>old</b></a> dogs", "Hunde sehr alt", "2-0 0-1 1-2", "Hunde <a>sehr <b>alt</b></a>"),
        # Words of a span that are apart: the longest run with most of them.
        ("<b>does not</b> go", "ne va pas", "0-0 2-1 1-2", "<b>ne va pas</b>"),
        # Unlinked words at the edge belong to a tag that is at the edge.
        ("<b>Dogs</b> bark", "Die Hunde bellen", "0-1 1-2", "<b>Die Hunde</b> bellen"),
        ("<b>Dogs bark</b>", "Es bellen die Hunde", "1-1 0-3", "<b>Es bellen die Hunde</b>"),
        # A part of a word that is the same in both languages.
        ("H<sub>2</sub>O is wet", "H2O ist nass", "0-0 1-1 2-2", "H<sub>2</sub>O ist nass"),
        ("see Smith<sup>12</sup>.", "siehe Schmidt12.", "0-0 1-1", "siehe Schmidt<sup>12</sup>."),
        ("un<b>believ</b>able", "unglaublich", "0-0", "un<b>glaublich</b>"),
        # A span of which no word is found has the word at its place, so that a link can be followed.
        ("Read the <a>manual</a> now", "Lies jetzt das Handbuch", "0-0 3-1", "Lies jetzt <a>das</a> Handbuch"),
        # Single tags.
        ("One <img> two", "zwei eins", "0-1 1-0", "<img> zwei eins"),
        ("One<br>two", "eins zwei", "0-0 1-1", "eins<br>zwei"),
        ("a note<ref/> here", "hier eine Notiz", "0-1 1-2 2-0", "hier eine Notiz<ref/>"),
        ("<x/>A dog <y/>barks.<z/>", "Ein Hund bellt.", "0-0 1-1 2-2", "<x/>Ein Hund <y/>bellt.<z/>"),
        # Fewer words than tags.
        ("<b>one</b> <i>two</i> <u>three</u>", "eins", "0-0 1-0 2-0", "<b>eins</b> <i></i><u></u>"),
    ],
)
def test_tags_are_where_their_words_are(source: str, translation: str, links: str, expected: str) -> None:
    assert translated(source, fixed(translation, links)) == expected


TAGGED = [
    "A <b>big</b> dog and <i>two <u>small</u> cats</i> sleep.",
    "<b>All of it is bold.</b>",
    "<b>One is first. Two is</b> second. <i>Three</i> is third.",
    "Press <kbd/> or <a>this <b>very</b> link</a>, please!",
    "No tag at all.",
    "<a></a>Empty <b></b>tags <i> </i> everywhere<u></u>.",
    "Unclosed <b>tags and <i>wrong</b> ones</i> here.",
    "(<b>see</b> below), “<i>quoted</i>”: yes",
    "<b>{name}</b> has <i>%d messages</i> from {sender}.",
]


@pytest.mark.parametrize("text", TAGGED)
def test_an_identity_changes_nothing(text: str) -> None:
    assert translated(text, identity) == text


@pytest.mark.parametrize("text", TAGGED[:-4])
def test_word_by_word_tags_stay_where_they_are(text: str) -> None:
    parts = re.split(r"(<[^>]*>)", text)
    assert translated(text, upper) == "".join(part if part.startswith("<") else part.upper() for part in parts)


@pytest.mark.parametrize("text", TAGGED)
@pytest.mark.parametrize("name", TRANSLATORS)
def test_tags_come_back_once_inside_the_same_tags(text: str, name: str) -> None:
    found = translated(text, TRANSLATORS[name])
    assert nesting(found) == nesting(text)
    for placeholder in ("{name}", "%d", "{sender}"):
        assert found.count(placeholder) == text.count(placeholder)


def nesting(text: str) -> Counter[tuple[str, ...]]:
    """How often each tag stands inside which others."""
    seen: Counter[tuple[str, ...]] = Counter()

    def visit(content: object, around: tuple[str, ...]) -> None:
        for one in content:  # type: ignore[attr-defined]
            if not isinstance(one, str):
                name = str(one.source)
                seen[(*around, name)] += 1
                visit(one.children, (*around, name))

    visit(tags_of(text), ())
    return seen


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_of_tags_come_back(seed: int) -> None:
    draw = random.Random(seed)

    def tree(depth: int) -> str:
        parts = []
        for _ in range(draw.randint(0, 4)):
            name = draw.choice("abiu")
            inside = tree(depth - 1) if depth else "word"
            parts.append(draw.choice((f"<{name}>{inside}</{name}>", "some words", " ", "<x/>", "one. Two", inside)))
        return draw.choice(("", " ")).join(parts)

    text = f"Start {tree(3)} end."
    for translate in (*TRANSLATORS.values(),):
        assert nesting(translated(text, translate)) == nesting(text)


def test_reversed_words_take_their_tags_with_them() -> None:
    assert translated("a <b>b</b> <i>c d</i> e", reverse) == "E <i>D C</i> <b>B</b> A"


def test_without_an_alignment_tags_are_at_the_same_place() -> None:
    assert translated("one <b>two</b> three", unaligned) == "ONE <b>TWO</b> THREE"


def test_scripts_without_spaces_are_divided_by_place() -> None:
    source = "The cat <b>sleeps in the garden</b>"
    assert translated(source, fixed("这只小猫正在花园里面安静睡觉", "0-0")) == "这只小猫<b>正在花园里面安静睡觉</b>"


# Placeholders


def test_a_placeholder_that_is_kept_is_where_the_translation_has_it() -> None:
    text = translated("You have %d messages.", fixed("%d Nachrichten hast du.", "3-1"))
    assert text == "%d Nachrichten hast du."


def test_a_placeholder_that_is_lost_is_put_back_by_alignment() -> None:
    notes = DocumentNotes()
    passage = [tags_of("Hello {name}, you have %d messages.")]
    translate = fixed("Hallo [name], du hast viele.", "0-0 1-1 2-2 3-3", "Hallo, du hast Nachrichten.")
    (lines,) = translate_passages([passage], translate, languages=("en", "de"), notes=notes)
    assert lines is not None
    assert written_in_text(lines[0]) == "Hallo {name}, du hast %d Nachrichten."
    assert (notes.num_sentences, notes.num_repeated) == (1, 1)
    assert notes.messages() == [
        "1 sentence is translated again without placeholders, which were lost or changed, and have them where the "
        "alignment puts them"
    ]


def test_the_second_time_the_model_does_not_see_placeholders() -> None:
    seen: list[list[str]] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.append(sentences)
        return [Translated("Nichts davon.") for _ in sentences]

    translated("Hello {name}, see https://example.org/x now.", translate)
    assert seen == [["Hello {name}, see https://example.org/x now."], ["Hello, see now."]]


def test_what_only_the_translation_has_is_left_out() -> None:
    assert translated("Good morning.", fixed("Guten {x} <b>Morgen</b> %s.", "0-0")) == "Guten Morgen ."
    assert translated("Good morning.", fixed("Guten <b<i>>Morgen", "0-0")) == "Guten Morgen"


def test_sentences_of_nothing_but_placeholders_and_numbers_are_not_translated() -> None:
    def never(sentences: list[str]) -> list[Translated]:
        raise AssertionError(sentences)

    for text in ("{name}", "3.14 – 25 %", "https://example.org", "<b></b>", "", "***"):
        assert translated(text, never) == text


# Sentences


def test_equal_sentences_are_translated_once() -> None:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return upper(sentences)

    passages = [[["A cat. A dog."]], [["A dog."]]]
    assert translate_passages(passages, translate, languages=("en", "de")) == [[["A CAT. A DOG."]], [["A DOG."]]]
    assert seen == ["A cat.", "A dog."]


def test_an_empty_translation_leaves_the_source() -> None:
    notes = DocumentNotes()

    def translate(sentences: list[str]) -> list[Translated]:
        return [Translated("" if "cat" in one else one.upper()) for one in sentences]

    found = translate_passages([[["A cat. A dog."]]], translate, languages=("en", "de"), notes=notes)
    assert found == [[["A cat. A DOG."]]]
    assert notes.messages() == ["1 sentence is left as in the source: the translation is empty"]


def test_sentences_are_joined_as_their_language_does() -> None:
    def translate(sentences: list[str]) -> list[Translated]:
        return [Translated(f"{i}。") for i, _ in enumerate(sentences, start=1)]

    passage = [["A cat. A dog."]]
    assert translate_passages([passage], translate, languages=("en", "zh")) == [[["1。2。"]]]
    assert translate_passages([[["一只猫。一只狗。"]]], translate, languages=("zh", "en")) == [[["2。 1。"]]]


def test_another_number_of_translations_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"translate returned 0 translations of 1 sentences"):
        translate_passages([[["A cat."]]], lambda _: [], languages=("en", "de"))


def test_a_splitter_that_changes_the_text_splits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformer.documents.sentences.split_sentences", lambda *_: ["A cat!", "A dog."])
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return identity(sentences)

    translate_passages([[["A cat. A dog."]]], translate, languages=("en", "de"))
    assert seen == ["A cat. A dog."]


def test_no_sentence_ends_within_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "transformer.documents.sentences.split_sentences", lambda *_: ["Use {{ a.", "b }} here.", "Yes."]
    )
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return identity(sentences)

    translate_passages([[["Use {{ a. b }} here. Yes."]]], translate, languages=("en", "de"))
    assert seen == ["Use {{ a. b }} here.", "Yes."]

"""Laws that hold for any document and any translator, of documents that hypothesis draws."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended_translators import TRANSLATORS, babble, identity, upper
from word_documents import NAMESPACES, body, document, parts, run

from transformer.documents.formats import Translate, Translated, translate_document
from transformer.documents.html_tokens import html_tokens
from transformer.errors import DataError

few = settings(max_examples=30, deadline=None, derandomize=True)
translators = st.one_of(st.sampled_from([*TRANSLATORS.values()]), st.integers(0, 999).map(babble))


def translated(data: bytes, form: str, translate: Translate) -> bytes:
    return translate_document(data, form, translate, languages=("en", "de"))


# Documents, of words that are never twice in one of them once they are numbered

WORDS = st.sampled_from(["cat", "big", "river,", "Dog.", "house!", "(sea)", "“Sun”", "{name}"])
TAGS = ("b", "i", "a href='x'", 'span class="y"')


WORD = re.compile(r"(?:cat|big|river|Dog|house|sea|Sun)\d+x")


def numbered(text: str) -> str:
    """The same, with a number in each word."""
    count = iter(range(10**6))
    return re.sub(
        r"(?<![<\w/&{'=\"])(cat|big|river|Dog|house|sea|Sun)\b", lambda match: f"{match[1]}{next(count)}x", text
    )


def joined(parts: Sequence[str]) -> str:
    return " ".join(parts)


sentences = st.lists(WORDS, min_size=1, max_size=6).map(joined)


def around(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Text with some of it in tags."""
    tagged = st.tuples(st.sampled_from(TAGS), inside).map(lambda x: f"<{x[0]}>{x[1]}</{x[0].split()[0]}>")
    return st.lists(st.one_of(inside, tagged), min_size=1, max_size=3).map(joined)


tagged = st.recursive(sentences, around, max_leaves=5)
pages = st.lists(
    st.tuples(st.sampled_from(["<p>", "<li>", "<td>", "<h1 class=x>\n", "<br><br>", "<!-- c --><p>"]), tagged).map(
        "".join
    ),
    min_size=1,
    max_size=4,
).map(lambda found: numbered("\n".join(found)))
lines = st.tuples(
    st.sampled_from(["", "", "- ", "  ", "12. ", "> ", "# "]), sentences, st.sampled_from(["", " ", "\t"])
)
texts = st.tuples(
    st.lists(st.one_of(lines.map("".join), st.sampled_from(["", "  ", "* * *", "<i>"])), max_size=9),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
).map(lambda x: numbered(x[1].join(x[0]) + x[1] * x[2]))


@st.composite
def films(draw: Callable[[Any], Any]) -> str:
    """Subtitles, of which some have no number, no blank line or no text."""
    cues = []
    for i in range(draw(st.integers(1, 5))):
        number = draw(st.sampled_from([f"{i + 1}\n", "", f" {i + 1} \n"]))
        times = f"00:00:{2 * i:02},{draw(st.sampled_from(['000', '5']))} --> 00:00:{2 * i + 1:02}.900"
        place = draw(st.sampled_from(["", " X1:1", "  position:50%"]))
        text = draw(
            st.lists(st.tuples(st.sampled_from(["", "- ", "{\\an8}", "♪ "]), sentences).map("".join), max_size=3)
        )
        cues.append(f"{number}{times}{place}\n" + "".join(f"{line}\n" for line in text))
    film = numbered(draw(st.sampled_from(["", "\n", "\n\n"])).join(cues))
    return draw(st.sampled_from(["", "\ufeff"])) + film.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


def run_of(text: str, format_: str) -> str:
    return run(text.replace("&", "&amp;"), format_)


runs = st.tuples(sentences, st.sampled_from(["", "<w:b/>", '<w:color w:val="FF0000"/>'])).map(lambda x: run_of(*x))
others = st.sampled_from(
    [
        "<w:r><w:tab/></w:r>",
        "<w:r><w:br/></w:r>",
        '<w:bookmarkStart w:id="1"/>',
        "<w:proofErr/>",
        "<w:r><w:drawing/></w:r>",
    ]
)


def linked(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(["hyperlink", "ins", "smartTag"])
    element = st.tuples(names, inside).map(lambda x: f"<w:{x[0]}>{x[1]}</w:{x[0]}>")
    return st.lists(st.one_of(inside, element, others), min_size=1, max_size=3).map("".join)


paragraphs = st.lists(st.recursive(runs, linked, max_leaves=5), min_size=1, max_size=3)
word_files = paragraphs.map(
    lambda found: document(
        numbered(body(*found)),
        word__header1_xml=f"<w:hdr {NAMESPACES}><w:p>{run('A header')}</w:p></w:hdr>",
        **{"word__media__image.png": b"\x89PNG\0\1"},
    )
)
DOCUMENTS = {
    "text": texts.map(str.encode),
    "srt": films().map(str.encode),
    "html": pages.map(str.encode),
    "docx": word_files,
}


# What is in a document


def text_of(data: bytes, form: str) -> str:
    """What a reader sees, with spaces where tags are."""
    if form == "docx":
        data = b"\n".join(
            content for name, content in parts(data).items() if name.startswith("word/") and "media" not in name
        )
    return re.sub(r"<[^>]*>", " ", data.decode())


def tags_of(data: bytes, form: str) -> Counter[str]:
    """All that is not text, as often as it is there: tags, line ends of text, elements and parts of Word documents."""
    if form != "docx":
        patterns = {"html": r"<[^>]*>", "text": r"</?[a-z][^<>\r\n]*>|[\r\n]", "srt": r"\{\\an8\}|-->|[\r\n]"}
        return Counter(re.findall(rf"\{{name\}}|{patterns[form]}", data.decode()))
    found: Counter[str] = Counter()
    for name, content in parts(data).items():
        if name.endswith(".xml"):
            opening = re.findall(rb"<(\w[\w:]*)", content)
            found.update(f"{name} {one.decode()}" for one in opening if one != b"w:t")
            found["{name}"] += content.count(b"{name}")
        else:
            found[f"{name} {content!r}"] += 1
    return found


def nesting(page: str) -> Counter[tuple[str, ...]]:
    """Each tag of a page with those around it; AssertionError where they cross."""
    seen: Counter[tuple[str, ...]] = Counter()
    open_tags: list[str] = []
    for token in html_tokens(page):
        name = page[token.start : token.end]
        if token.name not in {tag.split()[0] for tag in TAGS}:
            continue
        if token.kind == "end":
            assert open_tags.pop().startswith(f"<{token.name}")
        else:
            seen[(*open_tags, name)] += 1
            open_tags.append(name)
    assert not open_tags
    return seen


# The laws

forms = pytest.mark.parametrize("form", DOCUMENTS)


@forms
@few
@given(data=st.data())
def test_an_identity_gives_the_same_bytes(form: str, data: st.DataObject) -> None:
    made = data.draw(DOCUMENTS[form])
    assert translated(made, form, identity) == made


@forms
@few
@given(data=st.data())
def test_the_translation_of_each_sentence_is_there_once(form: str, data: st.DataObject) -> None:
    made = data.draw(DOCUMENTS[form])
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        assert not seen  # no placeholder is lost
        seen.extend(sentences)
        made = [f"S{i}e W{i}e {'{name} ' * one.count('{name}')}Z{i}e." for i, one in enumerate(sentences)]
        return [
            Translated(text, [(0, 0), (len(one.split()) - 1, 2)]) for text, one in zip(made, sentences, strict=True)
        ]

    found = text_of(translated(made, form, translate), form)
    words = Counter(re.findall(r"[SWZ]\d+e", found))
    assert words == Counter(f"{letter}{i}e" for i in range(len(seen)) for letter in "SWZ")
    # The sentences were all words of the document, of which none is left.
    assert Counter(WORD.findall("\n".join(seen))) == Counter(WORD.findall(text_of(made, form)))
    assert not WORD.search(found)


@pytest.mark.parametrize("form", ["html", "docx"])  # lines of text and subtitles may end elsewhere than before
@few
@given(data=st.data())
def test_the_sentences_of_the_output_are_the_translations(form: str, data: st.DataObject) -> None:
    made = data.draw(DOCUMENTS[form])
    answers: list[list[str]] = []

    def translate(sentences: list[str]) -> list[Translated]:
        answers.append([f"S{i}e W{i}e {'{name} ' * one.count('{name}')}Z{i}e." for i, one in enumerate(sentences)])
        return [Translated(text) for text in answers[-1]]

    seen: list[str] = []

    def read(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return identity(sentences)

    translated(translated(made, form, translate), form, read)
    assert seen == sorted(itertools.chain(*answers))


@forms
@few
@given(data=st.data(), translate=translators)
def test_tags_and_lines_are_as_many_as_before_and_the_output_can_be_read(
    form: str, data: st.DataObject, translate: Translate
) -> None:
    made = data.draw(DOCUMENTS[form])
    found = translated(made, form, translate)
    assert tags_of(found, form) == tags_of(made, form)
    assert translated(found, form, identity) == found
    if form == "html":
        assert nesting(found.decode()) == nesting(made.decode())


@forms
@few
@given(data=st.data())
def test_word_by_word_all_stays_in_its_place(form: str, data: st.DataObject) -> None:
    made = data.draw(DOCUMENTS[form])
    found = translated(made, form, upper)
    if form == "docx":
        expected = [(around, text.upper() if around else text) for around, text in shape(made)]
        assert shape(found) == [(around, text.replace("{NAME}", "{name}")) for around, text in expected]
    else:
        changed = re.sub(r"(<[^>]*>)|[^<]+", lambda match: match[1] or match[0].upper(), made.decode())
        for kept in ("{\\an8}", "{name}", "position"):
            changed = changed.replace(kept.upper(), kept)
        assert squeezed(found.decode(), form) == squeezed(changed, form)


def squeezed(text: str, form: str) -> str:
    """With single spaces between words, and none beside tags."""
    return re.sub(r" *(<[^>]*>) *", r"\1", re.sub(r"\s+" if form == "html" else r"(?<=\S) +(?=\S)", " ", text))


def shape(data: bytes) -> list[tuple[str, str]]:
    """Texts of one format in a Word document, with what is around them, and what is between them.

    Without spaces, which may be on either side.
    """
    from lxml import etree

    found: list[tuple[str, str]] = []
    for one in etree.fromstring(parts(data)["word/document.xml"]).iter():
        name = one.tag.rpartition("}")[2]
        if name == "t" and (text := "".join((one.text or "").split())):
            format_ = [x.tag for properties in one.getparent() for x in properties if properties.tag != one.tag]
            around = " ".join([*(x.tag for x in one.iterancestors()), *format_])
            if found and found[-1][0] == around:
                text = found.pop()[1] + text
            found.append((around, text))
        elif name in ("p", "tab", "br", "drawing"):
            found.append(("", name))
    return found


@pytest.mark.parametrize("form", ["text", "srt", "html"])
@few
@given(text=st.text(alphabet="<>&;#/!-ab \n\"'=0:,.\t{}\\%xpri\ufeff。"), translate=translators)
def test_any_characters_are_read_and_come_back(form: str, text: str, translate: Translate) -> None:
    made = ("1\n00:00:01,000 --> 00:00:02,000\n" * (form == "srt") + text).encode()
    try:
        assert translated(made, form, identity) == made
    except DataError:
        assert form == "srt"
        assert "-->" in text
        return
    translated(translated(made, form, translate), form, upper)

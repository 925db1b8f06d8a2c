"""Word documents: elements and parts stay, text is translated, formats and links go where their words go."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pretended_translators import TRANSLATORS, identity, reverse, upper
from word_documents import NAMESPACES, body, document, parts, run

from transformer.documents import word_parts
from transformer.documents.formats import Translate, Translated, translate_document
from transformer.errors import DataError

etree: Any = pytest.importorskip("lxml.etree")
W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
BOLD, RED = "<w:b/>", '<w:color w:val="FF0000"/>'


def translated(data: bytes, translate: Translate) -> bytes:
    return translate_document(data, "docx", translate, languages=("en", "de"))


def main_of(data: bytes) -> Any:
    return etree.fromstring(parts(data)["word/document.xml"])


def texts(data: bytes) -> list[str]:
    """The text of each paragraph, with formats as tags."""
    found = []
    for paragraph in main_of(data).iter(f"{W}p"):
        pieces = []
        for one in paragraph.iter(f"{W}r"):
            text = "".join(child.text or "" for child in one if child.tag == f"{W}t")
            properties = [child for format_ in one.iterfind(f"{W}rPr") for child in format_]
            names = [child.tag.removeprefix(W)[0] for child in properties if child.tag != f"{W}lang"]
            for name in names if text else ():
                text = f"<{name}>{text}</{name}>"
            pieces.append(text)
        found.append("".join(pieces))
    return found


def elements(data: bytes) -> Counter[str]:
    """How often each element is in all parts with text, but for text itself."""
    found: Counter[str] = Counter()
    for name, content in parts(data).items():
        if name.startswith("word/") and name.endswith(".xml"):
            found.update(str(one.tag) for one in etree.fromstring(content).iter() if one.tag != f"{W}t")
    return found


def order(data: bytes) -> list[tuple[str, str]]:
    """Elements whose order matters, such as the beginning and the end of a field."""
    kinds = ("fldChar", "instrText", "bookmarkStart", "bookmarkEnd", "commentRangeStart", "commentRangeEnd")
    return [
        (one.tag.removeprefix(W), str(sorted(one.attrib.items())))
        for one in main_of(data).iter()
        if isinstance(one.tag, str) and one.tag.removeprefix(W) in kinds
    ]


LINK = f'<w:hyperlink r:id="rId5">{run("the manual", "<w:u/>")}</w:hyperlink>'
FIELD = (
    '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>'
    f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("7")}<w:r><w:fldChar w:fldCharType="end"/></w:r>'
)
NOTE = '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:footnoteReference w:id="2"/></w:r>'
BOX = f"<w:r><w:pict><w:txbxContent><w:p>{run('Inside a box.')}</w:p></w:txbxContent></w:pict></w:r>"
PARAGRAPHS = (
    f"<w:pPr><w:jc/></w:pPr>{run('A ')}{run('bold', BOLD)}{run(' dog sleeps. It is ')}{run('red', RED)}{run('.')}",
    f'{run("Read ")}<w:bookmarkStart w:id="1"/>{LINK}<w:bookmarkEnd w:id="1"/>{run(" now")}{NOTE}{run(".")}',
    f"{run('On page ')}{FIELD}{run(' there is more.')}",
    f"{run('Hel')}<w:proofErr/>{run('lo world', '<w:lang/>')}{BOX}",
    f"{run('One', extra='<w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t>')}",
    f'<w:ins w:id="9">{run("New words", BOLD)}</w:ins><w:del w:id="8"><w:r><w:delText>old</w:delText></w:r></w:del>',
    f"<w:sdt><w:sdtPr/><w:sdtContent>{run('A control')}</w:sdtContent></w:sdt>{run(' here', BOLD)}<!-- x --><?y z?>",
    f"{run('Dear {name}, you ', BOLD)}{run('have %d messages', RED)}",
    "<w:pPr/><w:r><w:drawing/></w:r>",
    f"{run('42')}",
    f"{LINK}{LINK}",
    "<w:r><w:t>  No space kept  </w:t></w:r>",
)
DOCUMENT = document(
    body(*PARAGRAPHS),
    word__header1_xml=f"<w:hdr {NAMESPACES}><w:p>{run('A header')}</w:p></w:hdr>",
    word__footnotes_xml=f"<w:footnotes {NAMESPACES}><w:footnote><w:p>{run('A note.')}</w:p></w:footnote></w:footnotes>",
    word__settings_xml=f"<w:settings {NAMESPACES}><w:p>{run('no text')}</w:p></w:settings>",
    **{"word__media__image.png": b"\x89PNG\0\1"},
)


def test_an_identity_gives_the_same_bytes() -> None:
    assert translated(DOCUMENT, identity) == DOCUMENT


@pytest.mark.parametrize("name", TRANSLATORS)
def test_all_elements_and_parts_come_back(name: str) -> None:
    found = translated(DOCUMENT, TRANSLATORS[name])
    assert elements(found) == elements(DOCUMENT)
    assert order(found) == order(DOCUMENT)
    before, after = parts(DOCUMENT), parts(found)
    assert list(before) == list(after)
    for part in ("[Content_Types].xml", "_rels/.rels", "word/media/image.png", "word/settings.xml"):
        assert before[part] == after[part]
    assert translated(found, identity) == found


def test_paragraphs_are_translated_with_their_formats() -> None:
    found = translated(DOCUMENT, upper)
    assert texts(found) == [
        "A <b>BOLD</b> DOG SLEEPS. IT IS <c>RED</c>.",
        "READ <u>THE MANUAL</u> NOW.",
        "ON PAGE 7 THERE IS MORE.",
        "HELLO WORLDINSIDE A BOX.",
        "INSIDE A BOX.",
        "ONETWOTHREE",
        "<b>NEW WORDS</b>",
        "A CONTROL<b> HERE</b>",
        "<b>DEAR {name}, YOU </b><c>HAVE %d MESSAGES</c>",
        "",
        "42",
        "<u>THE MANUAL</u><u>THE MANUAL</u>",
        "NO SPACE KEPT",
    ]
    assert b"A HEADER" in parts(found)["word/header1.xml"]
    assert b"A NOTE." in parts(found)["word/footnotes.xml"]


def test_tabs_and_breaks_stay_between_their_words() -> None:
    (one,) = (x for x in main_of(translated(DOCUMENT, upper)).iter(f"{W}r") if x.find(f"{W}tab") is not None)
    assert [child.tag.removeprefix(W) for child in one] == ["rPr", "t", "tab", "t", "br", "t"]


def test_formats_move_with_their_words() -> None:
    data = document(body(f"{run('a ')}{run('b', BOLD)}{run(' c ')}{run('d', RED)}{run(' e')}"))
    assert texts(translated(data, reverse)) == ["E <c>D</c> C <b>B</b> A"]


def test_text_without_a_run_of_its_own_goes_to_the_run_before() -> None:
    data = document(body(f"{run('Stop', BOLD)}{run(' here now')}"))
    found = translated(data, lambda _: [Translated("jetzt hier Stopp hier", [(2, 0), (1, 1), (0, 2), (1, 3)])])
    assert texts(found) == ["jetzt hier <b>Stopp hier</b>"]
    links = document(body(f"{LINK}{LINK}"))
    found = translated(links, lambda _: [Translated("vor das Handbuch", [(1, 1), (1, 2)])])
    assert "".join(texts(found)).replace("<u>", "").replace("</u>", "") == "vor das Handbuch"


def test_text_is_not_lost_where_no_run_is_left_for_it() -> None:
    found = translated(document(body(f"{LINK}{LINK}")), lambda _: [Translated("…!", [(0, 7)])])
    assert "".join(texts(found)).replace("<u>", "").replace("</u>", "") == "…!"


def seen_by(data: bytes) -> list[str]:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return reverse(sentences)

    found = translated(data, translate)
    assert elements(found) == elements(data)
    assert order(found) == order(data)
    return seen


@pytest.mark.parametrize(
    ("between", "sentences"),
    [
        ("<w:r><w:tab/></w:r>", ["One", "two"]),  # columns
        ("<w:r><w:rPr><w:b/></w:rPr><w:tab/><w:tab/></w:r>", ["One", "two"]),
        ("<w:r><w:br/></w:r>", ["One two"]),
        ('<w:r><w:lastRenderedPageBreak/><w:br w:type="page"/></w:r>', ["One two"]),
        (run("", extra="<w:cr/>"), ["One two"]),
        ("<w:r><w:softHyphen/></w:r>", ["Onetwo"]),
        ('<w:proofErr w:type="spellStart"/>', ["Onetwo"]),
        ('<w:moveFrom w:id="1"><w:r><w:t>gone</w:t></w:r></w:moveFrom>', ["Onetwo"]),
        ('<w:del w:id="1"><w:r><w:delText>gone</w:delText></w:r></w:del>', ["Onetwo"]),
        ("<m:oMath xmlns:m='x'><m:r><m:t>x</m:t></m:r></m:oMath>", ["Onetwo"]),
    ],
)
def test_what_is_in_a_run_of_its_own_separates_words_or_does_not(between: str, sentences: list[str]) -> None:
    assert seen_by(document(body(f"{run('One')}{between}{run('two')}"))) == sentences


def test_a_hyphen_at_which_no_line_breaks_is_a_letter_of_its_word() -> None:
    inside = "<w:r><w:t>A well</w:t><w:noBreakHyphen/><w:t>known X</w:t><w:noBreakHyphen/><w:t>ray</w:t></w:r>"
    own = [
        f"{run('One')}<w:r>{format_}<w:noBreakHyphen/></w:r>{run('two')}" for format_ in ("", "<w:rPr><w:b/></w:rPr>")
    ]
    page = document(body(inside, *own))
    seen: list[str] = []

    def note(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return upper(sentences)

    assert texts(translated(page, note)) == ["A WELL-KNOWN X-RAY", "ONE-TWO", "ONE<b>-</b>TWO"]
    assert seen == ["A well-known X-ray", "One-two"]
    assert translated(page, identity) == page


def test_columns_are_translated_one_by_one() -> None:
    data = document(body(f"{run('Sold cars')}<w:r><w:tab/></w:r>{run('big house', BOLD, '<w:tab/>')}{run('10')}"))
    assert texts(translated(data, reverse)) == ["CARS SOLD<b>HOUSE BIG</b>10"]


# Fields


def field_of(instruction: str, *result: str) -> str:
    """A field as Word writes it, in runs of their own."""
    marks = [f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "separate", "end")]
    instruction = f'<w:r><w:instrText xml:space="preserve"> {instruction} </w:instrText></w:r>'
    return "".join([marks[0], instruction, marks[1], *result, marks[2]])


ADDRESS = 'HYPERLINK "https://example.org/a" \\o "A title"'


def test_the_text_of_a_link_that_is_a_field_is_translated() -> None:
    link = field_of(ADDRESS, run("the", "<w:u/>"), "<w:proofErr/>", run(" big", "<w:u/>"), run(" manual", BOLD))
    data = document(body(f"{run('Read ')}{link}{run(' now.')}"))
    assert seen_by(data) == ["Read the big manual now."]
    assert texts(translated(data, upper)) == ["READ <u>THE</u><u> BIG </u><b>MANUAL</b> NOW."]


def test_a_link_that_is_a_field_moves_with_its_words() -> None:
    data = document(body(f"{run('Read ')}{field_of(ADDRESS, run('this manual', '<w:u/>'))}{run(' now')}"))
    found = translated(data, lambda _: [Translated("jetzt Handbuch dies lesen", [(3, 0), (2, 1), (1, 2), (0, 3)])])
    assert texts(found) == ["jetzt <u>Handbuch dies</u> lesen"]
    (paragraph,) = main_of(found).iter(f"{W}p")
    shown = [one.get(f"{W}fldCharType") or one.text for one in paragraph.iter(f"{W}fldChar", f"{W}t")]
    assert shown == ["jetzt ", "begin", "separate", "Handbuch dies", "end", " lesen"]


def test_a_link_in_a_simple_field_is_translated_and_another_one_is_kept() -> None:
    simple = '<w:fldSimple w:instr=" {} ">' + run("this page") + "</w:fldSimple>"
    data = document(body(f"{run('See ')}{simple.format('hyperlink x')}", f"{run('See ')}{simple.format('REF x')}"))
    assert texts(translated(data, upper)) == ["SEE THIS PAGE", "SEE this page"]


def test_an_entry_of_a_table_of_contents_keeps_its_page() -> None:
    entry = run("The first part") + "<w:r><w:tab/></w:r>" + field_of("PAGEREF _Toc1", run("3"))
    first = field_of("TOC", f'<w:hyperlink w:anchor="_Toc1">{entry}</w:hyperlink>').rpartition("<w:r>")[0]
    last = '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    data = document(body(first, f'<w:hyperlink w:anchor="_Toc1">{entry}</w:hyperlink>', last))
    assert seen_by(data) == ["The first part"]  # equal ones are translated once
    assert texts(translated(data, upper))[:2] == ["THE FIRST PART3"] * 2


def test_a_field_inside_of_a_run_leaves_its_text_to_translate() -> None:
    mark = '<w:fldChar w:fldCharType="{}"/>'
    inside = f"{mark.format('begin')}<w:instrText>PAGE</w:instrText>{mark.format('end')}"
    data = document(body(run("The page ", extra=f"{inside}<w:t> is here</w:t>")))
    assert seen_by(data) == ["The page is here"]
    shown = f"{mark.format('begin')}<w:instrText>PAGE</w:instrText>{mark.format('separate')}<w:t>page</w:t>"
    data = document(body(run("On ", extra=f"{shown}{mark.format('end')}")))
    assert translated(data, upper) == data  # what it shows cannot be told from text around it


def test_spaces_at_the_edges_of_a_run_are_kept() -> None:
    (first, *_) = main_of(translated(DOCUMENT, upper)).iter(f"{W}t")
    assert (first.text, first.get("{http://www.w3.org/XML/1998/namespace}space")) == ("A ", "preserve")


def test_strict_documents_and_types_by_extension_are_read() -> None:
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    main = body(run("A cat.")).replace("http://schemas.openxmlformats.org/wordprocessingml/2006/main", strict)
    types = parts(DOCUMENT)["[Content_Types].xml"].decode()
    main_type = types.split('document.xml" ContentType="')[1].split('"')[0]
    data = document(
        main, **{"[Content_Types]_xml": f'<Types><Default Extension="xml" ContentType="{main_type}"/></Types>'}
    )
    assert b"A CAT." in parts(translated(data, upper))["word/document.xml"]


@pytest.mark.parametrize("seed", range(10))
def test_elements_of_random_documents_come_back(seed: int) -> None:
    draw = random.Random(seed)

    def inside(depth: int) -> str:
        pieces = []
        for _ in range(draw.randint(0, 6)):
            text = draw.choice(("word", "some words ", " and. More", "{x}", " "))
            choices = [
                run(text, draw.choice(("", BOLD, RED))),
                '<w:bookmarkStart w:id="1"/>',
                NOTE,
                FIELD,
                "<w:proofErr/>",
            ]
            choices.append(run(text, BOLD, "<w:tab/>"))
            if depth:
                choices.append(f"<w:hyperlink>{inside(depth - 1)}</w:hyperlink>")
            pieces.append(draw.choice(choices))
        return "".join(pieces)

    data = document(body(*(inside(3) for _ in range(9))))
    assert translated(data, identity) == data
    for translate in TRANSLATORS.values():
        found = translated(data, translate)
        assert elements(found) == elements(data)
        assert fields_are_closed(found)


def fields_are_closed(data: bytes) -> bool:
    depth = 0
    for one in main_of(data).iter(f"{W}fldChar"):
        depth += {"begin": 1, "separate": 0, "end": -1}[one.get(f"{W}fldCharType")]
        assert depth >= 0
    return depth == 0


def test_deeply_nested_links_are_left_as_they_are() -> None:
    data = document(body("<w:ins>" * 80 + run("deep") + "</w:ins>" * 80))
    assert translated(data, upper) == data


# Damaged and hostile documents

BOMB = '<!DOCTYPE w:document [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
EXTERNAL = '<!DOCTYPE w:document [<!ENTITY x SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize(
    ("main", "message"),
    [
        (f"{BOMB}]>{body(run('&j;'))}", "^its part 'word/document.xml' (is not XML|declares a document type)"),
        (f"{EXTERNAL}]>{body(run('&x;'))}", "^its part 'word/document.xml' declares a document type, which no Word"),
        ('<!DOCTYPE w:document SYSTEM "http://127.0.0.1/x.dtd">' + body(), "declares a document type"),
        ("<w:document", "^its part 'word/document.xml' is not XML: "),
        ("", "^its part 'word/document.xml' is not XML: "),
        ("<a>" * 5000, "^its part 'word/document.xml' is not XML: "),
    ],
)
def test_hostile_xml_is_an_error(main: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        translated(document(main), identity)


def test_a_document_of_too_many_elements_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_parts, "_MOST_TAGS", 99)
    with pytest.raises(DataError, match=r"^has \d+ tags, more than 99: split it$"):
        translated(document(body("<w:r/>" * 99)), identity)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (None, r"^is no Word document: it has no \[Content_Types\]\.xml$"),
        ("<Types/>", "^is no Word document: it has no main part$"),
    ],
)
def test_other_containers_are_an_error(types: str | None, message: str) -> None:
    from word_documents import archive

    data = archive({"word/document.xml": body()} | ({"[Content_Types].xml": types} if types else {}))
    with pytest.raises(DataError, match=message):
        translated(data, identity)


def test_without_lxml_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lxml", None)
    with pytest.raises(DataError, match=r"needs lxml: pip install 'attention-is-all-you-need\[documents\]'$"):
        translated(DOCUMENT, identity)

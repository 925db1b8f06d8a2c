"""Web pages: all but the text stays byte for byte, and tags come back once, inside the same tags."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from pretended_translators import TRANSLATORS, identity, reverse, upper

from transformer.documents import html as module
from transformer.documents.formats import Translate, Translated, translate_document
from transformer.documents.html_attributes import LANGUAGES, attributes_to_read
from transformer.documents.html_tokens import html_tokens, is_xml
from transformer.errors import DataError


def translated(page: str, translate: Translate) -> str:
    return translate_document(page.encode(), "html", translate, languages=("en", "de")).decode()


PAGE = """<!DOCTYPE html>
<html lang=en>
<head><meta charset="utf-8"><title>A page &amp; its title</title>
<style>p > b { color: red }</style>
<script>if (a < b && c > d) { document.write("<p>Not text.</p>"); }</script>
</head>
<body class='x' data-a="<p>">
<!-- A comment with <b>tags</b>. -->
<h1>The <em>first</em> heading</h1>
<p>A <b>bold <i>and slanted</i></b> word.<br>A second sentence,
   with a <a href="https://example.org/?a=1&amp;b=2" title='Go "there"'>link to a page</a>.
<p>No end tag, but &lt;brackets&gt;, an image <img src=x alt="a > b"> and &nbsp; a space
<ul><li>First item<li>Second <code>git  pull</code> item</ul>
<pre>  Not
  translated.  </pre>
<p translate="no">Not translated either.</p>
<p>Say <span class="x notranslate">Bonjour</span> to them.</p>
<table><tr><td>42<td>forty-two</table>
<textarea>Not translated.</textarea>
<svg><title>No.</title><path d="M0 0"/></svg>
<div>Two lines<br/>of an address<br><br/>and a new paragraph &unknown; &copy 2026</div>
</body>
</html>
"""
PAGES = [
    PAGE,
    PAGE.replace("\n", "\r\n"),
    "",
    "Just text",
    "a < b & c > d, x<3 and </ and </> and <> end <",
    "<p>Unclosed <b>tags <i>all</b> over<p>the </i>page</u>",
    "<p>An unclosed <a href='x>comment --> and \"quotes",
    "<p>text<!-- unclosed comment <p>not text",
    "<p>text<script>unclosed <p>not text",
    "<p>text<!-->text<!--->text<!-- a --!>text<!x>text<?php y ?>text</3>text",
    "<P><B>Upper</B> <A HREF=x/>case</A></P >",
    "<b>" * 300 + "deep" + "</b>" * 300,
    '<?xml version="1.0"?><html xmlns="x"><script src="y"/><p>One <b/>two<br/></p><![CDATA[ <p>no ]]></html>',
    "<p>Code <code>that <p>never ends",
    "<div translate=no>a<p>b</div><p>c <svg><g></svg> d <math><mi>x</math> e",
]


@pytest.mark.parametrize("page", PAGES)
def test_an_identity_gives_the_same_bytes(page: str) -> None:
    assert translated(page, identity) == page


@pytest.mark.parametrize("page", PAGES)
def test_the_tokens_are_the_page(page: str) -> None:
    tokens = list(html_tokens(page))
    assert "".join(page[token.start : token.end] for token in tokens) == page
    assert all(token.start < token.end for token in tokens)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", TRANSLATORS)
def test_tags_come_back(page: str, name: str) -> None:
    found = translated(page, TRANSLATORS[name])
    assert tags(found) == tags(page)


def tags(page: str) -> Counter[str]:
    """All that is not text, without the values of attributes that are text, and of languages."""
    found: Counter[str] = Counter()
    for token in html_tokens(page):
        languages = [token.attributes[name] for name in LANGUAGES if name in token.attributes]
        source, position = "", token.start
        for start, end in sorted([*attributes_to_read(page, token), *languages]):
            source, position = source + page[position:start], end
        found[source + page[position : token.end]] += token.kind not in ("text", "title")
    return +found


def test_a_page_is_translated() -> None:
    expected = PAGE
    for text in (
        *("A page &amp; its title", "The <em>first</em> heading", "forty-two", "First item"),
        *("A <b>bold <i>and slanted</i></b> word.", "A second sentence,\n   with a ", "link to a page</a>"),
        *("No end tag, but ", ", an image ", "Second ", " item</ul>", "Say ", " to them."),
        *("Two lines", "of an address", "and a new paragraph "),
    ):
        assert expected.count(text) == 1, text
        tags = re.split("(<[^>]*>|&amp;)", text)
        expected = expected.replace(text, "".join(part if part[:1] in "<&" else part.upper() for part in tags))
    # White space within a sentence becomes one space, and references become characters.
    expected = expected.replace(",\n   WITH", ", WITH").replace(" and &nbsp; a space", " AND A SPACE")
    expected = expected.replace("&copy 2026", "© 2026").replace("<html lang=en>", '<html lang="de">')
    expected = expected.replace("""title='Go "there"'""", """title='GO "THERE"'""").replace('"a > b"', '"A &gt; B"')
    assert translated(PAGE, upper) == expected


@pytest.mark.parametrize("seed", range(15))
def test_tags_of_random_pages_come_back_inside_the_same_tags(seed: int) -> None:
    draw = random.Random(seed)
    inline = ("b", "i", "a href='x'", "span")

    def content(depth: int) -> str:
        parts = []
        for _ in range(draw.randint(0, 5)):
            name = draw.choice(inline)
            inside = content(depth - 1) if depth else "word"
            element = f"<{name}>{inside}</{name.split()[0]}>"
            parts.append(
                draw.choice((element, "some words", "one<br>two", "<img src=y>", "One. Two", "&lt;", "{x}", "<!--c-->"))
            )
        return draw.choice(("", " ", "\n")).join(parts)

    page = "".join(f"<p>{content(3)}</p>\n" for _ in range(7))
    assert translated(page, identity) == page
    for translate in TRANSLATORS.values():
        assert nesting(translated(page, translate)) == nesting(page)


def nesting(page: str) -> Counter[tuple[str, ...]]:
    """How often each tag stands inside which others, of a page whose tags are all closed. Fails if they are not."""
    seen: Counter[tuple[str, ...]] = Counter()
    around: list[str] = []
    for token in html_tokens(page):
        if token.kind == "end":
            assert around.pop() == token.name
        elif token.kind != "text":
            seen[(*around, page[token.start : token.end])] += 1
            if token.kind == "start" and token.name not in ("br", "img"):
                around.append(token.name)
    assert not around
    return seen


def test_tags_move_with_their_words() -> None:
    assert translated("<p>see <a href=x>this page</a> <b>now</b></p>", reverse) == (
        "<p><b>NOW</b> <a href=x>PAGE THIS</a> SEE</p>"
    )


def test_a_translation_is_text_and_no_markup() -> None:
    found = translated("<p>A cat.</p>", lambda _: [Translated('<script>x</script> & 1 < 2 "q"')])
    assert found == '<p>x &amp; 1 &lt; 2 "q"</p>'


def test_code_is_read_by_the_model_and_kept() -> None:
    seen: list[str] = []

    def translate(sentences: list[str]) -> list[Translated]:
        seen.extend(sentences)
        return [Translated("Zuerst git pull ausführen.") for _ in sentences]

    page = "<p>Run <code class='c'>git\n <i>pull</i></code> first.</p>"
    assert translated(page, translate) == "<p>Zuerst <code class='c'>git\n <i>pull</i></code> ausführen.</p>"
    assert seen == ["Run git pull first."]


def test_code_that_the_model_changes_is_put_back() -> None:
    answers = {"Run git pull first.": "Git ziehen.", "Run first.": "Zuerst laufen."}
    page = "<p>Run <code>git pull</code> first.</p>"
    found = translated(page, lambda sentences: [Translated(answers[one], [(0, 1), (1, 0)]) for one in sentences])
    assert found == "<p><code>git pull</code> Zuerst laufen.</p>"


def test_a_tag_in_a_page_that_is_text_stays_text() -> None:
    page = "<p>Write &lt;br/&gt; for a new line.</p>"
    assert translated(page, upper) == "<p>WRITE &lt;br/&gt; FOR A NEW LINE.</p>"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        # What is visible of a form.
        (
            "<p>Choose <select><option value=de>Germany<option value='fr'>France</select>",
            "<p>CHOOSE <select><option value=de>GERMANY<option value='fr'>FRANCE</select>",
        ),
        ("<label>Name <input placeholder='a name'></label>", "<label>NAME <input placeholder='A NAME'></label>"),
        # An option without a value sends its text.
        ("<select><option>Germany</option><option>France</select> ok", None),
        # Elements of one name inside each other.
        ("<p>Say <u translate=no>a <u>b</u> c</u> to", "<p>SAY <u translate=no>a <u>b</u> c</u> TO"),
        ("<p>Run <code>x <code>y</code> z</code> now", "<p>RUN <code>x <code>y</code> z</code> NOW"),
        ("<p>Never <code>x <code>y</code> z</p><p>closed", "<p>NEVER <code>x <code>y</code> z</p><p>CLOSED"),
        ("<div class=notranslate>a<div>b</div>c</div>d", "<div class=notranslate>a<div>b</div>c</div>D"),
        ("<p>a<svg><svg></svg>b</svg>c", "<p>A<svg><svg></svg>b</svg>C"),
        ("<?xml ?><p>a <code/>b <kbd><kbd/>c</kbd> d", "<?xml ?><p>A <code/>B <kbd><kbd/>c</kbd> D"),
        # Tags that cross passages keep their place among the words.
        ("<b><p>One two</p><p>three</p></b>", "<b><p>ONE TWO</p><p>THREE</p></b>"),
        ("<p>One <b>two</p><p>three</b> four", "<p>ONE <b>TWO</p><p>THREE</b> FOUR"),
        ("<a href=x>One<br><br>two</a> three", "<a href=x>ONE<br><br>TWO</a> THREE"),
        ("<p>a <i>b <b>c</i> d<p>e</b> f", "<p>A <i>B <b>C</i> D<p>E</b> F"),
        ("<p>a <b>b</b> c <b>d<p>e <b>f</b> g</b> h", "<p>A <b>B</b> C <b>D<p>E <b>F</b> G</b> H"),
        # Sentences and breaks.
        ("<p>One. <br>Two.", "<p>ONE.<br>TWO."),
        ("<p>One. <b><br>Two</b>. Three", "<p>ONE.<b><br>TWO</b>. THREE"),
        ("<p>a &#65;&#00000000066;&#x43; &#99999999;", "<p>A ABC \ufffd"),
        (f"<p>a &#{'9' * 5000};", "<p>A \ufffd"),
        # Characters that only the source has.
        ("<p>hy&shy;phen\u00adated &lt;b&gt; a&nbsp;b", "<p>HYPHENATED &lt;b&gt; A B"),
    ],
)
def test_pages_that_are_seldom_written(page: str, expected: str | None) -> None:
    expected = page[: -len("ok")] + "OK" if expected is None else expected
    assert translated(page, upper) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p title='a cat'>B <b title=dog>c</b>", "<p title='A CAT'>B <b title=\"DOG\">C</b>"),
        ("<img alt='a &amp; b' src='a b'>", "<img alt='A &amp; B' src='a b'>"),
        ('<a aria-label="it\'s" href=a>a</a>', '<a aria-label="IT\'S" href=a>A</a>'),
        ("<meta name=Description content='A page.'>", "<meta name=Description content='A PAGE.'>"),
        ("<meta content='A page.' property='og:title'>", "<meta content='A PAGE.' property='og:title'>"),
        ("<input type=reset value=go>", '<input type=reset value="GO">'),
        ("<textarea placeholder=a>b</textarea>", '<textarea placeholder="A">b</textarea>'),
        ("<optgroup label=a><option label=b>c", '<optgroup label="A"><option label="B">c'),
        ("<p title='{x} &unknown; cat'>", "<p title='{x} &unknown; CAT'>"),
        # What is not read, or is not to be translated.
        ("<input type=submit value=go><input value=x>", None),
        ("<meta name=robots content='no index'>", None),
        ("<p translate=no title=a><b class=notranslate title=b>c</b>", None),
        ("<pre title='42'><b title=b>c</b></pre><code><b title=b>c</b></code>", None),
        ("<svg><g title=a></svg><script title></script>", None),
        ('<p title="a', None),
        ("<p title='", None),
        ("<p title= >", None),
        ("</p title=a><!-- <p title=a> -->", None),
    ],
)
def test_attributes_that_people_read_are_translated(page: str, expected: str | None) -> None:
    assert translated(page, upper) == (page if expected is None else expected)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_attributes_stay_attributes(name: str) -> None:
    page = """<p title="a 'cat'" class=x>A <a title='b "dog"' href=y>big <img alt=old> dog</a> sleeps."""
    for one in html_tokens(translated(page, TRANSLATORS[name])):
        assert set(one.attributes) <= {"title", "class", "href", "alt"}
    assert tags(translated(page, TRANSLATORS[name])) == tags(page)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<html lang=en><p>a", '<html lang="pt-BR"><p>A'),
        ("<html lang='en-GB' xml:lang=\"EN\"><p>a", "<html lang='pt-BR' xml:lang=\"pt-BR\"><p>A"),
        ("<html lang=fr><p>a", "<html lang=fr><p>A"),
        ("<html lang><p>a <i lang=de>b</i>", "<html lang><p>A <i lang=de>B</i>"),
        ("<html lang=en><p>42", "<html lang=en><p>42"),  # nothing is translated
        ("<html lang=en><p translate=no lang=en>a</p>b", '<html lang="pt-BR"><p translate=no lang=en>a</p>B'),
    ],
)
def test_the_language_of_a_page_becomes_that_of_the_translation(page: str, expected: str) -> None:
    assert translate_document(page.encode(), "html", upper, languages=("en", "pt_BR")).decode() == expected
    assert translate_document(page.encode(), "html", identity, languages=("en", "pt_BR")).decode() == page
    assert translate_document(page.encode(), "html", upper).decode() == expected.replace('"pt-BR"', "en").replace(
        "lang='pt-BR' xml:lang=en", "lang='en-GB' xml:lang=\"EN\""
    )


@pytest.mark.parametrize("languages", [("en", "pt_BR"), ("eng", "por_BR")])
def test_the_language_of_a_page_is_known_by_either_code(languages: tuple[str, str]) -> None:
    for code in ("en", "EN-gb", "eng"):
        found = translate_document(f'<html lang="{code}"><p>a'.encode(), "html", upper, languages=languages)
        assert found == b'<html lang="pt-BR"><p>A'


@pytest.mark.parametrize("name", TRANSLATORS)
def test_tags_that_cross_passages_keep_their_order(name: str) -> None:
    page = "<p>One <b>two <i>three</p><p>four</i> five</b> six <u>seven</p><p>eight</u></p>"
    found = translated(page, TRANSLATORS[name])
    assert re.findall("<[^>]*>", found) == re.findall("<[^>]*>", page)


def test_a_page_of_too_many_tags_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_TAGS", 9)
    assert translated("<p>" * 9, identity) == "<p>" * 9
    with pytest.raises(DataError, match=r"^has 10 tags, more than 9: split it$"):
        translated("<p>" * 10, identity)


# Encodings


@pytest.mark.parametrize(
    ("charset", "encoding", "text"),
    [
        ("GB2312", "gbk", "朱镕基"),  # its second character is in the larger one only
        ("Shift_JIS", "cp932", "①髙橋"),
        ("euc-kr", "cp949", "똠방각하"),
        ("iso-8859-9", "cp1254", "“ığşİ”"),
        ("KOI8-R", "koi8-r", "Привет"),
        ("windows-1250", "cp1250", "Žluťoučký"),
        ("utf8", "utf-8", "Žluťoučký"),
    ],
)
def test_encodings_are_those_of_browsers(charset: str, encoding: str, text: str) -> None:
    page = f"<meta charset='{charset}'><p>cat {text}</p>".encode(encoding)
    assert translate_document(page, "html", identity) == page
    found = translate_document(page, "html", upper)
    assert found == f"<meta charset='{charset}'><p>CAT {text.upper()}</p>".encode(encoding, "xmlcharrefreplace")


def test_a_byte_order_mark_counts_more_than_a_declaration() -> None:
    page = b"\xef\xbb\xbf<meta charset=klingon><p>\xc3\xa9"
    assert translate_document(page, "html", identity) == page


def test_a_declaration_in_a_comment_is_none() -> None:
    for comment in ("<!-- <meta charset=latin1> -->", "<!--><!-- charset=latin1 --!>", "<!-- <meta charset=klingon>"):
        page = f"{comment}<p>größer</p>"
        found = translate_document(page.encode(), "html", identity, languages=("de", "en"))
        assert found == page.encode()
    seen: list[str] = []
    page = '<!-- <meta charset="latin1"> --><meta charset="iso-8859-2"><p>kůň</p>'
    translate_document(page.encode("iso-8859-2"), "html", lambda texts: seen.extend(texts) or identity(texts))
    assert seen == ["kůň"]


def test_the_declared_encoding_is_kept() -> None:
    page = '<meta charset="iso-8859-2"><p>Žluťoučký kůň</p>'.encode("iso-8859-2")
    found = translate_document(page, "html", upper)
    assert found.decode("iso-8859-2") == '<meta charset="iso-8859-2"><p>ŽLUŤOUČKÝ KŮŇ</p>'
    as_xml = '<?xml version="1.0" encoding="cp1251"?><p>да</p>'.encode("cp1251")
    assert translate_document(as_xml, "html", upper).decode("cp1251").endswith("<p>ДА</p>")


def test_latin_1_is_read_as_browsers_do() -> None:
    page = "<meta http-equiv=Content-Type content='text/html; charset=ISO-8859-1'><p>“€”</p>".encode("cp1252")
    assert translate_document(page, "html", identity) == page


def test_characters_that_the_encoding_lacks_are_references() -> None:
    page = b"<meta charset=ascii><p>cat</p>"
    assert translate_document(page, "html", lambda _: [Translated("猫 é")]) == (
        "<meta charset=ascii><p>&#29483; é</p>".encode("cp1252")
    )


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_kept(mark: str) -> None:
    page = "<meta charset=latin1><p>čaj</p>".encode(mark)
    assert translate_document(page, "html", identity) == page
    assert translate_document(page, "html", upper) == "<meta charset=latin1><p>ČAJ</p>".encode(mark)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (b"<p>\xe9t\xe9</p>", r"^is not utf-8 \(byte 4\); save it as UTF-8$"),
        (b"\xef\xbb\xbf<p>\xe9", r"^is not utf-8 \(byte 7\)"),
        (b"<meta charset=klingon>", "^its encoding 'klingon' is unknown; save it as UTF-8$"),
        (b"<meta charset=rot13>", "^its encoding 'rot13' is unknown"),
        (b"<meta charset=utf-7>", "^its encoding 'utf-7' is unknown"),  # no browser reads it
        (b"<meta charset=punycode>", "^its encoding 'punycode' is unknown"),  # in quadratic time
        (b"<meta charset=iso-2022-jp>\x1b(B\x1b(B", "^cannot be written as it was in iso2022_jp; save it as UTF-8$"),
        (b"<p>\0</p>", "^has null characters: it is not text$"),
    ],
)
def test_what_is_no_text_is_an_error(page: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        translate_document(page, "html", identity)


@pytest.mark.parametrize(
    "part",
    [
        "<",
        "<!--",
        "<![CDATA[",
        "<a ",
        "<a href='",
        "</",
        "<p",
        "&",
        "<b>x",
        "</b>",
        "<script>",
        "<code>",
        "<br>",
        "x<i>y</i> ",
    ],
)
def test_a_hostile_page_takes_no_longer_than_others(part: str) -> None:
    page = f"<p>Text {part * (30_000 // len(part))}"
    assert translated(page, identity) == page  # takes minutes if the time is not linear


def test_a_page_says_that_it_is_xml() -> None:
    assert is_xml(" <?xml version='1.0'?>")
    assert not is_xml("<!DOCTYPE html>")

"""Translation memories: languages, inline codes, what is refused, and that nothing is lost without a word."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from transformer.config import DataConfig
from transformer.data import tmx
from transformer.data.corpus import load_split
from transformer.data.tmx import Units
from transformer.errors import DataError

HEAD = '<?xml version="1.0"?>\n<tmx version="1.4"><header srclang="en" datatype="plaintext"/><body>\n'
TAIL = "</body></tmx>\n"


def unit(*variants: tuple[str, str]) -> str:
    texts = "".join(f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>' for lang, text in variants)
    return f"<tu><note>kein <b>Text</b></note>{texts}</tu>\n"


def pairs_of(
    tmp_path: Path, *units: str, head: str = HEAD, langs: tuple[str, str] = ("en", "de")
) -> list[tuple[str, str]]:
    path = tmp_path / "mine.tmx"
    path.write_text(head + "".join(units) + TAIL, encoding="utf-8")
    return list(Units(path, *langs).read())


def test_a_unit_gives_a_pair_in_the_direction_of_the_languages(tmp_path: Path) -> None:
    units = [
        unit(("de", "Hallo, Welt &amp; &lt;alle&gt;"), ("en", "Hello &#228;")),
        unit(("en", "a"), ("fr", "c"), ("de", "b")),
    ]
    assert pairs_of(tmp_path, *units) == [("Hello ä", "Hallo, Welt & <alle>"), ("a", "b")]
    assert pairs_of(tmp_path, *units, langs=("de", "en"))[1] == ("b", "a")


@pytest.mark.parametrize("code", ["en", "EN", "en-US", "en_GB", "en-Latn-US"])
def test_a_language_matches_in_any_case_and_with_a_region(tmp_path: Path, code: str) -> None:
    assert pairs_of(tmp_path, unit((code, "a"), ("de-AT", "b"))) == [("a", "b")]
    assert pairs_of(tmp_path, unit(("eng", "x"), ("de", "b")), unit((code, "a"), ("de", "b"))) == [("a", "b")]


def test_a_region_that_is_asked_for_is_not_another(tmp_path: Path) -> None:
    units = [unit(("pt-BR", "a"), ("de", "b")), unit(("pt", "c"), ("de", "d")), unit(("pt_br", "e"), ("de", "f"))]
    assert pairs_of(tmp_path, *units, langs=("pt-BR", "de")) == [("a", "b"), ("e", "f")]


def test_the_exact_code_comes_first_and_variants_are_all_paired(tmp_path: Path) -> None:
    units = [
        unit(("en-US", "color"), ("en", "colour"), ("de", "Farbe")),
        unit(("en-US", "a"), ("en-GB", "b"), ("de", "c"), ("de", "d")),
    ]
    expected = [("colour", "Farbe"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]
    assert pairs_of(tmp_path, *units) == expected


def test_the_attribute_of_version_1_1_is_read(tmp_path: Path) -> None:
    old = '<tu><tuv lang="EN"><seg>a</seg></tuv><tuv lang="DE"><seg>b</seg></tuv></tu>'
    assert pairs_of(tmp_path, old) == [("a", "b")]


def test_inline_codes_are_left_out_and_highlighted_text_is_kept(tmp_path: Path) -> None:
    text = (
        'A <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1">&lt;/b&gt;</ept> <hi type="x">high <hi>er</hi></hi>'
        '<ph>{0<sub>inside</sub>}</ph> <it pos="begin">[</it>end<ut>x</ut><x/>.'
    )
    assert pairs_of(tmp_path, unit(("en", text), ("de", "x"))) == [("A bold high er end.", "x")]


def test_line_breaks_in_a_segment_become_spaces(tmp_path: Path) -> None:
    found = pairs_of(tmp_path, unit(("en", "\n  a \r\n   b\u2028c "), ("de", "x  y")))
    assert found == [("a b c", "x  y")]


def test_units_that_lack_a_language_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "mine.tmx"
    path.write_text(HEAD + unit(("en", "a")) + unit() + unit(("en", "a"), ("de", "b")) + unit(("fr", "c")) + TAIL)
    corpus = load_split(DataConfig(corpus=str(path)), "train")
    assert list(corpus) == [("a", "b")]
    assert dict(corpus.dropped()) == {"one_language": 3}
    assert (
        corpus.fingerprint
        != load_split(DataConfig(corpus=str(path), src_lang="de", tgt_lang="en"), "train").fingerprint
    )


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_splits_and_compression_are_those_of_other_files(tmp_path: Path, suffix: str) -> None:
    content = (HEAD + unit(("en", "a"), ("de", "b")) + TAIL).encode()
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    (tmp_path / f"dev.tmx{suffix}").write_bytes(pack(content))
    assert list(load_split(DataConfig(corpus=f"{tmp_path}/{{split}}.tmx{suffix}"), "validation")) == [("a", "b")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_the_encoding_is_that_which_the_file_declares(tmp_path: Path, encoding: str) -> None:
    text = HEAD.replace('"1.0"', f'"1.0" encoding="{encoding}"') + unit(("en", "größer"), ("de", "é")) + TAIL
    (tmp_path / "mine.tmx").write_bytes(text.encode(encoding))
    assert list(Units(tmp_path / "mine.tmx", "en", "de").read()) == [("größer", "é")]


def test_a_doctype_without_declarations_is_fine(tmp_path: Path) -> None:
    head = HEAD.replace("<tmx ", '<!DOCTYPE tmx SYSTEM "http://absent.example/tmx14.dtd">\n<tmx ')
    assert pairs_of(tmp_path, unit(("en", "a"), ("de", "b")), head=head) == [("a", "b")]
    with pytest.raises(DataError, match=r"mine\.tmx, line 4: the entity &nbsp; is unknown; write the character"):
        pairs_of(tmp_path, unit(("en", "a&nbsp;b"), ("de", "b")), head=head)


@pytest.mark.parametrize(
    ("head", "units", "message"),
    [
        ('<!DOCTYPE tmx [<!ENTITY a "aa">]>' + HEAD[22:], "", "line 1: declares the entity 'a'; write characters"),
        ('<!DOCTYPE tmx [<!ENTITY x SYSTEM "/etc/passwd">]>' + HEAD[22:], "", "declares the entity 'x'"),
        ('<!DOCTYPE tmx [<!ENTITY % p "x">]>' + HEAD[22:], "", "declares the entity 'p'"),
        (HEAD, "<tu>&x;</tu>", "line 3: not XML: undefined entity"),
        (HEAD, "<tu><tuv><seg>a</seg></tuv></tu>", "line 3: a <tuv> has no xml:lang"),
        (HEAD, "<tu>", "line 3: not XML: mismatched tag"),
        ("<xliff>", "", "line 1: begins with <xliff>, not with <tmx>"),
        ("en\tde\n", "", "line 1: not XML: syntax error"),
        (HEAD, "<a>" * 120, "line 3: nested too deeply"),
        (
            HEAD.replace('"1.0"', '"1.0" encoding="klingon"'),
            "",
            "its encoding is not supported|not XML: unknown encoding",
        ),
    ],
)
def test_what_is_malformed_is_named_with_its_line(tmp_path: Path, head: str, units: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"mine\.tmx, .*({message})"):
        pairs_of(tmp_path, units, head=head)


def test_a_segment_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tmx, "MAX_LINE", 11)
    assert pairs_of(tmp_path, unit(("en", "a" * 11), ("de", "b"))) == [("a" * 11, "b")]
    with pytest.raises(DataError, match="a segment of more than 11 characters"):
        pairs_of(tmp_path, unit(("en", "a" * 12), ("de", "b")))


def test_a_file_without_the_languages_is_an_error_that_lists_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "mine.tmx"
    path.write_text(HEAD + unit(("en", "a"), ("fr-CA", "c")) + TAIL)
    with pytest.raises(DataError, match=r"has no unit with 'en' and 'de'; its languages are en, fr-CA$"):
        load_split(DataConfig(corpus=str(path)), "train")
    path.write_text(HEAD + TAIL)
    with pytest.raises(DataError, match=r"its languages are none$"):
        load_split(DataConfig(corpus=str(path)), "train")


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [unit(("en", f"ä &amp; {i} " * 7), ("de", f"ö<ph>x</ph>{i}")) for i in range(37)]
    expected = pairs_of(tmp_path, *units)
    monkeypatch.setattr(tmx, "_BLOCK", 7)
    assert pairs_of(tmp_path, *units) == expected
    assert len(expected) == 37

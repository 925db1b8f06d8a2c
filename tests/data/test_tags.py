"""A tag is one piece before the source text, in training and in translation alike."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.pairs import Corpus
from transformer.data.tags import (
    begins_with_other_tag,
    changes_text,
    num_tag_pieces,
    split_tag,
    tag_of_language,
    tagged,
)
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError

TAGS = ["<2de>", "<bt>"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<bt> A man.", ("<bt>", "A man.")),
        ("  <2de> A", ("<2de>", "A")),
        ("<bt>", ("<bt>", "")),
        ("<bt>\tA man.", ("<bt>", "A man.")),
        ("\u3000<bt>\u2028 A", ("<bt>", "A")),
        ("<bt>A man.", (None, "<bt>A man.")),
        ("A <bt> man.", (None, "A <bt> man.")),
        ("<2fr> A", (None, "<2fr> A")),
        ("", (None, "")),
        (" \t", (None, " \t")),
    ],
)
def test_only_a_known_tag_at_the_beginning_is_one(text: str, expected: tuple[str | None, str]) -> None:
    assert split_tag(text, TAGS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<2fr> A", True),
        (" <2fr>\tA", True),
        ("<bt>A", True),
        ("<b>", True),
        ("<bt> <2fr> A", False),
        ("A <2fr>", False),
        ("<3 you", False),
        ("< 3 > 2", False),
        ("", False),
    ],
)
def test_what_looks_like_a_tag_and_is_none_is_found(text: str, expected: bool) -> None:
    assert begins_with_other_tag(text, TAGS) is expected


def test_without_tags_only_a_code_looks_like_one() -> None:
    for text, expected in ((">>deu<< A", True), (" >>deu<<A", True), ("<b>A</b>", False), (">> A <<", False)):
        assert begins_with_other_tag(text, []) is expected


@pytest.mark.parametrize(
    ("language", "tags", "only", "expected"),
    [
        ("de", [">>deu<<", ">>nld<<"], "", ">>deu<<"),
        ("deu", ["<2de>", "<2nl>"], "", "<2de>"),
        ("pt_BR", [">>por<<", ">>por_BR<<"], "", ">>por_BR<<"),
        ("ara", [">>ara<<", ">>arb<<"], "", ">>ara<<"),
        ("lit", [">>lit<<"], "lt", ">>lit<<"),
        ("lit", [], "lt", None),
        ("LT", [], "lit", None),
        ("pt-BR", [], "por_BR", None),
        ("de", ["<bt>"], "de", None),
    ],
)
def test_a_language_is_known_by_either_of_its_codes(
    language: str, tags: list[str], only: str, expected: str | None
) -> None:
    assert tag_of_language(language, tags, only) == expected


@pytest.mark.parametrize(
    ("language", "tags", "only", "message"),
    [
        ("ar", [">>ara<<", ">>arb<<", ">>deu<<"], "", "which are: ara, arb$"),
        ("pt", [">>por_BR<<"], "", "which are: por_BR$"),
        ("de", [">>nld<<"], "de", "which are: nld$"),
        ("fr", [], "de", "'fr' is not that of the model, de, which has no tag for others$"),
        ("fr", [], "und", "'fr' cannot be chosen: the model has no tags of languages$"),
    ],
)
def test_another_language_is_an_error(language: str, tags: list[str], only: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tag_of_language(language, tags, only)


def test_every_source_with_text_gets_one_tag() -> None:
    texts = ["A man.", "", " \u200b ", "<2de> A man.", "<bt>"]
    corpus = Corpus("mine", "mine", lambda: iter([(text, "x") for text in texts]))
    sources = [source for source, _ in tagged(corpus, "<bt>", TAGS)]
    assert sources == ["<bt> A man.", "", "", "<2de> A man.", ""]
    assert tagged(corpus, None, TAGS) is corpus
    assert len({tagged(corpus, tag, TAGS).fingerprint for tag in (None, *TAGS)}) == 3


@pytest.mark.parametrize("normalization", ["minimal", "nmt_nfkc"])
def test_a_tag_is_one_piece_and_leaves_the_other_pieces_as_they_are(normalization: str) -> None:
    sentences = [side for pair in builtin_pairs("train", 397) for side in pair]
    tokenizer = Tokenizer.train(sentences, 307, TAGS, normalization=normalization)
    plain = tokenizer.encode([*sentences, "größer <als>", "<b", "2de"])
    for tag in TAGS:
        ((id_,),) = tokenizer.encode([tag])
        texts = [f"{tag} {text}" for text in (*sentences, "größer <als>", "<b", "2de")]
        assert tokenizer.encode(texts) == [[id_, *ids] for ids in plain]
        assert (num_tag_pieces(tokenizer, tag), num_tag_pieces(tokenizer, None)) == (1, 0)
        assert not changes_text(tokenizer, tag)

"""A tag is one piece before the source text, in training and in translation alike."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.pairs import Corpus
from transformer.data.tags import begins_with_other_tag, changes_text, num_tag_pieces, split_tag, tagged
from transformer.data.tokenizer import Tokenizer

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

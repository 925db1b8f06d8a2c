"""What is searched for a text, what is copied, and what is said about it."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece

from transformer.data.builtin import builtin_pairs
from transformer.data.given_tokenizer import with_own_ids
from transformer.data.pairs import Corpus
from transformer.data.tags import tagged
from transformer.data.tokenizer import EOS_ID, UNK_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.sources import InputNotes, Source, SourceReader


@pytest.fixture
def sentencex(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place, something that splits at vertical bars."""
    segment = SimpleNamespace(segment=lambda _, text: text.split("|"))
    monkeypatch.setitem(sys.modules, "sentencex", segment)


def reader(tokenizer: Tokenizer, **options: Any) -> SourceReader:
    return SourceReader(tokenizer, **{"limit": 1024, "is_raisable": True, "notes": InputNotes()} | options)


def test_a_text_is_searched_with_its_end(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Two dogs."])
    assert reader(tokenizer).read(["Two dogs.", "", " \t"]) == [[Source([*ids, EOS_ID])], [Source([])], [Source([])]]


# Unknown pieces


@pytest.mark.parametrize("text", ["👍", "здесь", "  здесь,  👍!  ", "здесь.", "日本語", "здесь спит"])
def test_a_text_of_which_no_word_is_known_is_copied(tokenizer: Tokenizer, text: str) -> None:
    assert UNK_ID in tokenizer.encode([text])[0]
    found = reader(tokenizer)
    assert found.read(["Two dogs.", text], first_number=7)[1] == [Source([], text)]
    assert found.notes == InputNotes(copied=[8], num_lines=2)


def test_a_copy_is_one_line(tokenizer: Tokenizer) -> None:
    assert reader(tokenizer).read(["здесь\nспит"]) == [[Source([], "здесь спит")]]


@pytest.mark.parametrize("text", [".", "...", "Two dogs 👍.", "👍 a"])
def test_a_text_with_a_known_word_or_nothing_unknown_is_searched(tokenizer: Tokenizer, text: str) -> None:
    found = reader(tokenizer)
    (ids,) = tokenizer.encode([text])
    assert found.read([text]) == [[Source([*ids, EOS_ID])]]
    assert found.notes == InputNotes(unknown=[1] if UNK_ID in ids else [], num_lines=1)


def test_a_text_with_more_unknown_than_known_words_is_doubtful(tokenizer: Tokenizer) -> None:
    found = reader(tokenizer)
    found.read(["Two dogs.", "a здесь спит кошка", "здесь a"], first_number=3)
    assert found.notes == InputNotes(doubtful=[4], unknown=[5], num_lines=3)


# Sentences


def test_sentences_are_sources_of_their_own(tokenizer: Tokenizer, sentencex: None) -> None:  # noqa: ARG001
    one, two = ([*ids, EOS_ID] for ids in tokenizer.encode(["Two dogs.", "We"]))
    found = reader(tokenizer, language="en")
    assert found.read(["Two dogs.|We", "", "здесь|We|здесь", "We"]) == [
        [Source(one), Source(two)],
        [Source([])],
        [Source([], "здесь"), Source(two), Source([], "здесь")],
        [Source(two)],
    ]
    assert found.notes == InputNotes(copied=[3], num_lines=4), "a line is counted once"


def test_several_sentences_are_noted_only_if_they_are_not_split(
    tokenizer: Tokenizer,
    sentencex: None,  # noqa: ARG001
) -> None:
    texts = ["We. They. Two dogs.", "Two dogs.", "We! They"]
    for language, several in ((None, [1, 3]), ("en", [])):
        found = reader(tokenizer, language=language)
        found.read(texts)
        assert found.notes == InputNotes(several=several, unknown=[3], num_lines=3), "the exclamation mark"


# Length


@pytest.mark.parametrize("too_long", ["error", "truncate", "split"])
def test_a_text_at_the_limit_is_one_source(tokenizer: Tokenizer, too_long: str) -> None:
    (ids,) = tokenizer.encode(["Two dogs and three cats."])
    found = reader(tokenizer, limit=len(ids) + 1, too_long=too_long)
    assert found.read(["Two dogs and three cats."]) == [[Source([*ids, EOS_ID])]]
    assert found.notes == InputNotes(num_lines=1)


def test_too_long_a_text_is_an_error_with_its_number_and_the_ways_out(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Two dogs and three cats."])
    message = rf"^sentence 8 has {len(ids) + 1} pieces, more than the limit of {len(ids)}: split it, "
    for is_raisable, ways in ((True, r"raise the limit \(--max-source-length\), or"), (False, "or")):
        with pytest.raises(DataError, match=rf"{message}{ways} choose --too-long truncate or split$"):
            reader(tokenizer, limit=len(ids), is_raisable=is_raisable).read(
                ["We", "Two dogs and three cats."], first_number=7
            )


def test_truncation_keeps_what_fits(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Two dogs and three cats."])
    found = reader(tokenizer, limit=7, too_long="truncate")
    assert found.read(["We", "Two dogs and three cats."], first_number=3)[1] == [Source([*ids[:6], EOS_ID])]
    assert found.notes == InputNotes(truncated=[4], num_lines=2)


@pytest.mark.parametrize("limit", [5, 11, 17, 1024])
def test_the_parts_of_a_split_text_fit_and_hold_all_of_it(tokenizer: Tokenizer, limit: int) -> None:
    text = "Two dogs and three cats are playing. We are not playing with the red ball.  " * 3
    (sources,) = reader(tokenizer, limit=limit, too_long="split").read([text])
    assert all(1 < len(source.ids) <= limit for source in sources)
    assert (len(sources) == 1) == (limit == 1024)
    decoded = tokenizer.decode([source.ids[:-1] for source in sources])
    assert "".join("".join(decoded).split()) == "".join(text.split())


def test_a_text_is_split_into_its_sentences_if_they_fit(tokenizer: Tokenizer) -> None:
    one, two = "Two dogs and three cats are playing.", "We are not playing."
    expected = [Source([*ids, EOS_ID]) for ids in tokenizer.encode([one, two])]
    found = reader(tokenizer, limit=max(len(source.ids) for source in expected), too_long="split")
    assert found.read([f"{one} {two}"]) == [expected]
    assert found.notes == InputNotes(num_lines=1)
    # A part may have several again.
    found.read([f"{one} {one} We. Two dogs."])
    assert found.notes == InputNotes(several=[1], num_lines=2)


def test_white_space_at_the_ends_that_has_pieces_is_dropped_where_it_does_not_fit(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(["We \u3000"])[0]) > len(tokenizer.encode(["We"])[0]), "U+3000 is unknown here"
    (ids,) = tokenizer.encode(["We"])
    found = reader(tokenizer, limit=len(ids) + 1, too_long="split")
    assert found.read(["We \u3000", "\u3000 \u3000"]) == [[Source([*ids, EOS_ID])], [Source([])]]
    assert found.notes == InputNotes(num_lines=2)


def test_a_limit_that_fits_nothing_is_an_error(tokenizer: Tokenizer) -> None:
    pattern = r"^sentence 9 cannot be split: the character 'T' alone has more pieces than the limit of 0$"
    with pytest.raises(DataError, match=pattern):
        reader(tokenizer, limit=1, too_long="split").read(["Two dogs."], first_number=9)


def test_another_rule_for_long_texts_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"^too_long='cut' must be one of error, truncate, split$"):
        reader(tokenizer, too_long="cut")


@pytest.mark.parametrize("language", [None, "en"])
def test_surrogates_are_an_error_with_the_number_of_the_text(tokenizer: Tokenizer, language: str | None) -> None:
    if language is not None:
        pytest.importorskip("sentencex")
    with pytest.raises(DataError, match=r"^text 12 contains surrogates"):
        reader(tokenizer, language=language).read(["We. We are.", "\udcff"], first_number=11)


# Notes


def test_notes_are_one_line_per_kind() -> None:
    assert InputNotes(num_lines=5).messages() == []
    cut, unknown = list(range(1, 14)), [5, 6]
    notes = InputNotes([4, 9, 12], doubtful=[2], unknown=unknown, truncated=cut, several=[7, 8], num_lines=100)
    assert notes.messages() == [
        "3 lines without a known word are copied: 4, 9, 12",
        "1 line of mostly unknown words has a doubtful translation: 2",
        "2 lines with unknown characters are translated with the unknown piece for them: 5, 6",
        "13 lines beyond the limit are cut: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more",
        "2 of 100 lines seem to have several sentences; a model trained on single sentences drops all but the first: "
        "--split-sentences",
    ]


def test_without_notes_nothing_is_counted(tokenizer: Tokenizer) -> None:
    assert len(reader(tokenizer, notes=None).read(["здесь", "We. They."])) == 2


@pytest.mark.parametrize(("is_raisable", "way"), [(True, "; raise max_source_length"), (False, "")])
def test_a_limit_that_leaves_nothing_of_any_text_is_refused(tokenizer: Tokenizer, is_raisable: bool, way: str) -> None:
    message = f"too_long=truncate would leave nothing of any text: the limit of 1 piece includes </s>{way}"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        reader(tokenizer, limit=1, too_long="truncate", is_raisable=is_raisable)
    assert reader(tokenizer, limit=2, too_long="truncate").read(["Two dogs."])[0][0].ids[-1] == EOS_ID


# Tags

TAGS = ("<2de>", "<bt>")


@pytest.fixture(scope="module")
def tagging() -> Tokenizer:
    return Tokenizer.train((side for pair in builtin_pairs("train", 199) for side in pair), 211, TAGS)


@pytest.mark.usefixtures("sentencex")
def test_a_tag_stands_before_each_source_and_another_at_the_beginning_of_a_text_wins(tagging: Tokenizer) -> None:
    ((de,), (bt,), two, dogs) = tagging.encode([*TAGS, "Two dogs.", "A dog."])
    found = reader(tagging, tag="<2de>", tags=TAGS)
    assert found.read(["Two dogs.", "<bt> Two dogs.", "<2de> Two dogs.", "", "<bt>", " <bt> "]) == [
        [Source([de, *two, EOS_ID])],
        [Source([bt, *two, EOS_ID])],
        [Source([de, *two, EOS_ID])],
        *[[Source([])]] * 3,
    ]
    split = reader(tagging, tag="<2de>", tags=TAGS, language="en").read(["<bt> Two dogs.|A dog.", "A dog."])
    assert split == [[Source([bt, *two, EOS_ID]), Source([bt, *dogs, EOS_ID])], [Source([de, *dogs, EOS_ID])]]
    assert reader(tagging, tags=TAGS).read(["Two dogs."]) == [[Source([*two, EOS_ID])]]
    assert found.encode(["<bt> Two dogs.", "A dog.", " ", "<bt>"]) == [[bt, *two], [de, *dogs], [], []]


def test_a_tag_counts_as_a_piece_of_the_limit_and_not_as_a_known_word(tagging: Tokenizer) -> None:
    ((de,), two) = tagging.encode(["<2de>", "Two dogs."])
    fits = len(two) + 2
    options: dict[str, Any] = {"tag": "<2de>", "tags": TAGS}
    assert reader(tagging, limit=fits, **options).read(["Two dogs."]) == [[Source([de, *two, EOS_ID])]]
    with pytest.raises(DataError, match=rf"sentence 1 has {fits} pieces, more than the limit of {fits - 1}:"):
        reader(tagging, limit=fits - 1, **options).read(["Two dogs."])
    cut = reader(tagging, limit=fits - 1, too_long="truncate", **options)
    assert cut.read(["Two dogs."]) == [[Source([de, *two[:-1], EOS_ID])]]
    (parts,) = reader(tagging, limit=fits, too_long="split", **options).read(["Two dogs. Two dogs. Two dogs."])
    assert all(part.ids[0] == de and len(part.ids) <= fits for part in parts)
    assert len(parts) > 1
    assert reader(tagging, **options).read(["здесь"]) == [[Source([], "здесь")]]
    with pytest.raises(ConfigError, match=r"the limit of 2 pieces includes a tag and </s>; raise max_source_length"):
        reader(tagging, limit=2, too_long="truncate", **options)


@pytest.mark.parametrize(("tags", "known"), [(TAGS, "<2de>, <bt>"), ((), "none")])
def test_a_tag_that_the_model_does_not_have_is_an_error(tagging: Tokenizer, tags: Any, known: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tag=<2fr> is not one of the model's tags, which are: {known}$"):
        reader(tagging, tag="<2fr>", tags=tags)


@pytest.fixture(scope="module", params=[True, False])
def foreign(request: pytest.FixtureRequest) -> Tokenizer:
    """As SentencePiece trains it: tags are pieces of their own, with a piece before them or text marked unlike ours."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=(side for pair in builtin_pairs("train", 199) for side in pair),
        model_writer=model,
        model_type="bpe",
        vocab_size=211,
        user_defined_symbols=list(TAGS),
        add_dummy_prefix=request.param,
        minloglevel=2,
    )
    return Tokenizer(with_own_ids(model.getvalue()))


@pytest.mark.usefixtures("sentencex")
def test_a_tagged_text_has_the_pieces_of_training(foreign: Tokenizer) -> None:
    texts = ["Two dogs.", "<bt> Two dogs.", "  <bt>   A dog", "", "<bt>", "\x1b", "A dog здесь."]
    corpus = Corpus("mine", "mine", lambda: iter([(text, "x") for text in texts]))
    trained = foreign.encode([source for source, _ in tagged(corpus, "<2de>", TAGS)])
    found = reader(foreign, tag="<2de>", tags=TAGS)
    nothing = [3, 4, 5]
    wanted = [[] if i in nothing else ids for i, ids in enumerate(trained)]
    assert found.encode(texts) == wanted
    assert found.read(texts) == [[Source([*ids, EOS_ID] if ids else [])] for ids in wanted]
    split = reader(foreign, tag="<2de>", tags=TAGS, language="en").read(["<bt> Two dogs.|A dog"])
    assert split == [[Source([*ids, EOS_ID]) for ids in foreign.encode(["<bt> Two dogs.", "<bt> A dog"])]]
    assert found.read(["здесь"]) == [[Source([], "здесь")]], "the tag is not a known word"


def test_all_pieces_of_a_tag_count(foreign: Tokenizer) -> None:
    (tag,) = foreign.encode(["<2de>"])
    options: dict[str, Any] = {"tag": "<2de>", "tags": TAGS}
    (text,) = foreign.encode(["<2de> Two dogs. Two dogs."])
    fits = len(text) + 1
    assert reader(foreign, limit=fits, **options).read(["Two dogs. Two dogs."]) == [[Source([*text, EOS_ID])]]
    with pytest.raises(DataError, match=rf"sentence 1 has {fits} pieces, more than the limit of {fits - 1}:"):
        reader(foreign, limit=fits - 1, **options).read(["Two dogs. Two dogs."])
    cut = reader(foreign, limit=fits - 1, too_long="truncate", **options)
    assert cut.read(["Two dogs. Two dogs."]) == [[Source([*text[:-1], EOS_ID])]]
    (parts,) = reader(foreign, limit=fits - 1, too_long="split", **options).read(["Two dogs. Two dogs."])
    assert parts == [Source([*ids, EOS_ID]) for ids in foreign.encode(["<2de> Two dogs."] * 2)]
    least = len(tag) + 2
    with pytest.raises(ConfigError, match=rf"the limit of {least - 1} pieces includes a tag and </s>; raise"):
        reader(foreign, limit=least - 1, too_long="truncate", **options)
    assert reader(foreign, limit=least, too_long="truncate", **options).read(["Two dogs."])[0][0].ids[:-2] == tag


def test_lines_that_begin_with_another_tag_are_noted_if_the_model_has_tags(tagging: Tokenizer) -> None:
    texts = ["<2fr> A man.", "<bt> A man.", "<2de>A man.", "<2de>\tA man.", "A <2fr> man."]
    notes = InputNotes()
    one = reader(tagging, tag="<2de>", tags=TAGS, notes=notes)
    sources = one.read(texts, first_number=11)
    assert notes.other_tag == [11, 13]
    assert sources[3] == one.read(["A man."])[0]
    assert InputNotes(other_tag=[11, 13]).messages() == [
        "2 lines with something in angle brackets at the beginning are translated as text, as it is not one of the "
        "model's tags and a space: 11, 13"
    ]
    reader(tagging, notes=(without := InputNotes())).read(texts)
    assert without.other_tag == []

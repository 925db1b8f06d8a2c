"""The tokenizer: special ids, round trips, and invalid models."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

import transformer.data.normalization
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from transformer.errors import DataError

VOCAB_SIZE = 307


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """Sentences of both languages."""
    return [side for pair in builtin_pairs("train", 397) for side in pair]


@pytest.fixture(scope="module")
def tokenizer(sentences: list[str]) -> Tokenizer:
    return Tokenizer.train(sentences, VOCAB_SIZE)


def train_with_ids(sentences: list[str], **ids: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=211, minloglevel=2, **ids
    )
    return model.getvalue()


def test_padding_unknown_begin_and_end_are_the_first_four_ids(tokenizer: Tokenizer) -> None:
    assert (PAD_ID, UNK_ID, BOS_ID, EOS_ID) == (0, 1, 2, 3)
    assert tokenizer.pieces([PAD_ID, UNK_ID, BOS_ID, EOS_ID]) == ["<pad>", "<unk>", "<s>", "</s>"]


def test_the_vocabulary_has_the_requested_size(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == VOCAB_SIZE


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_as_many_vocabularies(tokenizer: Tokenizer, make: Callable[[Tokenizer], Tokenizer]) -> None:
    copied = make(tokenizer)
    assert (
        (copied.sizes, copied.digest) == (tokenizer.sizes, tokenizer.digest) == ((VOCAB_SIZE, None), tokenizer.digest)
    )
    assert copied.source is copied
    copied.source = Tokenizer(tokenizer.model)
    assert make(copied).sizes == copied.sizes == (VOCAB_SIZE, VOCAB_SIZE)
    copied.source = copied
    assert copied.sizes == tokenizer.sizes == (VOCAB_SIZE, None)


def test_text_comes_back_from_its_ids(tokenizer: Tokenizer, sentences: list[str]) -> None:
    ids = tokenizer.encode(sentences)
    assert tokenizer.decode(ids) == sentences
    assert all(EOS_ID < i < VOCAB_SIZE for sequence in ids for i in sequence)


def test_one_vocabulary_covers_both_languages(sentences: list[str], tokenizer: Tokenizer) -> None:
    german_only = "ß"
    assert not any(german_only in english for english in sentences[::2])
    assert any(german_only in german for german in sentences[1::2])
    english = Tokenizer.train(sentences[::2], VOCAB_SIZE)
    assert UNK_ID in english.encode([german_only])[0]
    assert UNK_ID not in tokenizer.encode([german_only])[0]


def test_the_case_of_letters_is_kept(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(["Der Hund der Frau"])) == ["Der Hund der Frau"]


def test_ids_come_without_begin_and_end(tokenizer: Tokenizer) -> None:
    assert not {BOS_ID, EOS_ID} & set(tokenizer.encode(["Der Hund"])[0])


def test_the_spelling_of_a_special_piece_in_a_text_is_not_that_piece(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["<s> Hund </s> <pad>"])
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids)


@pytest.mark.parametrize("blank", ["", " ", " \t ", "\n", "\u00a0", "\u3000 \u2028", "\ufeff", "\u200b\u2060", "▁ ▁"])
def test_a_text_without_content_has_no_ids(tokenizer: Tokenizer, blank: str) -> None:
    assert tokenizer.encode([blank]) == [[]]
    assert tokenizer.encode(["Hund", blank, "Katze"])[1] == []


def test_no_texts_have_no_ids_and_no_ids_have_no_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]) == []
    assert tokenizer.decode([]) == []
    assert tokenizer.decode([[]]) == [""]


def test_several_threads_give_the_same_ids_as_one(tokenizer: Tokenizer, sentences: list[str]) -> None:
    assert tokenizer.encode(sentences, num_threads=3) == tokenizer.encode(sentences)


def test_padding_begin_and_end_leave_no_trace_in_the_text(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Der Hund"])
    middle = len(ids) // 2
    noisy = [BOS_ID, *ids[:middle], PAD_ID, EOS_ID, BOS_ID, *ids[middle:], EOS_ID, PAD_ID, PAD_ID]
    assert tokenizer.decode([noisy, ids, [EOS_ID]]) == ["Der Hund", "Der Hund", ""]


def test_a_character_never_seen_is_unknown_and_shows(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["Ж"])
    assert UNK_ID in ids
    assert "Ж" not in tokenizer.decode([ids])[0]
    assert "⁇" in tokenizer.decode([ids])[0]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_text_that_no_utf8_can_hold_is_refused(tokenizer: Tokenizer, num_threads: int) -> None:
    with pytest.raises(DataError, match=r"^text 2 contains surrogates, which UTF-8 cannot encode"):
        tokenizer.encode(["Der Hund", "half \ud800 a character"], num_threads)


def test_training_twice_gives_the_same_bytes(tokenizer: Tokenizer, sentences: list[str]) -> None:
    assert Tokenizer.train(iter(sentences), VOCAB_SIZE).model == tokenizer.model


def test_empty_sentences_do_not_change_the_tokenizer(tokenizer: Tokenizer, sentences: list[str]) -> None:
    assert Tokenizer.train(["", *sentences, ""], VOCAB_SIZE).model == tokenizer.model


def test_a_tokenizer_is_its_bytes(tmp_path: Path, tokenizer: Tokenizer, sentences: list[str]) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer.model)
    for loaded in (Tokenizer.load(path), Tokenizer.load(str(path)), Tokenizer(tokenizer.model)):
        assert loaded.encode(sentences) == tokenizer.encode(sentences)


def test_too_large_a_vocabulary_is_refused_with_the_largest_possible(sentences: list[str]) -> None:
    with pytest.raises(DataError, match=r"data\.vocab_size=99991 is too large for this corpus; at most \d+") as caught:
        Tokenizer.train(sentences, 99991)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert len(Tokenizer.train(sentences, largest)) == largest


def test_too_small_a_vocabulary_is_refused_with_the_smallest_possible(sentences: list[str]) -> None:
    with pytest.raises(DataError, match=r"^data\.vocab_size=23 is too small for this corpus; at least \d+") as caught:
        Tokenizer.train(sentences, 23)
    smallest = int(str(caught.value).split("at least ")[1].split()[0])
    assert len(Tokenizer.train(sentences, smallest)) == smallest


def test_bytes_need_room_in_the_vocabulary(sentences: list[str]) -> None:
    with pytest.raises(DataError, match=r"^data\.vocab_size=250 is too small for this corpus; at least 3\d\d pieces"):
        Tokenizer.train(sentences, 250, byte_fallback=True)


@pytest.mark.parametrize("nothing", [[], [""], [" "]])
def test_empty_text_cannot_train_a_tokenizer(nothing: list[str]) -> None:
    with pytest.raises(DataError, match=r"^the tokenizer cannot be trained: ") as caught:
        Tokenizer.train(nothing, VOCAB_SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stop", [DataError("train.en, line 3: not UTF-8"), KeyboardInterrupt("typed")])
def test_an_error_of_the_corpus_is_raised_unchanged(sentences: list[str], stop: BaseException) -> None:
    def broken() -> Iterator[str]:
        yield from sentences
        raise stop

    with pytest.raises(type(stop)) as caught:
        Tokenizer.train(broken(), VOCAB_SIZE)
    assert caught.value is stop


@pytest.mark.parametrize("name", ["nothing", "noise", "pickle", "truncated"])
def test_invalid_model_bytes_are_refused(tokenizer: Tokenizer, name: str) -> None:
    model = {
        "nothing": b"",
        "noise": b"no model at all",
        "pickle": pickle.dumps({"vocab": ["a", "b"]}),
        "truncated": tokenizer.model[:-3],
    }[name]
    with pytest.raises(DataError, match=r"^not a SentencePiece model: ") as caught:
        Tokenizer(model)
    assert "\n" not in str(caught.value)


def test_an_invalid_model_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(pickle.dumps([]))
    with pytest.raises(DataError, match=r"tokenizer\.model: not a SentencePiece model: "):
        Tokenizer.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.model: cannot be read: No such file or directory"):
        Tokenizer.load(tmp_path / "absent.model")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ({"pad_id": 3, "unk_id": 0, "bos_id": 1, "eos_id": 2}, r"\(3, 0, 1, 2\)"),
        ({"unk_id": 0, "bos_id": 1, "eos_id": 2}, r"\(-1, 0, 1, 2\)"),  # SentencePiece's own
    ],
)
def test_a_model_with_other_special_ids_is_refused(sentences: list[str], ids: dict[str, int], found: str) -> None:
    message = rf"pad, unk, bos and eos ids are {found}; they must be 0, 1, 2 and 3"
    with pytest.raises(DataError, match=message):
        Tokenizer(train_with_ids(sentences, **ids))


@pytest.mark.parametrize("rule", ["minimal", "identity", "nfkc", "nmt_nfkc", "nmt_nfkc_cf"])
def test_training_on_word_counts_equals_training_on_sentences(rule: str) -> None:
    sentences = [side for pair in builtin_pairs("train", 397) for side in pair]
    sentences += ["and  blanks ", "fine  print\u00a0and\u2003wide", "\ufb01sh ½ №", "a\u200bzero\ufeffwidth ▁ mark▁s"]
    sentences += [] if rule in ("identity", "nfkc") else ["tab\tand", "next line\u0085", "\u2028separated\u2029lines"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=311,
        character_coverage=1.0,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        minloglevel=2,
        **rule_options(rule),
    )
    expected = Tokenizer(model.getvalue())
    found = Tokenizer.train(sentences, 311, normalization=rule)
    assert found.pieces(range(311)) == expected.pieces(range(311))
    assert found.encode(sentences) == expected.encode(sentences)


def rule_options(rule: str) -> dict[str, str]:
    """A rule in the words of SentencePiece's own trainer."""
    if rule == "minimal":
        return {"normalization_rule_tsv": str(Path(transformer.data.normalization.__file__).with_name("minimal.tsv"))}
    return {"normalization_rule_name": rule}


def test_repeating_a_corpus_changes_no_piece() -> None:
    sentences = [source for source, _ in builtin_pairs("train", 211)]
    assert Tokenizer.train(sentences * 3, 211).pieces(range(211)) == Tokenizer.train(sentences, 211).pieces(range(211))


@pytest.mark.parametrize("bad", [None, float("nan"), b"x", 3])
def test_what_is_not_text_is_refused_with_its_number(tokenizer: Tokenizer, bad: Any) -> None:
    for call in (tokenizer.encode, lambda texts: Tokenizer.train(texts, VOCAB_SIZE)):
        with pytest.raises(TypeError, match=rf"^text 3 must be a str, got {type(bad).__name__}$"):
            call(["a", "b", bad, "c"])


@pytest.mark.parametrize("text", ["dog runs", b"dog runs"])
def test_one_string_is_not_taken_for_a_list_of_its_characters(tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(TypeError, match=r"^texts must be a list of texts, not one string$"):
        tokenizer.encode(text)
    with pytest.raises(TypeError, match=r"^sentences must be a list of texts, not one string$"):
        Tokenizer.train(text, VOCAB_SIZE)
    with pytest.raises(TypeError, match=r"^symbols must be a list of texts, not one string$"):
        Tokenizer.train(["dog runs"], VOCAB_SIZE, text)


def test_an_iterator_of_texts_is_encoded_as_their_list(tokenizer: Tokenizer, sentences: list[str]) -> None:
    assert tokenizer.encode(iter(sentences)) == tokenizer.encode(tuple(sentences)) == tokenizer.encode(sentences)


@pytest.mark.parametrize(
    ("symbol", "rule", "found"),
    [
        ("(NP", "nfkc_cf", ["(np"]),
        ("½", "nfkc", ["1⁄2"]),
        ("a b", "minimal", ["a", "b"]),
        (" a", "minimal", ["a"]),
        ("a\tb", "minimal", ["a", "b"]),
        ("", "identity", []),
    ],
)
def test_a_symbol_that_no_text_can_contain_is_refused(symbol: str, rule: str, found: list[str]) -> None:
    message = f"the symbol {symbol!r} must stay one word, but data.normalization={rule} makes it {found}; minimal "
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        Tokenizer.train(["(np dog"], VOCAB_SIZE, ["fine", symbol], normalization=rule)
    with pytest.raises(TypeError, match=r"^the symbol 3 must be a str$"):
        Tokenizer.train(["(np dog"], VOCAB_SIZE, [3])  # type: ignore[list-item]


@pytest.mark.parametrize("rule", ["minimal", "identity", "nfkc", "nmt_nfkc"])
def test_a_symbol_that_its_rule_keeps_is_one_piece_of_every_text(sentences: list[str], rule: str) -> None:
    tokenizer = Tokenizer.train(sentences, VOCAB_SIZE, ["(NP", ")NP"], normalization=rule)
    pieces = tokenizer.pieces(tokenizer.encode(["dog (NP a )NP"])[0])
    assert {"▁(NP", "▁)NP"} <= set(pieces)


def test_an_unknown_rule_is_an_error_with_those_there_are(sentences: list[str]) -> None:
    message = "^data.normalization='foo' must be one of minimal, identity, nfkc, nmt_nfkc, nfkc_cf, nmt_nfkc_cf$"
    with pytest.raises(DataError, match=message):
        Tokenizer.train(sentences, VOCAB_SIZE, normalization="foo")

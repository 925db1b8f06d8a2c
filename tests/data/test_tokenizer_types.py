"""Unigram models, symbols of the user, and two tokenizers as one."""

from __future__ import annotations

import io
import re
import unicodedata
from pathlib import Path

import pytest
import sentencepiece

from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import DataError
from transformer.sections.types import TokenizerType

SENTENCES = [side for pair in builtin_pairs("train", 397) for side in pair]
TEXTS = [
    "今天，我们去“故宫”：票价１００元、2．5小时！　好吗？",
    "저는 고양이를 좋아합니다. 값이 ₩3,000이에요!",
    "می‌خواهم کتاب‌ها را ببینم؛ ۱۲۳٬۴۵۶ تومان",
    "Ёжик — «колючий» зверёк № 5",
    unicodedata.normalize("NFD", "Tiếng Việt rất đẹp, Å ö ñ"),
    "👩🏽\u200d👩🏽\u200d👧🏽 ❤️ 🇩🇪 x² ½ ﬁ no\u00a0break",
    "⁇ <s> a</s>b <unk> <pad> x<0x41> ▅ \x1b[0m \U0010ffff",
]
TYPES = pytest.mark.parametrize("tokenizer_type", ["bpe", "unigram"])


def test_a_unigram_model_of_word_counts_is_that_of_sentences() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="unigram",
        vocab_size=311,
        character_coverage=1.0,
        normalization_rule_name="identity",
        **{"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "minloglevel": 2},
    )
    expected = Tokenizer(model.getvalue())
    found = Tokenizer.train(SENTENCES, 311, tokenizer_type="unigram", normalization="identity")
    assert found.type == "unigram"
    assert found.pieces(range(311)) == expected.pieces(range(311))
    assert found.encode(SENTENCES) == expected.encode(SENTENCES)


def test_training_a_unigram_model_twice_or_in_another_order_gives_the_same_bytes() -> None:
    first, again, turned = (
        Tokenizer.train(sentences, 307, tokenizer_type="unigram").model
        for sentences in (SENTENCES, iter(SENTENCES), SENTENCES[::-1])
    )
    assert first == again == turned


@pytest.mark.parametrize("text", TEXTS)
def test_every_character_of_the_text_is_covered_by_a_unigram_model(text: str) -> None:
    with pytest.raises(DataError, match="too small") as caught:
        Tokenizer.train([text] * 3, 8, tokenizer_type="unigram")
    (number,) = re.findall(r"at least (\d+)", str(caught.value))
    tokenizer = Tokenizer.train([text] * 3, int(number), tokenizer_type="unigram")
    (ids,) = tokenizer.encode([text])
    assert UNK_ID not in ids
    assert tokenizer.decode([ids]) == [text]


def test_any_text_comes_back_from_the_bytes_of_a_unigram_model() -> None:
    tokenizer = Tokenizer.train(SENTENCES, 509, tokenizer_type="unigram", byte_fallback=True)
    ids = tokenizer.encode(TEXTS)
    assert not any(UNK_ID in x for x in ids)
    assert tokenizer.decode(ids) == TEXTS


def test_rare_characters_beyond_the_coverage_are_unknown_to_a_unigram_model() -> None:
    junk = "".join(chr(0x4E00 + i) for i in range(97))
    text = [*SENTENCES, junk]
    whole, covered = (
        Tokenizer.train(text, 311, tokenizer_type="unigram", character_coverage=x).encode([junk])[0]
        for x in (1.0, 0.98)
    )
    assert UNK_ID not in whole
    assert UNK_ID in covered


def test_too_large_a_unigram_vocabulary_is_refused_with_the_largest_possible() -> None:
    with pytest.raises(DataError, match=r"^data\.vocab_size=99991 is too large for this corpus; at most \d+") as caught:
        Tokenizer.train(SENTENCES, 99991, tokenizer_type="unigram")
    largest = int(re.findall(r"at most (\d+)", str(caught.value))[0])
    assert len(Tokenizer.train(SENTENCES, largest, tokenizer_type="unigram")) == largest


# Symbols of the user


@TYPES
@pytest.mark.parametrize("normalization", ["minimal", "nmt_nfkc"])
def test_a_symbol_is_one_piece_wherever_it_stands_and_the_text_comes_back(
    tokenizer_type: TokenizerType, normalization: str
) -> None:
    symbols = ["<2de>", "<2fr>", "a,b", '"q"', "##", "▅x"]
    tokenizer = Tokenizer.train(
        SENTENCES, 311, user_symbols=symbols, tokenizer_type=tokenizer_type, normalization=normalization
    )
    for symbol in symbols:
        for text in (f"{symbol} Hund", f"{symbol}Hund", f"Der{symbol}Hund", f"Der Hund {symbol}", symbol, symbol * 2):
            (ids,) = tokenizer.encode([text])
            assert tokenizer.pieces(ids).count(symbol) == text.count(symbol)
            assert tokenizer.decode([ids]) == [text]


@TYPES
def test_the_words_beside_a_symbol_have_the_pieces_of_words(tokenizer_type: TokenizerType) -> None:
    tokenizer = Tokenizer.train(SENTENCES, 311, user_symbols=["<2de>"], tokenizer_type=tokenizer_type)
    tagged, plain = tokenizer.encode(["<2de> Der Hund", "Der Hund"])
    assert tokenizer.pieces(tagged[:2]) == ["▁", "<2de>"]
    assert tagged[2:] == plain


@TYPES
def test_no_other_piece_is_learned_from_the_characters_of_a_symbol(tokenizer_type: TokenizerType) -> None:
    text = [f"<2de>{sentence}" for sentence in SENTENCES] + [f"<2de> {sentence}" for sentence in SENTENCES]
    tokenizer = Tokenizer.train(text, 311, user_symbols=["<2de>"], tokenizer_type=tokenizer_type)
    assert [piece for piece in tokenizer.pieces(range(4, 311)) if {*"<2>"} & {*piece}] == ["<2de>"]


def test_symbols_of_words_and_of_the_user_go_together() -> None:
    tokenizer = Tokenizer.train(SENTENCES, 311, ["<2de>", "(NP"], user_symbols=["<2de>", "<2de>", "##"])
    pieces = [tokenizer.pieces(ids) for ids in tokenizer.encode(["<2de> a", "a<2de>", "a (NP ##"])]
    assert [pieces[0][0], pieces[1][-1], pieces[2][1:]] == ["▁<2de>", "<2de>", ["▁(NP", "▁", "##"]]


@pytest.mark.parametrize("symbol", ["<s>", "</s>", "<unk>", "<pad>", "<0x41>"])
@pytest.mark.parametrize("name", ["symbols", "user_symbols"])
def test_a_special_piece_is_no_symbol(symbol: str, name: str) -> None:
    message = rf"^the symbol '{symbol}' is the name of a special piece; choose another$"
    with pytest.raises(DataError, match=message):
        Tokenizer.train(SENTENCES, 311, **{name: [symbol]})  # type: ignore[arg-type]


@pytest.mark.parametrize("symbol", ["", " ", "a b", "▁x", "x\t"])
def test_a_symbol_of_the_user_that_is_not_one_word_is_refused(symbol: str) -> None:
    with pytest.raises(DataError, match=rf"^the symbol {re.escape(repr(symbol))} must stay one word"):
        Tokenizer.train(SENTENCES, 311, user_symbols=[symbol])


# Two as one


def test_the_digest_and_the_sizes_are_those_of_both() -> None:
    joint, target = (Tokenizer.train(SENTENCES, size) for size in (307, 307))
    assert joint.sizes == (307, None)
    assert joint.digest == target.digest
    target.source = Tokenizer.train(SENTENCES, 293)
    assert target.sizes == (307, 293)
    assert target.digest == f"{joint.digest} {target.source.digest}"


def test_both_are_loaded_from_a_directory(tmp_path: Path) -> None:
    models = [Tokenizer.train(SENTENCES, size).model for size in (307, 293)]
    for name, model in zip(("tokenizer.model", "source_tokenizer.model"), models, strict=True):
        (tmp_path / name).write_bytes(model)
    assert load_tokenizer(tmp_path, is_separate=True).sizes == (307, 293)
    assert load_tokenizer(tmp_path, is_separate=False).sizes == (307, None)

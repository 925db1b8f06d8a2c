"""Text comes back from its ids in every script, whatever characters it has."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import DataError

FAMILY = "👩🏽\u200d👩🏽\u200d👧🏽"
TEXTS = {
    "Chinese": "今天，我们去“故宫”：票价１００元（含税）、2．5小时！　好吗？",
    "Japanese": "東京タワーは｢333ｍ｣です。ﾊﾝｶｸとカタカナ、ぱ゚ぴ；〜～ー。",
    "Korean": "저는 고양이를 좋아합니다. 값이 ₩3,000이에요! 한글",
    "Thai": "ฉันชอบแมวตัวนี้มากๆ ราคา ๑๒๓ บาท น้ำ กำ",
    "Persian": "می‌خواهم کتاب‌ها را ببینم؛ ۱۲۳٬۴۵۶ تومان، آیا می‌آیی؟",
    "Arabic": "السَّلامُ عَلَيْكُم، كَيْفَ حالُكَ؟ ﻻ لا ١٢٣ ـــ ‏(abc)‎",
    "Hebrew": "שָׁלוֹם, מה נשמע? צה״ל ‫מימין לשמאל‬ אב",
    "Hindi": "मैं किताबें पढ़ता हूँ। क्‍ष और क्‌ष, १२३ ज़ ज़",
    "Russian": "Ёжик — «колючий» зверёк № 5; йод и йод",
    "German": "Straße, Ärger und „Größe“: 10² m³ ½ … 5 €",
    "Vietnamese": unicodedata.normalize("NFD", "Tiếng Việt rất đẹp ữ"),
    "decomposed": unicodedata.normalize("NFD", "Å ö ñ が 한 ệ") + " \u0301mark first",
    "emoji": f"{FAMILY} 🏳️\u200d🌈 ❤️ ☺︎ 🇩🇪 1️⃣ 👍🏿",
    "symbols": "x² + y₃ ≠ ½ ① ℃ ™ ﬁ ㎏ Ｆｕｌｌ ｗｉｄｔｈ",
    "odd spaces": "no\u00a0break thin\u2009space em\u2003quad wide\u3000 zero\u200bwidth \ufeffbom soft\u00adhyphen",
    "odd": "⁇ <s> a</s>b <unk> <pad> x<0x41> <mask> ▅ ▂▃▄▅▆ \u0007\x1b[0m \u007f \ufffd \ufffe \ue000 \U0010ffff",
}


def largest(text: list[str], **options: object) -> Tokenizer:
    """A tokenizer of as many pieces as can be learned."""
    try:
        return Tokenizer.train(text, 1 << 20, **options)  # type: ignore[arg-type]
    except DataError as error:
        (number,) = re.findall(r"at most (\d+)", str(error))
        return Tokenizer.train(text, int(number), **options)  # type: ignore[arg-type]


def smallest(text: list[str], **options: object) -> Tokenizer:
    """A tokenizer of as few pieces as can be: characters."""
    try:
        return Tokenizer.train(text, 8, **options)  # type: ignore[arg-type]
    except DataError as error:
        (number,) = re.findall(r"at least (\d+)", str(error))
        return Tokenizer.train(text, int(number), **options)  # type: ignore[arg-type]


def spaced(text: str) -> str:
    """The text after the rules for spaces: none at either end, one between words, no other control white space.

    A text of nothing but what cannot be seen is empty.
    """
    if not re.sub("[▁\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", "", text).strip():
        return ""
    return " ".join(filter(None, re.split("[\t-\r\x1c-\x1f\x85\u2028\u2029▁ ]", text)))


@pytest.fixture(scope="module")
def with_bytes() -> Tokenizer:
    """Of English, with a piece per byte."""
    return Tokenizer.train(["a cat sees the dog", "the dog sees a cat", "<0x 41> s>"], 300, byte_fallback=True)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("train", [largest, smallest])
def test_the_training_text_comes_back_without_unknown_pieces(name: str, train: object) -> None:
    text = TEXTS[name]
    tokenizer = train([text] * 3)  # type: ignore[operator]
    (ids,) = tokenizer.encode([text])
    assert UNK_ID not in ids
    assert tokenizer.decode([ids]) == [text]


@pytest.mark.parametrize("name", TEXTS)
def test_any_script_comes_back_from_bytes(name: str, with_bytes: Tokenizer) -> None:
    (ids,) = with_bytes.encode([TEXTS[name]])
    assert UNK_ID not in ids
    assert with_bytes.decode([ids]) == [TEXTS[name]]


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=500, deadline=None)
def test_any_text_comes_back_from_bytes(text: str) -> None:
    tokenizer = _with_bytes()
    (ids,) = tokenizer.encode([text])
    assert UNK_ID not in ids
    assert tokenizer.decode([ids]) == [spaced(text)]


_TOKENIZERS: list[Tokenizer] = []


def _with_bytes() -> Tokenizer:
    if not _TOKENIZERS:
        _TOKENIZERS.append(Tokenizer.train(["a cat sees the dog", "x² ▅"], 290, byte_fallback=True))
    return _TOKENIZERS[0]


ODD = "\u0085\u00a0\u3000\u200b\ufeff\t\r\n\u2028▁▅\u0301\u0344\u200d\u200c⁇👩<s>/unkpad0x41 \ufffd\U0010ffff①Ａ"


@given(st.lists(st.text(st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=12)))
@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("rule", ["minimal", "nmt_nfkc", "nfkc"])
def test_any_training_text_has_no_unknown_pieces(rule: str, texts: list[str]) -> None:
    # NUL is never learned; with nfkc, as of SentencePiece, neither are ends of fields and lines.
    never = "[\0\t\r\n\x1f]" if rule == "nfkc" else "\0"
    texts = [re.sub(never, "x", text) for text in texts] + ["so that there is text"]
    tokenizer = smallest(texts, normalization=rule)
    ids = tokenizer.encode(texts)
    assert [sequence.count(UNK_ID) for sequence in ids] == [0] * len(texts)
    if rule == "minimal":
        assert tokenizer.decode(ids) == list(map(spaced, texts))


@pytest.mark.parametrize("end", ["\u0085", "\r", "\u2028", "\x1c", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u0301"])
@pytest.mark.parametrize("rule", ["minimal", "nmt_nfkc"])
def test_a_line_may_end_in_any_white_space(rule: str, end: str) -> None:
    lines = [f"{word} word.{end}" for word in ("one", "two", "three")]
    tokenizer = smallest(lines, normalization=rule)
    assert not any(UNK_ID in ids for ids in tokenizer.encode(lines))


def test_words_of_any_length_are_learned() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(2000)) * 40  # 240,000 bytes without a space
    tokenizer = smallest([text, "a b"])
    (ids,) = tokenizer.encode([text])
    assert UNK_ID not in ids
    assert tokenizer.decode([ids]) == [text]


def test_nul_is_unknown_or_a_byte(with_bytes: Tokenizer) -> None:
    assert UNK_ID in smallest(["a\0b"] * 3).encode(["a\0b"])[0]
    assert with_bytes.decode(with_bytes.encode(["a\0b"])) == ["a\0b"]


@pytest.mark.parametrize("control", "\0\t\n\r\x1f")
def test_control_characters_are_unknown_under_rules_that_keep_them(control: str) -> None:
    tokenizer = smallest([f"a{control}b"] * 3, normalization="identity")
    assert tokenizer.pieces(tokenizer.encode([f"a{control}b"])[0]) == ["▁a", "<unk>", "b"]


def test_whatever_bytes_a_model_puts_together_the_text_is_one_line_of_utf_8(with_bytes: Tokenizer) -> None:
    rng = random.Random(7)
    byte_ids = [i for i, piece in enumerate(with_bytes.pieces(range(len(with_bytes)))) if piece.startswith("<0x")]
    assert (len(byte_ids), byte_ids[0]) == (256, 4)
    sequences = [[rng.choice(byte_ids) for _ in range(rng.randint(1, 7))] for _ in range(5000)]
    sequences += [[i] for i in byte_ids] + [[4 + byte for byte in "a\u0085b\u2028c\n".encode()]]
    for ids, text in zip(sequences, with_bytes.decode(sequences), strict=True):
        expected = bytes(i - 4 for i in ids).decode(errors="replace")
        assert len(f"{text}|".splitlines()) == 1
        assert "\t" not in text
        assert ("\ufffd" in text) == ("\ufffd" in expected)
        if "\ufffd" not in expected:
            assert text == re.sub("[\t-\r\x1c-\x1f\x85\u2028\u2029]", " ", expected)
        text.encode()


def test_the_spelling_of_a_byte_piece_is_not_that_piece(with_bytes: Tokenizer) -> None:
    (ids,) = with_bytes.encode(["<0x41>"])
    assert with_bytes.decode([ids]) == ["<0x41>"]
    assert 4 + 0x41 not in ids


@pytest.mark.parametrize("special", ["<s>", "</s>", "<unk>", "<pad>", "<0x41>"])
def test_spellings_of_special_pieces_in_the_training_text_are_learned_as_text(special: str) -> None:
    text = f"{special} in{special}side"
    for tokenizer in (largest([text] * 9), largest([text] * 9, byte_fallback=True)):
        (ids,) = tokenizer.encode([text])
        assert min(ids) >= (4 if len(tokenizer) < 260 else 260)
        assert tokenizer.decode([ids]) == [text]

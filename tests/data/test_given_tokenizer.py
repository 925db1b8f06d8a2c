"""Tokenizers from elsewhere: any special ids, the same pieces of every text, and refusals in one line."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from transformer.data import given_tokenizer as module
from transformer.data.builtin import builtin_pairs
from transformer.data.given_tokenizer import given_tokenizer, with_own_ids
from transformer.data.protobuf import read_fields, write_field
from transformer.data.sentencepiece_model import TRAINER
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer, load_processor
from transformer.errors import DataError

SENTENCES = [side for pair in builtin_pairs("train", 211) for side in pair]
HARD_LINES = [
    *SENTENCES[:41],
    "<s> a</s>b <unk> <pad> x<0x41> <mask> ⁇ <bos> <pad1> <2de>Hund <2de> Hund",
    "今天，我们去“故宫”：票价１００元、2．5小时！　好吗？",
    "저는 고양이를 좋아합니다. می‌خواهم کتاب‌ها را ببینم Ёжик — «колючий»",
    unicodedata.normalize("NFD", "Tiếng Việt rất đẹp, Å ö ñ") + " \u0301mark first",
    "👩🏽\u200d👩🏽\u200d👧🏽 🏳️\u200d🌈 x² ½ ﬁ Ｆｕｌｌ no\u00a0break zero\u200bwidth \ufeffbom",
    "  many   blanks\tand\ttabs  ",
    "▁ mark▁s ▅ \x1b[0m \ufffd \U0010ffff",
]
SPECIAL_IDS: list[dict[str, Any]] = [
    {},  # SentencePiece's own: no padding, unknown 0, <s> 1, </s> 2
    {"pad_id": 3},
    {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    {"bos_id": -1, "eos_id": -1},
    {"unk_id": 7, "bos_id": 5, "eos_id": 11, "pad_id": 2},
    {"user_defined_symbols": ["<pad>", "<2de>"], "control_symbols": ["<mask>", "<pad1>"]},
    {"unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "pad_id": 3, "pad_piece": "[PAD]"},
    {"treat_whitespace_as_suffix": True},
    {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
    {"byte_fallback": True},
]


def foreign_model(model_type: str = "bpe", **options: Any) -> bytes:
    """A model as SentencePiece trains it by itself."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type=model_type,
        vocab_size=(89 if model_type != "char" else 59) + 256 * bool(options.get("byte_fallback")),
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize("options", SPECIAL_IDS, ids=str)
@pytest.mark.parametrize("model_type", ["bpe", "unigram", "char", "word"])
def test_every_text_has_the_pieces_and_comes_back_as_in_the_original(model_type: str, options: dict[str, Any]) -> None:
    model = foreign_model(model_type, **options)
    original, tokenizer = load_processor(model), Tokenizer(with_own_ids(model))
    assert tokenizer.type == model_type
    ids = tokenizer.encode(HARD_LINES)
    assert [tokenizer.pieces(x) for x in ids] == [
        [original.IdToPiece(id_) for id_ in x] for x in original.Encode(HARD_LINES)
    ]
    assert {PAD_ID, BOS_ID, EOS_ID}.isdisjoint(id_ for x in ids for id_ in x)
    assert [text.split() for text in tokenizer.decode(ids)] == [
        text.split() for text in original.Decode(original.Encode(HARD_LINES))
    ]


@pytest.mark.parametrize("options", SPECIAL_IDS, ids=str)
def test_all_other_pieces_keep_their_order(options: dict[str, Any]) -> None:
    model = foreign_model(**options)
    original, tokenizer = load_processor(model), Tokenizer(with_own_ids(model))
    specials = {original.IdToPiece(i) for i in (original.pad_id(), original.bos_id(), original.eos_id()) if i >= 0}
    specials.add(original.IdToPiece(original.unk_id()))
    others = [piece for i in range(len(original)) if (piece := original.IdToPiece(i)) not in specials]
    assert tokenizer.pieces(range(4, len(tokenizer))) == others
    assert specials <= set(tokenizer.pieces(range(4)))


def test_a_name_that_is_taken_is_not_used_for_a_special_piece() -> None:
    tokenizer = Tokenizer(with_own_ids(foreign_model(user_defined_symbols=["<pad>"], control_symbols=["<pad1>"])))
    assert tokenizer.pieces(range(4)) == ["<pad2>", "<unk>", "<s>", "</s>"]
    assert tokenizer.decode([[PAD_ID]]) == [""]


def test_one_piece_for_end_and_padding_remains_the_end() -> None:
    model = b""
    for number, field, content in read_fields(foreign_model()):
        model += write_field(TRAINER, content + write_field(48, b"</s>")) if number == TRAINER else field
    assert load_processor(model).pad_id() == load_processor(model).eos_id() == 2
    tokenizer = Tokenizer(with_own_ids(model))
    assert tokenizer.pieces(range(4)) == ["<pad>", "<unk>", "<s>", "</s>"]


def test_a_model_with_our_ids_is_taken_as_it_is() -> None:
    model = Tokenizer.train(SENTENCES, 307).model
    assert with_own_ids(model) is model


def test_a_rewritten_model_is_rewritten_once() -> None:
    once = with_own_ids(foreign_model())
    assert with_own_ids(once) is once


def test_a_word_that_is_spelt_like_a_special_piece_is_unknown() -> None:
    tokenizer = Tokenizer(with_own_ids(foreign_model("word", add_dummy_prefix=False)))
    assert tokenizer.encode(["<s>", "</s>", "<pad>"]) == [[UNK_ID]] * 3


@pytest.mark.parametrize("has_dummy_prefix", [True, False])
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_words_are_encoded_as_in_their_text(model_type: str, has_dummy_prefix: bool) -> None:
    tokenizer = Tokenizer(with_own_ids(foreign_model(model_type, add_dummy_prefix=has_dummy_prefix)))
    for text in (*SENTENCES[:41], "  two  wide\tspaces ", "\u200b Ein", "", " "):
        words = tokenizer.encode_words(text)
        assert len(words) == len(text.split())
        assert [id_ for word in words for id_ in word] == tokenizer.encode([text])[0]
        first, rest = tokenizer.encode_inside(["Hund", text], [False, True])
        assert first + rest == tokenizer.encode([f"Hund {text}"])[0]
        assert tokenizer.encode_inside([text])[0] == rest
    with pytest.raises(DataError, match=r"^text 2 contains surrogates"):
        tokenizer.encode_inside(["a", "\ud800"])


def test_a_model_that_would_split_text_in_another_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    to_field = module.Piece.to_field
    monkeypatch.setattr(module.Piece, "to_field", lambda piece: to_field(piece._replace(score=-piece.score)))
    with pytest.raises(DataError, match=r"^its special pieces cannot be moved to the ids 0 to 3 without other pieces"):
        with_own_ids(foreign_model())


@pytest.mark.parametrize("bad", [b"", b"no model", foreign_model()[:-3]], ids=["nothing", "text", "cut"])
def test_bytes_that_are_no_model_are_refused(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(bad)
    with pytest.raises(DataError, match=r"x\.model: not a SentencePiece model: ") as caught:
        given_tokenizer(f"{tmp_path}/x.model", ("en", "de"), is_separate=False)
    assert "\n" not in str(caught.value)


def test_a_model_that_only_sentencepiece_can_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(_: bytes) -> list[module.Piece]:
        raise IndexError("a field is cut off")

    monkeypatch.setattr(module, "read_pieces", cut)
    with pytest.raises(DataError, match=r"^not a SentencePiece model: a field is cut off$"):
        with_own_ids(foreign_model())


def test_a_missing_file_and_an_empty_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^absent\.model: cannot be read: No such file or directory$"):
        given_tokenizer("absent.model", ("en", "de"), is_separate=False)
    message = r"has neither tokenizer\.model nor source\.spm and target\.spm$"
    with pytest.raises(DataError, match=message):
        given_tokenizer(str(tmp_path), ("en", "de"), is_separate=False)


def test_a_device_is_not_read() -> None:
    with pytest.raises(DataError, match=r"^/dev/zero: cannot be read: not a regular file$"):
        given_tokenizer("/dev/zero", ("en", "de"), is_separate=False)


def write_two(directory: Path, source: str, target: str) -> tuple[bytes, bytes]:
    """Models of both sides, with other special ids."""
    models = foreign_model("unigram"), foreign_model("bpe")
    for name, model in zip((source, target), models, strict=True):
        (directory / name).write_bytes(model)
    return models


@pytest.mark.parametrize(
    ("source", "target", "given"),
    [
        ("source.spm", "target.spm", "{}"),  # OPUS-MT
        ("source_tokenizer.model", "tokenizer.model", "{}"),  # a run or checkpoint
        ("spm.en.model", "spm.de.model", "{}/spm.{{lang}}.model"),
    ],
)
def test_each_side_may_have_its_model(tmp_path: Path, source: str, target: str, given: str) -> None:
    models = write_two(tmp_path, source, target)
    path = given.format(tmp_path)
    tokenizer = given_tokenizer(path, ("en", "de"), is_separate=True)
    assert [tokenizer.source.model, tokenizer.model] == [*map(with_own_ids, models)]
    message = r"source and target have tokenizers of their own: set data\.separate_vocabularies=true$"
    with pytest.raises(DataError, match=message):
        given_tokenizer(path, ("en", "de"), is_separate=False)


def test_one_model_may_serve_both_sides_as_two_vocabularies(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(foreign_model())
    joint, separate = (given_tokenizer(f"{tmp_path}/x.model", ("en", "de"), is_separate=x) for x in (False, True))
    assert joint.source is joint
    assert separate.source is not separate
    assert separate.source.encode(HARD_LINES) == separate.encode(HARD_LINES) == joint.encode(HARD_LINES)


def test_equal_models_of_both_sides_are_a_joint_one(tmp_path: Path) -> None:
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes(foreign_model())
    assert given_tokenizer(str(tmp_path), ("en", "de"), is_separate=False).sizes == (90, None)


def test_unknown_characters_stay_unknown() -> None:
    tokenizer = Tokenizer(with_own_ids(foreign_model()))
    assert UNK_ID in tokenizer.encode(["漢字"])[0]

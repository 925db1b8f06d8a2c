"""The content of SentencePiece models, as SentencePiece itself tells it."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs
from transformer.data.protobuf import write_field, write_fixed32, write_number
from transformer.data.sentencepiece_model import (
    BYTE,
    CONTROL,
    NORMAL,
    TRAINER,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    model_type,
    read_pieces,
    read_trainer,
)
from transformer.data.tokenizer import Tokenizer, load_processor


def test_pieces_have_the_kinds_and_scores_that_sentencepiece_reads() -> None:
    sentences = [side for pair in builtin_pairs("train", 97) for side in pair]
    model = Tokenizer.train(sentences, 397, byte_fallback=True, user_symbols=["<2de>"]).model
    processor, pieces = load_processor(model), read_pieces(model)
    assert len(pieces) == 397
    for id_, piece in enumerate(pieces):
        assert (piece.text, piece.score) == (processor.IdToPiece(id_), processor.GetScore(id_))
        assert (piece.kind == CONTROL, piece.kind == UNKNOWN) == (processor.IsControl(id_), processor.IsUnknown(id_))
        assert (piece.kind == BYTE) == processor.IsByte(id_)
    assert [piece.kind for piece in pieces[:5]] == [CONTROL, UNKNOWN, CONTROL, CONTROL, USER_DEFINED]
    assert b"".join(piece.to_field() for piece in pieces) == model[: model.index(write_field(2, read_trainer(model)))]


@pytest.mark.parametrize(("number", "name"), [(1, "unigram"), (2, "bpe"), (3, "word"), (4, "char"), (9, "unigram")])
def test_the_type_of_a_model_has_a_number(number: int, name: str) -> None:
    assert model_type(write_field(TRAINER, write_number(3, number))) == name


def test_what_is_not_written_has_the_default_of_the_format() -> None:
    assert model_type(b"") == "unigram"
    assert read_pieces(write_field(1, b"")) == [Piece("", NORMAL, 0.0)]


def test_a_field_of_another_wire_type_is_none_that_sentencepiece_knows() -> None:
    text, score = write_field(1, b"ab"), write_fixed32(2, b"\0\0\x80\xbf")
    expected = Piece("ab", NORMAL, -1.0)
    for other in (write_fixed32(1, b"abcd"), write_number(2, 7), write_fixed32(3, b"abcd"), write_field(2, b"x")):
        assert read_pieces(write_field(1, text + score + other)) == [expected]
    assert read_pieces(write_fixed32(1, b"abcd")) == []

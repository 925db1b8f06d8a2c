"""The content of a SentencePiece model: its pieces, their kinds and scores, and its type.

SentencePiece itself names neither the kind of each piece nor the type of a model. The numbers are those of the fields
in its ModelProto, SentencePiece and TrainerSpec.
"""

import struct
from typing import Literal, NamedTuple

from transformer.data.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    read_fields,
    read_number,
    wire_type,
    write_field,
    write_fixed32,
    write_number,
)

PIECES, TRAINER = 1, 2  # fields of a model
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces
_TEXT, _SCORE, _KIND = 1, 2, 3
_TYPE = 3  # in the trainer's specification
_TYPES: dict[int, "ModelType"] = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

ModelType = Literal["unigram", "bpe", "word", "char"]


class Piece(NamedTuple):
    """One piece: its text, in which ▁ stands for a space, its kind, and its score."""

    text: str
    kind: int = NORMAL
    score: float = 0.0

    def to_field(self) -> bytes:
        """The piece as a field of a model, byte for byte as SentencePiece writes it."""
        text, score = write_field(_TEXT, self.text.encode()), write_fixed32(_SCORE, struct.pack("<f", self.score))
        return write_field(PIECES, text + score + (b"" if self.kind == NORMAL else write_number(_KIND, self.kind)))


def read_pieces(model: bytes) -> list[Piece]:
    """The pieces of a model that SentencePiece has loaded, in the order of their ids."""
    return [_read_piece(content) for number, field, content in read_fields(model) if _is(number, field, PIECES, BYTES)]


def _is(number: int, field: bytes, expected: int, wire: int) -> bool:
    """Whether a field has this number; of another wire type, it would be one that SentencePiece does not know."""
    return number == expected and wire_type(field) == wire


def _read_piece(message: bytes) -> Piece:
    text, kind, score = "", NORMAL, 0.0
    for number, field, content in read_fields(message):
        if _is(number, field, _TEXT, BYTES):
            text = content.decode()
        elif _is(number, field, _SCORE, FIXED32):
            (score,) = struct.unpack("<f", content)
        elif _is(number, field, _KIND, VARINT):
            kind = read_number(field)
    return Piece(text, kind, score)


def read_trainer(model: bytes) -> bytes:
    """How a model was trained, as a message of its own."""
    fields = read_fields(model)
    return b"".join(content for number, field, content in fields if _is(number, field, TRAINER, BYTES))


def model_type(model: bytes) -> ModelType:
    """The type of a model that SentencePiece has loaded."""
    fields = read_fields(read_trainer(model))
    numbers = [read_number(field) for number, field, _ in fields if _is(number, field, _TYPE, VARINT)]
    return _TYPES.get(numbers[-1] if numbers else 1, "unigram")  # the format's default

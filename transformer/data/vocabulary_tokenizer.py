"""SentencePiece models with a vocabulary of their own, as OPUS-MT's models have; and tokenizers of either kind.

There a text is split by the SentencePiece model of its side, and each piece is looked up by its text in a vocabulary
that may be of both sides. So a piece of the SentencePiece model may have no id, and a character that it does not know
may have one. The file is a safetensors container, so that no program takes it for a SentencePiece model with other ids.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from transformer.data.normalization import MARK, is_blank, text_error, without_control_space
from transformer.data.sentencepiece_model import CONTROL, Piece, read_pieces
from transformer.data.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    SOURCE_FILE,
    TARGET_FILE,
    UNK_ID,
    Tokenizer,
    listed,
    load_processor,
)
from transformer.errors import DataError

_MAX_PIECES = 1 << 20
_MODEL, _SOURCE_MODEL, _PIECES = "sentencepiece", "source_sentencepiece", "pieces"
_SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]


class VocabularyTokenizer(Tokenizer):
    """Text to token ids by SentencePiece pieces that are looked up in a vocabulary.

    A code such as `>>deu<<`, with which a text begins, is a piece of its own.

    Args:
        model: as `VocabularyTokenizer.pack` returns it. DataError if it is anything else.
    """

    def __init__(self, model: bytes) -> None:
        parts = _unpack(model)
        self.model, self.sentencepiece = model, parts[_MODEL]
        self._processor = load_processor(self.sentencepiece)
        self._pieces = _checked_pieces(parts[_PIECES])
        self._ids = {piece: id_ for id_, piece in enumerate(self._pieces) if id_ > EOS_ID}
        self._source = self._own_source = None
        if _SOURCE_MODEL in parts:
            packed = VocabularyTokenizer.pack(parts[_SOURCE_MODEL], self._pieces)
            self._source = self._own_source = VocabularyTokenizer(packed)

    @staticmethod
    def pack(sentencepiece: bytes, pieces: Sequence[str], source_sentencepiece: bytes | None = None) -> bytes:
        """The bytes of a tokenizer.

        Args:
            sentencepiece: the SentencePiece model of the side; of the target, where the vocabulary is of both.
            pieces: by id; the first four are <pad>, <unk>, <s> and </s>.
            source_sentencepiece: that of the source, if the vocabulary is of both.
        """
        parts = {_MODEL: sentencepiece, _PIECES: json.dumps(list(pieces), ensure_ascii=False).encode()}
        if source_sentencepiece is not None:
            parts[_SOURCE_MODEL] = source_sentencepiece
        packed: bytes = save({name: np.frombuffer(part, np.uint8) for name, part in parts.items()})
        return packed

    @property
    def is_separate(self) -> bool:
        return self._source not in (None, self._own_source)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        ids = self._ids
        return [[ids.get(piece, UNK_ID) for piece in pieces] for pieces in self.encode_as_pieces(texts, num_threads)]

    def encode_as_pieces(self, texts: Sequence[str], num_threads: int = 1) -> list[list[str]]:
        texts = listed("texts", texts)
        try:
            with contextlib.suppress(TypeError, UnicodeEncodeError):
                coded = [_split_code("" if is_blank(text) else text) for text in texts]
                rests = [text for _, text in coded]
                split = self._processor.Encode(rests, out_type=str, num_threads=num_threads)
                return [[*code, *pieces] for (code, _), pieces in zip(coded, split, strict=True)]
        except UnicodeDecodeError:
            raise DataError("the tokenizer's normalisation makes text that is not UTF-8") from None
        raise text_error(texts)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        hidden = (PAD_ID, BOS_ID, EOS_ID)
        return self.decode_pieces([self.pieces(id_ for id_ in sequence if id_ not in hidden) for sequence in ids])

    def decode_pieces(self, pieces: Sequence[Sequence[str]]) -> list[str]:
        # In pieces that the SentencePiece model lacks, it leaves the mark of a space as it is.
        texts = (str(self._processor.DecodePieces(list(x))).replace(MARK, " ").strip() for x in pieces)
        return [without_control_space(text) for text in texts]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self._pieces[int(id_)] for id_ in ids]

    def scored_pieces(self) -> list[Piece]:
        known = {piece.text: piece for piece in read_pieces(self.sentencepiece)}
        return [known.get(text) or Piece(text, CONTROL) for text in self._pieces]


def read_tokenizer(model: bytes) -> Tokenizer:
    """The tokenizer of either kind with these bytes. DataError as of both."""
    return VocabularyTokenizer(model) if is_container(model) else Tokenizer(model)


def is_container(model: bytes) -> bool:
    """Whether these may be the bytes of a safetensors file: the length of a JSON object, and the object."""
    return model[8:9] == b"{" and int.from_bytes(model[:8], "little") <= len(model) - 8


def load_tokenizer(directory: Path, *, is_separate: bool) -> Tokenizer:
    """The tokenizer in a run or a checkpoint, with that of the source. DataError if it is missing or invalid."""
    tokenizer = _load(directory / TARGET_FILE)
    if is_separate:
        tokenizer.source = _load(directory / SOURCE_FILE)
    return tokenizer


def _load(path: Path) -> Tokenizer:
    try:
        return read_tokenizer(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _split_code(text: str) -> tuple[list[str], str]:
    """The code of a language with which a text begins, if it does, and the rest."""
    end = text.find("<<") + 2 if text.startswith(">>") else 0
    return ([text[:end]], text[end:]) if end > 1 else ([], text)


def _unpack(model: bytes) -> dict[str, bytes]:
    try:
        parts = load(model)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"not a tokenizer: {error}") from None
    if not {_MODEL, _PIECES} <= parts.keys() <= {_MODEL, _PIECES, _SOURCE_MODEL}:
        raise DataError(f"not a tokenizer, but a safetensors file with {', '.join(sorted(parts)) or 'nothing'}")
    if any(part.dtype != np.uint8 or part.ndim != 1 for part in parts.values()):
        raise DataError("not a tokenizer, but a safetensors file of numbers")
    return {name: part.tobytes() for name, part in parts.items()}


def _checked_pieces(content: bytes) -> list[str]:
    try:
        pieces = json.loads(content)
    except (ValueError, RecursionError):
        raise DataError("not a tokenizer: its pieces are not JSON") from None
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise DataError("not a tokenizer: its pieces are not a list of texts")
    if pieces[: EOS_ID + 1] != _SPECIALS or len(pieces) > _MAX_PIECES:
        raise DataError(f"not a tokenizer: its pieces must begin with {', '.join(_SPECIALS)}, and be at most 2^20")
    if len({*pieces[EOS_ID + 1 :]}) < len(pieces) - EOS_ID - 1:
        raise DataError("not a tokenizer: a piece has two ids")
    return pieces

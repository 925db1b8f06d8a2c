"""Joint byte-pair encoding of both languages (section 5.1), by SentencePiece."""

from __future__ import annotations

import collections
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from transformer.errors import DataError

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3


class Tokenizer:
    """Text to token ids and back, with the bytes of a SentencePiece model.

    Ids: padding 0, unknown 1, <s> 2, </s> 3; `encode` adds neither <s> nor </s>. DataError if the bytes are not such a
    model or its special ids differ.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise DataError(f"not a SentencePiece model: {' '.join(str(error).split())}") from None
        try:
            self.pieces(range(len(self)))
        except UnicodeDecodeError:
            raise DataError("not a SentencePiece model: a piece is not UTF-8") from None
        ids = tuple(int(getattr(self._processor, name)()) for name in ("pad_id", "unk_id", "bos_id", "eos_id"))
        if ids != (PAD_ID, UNK_ID, BOS_ID, EOS_ID):
            raise DataError(f"the tokenizer's pad, unk, bos and eos ids are {ids}; they must be 0, 1, 2 and 3")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read `tokenizer.model`. DataError if it is missing or invalid."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def train(cls, sentences: Iterable[str], vocab_size: int, symbols: Sequence[str] = ()) -> Tokenizer:
        """Train on sentences of both languages.

        Case is kept; Unicode is normalised by SentencePiece's default (NFKC and white space). Pieces never cross white
        space, so training needs only word counts, and memory does not grow with the number of sentences. `vocab_size`
        includes special pieces; user-defined `symbols` are words that are never split. DataError if the text is too
        small for that many pieces.
        """
        words = _counted_words(sentences)
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(words),
                input_format="tsv",
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=1.0,
                pad_id=PAD_ID,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                user_defined_symbols=[f"▁{symbol}" for symbol in symbols],
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(_training_error(str(error), vocab_size)) from None
        return cls(model.getvalue())

    def __len__(self) -> int:
        return int(self._processor.GetPieceSize())

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Token ids of each text, without <s> and </s>. DataError for surrogates, which UTF-8 cannot encode."""
        try:
            ids: list[list[int]] = self._processor.Encode(list(texts), out_type=int, num_threads=num_threads)
        except (TypeError, UnicodeEncodeError):
            raise DataError(
                "a text contains surrogates, which UTF-8 cannot encode: was it decoded correctly?"
            ) from None
        return ids

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each id sequence; special ids are dropped, but unknown is `⁇`."""
        return [str(text) for text in self._processor.Decode([list(map(int, sequence)) for sequence in ids])]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Piece of each id, for display."""
        return [str(self._processor.IdToPiece(int(i))) for i in ids]


def _counted_words(sentences: Iterable[str]) -> list[str]:
    """Count words, as lines of SentencePiece's tsv format.

    All of them before SentencePiece runs, which (0.2.0) may take an error or Ctrl-C in an iterator for its end.
    """
    counts: collections.Counter[str] = collections.Counter()
    for sentence in sentences:
        counts.update(sentence.split())
    return [f"{word}\t{count}" for word, count in counts.items()]


def _training_error(message: str, vocab_size: int) -> str:
    if match := re.search(r"value <= (\d+)", message):
        return f"data.vocab_size={vocab_size} is too large for this corpus; at most {match[1]} pieces can be learned"
    if match := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
        return f"data.vocab_size={vocab_size} is too small for this corpus; at least {match[1]} pieces are needed"
    return f"the tokenizer cannot be trained: {' '.join(message.split())}"

"""Joint byte-pair encoding of both languages (section 5.1), by SentencePiece."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from transformer.data.normalization import (
    MINIMAL,
    Normalizer,
    has_dummy_prefix,
    is_blank,
    rule_name,
    text_error,
    train_sentencepiece,
    without_control_space,
    write_spec,
)
from transformer.data.sentencepiece_model import ModelType, Piece, model_type, read_pieces
from transformer.errors import DataError
from transformer.sections.types import TokenizerType

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
# In runs and checkpoints: of both languages, or of the target beside that of the source.
TARGET_FILE, SOURCE_FILE = "tokenizer.model", "source_tokenizer.model"

# SentencePiece marks unknown characters with it and learns no word that has it, so it becomes a symbol of its own.
_RESERVED = "▅"
# Ends of lines and fields in training, NUL, and inside of what is spelled like a special or a byte piece.
_NEVER_LEARNED = re.compile(rf"[\0\t\r\n\x1f{_RESERVED}]|(?<=<)(?=(?:unk|/?s|pad|0x[0-9A-F]{{2}})>)")
_SPECIAL = re.compile(r"<(?:unk|/?s|pad|0x[0-9A-F]{2})>")
_MAX_CHARACTERS = 1000  # of at most four bytes: SentencePiece skips words of more than 4,192 bytes


class Tokenizer:
    """Text to token ids and back, with the bytes of a SentencePiece model.

    Ids: padding 0, unknown 1, <s> 2, </s> 3; `encode` adds neither <s> nor </s>. DataError if the bytes are not such a
    model or its special ids differ.

    Attributes:
        model: the bytes of the file.
        sentencepiece: those of the SentencePiece model that splits text; here the same.
    """

    def __init__(self, model: bytes) -> None:
        self.model = self.sentencepiece = model
        self._source: Tokenizer | None = None
        self._processor = load_processor(model)
        ids = tuple(int(getattr(self._processor, name)()) for name in ("pad_id", "unk_id", "bos_id", "eos_id"))
        if ids != (PAD_ID, UNK_ID, BOS_ID, EOS_ID):
            raise DataError(f"the tokenizer's pad, unk, bos and eos ids are {ids}; they must be 0, 1, 2 and 3")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a SentencePiece model. DataError if it is missing or invalid."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        vocab_size: int,
        symbols: Sequence[str] = (),
        *,
        normalization: str = MINIMAL,
        character_coverage: float = 1.0,
        byte_fallback: bool = False,
        tokenizer_type: TokenizerType = "bpe",
        user_symbols: Sequence[str] = (),
    ) -> Tokenizer:
        """Train on sentences of both languages.

        Pieces never cross white space, so training needs only word counts, and memory grows with distinct words only.
        DataError if the text is too small for that many pieces, has too many characters for them, or has surrogates,
        and for an unknown rule or a symbol that is not a word by it. TypeError for anything but texts.

        Args:
            vocab_size: number of pieces, the special ones included.
            symbols: user-defined words that are never split; the rule must not change them.
            normalization: the rule that becomes part of the model: `minimal` or a name of SentencePiece's.
            character_coverage: from 0.98 to 1, the part of the text whose characters become pieces.
            byte_fallback: also make a piece of each byte, so that no character is unknown.
            tokenizer_type: byte-pair encoding, or a unigram language model (Kudo 2018).
            user_symbols: as `symbols`, but anywhere in a text: each is a piece of its own beside its word's others.
        """
        normalizer = Normalizer(normalization)
        symbols = _checked_symbols(symbols, normalizer, normalization)
        user_symbols = _checked_symbols(user_symbols, normalizer, normalization)
        counts = _counted_words(sentences, normalizer)
        reserved = [_RESERVED] if _RESERVED not in user_symbols and any(_RESERVED in word for word in counts) else []
        words = list(counts.items())
        if tokenizer_type == "unigram":  # its sums depend on their order: that in which SentencePiece counts sentences
            words.sort(key=lambda item: (-item[1], item[0]))
        optional = {"byte_fallback": True} if byte_fallback else {}  # the model records what is given
        try:
            model = train_sentencepiece(
                [f"{part}\t{count}" for word, count in words for part in _learnable(word)],
                model_type=tokenizer_type,
                vocab_size=vocab_size,
                character_coverage=character_coverage,
                user_defined_symbols=[*(f"▁{symbol}" for symbol in symbols), *user_symbols, *reserved],
                normalization_rule_name="identity",  # the words are normalised already
                **optional,
            )
        except RuntimeError as error:
            raise DataError(_training_error(str(error), vocab_size)) from None
        return cls(write_spec(model, normalizer.spec))

    def __len__(self) -> int:
        return int(self._processor.GetPieceSize())

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Token ids of each text, without <s> and </s>.

        None for a text of nothing but white space. TypeError for what is not a text, DataError for surrogates, which
        UTF-8 cannot encode; both name the text's number.
        """
        texts = listed("texts", texts)
        with contextlib.suppress(TypeError, UnicodeEncodeError):
            shown = ["" if is_blank(text) else text for text in texts]
            ids: list[list[int]] = self._processor.Encode(shown, out_type=int, num_threads=num_threads)
            return ids
        raise text_error(texts)

    def encode_inside(self, texts: Sequence[str], is_inside: Sequence[bool] | None = None) -> list[list[int]]:
        """As `encode`, but as words within a text, where the model tells these from its first.

        Args:
            is_inside: whether each text is within another; by default all are.
        """
        plain = self.encode(texts := listed("texts", texts))
        if self._has_dummy_prefix:
            return plain
        inside = [not is_blank(text) for text in texts]
        if is_inside is not None:
            inside = [a and b for a, b in zip(inside, is_inside, strict=True)]
        (before, *ids) = self.encode(["x", *(f"x {text}" for text in texts)])
        return [x[len(before) :] if is_in else y for x, y, is_in in zip(ids, plain, inside, strict=True)]

    def encode_words(self, text: str) -> list[list[int]]:
        """Ids of each word of a text, split at white space.

        Joined they are those of the text, unless the model has pieces with spaces inside.
        """
        ids = self.encode(words := text.split())
        first = next((i for i, word in enumerate(ids) if word), 0)
        return self.encode_inside(words, [i > first for i in range(len(words))])

    @functools.cached_property
    def _has_dummy_prefix(self) -> bool:
        return has_dummy_prefix(self.sentencepiece)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each id sequence; special ids are dropped, but unknown is `⁇`.

        It has no line breaks or tabs, even if a model puts bytes together to one; bytes that are not UTF-8 become
        U+FFFD.
        """
        texts = self._processor.Decode([list(map(int, sequence)) for sequence in ids])
        return [without_control_space(str(text)) for text in texts]

    def encode_as_pieces(self, texts: Sequence[str], num_threads: int = 1) -> list[list[str]]:
        """As `encode`, but pieces as text, unknown ones as they are in it; `decode_pieces` gives them back."""
        self.encode(texts := listed("texts", texts))  # raises for what is not a text
        shown = ["" if is_blank(text) else text for text in texts]
        try:
            pieces: list[list[str]] = self._processor.Encode(shown, out_type=str, num_threads=num_threads)
        except UnicodeDecodeError:
            raise DataError("the tokenizer's normalisation makes text that is not UTF-8") from None
        return pieces

    def decode_pieces(self, pieces: Sequence[Sequence[str]]) -> list[str]:
        """Text of each sequence of pieces; those that the vocabulary lacks stand for themselves."""
        return [without_control_space(str(self._processor.DecodePieces(list(sequence)))) for sequence in pieces]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Piece of each id, for display."""
        return [str(self._processor.IdToPiece(int(i))) for i in ids]

    @property
    def source(self) -> Tokenizer:
        """The tokenizer of source text: itself, or another one where each language has its vocabulary."""
        return self if self._source is None else self._source

    @source.setter
    def source(self, source: Tokenizer) -> None:
        self._source = None if source is self else source

    @property
    def is_separate(self) -> bool:
        """Whether source and target have a vocabulary each."""
        return self.source is not self

    @property
    def sizes(self) -> tuple[int, int | None]:
        """How many pieces, and how many of the source if it has a vocabulary of its own: for `build_model`."""
        return len(self), len(self.source) if self.is_separate else None

    @property
    def digest(self) -> str:
        """Changes with the model, or with either of two."""
        models = [self.model, self.source.model] if self.is_separate else [self.model]
        return " ".join(hashlib.sha256(model).hexdigest() for model in models)

    @property
    def type(self) -> ModelType:
        """`bpe` or `unigram`; of models from elsewhere also `word` or `char`."""
        return model_type(self.sentencepiece)

    @property
    def normalization(self) -> str:
        """The name of the rule that the model contains, such as `minimal`."""
        return rule_name(self.sentencepiece)

    def scored_pieces(self) -> list[Piece]:
        """Text, kind and score of each id."""
        return read_pieces(self.sentencepiece)

    def num_characters(self) -> int:
        """How many pieces are single characters; bytes are not counted."""
        return sum(len(piece) == 1 for piece in self.pieces(range(len(self))))


def load_processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece's processor of a model. DataError if the bytes are none."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise DataError(f"not a SentencePiece model: {' '.join(str(error).split())}") from None
    try:
        for id_ in range(processor.GetPieceSize()):
            processor.IdToPiece(id_)
    except UnicodeDecodeError:
        raise DataError("not a SentencePiece model: a piece is not UTF-8") from None
    return processor


def listed(name: str, texts: Iterable[str]) -> list[str]:
    """TypeError for one text, whose characters would be taken for texts."""
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{name} must be a list of texts, not one string")
    return list(texts)


def _checked_symbols(symbols: Sequence[str], normalizer: Normalizer, rule: str) -> list[str]:
    symbols = listed("symbols", symbols)
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise TypeError(f"the symbol {symbol!r} must be a str")
        if (words := normalizer.words(symbol)) != [symbol]:
            raise DataError(
                f"the symbol {symbol!r} must stay one word, but data.normalization={rule} makes it {words}; "
                f"{MINIMAL} changes only white space"
            )
        if _SPECIAL.fullmatch(symbol):
            raise DataError(f"the symbol {symbol!r} is the name of a special piece; choose another")
    return list(dict.fromkeys(symbols))


def _counted_words(sentences: Iterable[str], normalizer: Normalizer) -> collections.Counter[str]:
    """Count words as the encoder splits them.

    All of them before SentencePiece runs, which (0.2.0) may take an error or Ctrl-C in an iterator for its end.
    """
    if isinstance(sentences, (str, bytes)):
        raise TypeError("sentences must be a list of texts, not one string")
    # No rule looks across a space, so each distinct stretch without one is normalised once.
    stretches: collections.Counter[str] = collections.Counter()
    for number, sentence in enumerate(sentences, start=1):
        if not isinstance(sentence, str):
            raise text_error([sentence], number)
        stretches.update(sentence.split(" "))
    counts: collections.Counter[str] = collections.Counter()
    while stretches:  # emptied, so that no word is in memory twice
        stretch, count = stretches.popitem()
        for word in normalizer.words(stretch):
            counts[word] += count
    return counts


def _learnable(word: str) -> Iterator[str]:
    """Split a word where SentencePiece would otherwise skip it, or a part of it, in training."""
    for part in _NEVER_LEARNED.split(word):
        yield from filter(None, (part[i : i + _MAX_CHARACTERS] for i in range(0, len(part), _MAX_CHARACTERS)))


def _training_error(message: str, vocab_size: int) -> str:
    if match := re.search(r"value <= (\d+)", message):
        return f"data.vocab_size={vocab_size} is too large for this corpus; at most {match[1]} pieces can be learned"
    if match := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", message):
        return (
            f"data.vocab_size={vocab_size} is too small for this corpus; at least {match[1]} pieces are needed: raise "
            "it, or lower data.character_coverage with data.byte_fallback=true, which takes 256 pieces"
        )
    return f"the tokenizer cannot be trained: {' '.join(message.split())}"

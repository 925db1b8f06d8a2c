"""Normalisation of text before it is split into pieces, by SentencePiece itself.

`minimal`, the default, only makes control white space a space, because text is read and written by lines: tabs, line
separators and the mark that SentencePiece writes for a space (minimal.tsv, in the format of SentencePiece's rules).
The other rules are SentencePiece's own, by name. They change the target more, and no model could undo that.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import sentencepiece

from transformer.data.protobuf import read_fields, read_number, write_field
from transformer.errors import DataError
from transformer.sections.types import NormalizationRule

MARK = "▁"  # SentencePiece's mark of a space
MINIMAL = "minimal"
_RULE_FILE = Path(__file__).with_name("minimal.tsv")
_SPACE_RULES = (line.split() for line in _RULE_FILE.read_text(encoding="ascii").splitlines())
_CONTROL_SPACE = "".join(chr(int(code, 16)) for code, _ in _SPACE_RULES).replace(MARK, "")
_CONTROL_SPACES = re.compile(f"[{_CONTROL_SPACE}]")
# White space, directions and what has no width: joiners, breaks, a byte order mark.
_BLANK = re.compile(rf"[\s{MARK}\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]*")
# Fields of SentencePiece's ModelProto and of its NormalizerSpec.
_MODEL_NORMALIZER = 3
_NAME, _DUMMY_PREFIX, _RULE_PATH = 1, 3, 6
_RULES = get_args(NormalizationRule)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Normalizer:
    """A rule, as SentencePiece applies it.

    `spec` is its form in a SentencePiece model. DataError for an unknown rule.
    """

    def __init__(self, rule: str) -> None:
        if rule not in _RULES:
            raise DataError(f"data.normalization={rule!r} must be one of {', '.join(_RULES)}")
        options = {"normalization_rule_tsv": str(_RULE_FILE)} if rule == MINIMAL else {"normalization_rule_name": rule}
        # The smallest model: pad, unk, bos, eos, the mark and one letter.
        model = train_sentencepiece(["a\t1"], model_type="char", vocab_size=6, **options)
        self.spec = read_spec(model)
        if rule == MINIMAL:  # neither the place of the installation nor a name that says nothing
            kept = (field for number, field, _ in read_fields(self.spec) if number not in (_NAME, _RULE_PATH))
            self.spec = b"".join((write_field(_NAME, rule.encode()), *kept))
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)

    def words(self, text: str) -> list[str]:
        """The words into which the encoder splits a text, without their marks. DataError for surrogates."""
        try:
            return [word for word in str(self._processor.Normalize(text)).split(MARK) if word]
        except (RuntimeError, TypeError, UnicodeEncodeError):  # which, depends on the version
            raise surrogates_error(f"the text {text[:50]!r}") from None


def text_error(texts: Iterable[object], first_number: int = 1) -> Exception:
    """The error of the first that is not a text or has surrogates, with its number."""
    number, text = next(
        (number, text)
        for number, text in enumerate(texts, start=first_number)
        if not isinstance(text, str) or _SURROGATE.search(text)
    )
    if not isinstance(text, str):
        return TypeError(f"text {number} must be a str, got {type(text).__name__}")
    return surrogates_error(f"text {number}")


def surrogates_error(what: str) -> DataError:
    return DataError(f"{what} contains surrogates, which UTF-8 cannot encode: was it decoded correctly?")


def train_sentencepiece(words: Sequence[str], **options: Any) -> bytes:
    """A SentencePiece model of counted words, lines of its tsv format. RuntimeError."""
    model = io.BytesIO()
    ids: dict[str, Any] = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(words), input_format="tsv", model_writer=model, minloglevel=2, **ids, **options
    )
    return model.getvalue()


def is_blank(text: str) -> bool:
    """Whether a text has nothing to see, and so nothing to translate."""
    return _BLANK.fullmatch(text) is not None


def without_control_space(text: str) -> str:
    """Spaces for control white space, so that text fits on a line."""
    return _CONTROL_SPACES.sub(" ", text)


def read_spec(model: bytes) -> bytes:
    """The normaliser in the bytes of a SentencePiece model."""
    return b"".join(content for number, _, content in read_fields(model) if number == _MODEL_NORMALIZER)


def write_spec(model: bytes, spec: bytes) -> bytes:
    """The model with another normaliser."""
    kept = ((number, field) for number, field, _ in read_fields(model))
    spec = write_field(_MODEL_NORMALIZER, spec)
    return b"".join(spec if number == _MODEL_NORMALIZER else field for number, field in kept)


def has_dummy_prefix(model: bytes) -> bool:
    """Whether a text begins as if a space stood before it, so that its first word is as any other."""
    flags = [read_number(field) for number, field, _ in read_fields(read_spec(model)) if number == _DUMMY_PREFIX]
    return bool(flags[-1]) if flags else True  # the format's default


def rule_name(model: bytes) -> str:
    """The name of a model's rule; empty if it has none."""
    return "".join(
        content.decode(errors="replace") for number, _, content in read_fields(read_spec(model)) if number == _NAME
    )

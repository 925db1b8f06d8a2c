"""Tokenizers from elsewhere, for `data.tokenizer`: any SentencePiece model, or that of a run.

Models differ in their special ids: SentencePiece's default is unknown 0, <s> 1, </s> 2 and no padding. Their special
pieces are moved to ids 0 to 3, the missing ones added, and all other pieces keep their order, so that texts have the
same pieces as before. Everything else here then sees a tokenizer like its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.data.protobuf import read_fields, write_field, write_number
from transformer.data.sentencepiece_model import CONTROL, PIECES, TRAINER, UNKNOWN, Piece, read_pieces, read_trainer
from transformer.data.tokenizer import SOURCE_FILE, TARGET_FILE, Tokenizer, load_processor
from transformer.data.vocabulary_tokenizer import is_container, read_tokenizer
from transformer.errors import DataError, UserError
from transformer.files import is_special_file

_SPECIALS = ("pad", "unk", "bos", "eos")  # in the order of our ids
_NAMES = {"pad": "<pad>", "unk": "<unk>", "bos": "<s>", "eos": "</s>"}
# Fields of the trainer's specification: the id and the name of each special piece.
_ID_FIELDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
_NAME_FIELDS = {"unk": 45, "bos": 46, "eos": 47, "pad": 48}
_SPECIAL_FIELDS = {*_ID_FIELDS.values(), *_NAME_FIELDS.values()}
_OPUS_FILES = ("target.spm", "source.spm")  # of OPUS-MT


def given_tokenizer(path: str, langs: Sequence[str], *, is_separate: bool) -> Tokenizer:
    """The tokenizer at a path; with `is_separate`, its `source` is a tokenizer of its own.

    Args:
        path: a SentencePiece model; a pattern of two with {lang}; or a directory: a run, a checkpoint or one of
            OPUS-MT, with `source.spm` and `target.spm`.
        langs: codes of source and target, for {lang}.
        is_separate: `data.separate_vocabularies`. A single model then serves both sides, as two vocabularies.

    Raises:
        DataError: there is no such file, it is no SentencePiece model, or the sides differ without `is_separate`.
    """
    target, source = (load_given(file) for file in tokenizer_files(path, langs))
    if is_separate:
        target.source = source
    elif target.model != source.model:
        raise DataError(f"{path}: source and target have tokenizers of their own: set data.separate_vocabularies=true")
    return target


def tokenizer_files(path: str, langs: Sequence[str]) -> tuple[Path, Path]:
    """The files of target and source, which may be the same. DataError if a directory has none."""
    if "{lang}" in path:
        source, target = (Path(path.replace("{lang}", lang)) for lang in langs)
        return target, source
    directory = Path(path)
    if not directory.is_dir():
        return directory, directory
    target = directory / TARGET_FILE
    if target.is_file():
        source = directory / SOURCE_FILE
        return target, source if source.is_file() else target
    target, source = (directory / name for name in _OPUS_FILES)
    if target.is_file() and source.is_file():
        return target, source
    raise DataError(f"{path}: has neither {TARGET_FILE} nor {' and '.join(reversed(_OPUS_FILES))}")


def load_given(path: Path) -> Tokenizer:
    """The SentencePiece model in a file, with our special ids, or the tokenizer of an imported model.

    DataError as of `given_tokenizer`.
    """
    if is_special_file(path):  # reading may never end
        raise DataError(f"{path}: cannot be read: not a regular file")
    try:
        model = path.read_bytes()
        return read_tokenizer(model if is_container(model) else with_own_ids(model))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError as error:
        raise DataError(f"{path}: {error}") from None


def with_own_ids(model: bytes) -> bytes:
    """The SentencePiece model with padding 0, unknown 1, <s> 2, </s> 3.

    A model that has them already is returned as it is.

    DataError if it is no such model, or would split text in another way.
    """
    processor = load_processor(model)
    ids = {name: int(getattr(processor, f"{name}_id")()) for name in _SPECIALS}
    if [*ids.values()] == [0, 1, 2, 3]:
        return model
    try:
        pieces, fields = read_pieces(model), [x for x in read_fields(model) if x[0] not in (PIECES, TRAINER)]
        trainer = [field for number, field, _ in read_fields(read_trainer(model)) if number not in _SPECIAL_FIELDS]
    except (IndexError, ValueError) as error:  # what SentencePiece overlooks
        raise DataError(f"not a SentencePiece model: {error}") from None
    specials = _special_pieces(pieces, ids)
    others = [piece for piece in pieces if piece not in specials]
    for id_, (name, piece) in enumerate(zip(_SPECIALS, specials, strict=True)):
        trainer.append(write_number(_ID_FIELDS[name], id_))
        trainer.append(write_field(_NAME_FIELDS[name], piece.text.encode()))
    parts = [piece.to_field() for piece in (*specials, *others)]
    changed = b"".join((*parts, write_field(TRAINER, b"".join(trainer)), *(field for _, field, _ in fields)))
    _check_same_pieces(model, changed, [piece.text for piece in pieces])
    return changed


def _special_pieces(pieces: Sequence[Piece], ids: dict[str, int]) -> list[Piece]:
    """Our four, as far as possible those of the model; one that serves for two remains the first of them."""
    taken, found = {piece.text for piece in pieces}, dict[str, Piece]()
    for name in ("unk", "eos", "bos", "pad"):
        piece = pieces[ids[name]] if ids[name] >= 0 else None
        if piece is None or piece in found.values():
            piece = Piece(next(x for x in _free_names(name) if x not in taken), UNKNOWN if name == "unk" else CONTROL)
            taken.add(piece.text)
        found[name] = piece
    return [found[name] for name in _SPECIALS]


def _free_names(name: str) -> Iterator[str]:
    yield _NAMES[name]
    yield from (f"<{name}{number or ''}>" for number in itertools.count())


def _check_same_pieces(before: bytes, after: bytes, texts: Sequence[str]) -> None:
    """DataError unless both models split these texts into the same pieces."""
    lines = [*texts, " ".join(texts[:1000])]
    found = []
    for processor in map(load_processor, (before, after)):
        found.append([list(map(processor.IdToPiece, ids)) for ids in processor.Encode(lines)])
    if found[0] != found[1]:
        raise DataError("its special pieces cannot be moved to the ids 0 to 3 without other pieces for some texts")

"""The files of a tokenizer: this project's own, and those that others read."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from transformer.data.normalization import MARK
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, SOURCE_FILE, TARGET_FILE, UNK_ID, Tokenizer
from transformer.errors import ExportError
from transformer.interop.exported import Exported

SPECIAL_PIECES = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}


def write_own(exported: Exported, directory: Path) -> None:
    """Write the tokenizer and the configuration under their names in checkpoints."""
    tokenizer = exported.tokenizer
    (directory / TARGET_FILE).write_bytes(tokenizer.model)
    if tokenizer.is_separate:
        (directory / SOURCE_FILE).write_bytes(tokenizer.source.model)
    (directory / "config.yaml").write_text(exported.shared_config.to_yaml(), encoding="utf-8")


def write_sentencepiece(tokenizer: Tokenizer, directory: Path) -> None:
    """Write source.spm and target.spm, which split text into pieces."""
    (directory / "source.spm").write_bytes(tokenizer.source.sentencepiece)
    (directory / "target.spm").write_bytes(tokenizer.sentencepiece)


def write_vocabularies(tokenizer: Tokenizer, directory: Path) -> None:
    """Write vocab.json, the id of each piece, and if the vocabularies are separate, target_vocab.json.

    ExportError if two pieces have one name.
    """
    names = ("vocab", "target_vocab") if tokenizer.is_separate else ("vocab",)
    for name, side in zip(names, (tokenizer.source, tokenizer), strict=False):
        write_json(directory / f"{name}.json", numbered(piece_names(side, range(len(side)))))


def piece_names(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Names of pieces; the special ones are <pad>, <unk>, <s> and </s> in every tokenizer."""
    pieces = zip(ids, tokenizer.pieces(ids), strict=True)
    return [SPECIAL_PIECES.get(id_, piece) for id_, piece in pieces]


def with_codes(names: Sequence[str], tags: Collection[str]) -> list[str]:
    """The names with tags such as `>>deu<<` as Marian's tokenizers look them up, which take them off before a text.

    A SentencePiece model that was trained with a tag has the mark of a space before it.
    """
    codes = {f"{MARK}{tag}": tag for tag in tags if tag.startswith(">>")}
    return [codes.get(name, name) for name in names]


def numbered(names: Sequence[str]) -> dict[str, int]:
    """The place of each name. ExportError if one is there twice."""
    found = {name: number for number, name in enumerate(names)}
    if len(found) < len(names):
        repeated = next(name for number, name in enumerate(names) if found[name] != number)
        raise ExportError(f"no format has a place for two pieces of one name: {repeated!r}")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON."""
    path.write_text(f"{json.dumps(value, ensure_ascii=False, indent=1)}\n", encoding="utf-8")

"""Marian's vocabularies: `vocab.json` of Hugging Face, and the `vocab.yml` of Marian itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformer.errors import CheckpointError
from transformer.interop.marian_model import Vocabulary

UNKNOWN, END, PADDING = "<unk>", "</s>", "<pad>"
# Escapes of YAML's double-quoted text that stand for something else than the character after the backslash.
_ESCAPES = {"0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b"}
_ESCAPES |= {"N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)


def vocabulary(file: str, ids: Mapping[str, Any], *, start: str = PADDING) -> Vocabulary:
    """A vocabulary from the ids of its pieces. CheckpointError unless these are 0, 1, 2 ... and the special ones exist.

    Args:
        file: for messages.
        start: the piece that starts the decoder. If it is another one than the padding, both are special.
    """
    pieces: list[str | None] = [None] * len(ids)
    for piece, id_ in ids.items():
        if type(id_) is not int or not 0 <= id_ < len(pieces):
            raise CheckpointError(
                f"{file}: the id of {piece!r} is {id_!r}: ids of {len(ids)} pieces must be 0, 1, 2 ..."
            )
        if pieces[id_] is not None:
            raise CheckpointError(f"{file}: {pieces[id_]!r} and {piece!r} have the same id, {id_}")
        pieces[id_] = piece
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{file}: has a piece with surrogates, which UTF-8 cannot encode") from None
    for piece in (UNKNOWN, END, PADDING, start):
        if piece not in ids:
            raise CheckpointError(f"{file}: has no piece {piece}")
    padding = None if start == PADDING else ids[PADDING]
    return Vocabulary([str(piece) for piece in pieces], ids[UNKNOWN], ids[END], ids[start], padding)


def parse_json(file: str, content: bytes) -> dict[str, Any]:
    """A JSON object. CheckpointError if it is none, or has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
            raise CheckpointError(f"{file}: {twice!r} is given twice")
        return found

    try:
        value = json.loads(content, object_pairs_hook=once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return value


def parse_yaml_vocabulary(file: str, content: bytes) -> dict[str, int]:
    """The ids of pieces in lines `piece: id`. CheckpointError for any other YAML, or a piece that is given twice.

    Line by line, because parsers of YAML take pieces such as `~`, `yes` or `1:30` for something else than text.
    """
    ids: dict[str, int] = {}
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: not text in UTF-8") from None
    for number, key, id_ in _entries(line.removesuffix("\r") for line in lines):
        piece = _unquoted(key)
        if piece is None or re.fullmatch(r"\s*\d{1,9}\s*", id_, re.ASCII) is None:
            raise CheckpointError(f"{file}: line {number} is not of the form `piece: id`")
        if piece in ids:
            raise CheckpointError(f"{file}: line {number}: {piece!r} is given twice")
        ids[piece] = int(id_)
    return ids


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Line number, piece and id as they are written; a long piece may be in a line `? piece`, before `: id`."""
    key = None
    for number, line in enumerate(lines, start=1):
        if key is None and line.startswith("? "):
            key = line[2:]
        elif key is not None:
            yield number, key, line[1:] if line.startswith(":") else ""
            key = None
        elif line.strip() and line != "---" and not line.startswith("#"):
            piece, _, id_ = line.rpartition(":")
            yield number, piece, id_
    if key is not None:
        yield number, key, ""


def _unquoted(key: str) -> str | None:
    """The text of a key; None if it is not a plain, single-quoted or double-quoted one."""
    key = key.strip(" ")
    quote = key[:1] if key[:1] in ("'", '"') else ""
    if not quote:
        return key if key and key[0] not in "&*!|>%@`{}[]," else None
    if len(key) < 2 or key[-1] != quote:
        return None
    if quote == "'":
        return key[1:-1].replace("''", "'")
    return _ESCAPE.sub(_unescaped, key[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    for code in match.groups()[:3]:
        if code is not None:
            return chr(int(code, 16)) if int(code, 16) < 0x110000 else match[0]
    return _ESCAPES.get(match[4], match[4])

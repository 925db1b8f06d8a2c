"""Rows of json: one object per line, or an array of objects, with a text per language."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from transformer.data.columns import check_columns
from transformer.data.text_files import MAX_LINE, is_utf16
from transformer.errors import DataError

_BLOCK = 1 << 18
_LONGEST_WORD = len("-Infinity") + 3  # and of the escape of a pair of surrogates
_SPACE = re.compile(r"[ \t\r\n]*")


def json_pairs(stream: BinaryIO, name: str, src_lang: str, tgt_lang: str) -> Iterator[tuple[str, str]]:
    """The pairs of objects with a text per language.

    They are {"en": ..., "de": ...} or {"translation": {"en": ..., "de": ...}}. DataError names the row
    of an object that is malformed, has a key twice or lacks a text.
    """
    langs = (src_lang, tgt_lang)
    for number, row in enumerate(_values(stream, name), start=1):
        pair = row
        try:
            source, target = row[src_lang], row[tgt_lang]
        except (KeyError, TypeError):
            pair = None
        if pair is None:
            pair = _nested(f"{name}, row {number}", row, langs)
            source, target = pair[src_lang], pair[tgt_lang]
        if type(source) is not str or type(target) is not str:
            shown = json.dumps({lang: pair[lang] for lang in langs}, ensure_ascii=False)[:200]
            raise DataError(f"{name}, row {number}: {src_lang!r} and {tgt_lang!r} must be text, got {shown}")
        try:
            (source + target).encode()
        except UnicodeEncodeError as error:  # an escape such as \ud800
            half = (source + target)[error.start]
            raise DataError(f"{name}, row {number}: half of a surrogate pair ({half!r}), which is not text") from None
        yield source, target


def _nested(place: str, row: Any, langs: tuple[str, str]) -> dict[str, Any]:
    """The object in `translation`. DataError if there is none with both languages."""
    is_nested = isinstance(row, dict) and "translation" in row
    pair = row["translation"] if is_nested else row
    if not isinstance(pair, dict):
        what = "'translation' must" if is_nested else "must"
        raise DataError(f"{place}: {what} be an object, got {json.dumps(pair, ensure_ascii=False)[:200]}")
    check_columns(place, pair, langs, instead=" in 'translation'" if is_nested else " or 'translation'")
    return pair


def _values(stream: BinaryIO, name: str) -> Iterator[Any]:
    """The values of a stream, or of its one array, one by one."""
    text = _Text(stream, name)
    text.skip_space()
    is_array = text.peek() == "["
    if is_array:
        text.position += 1
        text.skip_space()
    while text.peek() not in (("]",) if is_array else ("",)):
        if not is_array:
            yield from text.lines()
        yield text.value()
        text.skip_space()
        if is_array and text.peek() == ",":
            text.position += 1
            text.skip_space()
            if text.peek() == "]":
                raise text.error("a comma before ]")
        elif is_array and text.peek() != "]":
            raise text.error("a comma or ] is missing")
    if is_array:
        text.position += 1
        text.skip_space()
        if text.peek():
            raise text.error("text after the array")


class _Text:
    """Decoded text around a position; the text before it is forgotten."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._buffer, self.position = "", 0
        self._decode = json.JSONDecoder(object_pairs_hook=_without_duplicates).raw_decode
        self._is_complete = False
        self._invalid: str | None = None  # why the text ends early
        self._row = 1
        if self.peek() == "\ufeff":
            self.position = 1

    def peek(self) -> str:
        """The next character, or nothing at the end."""
        while self.position == len(self._buffer) and not self._is_complete:
            self._read(_BLOCK)
        if self.position == len(self._buffer) and self._invalid:
            raise self.error(self._invalid)
        return self._buffer[self.position : self.position + 1]

    def skip_space(self) -> None:
        while True:
            self.position = _SPACE.match(self._buffer, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self._buffer) or self._is_complete:
                return
            self._read(_BLOCK)

    def lines(self) -> Iterator[Any]:
        """The objects that fill lines, as in jsonl.

        Ends before one that may be the last of the text that was read, or is malformed.
        """
        decode, buffer, starts_line = self._decode, self._buffer, self._buffer.startswith
        try:
            while True:
                value, end = decode(buffer, self.position)
                if not starts_line("\n{", end):
                    return
                self.position = end + 1
                self._row += 1
                yield value
        except (ValueError, RecursionError):  # which `value` reports
            return

    def value(self) -> Any:
        """The value that begins at the position."""
        while True:
            try:
                value, end = self._decode(self._buffer, self.position)
                # A number that ends with the block may go on: 12 of 123.
                if end < len(self._buffer) or self._is_complete or self._buffer[end - 1] in '}]"':
                    self.position = end
                    self._row += 1
                    return value
                problem, place = "not JSON", end
            except json.JSONDecodeError as error:
                problem, place = f"not JSON: {error.msg}", error.pos
            except RecursionError:
                raise self.error("nested too deeply") from None
            except ValueError as error:  # a key twice, a number of thousands of digits
                raise self.error(str(error)) from None
            self._read_more(problem, place)

    def _read_more(self, problem: str, place: int) -> None:
        """Read on, if that can mend a value; DataError if not."""
        size = len(self._buffer) - self.position
        # What is wrong before the end stays wrong: only an escape or a word such as `false` can be cut off there.
        is_cut = "Unterminated string" in problem or place > len(self._buffer) - _LONGEST_WORD
        if self._is_complete or not is_cut:
            raise self.error(self._invalid or problem)
        if size > MAX_LINE:
            raise self.error(f"longer than {MAX_LINE} characters: is a bracket not closed?")
        self._read(max(_BLOCK, size))  # at least doubled, so that the time to find the end is linear

    def error(self, problem: str) -> DataError:
        return DataError(f"{self._name}, row {self._row}: {problem}")

    def _read(self, size: int) -> None:
        self._buffer, self.position = self._buffer[self.position :], 0
        block = self._stream.read(size)
        try:
            self._buffer += self._utf8.decode(block, final=not block)
        except UnicodeDecodeError as error:
            self._buffer += error.object[: error.start].decode()
            is_first = self._row == 1 and not self._buffer  # the only block that may begin with a byte order mark
            self._invalid = "UTF-16; save it as UTF-8" if is_first and is_utf16(error.object) else "not UTF-8"
        self._is_complete = not block or self._invalid is not None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in found if keys.count(key) > 1)!r} occurs twice")
    return found

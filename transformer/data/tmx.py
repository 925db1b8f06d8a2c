"""Translation memories (.tmx), plain or compressed, streamed.

A unit has a variant per language, or several: each source variant with each target variant is a pair. `en` is `en` in
any case, and where a unit lacks that, `en-US` and `en_GB`. Inline codes (`bpt`, `ept`, `ph`, `it`, `ut`) are left out
with their content; of `hi` and other elements the content stays. Entity declarations are refused, and external files
are never read.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from transformer.data.compression import CheckedFile, open_binary
from transformer.data.text_files import MAX_LINE
from transformer.errors import DataError

_BLOCK = 1 << 16
_CODES = {"bpt", "ept", "ph", "it", "ut"}
_MAX_DEPTH = 100
_LINE_BREAKS = re.compile(r"\s*[\r\n\u2028\u2029]\s*")


class Units:
    """The pairs of a translation memory; counts the units that lack one of both languages."""

    def __init__(self, file: Path | CheckedFile, src_lang: str, tgt_lang: str) -> None:
        self._file, self._langs = file, (src_lang, tgt_lang)
        self._name = str(file.path if isinstance(file, CheckedFile) else file)
        self._dropped: dict[str, int] = {}
        self.languages: set[str] = set()

    def dropped(self) -> dict[str, int]:
        """The number of units that lack a language, as of the last complete reading."""
        return self._dropped

    def read(self) -> Iterator[tuple[str, str]]:
        """Iterate over the pairs. DataError names file and line of what is malformed."""
        num_lacking = 0
        with open_binary(self._file) as stream:
            parser = _Parser(self._name)
            is_last = False
            while not is_last:
                block = stream.read(_BLOCK)
                is_last = not block
                for unit in parser.feed(block, is_last=is_last):
                    self.languages.update(language for language, _ in unit)
                    sources, targets = (_variants(unit, lang) for lang in self._langs)
                    num_lacking += not (sources and targets)
                    yield from itertools.product(sources, targets)
        self._dropped = {"one_language": num_lacking}


def first_unit(path: Path, src_lang: str, tgt_lang: str) -> None:
    """DataError unless a unit has both languages."""
    units = Units(path, src_lang, tgt_lang)
    if next(units.read(), None) is None:
        found = ", ".join(sorted(units.languages)[:20]) or "none"
        raise DataError(f"{path}: has no unit with {src_lang!r} and {tgt_lang!r}; its languages are {found}")


def _variants(unit: list[tuple[str, str]], lang: str) -> list[str]:
    """The texts with exactly the code of a language, or else those with a code that extends it."""
    wanted = lang.lower().replace("_", "-")
    codes = [(code.lower().replace("_", "-"), text) for code, text in unit]
    exact = [text for code, text in codes if code == wanted]
    return exact or [text for code, text in codes if code.startswith(f"{wanted}-")]


class _Parser:
    """Collects the units of a document that is fed to it in blocks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[str] = []
        self._units: list[list[tuple[str, str]]] = []
        self._unit: list[tuple[str, str]] = []
        self._language: str | None = None
        self._parts: list[str] | None = None  # of the segment that is open
        self._size = self._codes = 0
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse_entity
        # Without the file that a DOCTYPE names, other entities would vanish from the text.
        parser.SkippedEntityHandler = self._unknown_entity

    def feed(self, block: bytes, *, is_last: bool) -> list[list[tuple[str, str]]]:
        """The units that are complete now, as languages with texts."""
        try:
            self._parser.Parse(block, is_last)
        except expat.ExpatError as error:
            raise self._error(f"not XML: {expat.ErrorString(error.code)}") from None
        except (LookupError, ValueError) as error:  # an encoding that Python does not know
            if isinstance(error, DataError):
                raise
            raise self._error(f"its encoding is not supported ({error}); save it as UTF-8") from None
        units, self._units = self._units, []
        return units

    def _error(self, problem: str) -> DataError:
        return DataError(f"{self._name}, line {self._parser.CurrentLineNumber}: {problem}")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._stack and name != "tmx":
            raise self._error(f"begins with <{name[:50]}>, not with <tmx>")
        if len(self._stack) >= _MAX_DEPTH:
            raise self._error("nested too deeply")
        self._stack.append(name)
        if self._parts is not None:
            self._codes += name in _CODES
        elif name == "tu":
            self._unit = []
        elif name == "tuv":
            self._language = attributes.get("xml:lang", attributes.get("lang"))
            if not self._language:
                raise self._error("a <tuv> has no xml:lang")
        elif name == "seg" and self._language is not None:
            self._parts, self._size = [], 0

    def _text(self, text: str) -> None:
        if self._parts is not None and not self._codes:
            self._parts.append(text)
            self._size += len(text)
            if self._size > MAX_LINE:
                raise self._error(f"a segment of more than {MAX_LINE} characters")

    def _end(self, name: str) -> None:
        self._stack.pop()
        if name == "seg" and self._parts is not None and "seg" not in self._stack:
            self._unit.append((str(self._language), _LINE_BREAKS.sub(" ", "".join(self._parts)).strip()))
            self._parts, self._codes = None, 0
        elif self._parts is not None:
            self._codes -= name in _CODES
        elif name == "tuv":
            self._language = None
        elif name == "tu":
            self._units.append(self._unit)
            self._unit = []

    def _refuse_entity(self, name: str, *_: object) -> NoReturn:
        raise self._error(f"declares the entity {name[:50]!r}; write characters instead")

    def _unknown_entity(self, name: str, _: bool) -> NoReturn:
        raise self._error(f"the entity &{name[:50]}; is unknown; write the character instead")

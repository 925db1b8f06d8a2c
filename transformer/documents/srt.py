"""Subtitles (.srt): numbers, times, positions and tags are kept.

A sentence that goes on in the next subtitle is translated as a whole and cut back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformer.documents.encoded import Decoded, decoded
from transformer.documents.inline import Content
from transformer.documents.pairs import tags_of, written_in_text
from transformer.documents.passages import Passage
from transformer.documents.text import Line, blocks, lines_of, put_together
from transformer.errors import DataError

_TIME = r"(\d{1,3}):(\d\d):(\d\d)[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
# Also with another arrow, or white space inside: hours, minutes and seconds on both sides are no text.
_ALMOST_TIMES = re.compile(
    r"\s*[\d:.,]+\s*-->|\s*[-+]?\d+(?:\s*[:.,]\s*\d+){2,3}\s*(?:[-–—−=]\s*)*[>→➔»]\s*[-+]?\d+(?:\s*[:.,]\s*\d+){2,3}"
)
_ARROW = re.compile("--+>")
_ARROWHEAD = re.compile(r"\s*(?:[-–—−=]\s*)*[>→➔»]")
_NUMBER = re.compile(r"\s*\d+\s*")
_LONGEST = 10_000  # characters of a subtitle
_LONGEST_PAUSE = 3.0  # seconds within a sentence
_MOST_SUBTITLES = 8  # of a sentence; with more, the text has no full stops to go by
_SENTENCE_END = re.compile(r"""[.!?…。！？।؟]["'”’»)\]♪]*\s*""")
_OPEN_END = re.compile(r"""(?:\.\.\.|…)["'”’»)\]♪]*\s*""")


@dataclass
class _Subtitle:
    """A subtitle: lines from its times to the next ones, and when it is shown, in seconds."""

    lines: range
    start: float
    end: float


class SrtDocument:
    """Subtitles, in passages.

    Attributes:
        passages: to translate.

    Raises:
        DataError: there are no times, some are malformed, or a subtitle is longer than any.
    """

    def __init__(self, data: bytes) -> None:
        self._decoded: Decoded = decoded(data)
        self._raw = lines_of(self._decoded.text)
        self._subtitles = list(_subtitles(self._raw))
        self._lines = {i: Line.read(self._raw[i]) for subtitle in self._subtitles for i in subtitle.lines}
        self._of_passages = list(self._chains())
        self.passages: list[Passage] = [[tags_of(self._lines[i].text) for i in chain] for chain in self._of_passages]

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the lines of each passage, or with None as it was."""
        texts = {i: line.text for i, line in self._lines.items()}
        for chain, found in zip(self._of_passages, translations, strict=True):
            for i, content in zip(chain, found or (), strict=found is not None):
                texts[i] = _no_times(self._lines[i].lead, written_in_text(content))
        out = list(self._raw)
        for subtitle in self._subtitles:
            lines = [self._lines[i] for i in subtitle.lines]
            new = put_together(lines, [texts[i] for i in subtitle.lines])
            out[subtitle.lines.start : subtitle.lines.stop] = new
        return self._decoded.encoded("".join(out))

    def _chains(self) -> Iterator[list[int]]:
        """The lines that are translated together."""
        for group in self._sentences():
            chain: list[int] = []
            for subtitle in group:
                lines = [self._lines[i] for i in subtitle.lines]
                for place, block in enumerate(blocks(lines)):
                    for i in block:
                        # A speaker's dash, or a blank line within a subtitle, begins something new.
                        if chain and (lines[i].has_marker or (place and i == block[0])):
                            yield chain
                            chain = []
                        chain.append(subtitle.lines.start + i)
            if chain:
                yield chain

    def _sentences(self) -> Iterator[list[_Subtitle]]:
        """Subtitles of which each goes on in the next."""
        group: list[_Subtitle] = []
        for subtitle in self._subtitles:
            if group and not self._goes_on(group[-1], subtitle):
                yield from [group] if len(group) <= _MOST_SUBTITLES else ([one] for one in group)
                group = []
            group.append(subtitle)
        yield from [group] if len(group) <= _MOST_SUBTITLES else ([one] for one in group)

    def _goes_on(self, before: _Subtitle, after: _Subtitle) -> bool:
        if not -1 <= after.start - before.end <= _LONGEST_PAUSE:
            return False
        last = next((self._lines[i] for i in reversed(before.lines) if not self._lines[i].is_blank), None)
        first = next((self._lines[i] for i in after.lines if not self._lines[i].is_blank), None)
        if last is None or first is None or first.has_marker:
            return False
        ending, beginning = _words(last.text), _words(first.text)
        if not ending or not beginning:
            return False
        if _ends_with(_OPEN_END, ending):
            return beginning[0].islower()
        return not _ends_with(_SENTENCE_END, ending) and beginning[0] not in "([♪"


def _subtitles(lines: Sequence[str]) -> Iterator[_Subtitle]:
    heads = []
    for i, line in enumerate(lines):
        if match := _TIMES.fullmatch(line.rstrip("\r\n")):
            heads.append((i, _seconds(match.groups()[:4]), _seconds(match.groups()[4:])))
        elif _ALMOST_TIMES.match(line):
            raise DataError(f"line {i + 1}: {line.strip()!r} is not as 00:00:01,000 --> 00:00:02,500")
    if not heads:
        raise DataError("has no line as 00:00:01,000 --> 00:00:02,500: these are no subtitles")
    begins = [i - (i > 0 and _NUMBER.fullmatch(lines[i - 1]) is not None) for i, _, _ in heads]
    for (head, start, end), stop in zip(heads, [*begins[1:], len(lines)], strict=True):
        body = range(head + 1, max(head + 1, stop))
        if sum(len(lines[i]) for i in body) > _LONGEST:
            raise DataError(f"line {head + 1}: a subtitle of more than {_LONGEST} characters")
        yield _Subtitle(body, start, end)


def _no_times(lead: str, text: str) -> str:
    """A text for a line with this lead that is not read as times."""
    text = _ARROW.sub("->", text)
    return _ARROWHEAD.sub(" -", text) if _ALMOST_TIMES.match(lead + text) else text


def _seconds(time: Sequence[str]) -> float:
    hours, minutes, seconds, fraction = time
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(fraction) / 10 ** len(fraction)


def _words(text: str) -> str:
    """A line without its tags."""
    return "".join(one if isinstance(one, str) else _inside(one.children) for one in tags_of(text)).strip()


def _inside(content: Content) -> str:
    return "".join(one if isinstance(one, str) else _inside(one.children) for one in content)


def _ends_with(pattern: re.Pattern[str], text: str) -> bool:
    """Whether a pattern matches the end of a text."""
    return any(pattern.fullmatch(text, start) for start in range(max(0, len(text) - 10), len(text)))

"""Plain text: paragraphs between blank lines.

Every line comes back on a line of its own. Lines of a paragraph that were broken to fit a width are translated
together; others, such as those of a list or of a poem, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformer.documents.encoded import Decoded, decoded
from transformer.documents.inline import Content
from transformer.documents.pairs import tags_of, written_in_text
from transformer.documents.passages import Passage
from transformer.documents.tokens import is_unspaced

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
# Bullets, dashes of speakers, numbers, and the marks of headings and quotations.
_MARKER = re.compile(r"\s*(?:(?:[-*•‣–—♪]|\#{1,6}|>{1,9}|\d{1,3}[.)])(?:\s+|\Z))*")
_NARROWEST = 40  # characters; nobody breaks a paragraph at fewer
_MOST_LINES = 100  # that are translated together


@dataclass
class Line:
    """A line of a document.

    Attributes:
        lead: white space, and a bullet or the like, before the text.
        text: what is translated.
        trail: white space and the line end.
    """

    lead: str
    text: str
    trail: str

    @classmethod
    def read(cls, line: str) -> Line:
        """Take a line apart."""
        body = line.rstrip()
        match = _MARKER.match(body)
        lead = match[0] if match else ""
        return cls(lead, body[len(lead) :], line[len(body) :])

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to see."""
        return not (self.lead + self.text).strip()

    @property
    def has_marker(self) -> bool:
        """Whether something stands before the text, such as a bullet."""
        return bool(self.lead.strip())


class TextDocument:
    """A text, in passages.

    Attributes:
        passages: to translate.
    """

    def __init__(self, data: bytes) -> None:
        self._decoded: Decoded = decoded(data)
        self._lines = [Line.read(line) for line in lines_of(self._decoded.text)]
        self._of_passages = [chain for block in blocks(self._lines) for chain in _chains(self._lines, block)]
        self.passages: list[Passage] = [[tags_of(self._lines[i].text) for i in chain] for chain in self._of_passages]

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the lines of each passage, or with None as it was."""
        texts = [line.text for line in self._lines]
        for chain, found in zip(self._of_passages, translations, strict=True):
            for i, content in zip(chain, found or (), strict=found is not None):
                texts[i] = written_in_text(content)
        return self._decoded.encoded("".join(put_together(self._lines, texts)))


def lines_of(text: str) -> list[str]:
    """Lines with their ends; U+2028 and the like end none."""
    return [match[0] for match in _LINE.finditer(text) if match[0]]


def blocks(lines: Sequence[Line]) -> Iterator[list[int]]:
    """The lines between blank ones, by number."""
    block: list[int] = []
    for i, line in enumerate(lines):
        if not line.is_blank:
            block.append(i)
        elif block:
            yield block
            block = []
    if block:
        yield block


def put_together(lines: Sequence[Line], texts: Sequence[str]) -> list[str]:
    """Lines with other texts.

    In a block, those that have become empty come last: a blank line before others would divide it.
    """
    bodies = [
        line.lead + text if (line.lead + text).strip() else line.lead for line, text in zip(lines, texts, strict=True)
    ]
    for block in blocks(lines):
        filled = [bodies[i] for i in block if bodies[i].strip()]
        for i, body in zip(block, [*filled, *[""] * (len(block) - len(filled))], strict=True):
            bodies[i] = body
    return [body + line.trail for body, line in zip(bodies, lines, strict=True)]


def _chains(lines: Sequence[Line], block: Sequence[int]) -> Iterator[list[int]]:
    """The lines of a block that are translated together: those after which the next word would not have fitted."""
    width = max(_NARROWEST, *(len(lines[i].lead + lines[i].text) for i in block))
    chain: list[int] = []
    for i in block:
        if chain and not (len(chain) < _MOST_LINES and _goes_on(lines[chain[-1]], lines[i], width)):
            yield chain
            chain = []
        chain.append(i)
    yield chain


def _goes_on(line: Line, following: Line, width: int) -> bool:
    """Whether a line was ended at a width, not by a paragraph or by the next item of a list."""
    is_quoted = following.lead == line.lead and not following.lead.strip("> \t")
    if following.has_marker and not is_quoted:
        return False
    word = following.text.split(maxsplit=1)[0] if following.text else ""
    needed = 0 if is_unspaced(word) else len(word)  # without spaces, lines end after any character
    return len(line.lead) + len(line.text) + 1 + needed > width

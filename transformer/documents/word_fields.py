"""Fields of Word documents, such as page numbers: sequences of runs that must stay in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformer.documents.word_parts import local_name

Element = Any  # lxml has no types


@dataclass
class Field:
    """A field, from the run with its beginning to that with its end.

    Attributes:
        elements: all of it.
        result: the elements that show what it found; Word replaces them.
        instruction: what it does, such as PAGE.
    """

    elements: list[Element]
    result: list[Element]
    instruction: str

    @staticmethod
    def links(instruction: str) -> bool:
        """Whether an instruction is for a link, whose result is text of the author."""
        return instruction.strip().upper().startswith("HYPERLINK")

    @property
    def is_link(self) -> bool:
        """Whether its result is text of the author, to be translated."""
        return self.links(self.instruction)

    @property
    def before(self) -> list[Element]:
        """The elements before its result."""
        return self.elements[: self.elements.index(self.result[0])] if self.result else self.elements

    @property
    def after(self) -> list[Element]:
        """The elements after its result."""
        return self.elements[self.elements.index(self.result[-1]) + 1 :] if self.result else []

    @property
    def text(self) -> str:
        """What it shows."""
        return "".join(x.text or "" for one in self.result for x in one.iter() if local_name(x) == "t")


def fields_and_elements(children: Sequence[Element]) -> list[Field | Element]:
    """Elements beside each other, those of a field together.

    A field that does not end among them is left apart, and so is one without a result in a run of its own.
    """
    found: list[Field | Element] = []
    begins: list[int] = []  # of fields that are open, places in `found`
    for child in children:
        found.append(child)
        for kind in _marks(child):
            if kind == "begin":
                begins.append(len(found) - 1)
            elif kind == "end" and begins:
                start = begins.pop()
                is_shown = start < len(found) - 1 or "separate" in _marks(child)
                if is_shown and not begins:  # of fields inside of each other, the outer one
                    found[start:] = [_field(found[start:])]
    return found


def is_closed(element: Element) -> bool:
    """Whether all fields that begin in an element end there."""
    depth = 0
    for one in element.iter():
        if local_name(one) == "fldChar":
            depth += {"begin": 1, "end": -1}.get(_kind(one), 0)
            if depth < 0:
                return False
    return depth == 0


def _field(elements: list[Element]) -> Field:
    depth, instruction, start = 0, "", len(elements) - 1
    for i, element in enumerate(elements):
        for kind in _marks(element):
            depth += {"begin": 1, "end": -1}.get(kind, 0)
            if kind == "separate" and depth == 1:
                start = min(start, i + 1)
        if depth == 1 and i < start:
            instruction += "".join(x.text or "" for x in element if local_name(x) == "instrText")
    return Field(elements, elements[start:-1], instruction)


def _marks(element: Element) -> list[str]:
    """The beginnings, ends and separations of fields in a run."""
    if local_name(element) != "r":
        return []
    return [_kind(child) for child in element if local_name(child) == "fldChar"]


def _kind(mark: Element) -> str:
    return str(mark.get(f"{mark.tag[: mark.tag.index('}') + 1]}fldCharType", ""))

"""Word documents (.docx): the text of paragraphs is translated, in tables, headers, footers, notes and boxes too.

All elements but those of text (`w:t`) are kept, and so are other parts of the file, such as images, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformer.documents.archive import Archive
from transformer.documents.inline import Content
from transformer.documents.passages import Passage
from transformer.documents.word_paragraphs import Paragraph
from transformer.documents.word_parts import local_name, parsed, serialized, text_parts


class DocxDocument:
    """A Word document, in passages.

    Attributes:
        passages: to translate.

    Raises:
        DataError: it is damaged, hostile or no Word document, or lxml is not installed.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._archive = data, Archive(data)
        self._roots = {name: parsed(name, self._archive.parts[name]) for name in text_parts(self._archive.parts)}
        self._paragraphs: list[tuple[str, Paragraph]] = []
        self.passages: list[Passage] = []
        for name, root in self._roots.items():
            for element in root.iter():
                if local_name(element) == "p" and (paragraph := Paragraph(element)).has_text:
                    self._paragraphs.append((name, paragraph))
                    self.passages.append([paragraph.content])

    def written(self, translations: Sequence[Sequence[Content] | None]) -> bytes:
        """The document with the line of each passage, or with None as it was."""
        changed = set()
        for (name, paragraph), found in zip(self._paragraphs, translations, strict=True):
            if found is not None:
                paragraph.write(found[0])
                changed.add(name)
        if not changed:
            return self._data
        return self._archive.written({name: serialized(self._roots[name]) for name in changed})

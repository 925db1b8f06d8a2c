"""The XML parts of a Word document: which have text, and how they are parsed, by lxml without entities or networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer.errors import DataError

_WORD = (
    "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}",
    "{http://purl.oclc.org/ooxml/wordprocessingml/main}",  # of "strict" documents
)
_MOST_TAGS = 5_000_000  # of all parts, each of some hundred bytes once it is read
_TYPES = "[Content_Types].xml"
_MAIN = (
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-word.document.macroEnabled.main+xml",
)
_WITH_TEXT = {
    *_MAIN,
    *(
        f"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}+xml"
        for kind in ("header", "footer", "footnotes", "endnotes", "comments")
    ),
}


def text_parts(parts: Mapping[str, bytes]) -> list[str]:
    """The names of the parts that have text. DataError if this is no Word document, or one with too many elements."""
    if _TYPES not in parts:
        raise DataError(f"is no Word document: it has no {_TYPES}")
    if (number := sum(content.count(b"<") for content in parts.values())) > _MOST_TAGS:
        raise DataError(f"has {number} tags, more than {_MOST_TAGS}: split it")
    types, defaults = {}, {}
    for entry in parsed(_TYPES, parts[_TYPES]):
        kind = entry.get("ContentType", "")
        if (name := entry.get("PartName")) is not None:
            types[name.removeprefix("/").lower()] = kind
        elif (extension := entry.get("Extension")) is not None:
            defaults[extension.lower()] = kind
    kinds = {name: types.get(name.lower(), defaults.get(name.lower().rpartition(".")[2], "")) for name in parts}
    if not any(kind in _MAIN for kind in kinds.values()):
        raise DataError("is no Word document: it has no main part")
    return [name for name, kind in kinds.items() if kind in _WITH_TEXT and name != _TYPES]


def parsed(name: str, data: bytes) -> Any:
    """The root element of a part.

    DataError if it is not XML, declares a document type, without which there are no entities, or if lxml is not
    installed.
    """
    etree = _etree()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DataError(f"its part {name!r} is not XML: {error}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise DataError(f"its part {name!r} declares a document type, which no Word document does")
    return root


def serialized(element: Any) -> bytes:
    """A part's root, with the declaration that Word writes, or an element of it."""
    if element.getparent() is not None:
        return bytes(_etree().tostring(element, with_tail=False))
    return bytes(_etree().tostring(element.getroottree(), xml_declaration=True, encoding="UTF-8", standalone=True))


def local_name(element: Any) -> str:
    """The name of an element of a Word document; empty for one of another kind, a comment or an instruction."""
    tag = element.tag
    return next((tag[len(space) :] for space in _WORD if isinstance(tag, str) and tag.startswith(space)), "")


def _etree() -> Any:
    try:
        from lxml import etree
    except ImportError:
        raise DataError(
            "reading Word documents needs lxml: pip install 'attention-is-all-you-need[documents]'"
        ) from None
    return etree

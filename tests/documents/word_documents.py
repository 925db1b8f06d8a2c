"""Small Word documents, written by hand."""

from __future__ import annotations

import io
import zipfile

NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml"
TYPES = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="png" ContentType="image/png"/>
<Override PartName="/word/document.xml" ContentType="{_TYPE}.document.main+xml"/>
<Override PartName="/word/header1.xml" ContentType="{_TYPE}.header+xml"/>
<Override PartName="/word/footnotes.xml" ContentType="{_TYPE}.footnotes+xml"/>
</Types>"""
RELATIONSHIPS = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Target="word/document.xml"
 Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/>
</Relationships>"""


def body(*paragraphs: str) -> str:
    """The main part with the given paragraphs."""
    inside = "".join(f"<w:p>{one}</w:p>" for one in paragraphs)
    return f"<w:document {NAMESPACES}><w:body>{inside}<w:sectPr/></w:body></w:document>"


def run(text: str, format_: str = "", extra: str = "") -> str:
    """A run with text, its format and what follows the text."""
    return f'<w:r><w:rPr>{format_}</w:rPr><w:t xml:space="preserve">{text}</w:t>{extra}</w:r>'


def archive(parts: dict[str, str | bytes]) -> bytes:
    """A zip container."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in parts.items():
            container.writestr(name, content)
    return stream.getvalue()


def document(main: str, **others: str | bytes) -> bytes:
    """A Word document with this main part; other parts by name, with __ for / and _xml for .xml."""
    named = {name.replace("__", "/").replace("_xml", ".xml"): content for name, content in others.items()}
    return archive({"[Content_Types].xml": TYPES, "_rels/.rels": RELATIONSHIPS, "word/document.xml": main, **named})


def parts(data: bytes) -> dict[str, bytes]:
    """What is in a zip container."""
    with zipfile.ZipFile(io.BytesIO(data)) as container:
        return {name: container.read(name) for name in container.namelist()}

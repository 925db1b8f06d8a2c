"""The bytes of a text document: its encoding, which is kept."""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import NamedTuple

from transformer.errors import DataError

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_DECLARED = re.compile(
    rb"""  <meta\b [^>]{0,500}? \bcharset \s* = \s* ["']? \s* ([\w.:-]+)
         | \A \s* <\?xml\b [^>]{0,200}? \bencoding \s* = \s* ["'] ([\w.-]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_DECLARED_WITHIN = 1024  # bytes, by the HTML standard
_COMMENT = re.compile(rb"<!--(?:-?>|.*?--!?>|.*)", re.DOTALL)
# Of the Encoding Standard, in Python's names; and those that browsers read by a larger one.
_ENCODINGS = {
    *("utf-8", "cp866", "cp874", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "iso2022_jp", "euc_jp"),
    *("gbk", "gb18030", "big5", "big5hkscs"),
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"cp{page}" for page in (932, 949, *range(1250, 1259))),
}
_READ_BY = {
    **{"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"},
    **{"gb2312": "gbk", "shift_jis": "cp932", "euc_kr": "cp949"},
}


class Decoded(NamedTuple):
    """A text, with the byte order mark and the encoding in which it was read."""

    text: str
    mark: bytes
    encoding: str

    def encoded(self, text: str, errors: str = "strict") -> bytes:
        """Another text as bytes of the same encoding."""
        return self.mark + text.encode(self.encoding, errors)


def decoded(data: bytes, declared: str | None = None) -> Decoded:
    """The text of a document in UTF-8, in UTF-16 with a byte order mark, or in the encoding that it declares.

    DataError if it is not, or has null characters, as no text has.
    """
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS[mark] if mark else declared or "utf-8"
    body = data.removeprefix(mark)
    try:
        text = body.decode(encoding)
        is_kept = text.encode(encoding) == body
    except UnicodeError as error:
        place = f"byte {error.start + len(mark) + 1}" if isinstance(error, UnicodeDecodeError) else "its end"
        raise DataError(f"is not {encoding} ({place}); save it as UTF-8") from None
    if not is_kept:
        raise DataError(f"cannot be written as it was in {encoding}; save it as UTF-8")
    if "\0" in text:
        raise DataError("has null characters: it is not text")
    return Decoded(text, mark, encoding)


def declared_encoding(data: bytes) -> str | None:
    """The encoding that a page declares, as browsers take it; None if it does not. DataError for an unknown one."""
    match = _DECLARED.search(_COMMENT.sub(b"", data[:_DECLARED_WITHIN]))
    if match is None or data.startswith(codecs.BOM_UTF8):
        return None
    name = (match[1] or match[2]).decode("ascii", "replace").lower()
    if name.startswith("utf-16"):  # in which this declaration could not have been read
        return None
    with contextlib.suppress(LookupError):
        known = codecs.lookup(name).name
        if (known := _READ_BY.get(known, known)) in _ENCODINGS:
            return known
    raise DataError(f"its encoding {name!r} is unknown; save it as UTF-8")

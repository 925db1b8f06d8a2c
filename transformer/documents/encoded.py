"""The bytes of a text document: its encoding, which is kept."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from transformer.errors import DataError

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


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
    except LookupError:
        raise DataError(f"its encoding {encoding!r} is unknown; save it as UTF-8") from None
    except UnicodeError as error:
        place = f"byte {error.start + len(mark) + 1}" if isinstance(error, UnicodeDecodeError) else "its end"
        raise DataError(f"is not {encoding} ({place}); save it as UTF-8") from None
    if not is_kept:
        raise DataError(f"cannot be written as it was in {encoding}; save it as UTF-8")
    if "\0" in text:
        raise DataError("has null characters: it is not text")
    return Decoded(text, mark, encoding)

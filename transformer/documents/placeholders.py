"""Placeholders: parts of a text that a translation must have as they are.

`{name}`, `{{ name }}`, `${name}`, `%s`, `%(name)d`, `%1$s`, web and e-mail addresses, and tags and character references
that are text, such as `<br/>` and `&nbsp;`. All patterns take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_PLACEHOLDER = re.compile(
    r"""
      \{\{ [^{}]{0,200} \}\}  |  \{\\ [^{}]{0,200} \}  |  \{% [^{}]{0,200} %\}  |  \$?\{ [\w.$:!@/\[\]+,#-]{0,100} \}
    | (?<![\d%]) % (?: \([\w.]{1,100}\) | \d{1,3}\$ )? [-+#0]{0,5} \d{0,5} (?:\.\d{1,5})? (?:hh?|ll?|[jztL])?
        [diouxXeEfFgGcsp@] (?![^\W\d_])
    | (?: https?:// | ftp:// | (?<![\w.])www\. ) [^\s<>"]* [\w/#=&%-]
    | (?<![\w.+-]) [\w.+-]{1,64} @ (?:[\w-]{1,63}\.){1,8} [^\W\d_]{2,24}
    | </? [A-Za-z] [^<>]{0,500} >
    | & (?: \#\d{1,7} | \#[xX][0-9a-fA-F]{1,6} | [A-Za-z][A-Za-z0-9]{1,31} ) ;
    """,
    re.VERBOSE,
)
_MOST = 1000  # each is searched for


def find_placeholders(text: str) -> Iterator[tuple[int, int]]:
    """Where placeholders stand: characters [start, end), in order."""
    for match in _PLACEHOLDER.finditer(text):
        yield match.span()


def invented(text: str, source: str) -> list[tuple[int, int]]:
    """Placeholders of a translation that its source does not have."""
    return [(start, end) for start, end in find_placeholders(text) if text[start:end] not in source]


def occurrences(text: str, kept: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where each of the kept texts stands in a translation, or None if one is there more or less often than kept.

    Equal ones are taken in order. None too for more than `_MOST` of them.
    """
    if len(kept) > _MOST:
        return None
    places: dict[str, list[tuple[int, int]]] = {}
    used: set[int] = set()
    for one in sorted(set(kept), key=len, reverse=True):
        spans = (match.span() for match in re.finditer(_bounded(one), text))
        found = [(start, end) for start, end in spans if used.isdisjoint((start, end - 1))]
        if len(found) != kept.count(one):
            return None
        used.update(position for start, end in found for position in range(start, end))
        places[one] = found[::-1]
    return [places[one].pop() for one in kept]


def _bounded(text: str) -> str:
    """A pattern of a text that is no part of a longer word or number."""
    left = r"(?<!\w)" if text[:1].isalnum() else ""
    right = r"(?!\w)" if text[-1:].isalnum() else ""
    return f"{left}{re.escape(text)}{right}"

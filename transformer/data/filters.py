"""Filters of training pairs by their text; each drops what its example shows, and what it drops is counted.

They look for what is wrong with a pair, not for what is unusual. None decides by language: that takes a model of its
own. Validation and test pairs are never filtered.
"""

import re
from collections.abc import Callable, Sequence

from transformer.data.pairs import Corpus

_VERSION = 2  # of the rules; part of fingerprints
# The characters that Latin-1 and Windows-1252 give to the bytes 0x80 to 0xBF, which continue a character in UTF-8.
_CONTINUATION = "\x80-\xbf" + "".join(bytes([byte]).decode("cp1252", errors="ignore") for byte in range(0x80, 0xA0))
# Of these, what good text has after a capital Â or Ã: before a letter, it is half of another capital nevertheless.
_CLOSING = "“”‘’…–—»„›"
_ENCODING = re.compile(
    # U+FFFD, control characters other than white space, halves of what is not text.
    "[\ufffd\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]"
    # UTF-8 read as Latin-1 or Windows-1252: one sign of Western European text or punctuation suffices, two of other
    # scripts: one may be a capital before a closing quote.
    f"|[ÂÃ](?:(?![{_CLOSING}])[{_CONTINUATION}]|[{_CLOSING}](?=[^\\W\\d_]))|(?<=\\s)Â»|â[{_CONTINUATION}]{{2}}|ï[»¿][¿½]"
    f"|(?:[Ä-ß][{_CONTINUATION}]){{2}}|(?:[à-ï][{_CONTINUATION}]{{2}}){{2}}|ð[{_CONTINUATION}]{{3}}"
)
_MARKUP = re.compile(
    r"&(?:[a-zA-Z][a-zA-Z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});|</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>"
)
_NUMBER = re.compile(r"\d+")


def _is_copy(source: str, target: str) -> bool:
    return source.split() == target.split()


def _is_badly_encoded(source: str, target: str) -> bool:
    return any(_ENCODING.search(text) for text in (source, target))


def _has_markup(source: str, target: str) -> bool:
    return any(_MARKUP.search(text) for text in (source, target))


def _has_no_letters(source: str, target: str) -> bool:
    """Whether a side has text, but not a single letter."""
    return any(text.strip() and not any(map(str.isalpha, text)) for text in (source, target))


def _has_other_numbers(source: str, target: str) -> bool:
    return _numbers(source) != _numbers(target)


def _numbers(text: str) -> list[str]:
    """Groups of digits in order of value, so that 1,000.5 and 1.000,5 are alike, and so are scripts."""
    groups = ("".join(str(int(digit)) for digit in found) for found in _NUMBER.findall(text))
    return sorted(group.lstrip("0") or "0" for group in groups)


# In the order in which a pair is tried: the first that applies is counted.
FILTERS: dict[str, Callable[[str, str], bool]] = {
    "encoding": _is_badly_encoded,
    "markup": _has_markup,
    "no_letters": _has_no_letters,
    "copies": _is_copy,
    "numbers": _has_other_numbers,
}


def reason_to_drop(source: str, target: str, filters: Sequence[str]) -> str | None:
    """The first of the named filters that drops a pair. A pair with an empty side is left to the encoder."""
    if not source.strip() or not target.strip():
        return None
    return next((name for name, drops in FILTERS.items() if name in filters and drops(source, target)), None)


def filtered(corpus: Corpus, filters: Sequence[str]) -> Corpus:
    """The corpus without the pairs that the filters drop, counted by filter."""
    if not filters:
        return corpus
    key = f"filters {_VERSION} {' '.join(sorted(set(filters)))}"
    return corpus.sorted_out(lambda source, target: reason_to_drop(source, target, filters), key)

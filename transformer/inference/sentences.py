"""Several sentences in a text: seen, split and joined again.

A model trained on single sentences may translate only the first of several.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from transformer.data.languages import short_code
from transformer.errors import DataError

# A mark that ends a sentence, quotes and brackets that close with it, and the first letter or digit of the next. After
# the marks of Chinese, Japanese and Indian scripts there may be no white space.
_END = re.compile(
    r"""(?: [.!?…؟۔]["'”’»)\]]*\s+ | [。！？｡।॥]["'”’»)\]」』）]*\s* )
        (?= ["'“„‘«¿¡(\[「『（]*(?P<next>[^\W_]) )""",
    re.VERBOSE,
)
# A full stop after one of these, a single letter or a day's number ends no sentence.
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|Nr|vs|[^\W\d_]|\d\d?)$")
_LONGEST_ABBREVIATION = 5  # a character of its left context included
# Their sentences follow each other without a space. (In Thai, Lao and Khmer a space separates them.)
_WITHOUT_SPACES = {"zh", "zho", "chi", "cmn", "yue", "wuu", "nan", "hak", "gan", "lzh", "ja", "jpn"}
_CHARACTERS_PER_PIECE = 8  # more than text has on average


def sentence_starts(text: str) -> Iterator[int]:
    """Where sentences but the first seem to begin, by punctuation and letter case.

    A rule that needs no list of abbreviations: good enough to count and to cut, not to edit a corpus.
    """
    is_lower_case = None
    for match in _END.finditer(text):
        begin = match.start()
        if text[begin] in ".!?…":
            before = text[max(0, begin - _LONGEST_ABBREVIATION) : begin]
            if text[begin] == "." and (match["next"].isdigit() or _ABBREVIATION.search(before)):
                continue
            if match["next"].islower():
                is_lower_case = text == text.lower() if is_lower_case is None else is_lower_case
                if not is_lower_case:  # as in "etc. and"; text without any capital has none to go by
                    continue
        yield match.end()


def has_several_sentences(text: str) -> bool:
    """Whether there seem to be two or more, by the rule of `sentence_starts`."""
    return next(sentence_starts(text), None) is not None


def split_sentences(text: str, language: str) -> list[str]:
    """The sentences of a text by `sentencex`, an optional package with rules for many languages.

    Args:
        language: its code, as `de`, `deu` or `pt-BR`; for an unknown one, general rules hold.

    Returns:
        At least one; without the white space between them. DataError if the package is not installed.
    """
    try:
        import sentencex
    except ImportError:
        raise DataError("splitting sentences needs sentencex: pip install sentencex") from None
    try:
        sentences = [sentence.strip() for sentence in sentencex.segment(_base(language), text)]
    except UnicodeEncodeError:  # surrogates, which the tokenizer refuses with the text's number
        return [text]
    return [sentence for sentence in sentences if sentence] or [text]


def separator(language: str) -> str:
    """What stands between sentences of a language: a space, or nothing in Chinese and Japanese."""
    return "" if _base(language) in _WITHOUT_SPACES else " "


def split_to_fit(text: str, num_pieces: Callable[[str], int], limit: int) -> list[str]:
    """Cut a text into parts of at most `limit` pieces each.

    Each part is as long as fits and ends with a sentence; where a sentence alone is too long, at white space; where a
    word is, before any character.

    Args:
        num_pieces: of a text.

    Raises:
        DataError: a single character has more pieces.
    """
    parts: list[str] = []
    rest = text.strip()
    while rest:
        window = rest[: _CHARACTERS_PER_PIECE * limit]  # or each part would look at all that is left
        if len(window) == len(rest) and num_pieces(rest) <= limit:
            return [*parts, rest]
        cut = next(filter(None, (_last_fitting(window, cuts, num_pieces, limit) for cuts in _cuts(window))), None)
        if cut is None:
            raise DataError(f"the character {rest[0]!r} alone has more pieces than the limit of {limit}")
        parts.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return parts or [""]


def _cuts(text: str) -> Iterator[Sequence[int]]:
    """Ascending places to cut: between sentences, at white space, and before any character but a combining mark."""
    yield list(sentence_starts(text))
    yield [match.start() for match in re.finditer(r"\s\S", text)]
    yield [i for i in range(1, len(text) + 1) if i == len(text) or unicodedata.category(text[i])[0] != "M"]


def _last_fitting(text: str, cuts: Sequence[int], num_pieces: Callable[[str], int], limit: int) -> int | None:
    """The last cut before which at most `limit` pieces stand."""
    index = bisect.bisect_right(cuts, limit, key=lambda cut: num_pieces(text[:cut].strip()))
    # The number of pieces grows with the text, but for a merge across the cut now and then.
    while index and num_pieces(text[: cuts[index - 1]].strip()) > limit:
        index -= 1
    return cuts[index - 1] if index else None


def _base(language: str) -> str:
    """The code without region or script, by ISO 639-1 where there is one: `sentencex` knows no other of a language."""
    return short_code(re.split("[-_]", language.lower(), maxsplit=1)[0])

"""Which words of a translation its reference or another translation does not have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

# Thai, Lao, Khmer, kana and Han, written without spaces.
_UNSPACED = r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0002fa1f]"
# Their characters one by one, words, white space, and punctuation marks.
_TOKEN = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})[^\W_])+|\s+|[\W_]")
MAX_TOKENS = 400  # of a text; longer ones are not compared, which takes the square of that


def tokens(text: str) -> list[str]:
    """Words, punctuation marks and white space, which together are the text.

    Combining marks belong to the word before.
    """
    found: list[str] = []
    for token in _TOKEN.findall(text):
        if found and not found[-1].isspace() and _is_mark(token):
            found[-1] += token
        elif found and len(found[-1]) > 1 and _is_mark(found[-1][-1]) and token.isalnum():
            found[-1] += token  # the rest of a word after a mark
        else:
            found.append(token)
    return found


def unlike(text: Sequence[str], other: Sequence[str]) -> list[bool]:
    """Whether each token has no counterpart in the other text.

    Counterparts are in the same order; white space always has one.

    No token is unlike if one of the texts has more than `MAX_TOKENS`.
    """
    if max(len(text), len(other)) > MAX_TOKENS:
        return [False] * len(text)
    words = [i for i, token in enumerate(text) if not token.isspace()]
    others = [token for token in other if not token.isspace()]
    found = [not token.isspace() for token in text]
    for block in SequenceMatcher(None, [text[i] for i in words], others, autojunk=False).get_matching_blocks():
        for i in words[block.a : block.a + block.size]:
            found[i] = False
    return found


def unlike_references(text: Sequence[str], references: Sequence[Sequence[str]]) -> list[bool]:
    """`unlike` of the reference that the text has most in common with."""
    return min((unlike(text, reference) for reference in references), key=sum)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character[0])[0] == "M" or character in "\u200c\u200d"

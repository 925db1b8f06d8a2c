"""The columns of a table: a text per language, or both in `translation`."""

import re
from collections.abc import Iterable, Sequence

from transformer.errors import DataError

ROWS_PER_READ = 1000  # of Arrow tables; about ten times as fast as single rows

_WORD = re.compile(r"[^\W\d_]+")
_ALONE = {"source", "target", "src", "tgt", "translation", "sentence", "text"}  # name a column whatever the others are
_TOGETHER = _ALONE | set(
    _WORD.findall("""
        sources targets translations sentences texts input output reference hypothesis original translated segment
        string line phrase column col lang language
        arabic bulgarian chinese croatian czech danish dutch english estonian finnish french german greek hebrew hindi
        hungarian indonesian irish italian japanese korean latvian lithuanian norwegian persian polish portuguese
        romanian russian serbian slovak slovenian spanish swedish thai turkish ukrainian urdu vietnamese
        deutsch englisch französisch français anglais allemand español inglés alemán italiano inglese tedesco português
        русский английский немецкий
    """)
)
_CODE = re.compile(r"[a-z]{2,3}([-_][a-z]{2,4})?")


def is_header(fields: Sequence[str], src_lang: str, tgt_lang: str) -> bool:
    """Whether a first row names columns.

    Such a row must not become a pair, with columns in the wrong order after it, even if the names are not the
    languages: `check_columns` reports that.
    """
    words = [field.strip().lower() for field in fields]
    if {src_lang.lower(), tgt_lang.lower(), *_ALONE} & set(words) or all(map(_CODE.fullmatch, words)):
        return True
    return all(map(_is_name, fields))


def _is_name(field: str) -> bool:
    """Whether a field is made of words for columns: `German`, `sentence_en`, `sourceText`, `text 1`."""
    words = _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", field.strip()).lower())
    is_joined = " " not in field.strip()  # then a code may be among them, which in a sentence would be any short word
    return bool(_TOGETHER & set(words)) and all(
        word in _TOGETHER or (is_joined and _CODE.fullmatch(word)) for word in words
    )


def check_columns(place: str, names: Iterable[str], langs: Iterable[str], *, instead: str = "", hint: str = "") -> None:
    """DataError unless each language has one column.

    `instead` says where else texts may be, `hint` what else may be wrong.
    """
    names, (src, tgt) = list(names), langs
    for lang in (src, tgt):
        if lang not in names:
            raise DataError(f"{place}: needs columns {src!r} and {tgt!r}{instead}, has {names[:20]}{hint}")
        if names.count(lang) > 1:
            raise DataError(f"{place}: {names.count(lang)} columns are called {lang!r}: rename all but one")

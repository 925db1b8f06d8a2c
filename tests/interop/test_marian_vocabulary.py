"""Vocabularies that Marian wrote: the lines of vocab.yml that are read, and those that are refused."""

from __future__ import annotations

import pytest

from transformer.errors import CheckpointError
from transformer.interop.marian_vocabulary import parse_yaml_vocabulary


def test_a_vocabulary_is_read_line_by_line() -> None:
    content = (
        '</s>: 0\n"<unk>": 1\n\n\'it\'\'s\': 2\n"\\"": 3\n"\\\\": 4\n"\\x85": 5\n"\\u00e9": 6\n"\\U0001F389": 7\n'
        '~: 8\nyes: 9\n1:30: 10\n? long\n: 11\n▁de: 12\r\n"\\t": 13\n'
    )
    found = parse_yaml_vocabulary("vocab.yml", content.encode())
    assert [*found] == ["</s>", "<unk>", "it's", '"', "\\", "\x85", "é", "🎉", "~", "yes", "1:30", "long", "▁de", "\t"]
    assert [*found.values()] == [*range(14)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 0\na: 1\n", "line 2: 'a' is given twice"),
        (b"a: &a [x]\n", "line 1 is not of the form `piece: id`"),
        (b"*a: 1\n", "line 1 is not of the form"),
        (b"!!python/object/apply:os.system : 1\n", "line 1 is not of the form"),
        (b"a: -1\n", "line 1 is not of the form"),
        (b"a: 1.5\n", "line 1 is not of the form"),
        (b'"a: 1\n', "line 1 is not of the form"),
        (b"'a: 1\n", "line 1 is not of the form"),
        (b"a\n", "line 1 is not of the form"),
        (b"? a\nb: 1\n", "line 2 is not of the form"),
        (b"? a\n", "line 2 is not of the form"),
        ("a: ١\n".encode(), "line 1 is not of the form"),
        (b"\xff: 1\n", "not text in UTF-8"),
    ],
)
def test_other_yaml_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^vocab\.yml: {message}"):
        parse_yaml_vocabulary("vocab.yml", content)

"""An entry of `data.also_validate`: a split of `data.corpus`, or NAME=CORPUS."""

import re

from transformer.config_file import plain_name, plain_text
from transformer.files import expand_home

_NAME = re.compile(r"[\w.-]+")


def name_and_corpus(entry: str) -> tuple[str, str | None]:
    """The name of a validation set and its corpus.

    The corpus is None for the split of `data.corpus` with this name.
    """
    name, equals, corpus = entry.partition("=")
    return (name, corpus) if equals else (entry, None)


def validation_set(entry: str) -> str:
    """ValueError unless this is the name of a split, or NAME=CORPUS; a leading ~ of a corpus becomes a path."""
    name, corpus = name_and_corpus(plain_text(entry))
    if corpus is None:
        if not _NAME.fullmatch(name):
            raise ValueError("must be a split of data.corpus, or NAME=CORPUS")
        return plain_name(name)
    if not _NAME.fullmatch(name) or not corpus:
        raise ValueError("must be NAME=CORPUS, with a name of letters, digits, dots, - and _")
    return f"{name}={expand_home(corpus)}"

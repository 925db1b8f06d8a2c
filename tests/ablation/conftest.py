"""A corpus with a small validation set."""

from __future__ import annotations

import pytest

from transformer.data.builtin import builtin_pairs


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pattern of files with 397 training pairs and 23 validation pairs of the grammar."""
    directory = tmp_path_factory.mktemp("corpus")
    for split, size in (("train", 397), ("validation", 23), ("test", 3)):
        pairs = list(builtin_pairs(split, size))
        for i, lang in enumerate(("en", "de")):
            lines = "".join(f"{pair[i]}\n" for pair in pairs)
            (directory / f"{split}.{lang}").write_text(lines, encoding="utf-8")
    return f"{directory}/{{split}}.{{lang}}"

"""Characters of Python's own reference, real English that comes with every installation."""

from __future__ import annotations

from pydoc_data.topics import topics

import torch
from torch import Tensor


def reference_characters() -> tuple[str, Tensor]:
    """The characters that occur, sorted, and the text, each paragraph once, as indices of them: (n,) int64."""
    text = "\n\n".join(dict.fromkeys("\n\n".join(topics.values()).split("\n\n")))
    characters = "".join(sorted(set(text)))
    return characters, torch.tensor([characters.index(character) for character in text])

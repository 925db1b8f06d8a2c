"""Warnings of tags that do not do what they are meant for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from transformer.data.dataset import Side
from transformer.data.duplicates import count_id
from transformer.data.mixture import Mixture
from transformer.data.normalization import MARK
from transformer.data.tags import changes_text
from transformer.data.tokenizer import Tokenizer


def tag_warnings(
    tokenizer: Tokenizer, train: Mixture, validation: Side, tag: str | None, target_tags: Sequence[str] = ()
) -> list[str]:
    """Lines for the user on the tags of training corpora, and on `tag`, that of the validation sources.

    `target_tags` are those of which a multilingual model needs one.
    """
    own = {part.tag for part in train.parts} - {None}
    return [
        *_uncounted(tokenizer, {tag, *(part.tag for part in train.parts if len(part.pairs))}),
        *_other_tags(tokenizer, train.src, validation, own, tag),
        *_tags_in_text(tokenizer, train),
        *_without_language(tokenizer, train.src, target_tags),
    ]


def _without_language(tokenizer: Tokenizer, train: Side, target_tags: Sequence[str]) -> list[str]:
    """A warning if training sources do not say into which language they are translated."""
    if len(target_tags) < 2:  # there is nothing to choose, and sources may have been without
        return []
    begin = {id_ for tag in target_tags for id_ in tokenizer.source.encode([tag])[0][:1]}
    number = int((~np.isin(train.ids[train.starts], [*begin])).sum())
    if not number:
        return []
    return [
        f"warning: {number:,} training sources begin with none of data.target_tags, which this model was trained with: "
        f"set data.tag (or the tag of a corpus), such as {target_tags[0]}"
    ]


def _uncounted(tokenizer: Tokenizer, tags: set[str | None]) -> list[str]:
    """A warning if text that is shared cannot be seen, because its pieces depend on whether a tag is before it."""
    if None not in tags or not any(changes_text(tokenizer, tag) for tag in tags if tag is not None):
        return []
    return [
        "warning: with this tokenizer, text has other pieces after a tag than alone: text that is shared by a "
        "corpus with a tag and one without is not counted"
    ]


def _other_tags(
    tokenizer: Tokenizer, train: Side, validation: Side, own: set[str | None], tag: str | None
) -> list[str]:
    """A warning if no training source begins with a tag of the validation sources, or without one as they do."""
    tags = {str(one) for one in {tag, *own} - {None}}
    if not tags:
        return []
    there = _first_tags(tokenizer, train, tags)
    if there & _first_tags(tokenizer, validation, tags):
        return []
    names = ", ".join(sorted(one or "none" for one in there))
    return [
        f"warning: data.tag={tag or 'null'} is the tag of validation sources and of text to translate, but "
        f"training sources have {names}"
    ]


def _first_tags(tokenizer: Tokenizer, side: Side, tags: set[str]) -> set[str | None]:
    """The tags with which sentences begin; None if there are sentences without."""
    begin = {tag: _begin_with(side, tokenizer.source.encode([tag])[0]) for tag in tags}
    found: set[str | None] = {tag for tag, is_here in begin.items() if is_here.any()}
    return found if np.any([*begin.values()], axis=0).all() else {*found, None}


def _tags_in_text(tokenizer: Tokenizer, train: Mixture) -> list[str]:
    """A warning if the text itself has words that are read as tags."""
    found = {}
    for tag in {part.tag for part in train.parts if part.tag is not None}:
        whole = tokenizer.source.encode([tag])[0]
        # Some tokenizers have the mark of a space before it.
        ids = [id_ for id_, piece in zip(whole, tokenizer.source.pieces(whole), strict=True) if piece != MARK]
        number = sum(count_id(side, ids[0]) for side in (train.src, train.tgt))
        own = (part.pairs.src for part in train.parts if part.tag == tag)
        number -= sum(int(_begin_with(side, whole).sum()) for side in own)
        if number > 0 and len(ids) == 1:
            found[tag] = number
    words = ", ".join(f"{tag} {number:,} times" for tag, number in sorted(found.items()))
    return [f"warning: the training text itself has words that are read as tags: {words}"] if found else []


def _begin_with(side: Side, ids: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which sentences begin with these ids."""
    is_here = side.lengths > len(ids)
    for place, id_ in enumerate(ids):
        is_here[is_here] = side.ids[side.starts[is_here] + place] == id_
    return is_here

"""Translations as JSON lines: an object per line of the input."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformer.data.tokenizer import Tokenizer
from transformer.inference.alignment import Links
from transformer.inference.json_line import finite_or_none, json_line
from transformer.inference.translator import Translation


def json_lines(
    lines: Sequence[str],
    translations: Sequence[Sequence[Translation]],
    tokenizer: Tokenizer,
    *,
    first_number: int,
    alignments: Sequence[Sequence[Links]] | None = None,
    made: Mapping[str, object] | None = None,
) -> str:
    """An object per input line: its number, the line, and its translations.

    `made` says how they were made, in each object. `alignments` has, for each translation of each line, pairs of a word
    of the line and one of the translation.
    """
    objects = []
    for i, (line, found) in enumerate(zip(lines, translations, strict=True)):
        shown = [_as_object(one, tokenizer) for one in found]
        if alignments is not None:
            for one, links in zip(shown, alignments[i], strict=True):
                one["alignment"] = [list(link) for link in links]
        objects.append({"line": first_number + i, "source": line, "translations": shown, **(made or {})})
    return "".join(f"{json_line(one)}\n" for one in objects)


def _as_object(translation: Translation, tokenizer: Tokenizer) -> dict[str, Any]:
    """Scores are null where nothing was found, as of a model with NaN; log P of pieces is there if asked for."""
    found: dict[str, Any] = {
        "text": translation.text,
        "score": finite_or_none(translation.score),
        "log_prob": finite_or_none(translation.log_prob),
        "tokens": tokenizer.pieces(translation.ids),
    }
    if translation.token_log_probs:
        found["token_log_probs"] = list(translation.token_log_probs)
    return found

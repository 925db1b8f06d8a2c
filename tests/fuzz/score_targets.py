"""Targets of the fuzzer that score translations and read n-best lists."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import mutators
from harness import InvariantError

from transformer.inference.alignment import word_alignment
from transformer.inference.forced import score_translations
from transformer.inference.line_input import LineInput, file_input
from transformer.inference.nbest import as_line, parse_candidate
from transformer.inference.paired_input import lines_of, nbest_input
from transformer.inference.translator import Translator


def score(translator: Translator, rng: random.Random) -> None:
    """Scores do not depend on the batch, and links are inside of the texts."""
    pairs = [(mutators.text(rng)[:200], mutators.text(rng)[:200]) for _ in range(rng.randrange(1, 6))]
    sources, targets = ([pair[i] for pair in pairs] for i in (0, 1))
    options: dict[str, Any] = {"too_long": rng.choice(("error", "skip")), "batch_tokens": rng.choice((1, 50, 4096))}
    together = score_translations(translator, sources, targets, **options)
    for (source, target), found in zip(pairs, together, strict=True):
        (alone,) = score_translations(translator, [source], [target], too_long="skip")
        if not math.isclose(alone.log_prob, found.log_prob, rel_tol=1e-4, abs_tol=1e-3) or found.log_prob > 0:
            raise InvariantError(f"{source!r}, {target!r}: {alone.log_prob} alone and {found.log_prob} among others")
    for (source, target), links in zip(pairs, word_alignment(translator, sources, targets, **options), strict=True):
        if any(j >= len(source.split()) or i >= len(target.split()) for j, i in links):
            raise InvariantError(f"a link of {source!r} and {target!r} is outside of them: {links}")


def read_nbest(rng: random.Random, directory: Path) -> None:
    """Each line is a candidate of one source, and is written in its form."""
    data = mutators.nbest_list(rng)
    (directory / "nbest").write_bytes(data)
    sources = ["A man."] * rng.choice((0, 1, 2, 6))
    items = nbest_input(
        LineInput("src", lambda: iter(sources), "memory"),
        file_input(str(directory / "nbest")),
        rng.choice((None, None, 1, 2)),
    )
    groups = [lines_of(item) for item in items.read()]
    num_lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if len(groups) != len(sources) or sum(len(group) - 2 for group in groups) != num_lines:
        raise InvariantError(f"{num_lines} candidates of {len(sources)} sources became {groups}")
    for form, source, *lines in groups:
        for line in lines:
            candidate = parse_candidate(form, line, source)  # type: ignore[arg-type]
            written = as_line(candidate)
            if parse_candidate("moses" if candidate.id else "scores", written, source).text != candidate.text:
                raise InvariantError(f"{line!r} is written as {written!r}")

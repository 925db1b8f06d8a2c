"""The target of the fuzzer that translates with phrases."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import mutators
from harness import InvariantError

from transformer.inference.phrases import ConstraintFile
from transformer.inference.translator import Translator

_WORDS = ("Hund", "eine Katze", "ein", "rot", "in", "in der")


def translate(translator: Translator, rng: random.Random, directory: Path) -> None:
    """Phrases of a file occur in the translations, and lines without any are translated as before."""
    path, tokenizer = directory / "phrases", translator.tokenizer
    lines = ["\t".join(rng.choices(_WORDS, k=rng.randrange(4))) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.5:
        path.write_bytes(mutators.text_file(rng))
    else:
        content = "\n".join(lines).encode()
        path.write_bytes(mutators.mutate(rng, content) if rng.random() < 0.5 else content)
    file = ConstraintFile.read(path)
    file.check(tokenizer)
    texts = [rng.choice(("A man is sleeping.", "Two dogs", mutators.text(rng)[:200])) for _ in file.phrases]
    options: Any = {"nbest": 1, "beam": rng.choice((1, 2, 5)), "max_length_offset": rng.choice((5, 50))}
    options |= {"no_repeat_ngram": rng.choice((0, 0, 1, 2, 3)), "min_length": rng.choice((0, 7))}
    if rng.random() < 0.3:
        options["prefixes"] = [rng.choice(("", "Ein Hund", "eine Katze in")) for _ in texts]
    found = translator.translate_nbest(texts, constraints=file.of(1, len(texts)), **options)
    plain = translator.translate_nbest(texts, **options)
    for phrases, (with_phrases,), (without,) in zip(file.phrases, found, plain, strict=True):
        written = tokenizer.decode(tokenizer.encode(phrases)) if phrases else []
        is_found = math.isfinite(with_phrases.score) or not options["no_repeat_ngram"]
        if is_found and not all(with_phrases.text.count(phrase) >= written.count(phrase) for phrase in written):
            raise InvariantError(f"{with_phrases.text[:50]!r} does not contain {phrases!r}")
        if not is_found and with_phrases.text:
            raise InvariantError(f"{with_phrases.text[:50]!r} has the score of nothing")
        if not phrases and with_phrases.text != without.text and abs(with_phrases.score - without.score) > 1e-4:
            raise InvariantError("a text without constraints changed")

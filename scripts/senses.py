"""Write sentences of the built-in corpus by the sense of a word: python scripts/senses.py [--out DIR]

"Eating" is "essen" of people and "fressen" of animals, and "looking" is "suchen" or "ansehen", by the word behind it:
English words whose translation depends on their sentence. Writes a file per sense, for `transformer inspect RUN --probe
WORD --senses FILE FILE`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.cli import run
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError
from transformer.files import write_atomic

# Of each word, its senses by what their German translations contain.
SENSES = {
    "eating": {"essen": r"\b(ess|iss|isst|gegess)", "fressen": r"\b(fress|friss|gefress)"},
    "looking": {"suchen": r"\b(such|gesuch)", "ansehen": r"(\bsieh|\bseh|ansieh|anseh|angeseh)"},
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/senses"), help="default: %(default)s")
    parser.add_argument("--number", type=int, default=100, metavar="N", help="sentences of each sense (default: 100)")
    parser.add_argument("--split", default="test", help="of the built-in corpus; default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.number < 1:
        raise ConfigError(f"--number {arguments.number} must be at least 1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for word in SENSES:
        for sense, sentences in sentences_by_sense(word, arguments.number, arguments.split).items():
            path = arguments.out / f"{word}.{sense}.en"
            write_atomic(path, "".join(f"{sentence}\n" for sentence in sentences))
            print(path)
    return 0


def sentences_by_sense(word: str, number: int, split: str = "test") -> dict[str, list[str]]:
    """So many English sentences of each sense of a word, in which it stands once."""
    found: dict[str, list[str]] = {sense: [] for sense in SENSES[word]}
    for english, sense in _with_sense(word, split):
        if len(found[sense]) < number:
            found[sense].append(english)
        elif all(len(sentences) == number for sentences in found.values()):
            break
    return found


def _with_sense(word: str, split: str, most: int = 1_000_000) -> Iterator[tuple[str, str]]:
    """Sentences with the word once, whose translation has one of its senses and no other."""
    for english, german in builtin_pairs(split, most):
        if len(re.findall(rf"\b{word}\b", english, re.IGNORECASE)) == 1:
            senses = [sense for sense, pattern in SENSES[word].items() if re.search(pattern, german, re.IGNORECASE)]
            if len(senses) == 1:
                yield english, senses[0]


if __name__ == "__main__":
    run(main)

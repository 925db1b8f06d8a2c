"""Translate text with a trained model: python scripts/translate.py RUN [FILE | -] [--text "..."]

One line out per line in, in order; an empty line gives an empty line.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.cli import run
from transformer.config import override
from transformer.data.corpus import decode_lines, read_lines
from transformer.errors import ConfigError
from transformer.inference.translator import Translator
from transformer.training.process import tune_process

# Enough lines to sort by length and batch well; what is held in memory does not grow with the input.
_LINES_AT_A_TIME = 4000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a Hugging Face hub id")
    parser.add_argument("file", metavar="FILE", nargs="?", help="text, plain or .gz; - is standard input")
    parser.add_argument("--text", action="append", help="translate this instead; may be given again")
    parser.add_argument("--beam", type=int)
    parser.add_argument("--alpha", type=float, help="of the length penalty")
    parser.add_argument("--nbest", type=int, default=1, help="print this many lines per input line, best first")
    parser.add_argument("--scores", action="store_true", help="put the score and a tab before each line")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("auto", "fp32", "bf16"))
    arguments = parser.parse_args(argv)
    if arguments.file is not None and arguments.text is not None:
        raise ConfigError("FILE and --text exclude each other")
    file = arguments.file or "-"

    tune_process()
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    beam = translator.search.beam
    if not 1 <= arguments.nbest <= beam:
        raise ConfigError(f"--nbest {arguments.nbest} must be between 1 and the beam size, {beam}")
    # A person at a terminal waits for each line.
    is_typed = arguments.text is None and file == "-" and sys.stdin.isatty()
    number = 1
    for lines in _chunks(_input(arguments.text, file), 1 if is_typed else _LINES_AT_A_TIME):
        translations = translator.translate_nbest(lines, nbest=arguments.nbest, first_number=number)
        number += len(lines)
        for nbest in translations:
            # Fewer may have been found; the number of lines stays.
            for translation in itertools.islice(itertools.chain(nbest, itertools.repeat(None)), arguments.nbest):
                text, score = ("", -float("inf")) if translation is None else (translation.text, translation.score)
                print(f"{score:.4f}\t{text}" if arguments.scores else text)
        sys.stdout.flush()
    return 0


def _input(texts: Sequence[str] | None, file: str) -> Iterator[str]:
    if texts is not None:
        return iter(texts)
    return decode_lines(sys.stdin.buffer, "standard input") if file == "-" else read_lines(Path(file))


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(lines, size)):
        yield chunk


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

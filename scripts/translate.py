"""Translate text with a trained model: python scripts/translate.py RUN [FILE | -] [--text "..."]

One line out per line in, in order; an empty line gives an empty line. With --output, what has been translated is kept
in FILE.part until all is, and the same command again goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tqdm import tqdm
from typing_extensions import Never

from transformer.cli import run
from transformer.config import override
from transformer.data.corpus import decode_lines, read_lines
from transformer.errors import ConfigError, DataError
from transformer.hub import is_model_id
from transformer.inference.translator import Translation, Translator
from transformer.training.distributed import World, joined
from transformer.training.process import tune_process

# Enough lines to sort by length and batch well; what is held in memory does not grow with the input.
_LINES_AT_A_TIME = 4000
_CHARACTERS_AT_A_TIME = 1 << 24


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("file", metavar="FILE", nargs="?", help="text, plain or .gz; - is standard input")
    parser.add_argument("--text", action="append", help="translate this instead; may be given again")
    parser.add_argument("--beam", type=int)
    parser.add_argument("--alpha", type=float, help="of the length penalty")
    parser.add_argument("--nbest", type=int, default=1, help="print this many lines per input line, best first")
    parser.add_argument("--scores", action="store_true", help="put the score and a tab before each line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file; can be interrupted")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    arguments = parser.parse_args(argv)
    with joined() as world:
        return _translate(arguments, world)


def _translate(arguments: argparse.Namespace, world: World) -> int:
    if arguments.file is not None and arguments.text is not None:
        raise ConfigError("FILE and --text exclude each other")
    file = arguments.file or "-"

    tune_process()
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    if is_model_id(arguments.run) and world.is_main:
        print(f"model: {translator.origin}", file=sys.stderr)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    translator.world = world
    beam = translator.search.beam
    if not 1 <= arguments.nbest <= beam:
        raise ConfigError(f"--nbest {arguments.nbest} must be between 1 and the beam size, {beam}")
    # A person at a terminal waits for each line.
    is_typed = arguments.text is None and file == "-" and sys.stdin.isatty()
    part = arguments.output and arguments.output.with_name(f"{arguments.output.name}.part")
    num_done = world.from_main(lambda: _resume(part, arguments.nbest) if part else 0)
    lines = _input(arguments.text, file)
    if world.is_main and sum(1 for _ in itertools.islice(lines, num_done)) < num_done:
        raise DataError(f"{part}: has {num_done} translations, more than there are lines; delete it to start again")
    chunks = world.each_from_main(_chunks(lines, 1 if is_typed else _LINES_AT_A_TIME))
    translated = _translated(translator, chunks, arguments.nbest, num_done + 1)
    if not world.is_main:
        for _ in translated:
            pass
        return 0
    with _opened(part) as output, _progress(arguments.text, file, part, num_done) as progress:
        for translations in translated:
            for nbest in translations:
                # Fewer may have been found; the number of lines stays.
                for translation in itertools.islice(itertools.chain(nbest, itertools.repeat(None)), arguments.nbest):
                    text, score = ("", -float("inf")) if translation is None else (translation.text, translation.score)
                    print(f"{score:.4f}\t{text}" if arguments.scores else text, file=output)
            output.flush()
            progress.update(len(translations))
    if part:
        part.replace(arguments.output)
    return 0


def _translated(
    translator: Translator, chunks: Iterator[list[str]], nbest: int, first_number: int
) -> Iterator[list[list[Translation]]]:
    for chunk in chunks:
        yield translator.translate_nbest(chunk, nbest=nbest, first_number=first_number)
        first_number += len(chunk)


def _resume(part: Path, lines_per_text: int) -> int:
    """Cut off what is only half written; returns how many texts are translated."""
    num_lines = position = size = 0
    with part.open("a+b") as file:
        file.seek(0)
        for line in file:
            position += len(line)
            num_lines += line.endswith(b"\n")
            if line.endswith(b"\n") and num_lines % lines_per_text == 0:
                size = position
        file.truncate(size)
    num_done = num_lines // lines_per_text
    if num_done:
        print(f"{part}: going on after line {num_done} of the input; delete it to start again", file=sys.stderr)
    return num_done


def _opened(part: Path | None) -> contextlib.AbstractContextManager[TextIO]:
    return part.open("a", encoding="utf-8", newline="\n") if part else contextlib.nullcontext(sys.stdout)


def _progress(texts: Sequence[str] | None, file: str, part: Path | None, num_done: int) -> tqdm[Never]:
    """A bar on a terminal that shows nothing else, for input whose length can be known."""
    is_shown = texts is None and file != "-" and sys.stderr.isatty() and (part is not None or not sys.stdout.isatty())
    total = sum(1 for _ in read_lines(Path(file))) if is_shown else None
    return tqdm(total=total, initial=num_done, unit=" lines", dynamic_ncols=True, disable=not is_shown)


def _input(texts: Sequence[str] | None, file: str) -> Iterator[str]:
    if texts is not None:
        return iter(texts)
    return decode_lines(sys.stdin.buffer, "standard input") if file == "-" else read_lines(Path(file))


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    num_characters = 0
    for line in lines:
        chunk.append(line)
        num_characters += len(line)
        if len(chunk) == size or num_characters >= _CHARACTERS_AT_A_TIME:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

"""Translate text with a trained model: python scripts/translate.py RUN [FILE | -] [--text "..."]

One line out per line in, in order; an empty line gives an empty line. With --output, what has been translated is kept
in FILE.part until all is, and the same command again goes on from there; standard input must then come again from its
beginning.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm
from typing_extensions import Never

from transformer.config import override
from transformer.data.corpus import decode_lines, in_chunks, read_lines
from transformer.errors import ConfigError, DataError
from transformer.hub import is_model_id
from transformer.inference.resumable import ResumableOutput, resumable_output
from transformer.inference.translator import Translation, Translator
from transformer.training.distributed import World, joined
from transformer.training.process import tune_process

# Enough lines to sort by length and batch well; what is held in memory does not grow with the input.
_LINES_AT_A_TIME = 4000
_CHARACTERS_AT_A_TIME = 1 << 20


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
    tune_process()
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    if is_model_id(arguments.run) and world.is_main:
        print(f"model: {translator.origin}", file=sys.stderr)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    translator.world = world
    beam = translator.search.beam
    if not 1 <= arguments.nbest <= beam:
        raise ConfigError(f"--nbest {arguments.nbest} must be between 1 and the beam size, {beam}")
    if not world.is_main:
        chunks: Iterator[tuple[int, list[str]]] = world.each_from_main(())
        for number, lines in chunks:
            translator.translate_nbest(lines, nbest=arguments.nbest, first_number=number)
        return 0
    with _output(arguments, translator) as output:
        _write(arguments, translator, output)
    return 0


def _output(
    arguments: argparse.Namespace, translator: Translator
) -> contextlib.AbstractContextManager[ResumableOutput | None]:
    if arguments.output is None:
        return contextlib.nullcontext()
    settings = translator.identity() | {"nbest": arguments.nbest, "scores": arguments.scores}
    return resumable_output(arguments.output, settings)


def _write(arguments: argparse.Namespace, translator: Translator, output: ResumableOutput | None) -> None:
    file = arguments.file or "-"
    # A person at a terminal waits for each line.
    is_typed = arguments.text is None and file == "-" and sys.stdin.isatty()
    num_done = output.num_done if output else 0

    def remaining() -> Iterator[str]:
        lines = _input(arguments.text, file)
        return output.remaining(lines) if output else lines

    total = None
    if arguments.text is None and file != "-" and Path(file).is_file():  # which can be read twice, unlike a pipe
        # What cannot be translated is better known now than after hours.
        total = num_done + _check(translator, remaining(), file, num_done + 1)
    chunks = translator.world.each_from_main(_numbered(remaining(), num_done + 1, 1 if is_typed else _LINES_AT_A_TIME))
    if output and num_done:
        print(f"{output.part}: going on after line {num_done} of the input; delete it to start again", file=sys.stderr)
    with _progress(total, num_done, is_stdout=output is None) as progress:
        for number, lines in chunks:
            translations = translator.translate_nbest(lines, nbest=arguments.nbest, first_number=number)
            text = _as_text(translations, arguments.nbest, with_scores=arguments.scores)
            if output:
                output.add(lines, text)
            else:
                print(text, end="", flush=True)
            progress.update(len(lines))
    if output:
        output.complete()


def _check(translator: Translator, lines: Iterator[str], name: str, first_number: int) -> int:
    """How many lines there are. DataError, naming the first one that cannot be translated."""
    num_lines = 0
    for number, chunk in _numbered(lines, first_number, _LINES_AT_A_TIME):
        try:
            translator.check(chunk, first_number=number)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        num_lines += len(chunk)
    return num_lines


def _as_text(translations: Sequence[Sequence[Translation]], nbest: int, *, with_scores: bool) -> str:
    lines = []
    for found in translations:
        # Fewer may have been found; the number of lines stays.
        for translation in itertools.islice(itertools.chain(found, itertools.repeat(None)), nbest):
            text, score = ("", -float("inf")) if translation is None else (translation.text, translation.score)
            lines.append(f"{score:.4f}\t{text}\n" if with_scores else f"{text}\n")
    return "".join(lines)


def _progress(total: int | None, num_done: int, *, is_stdout: bool) -> tqdm[Never]:
    """A bar on a terminal that shows nothing else, for input whose length can be known."""
    is_shown = total is not None and sys.stderr.isatty() and not (is_stdout and sys.stdout.isatty())
    return tqdm(total=total, initial=num_done, unit=" lines", dynamic_ncols=True, disable=not is_shown)


def _input(texts: Sequence[str] | None, file: str) -> Iterator[str]:
    if texts is not None:
        return iter(texts)
    return decode_lines(sys.stdin.buffer, "standard input") if file == "-" else read_lines(Path(file))


def _numbered(lines: Iterator[str], first_number: int, size: int) -> Iterator[tuple[int, list[str]]]:
    """The lines in chunks, each with the number of its first line."""
    for chunk in in_chunks(lines, size, _CHARACTERS_AT_A_TIME, len):
        yield first_number, chunk
        first_number += len(chunk)

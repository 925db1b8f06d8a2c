"""Translate text with a trained model: transformer translate RUN [FILE | -] [--text "..."]

One line out per line in, in order; an empty line gives an empty line, and a line of which the model knows no word is
copied. Lines that arrive through a pipe are translated as they come. With --output FILE, finished lines are kept in
FILE.part, from which the same command resumes; standard input must then be given again from its beginning.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from transformer.commands.outputs import check_output
from transformer.commands.search_options import add_search_options, apply_search_options, print_notes
from transformer.commands.selection import report_checkpoint
from transformer.config import load_config
from transformer.data.corpus import in_chunks
from transformer.errors import ConfigError, DataError
from transformer.hub import is_model_id
from transformer.inference.arguments import DEVICES, PRECISIONS
from transformer.inference.line_input import LineInput, file_input, texts_input
from transformer.inference.resumable import ResumableOutput, resumable_output
from transformer.inference.sources import InputNotes
from transformer.inference.translator import Translation, Translator
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext, init_distributed

# Enough lines to batch well by length; memory use does not grow with the input.
_LINES_AT_A_TIME = 4000
_CHARACTERS_AT_A_TIME = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("file", metavar="FILE", nargs="?", help="text, plain or compressed; - is standard input")
    parser.add_argument("--text", action="append", help="translate this instead; may be repeated")
    add_search_options(parser)
    parser.add_argument("--nbest", type=int, default=1, help="print this many lines per input line, best first")
    parser.add_argument("--scores", action="store_true", help="put the score and a tab before each line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file; resumable")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    arguments = parser.parse_args(argv)
    with init_distributed() as context:
        return _translate(arguments, context)


def _translate(arguments: argparse.Namespace, context: DistributedContext) -> int:
    if arguments.file is not None and arguments.text is not None:
        raise ConfigError("FILE and --text exclude each other")
    source = _source(arguments) if context.is_main else None
    tune_process()
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    apply_search_options(arguments, translator)
    translator.context = context
    if not 1 <= arguments.nbest <= translator.search.beam:
        raise ConfigError(f"--nbest {arguments.nbest} must be between 1 and the beam size, {translator.search.beam}")
    if context.is_main:
        report_checkpoint(arguments.run, str(translator.origin))
    if source is None:
        for number, lines in context.stream_from_main(_numbered((), 1)):
            translator.translate_nbest(lines, nbest=arguments.nbest, first_number=number)
        return 0
    path, settings = arguments.output, {"nbest": arguments.nbest, "scores": arguments.scores}
    with resumable_output(path, translator.identity() | settings) if path else nullcontext() as output:
        _write(arguments, source, translator, output)
    return 0


def _source(arguments: argparse.Namespace) -> LineInput:
    """Where the lines come from, which may not be where they go to."""
    source = file_input(arguments.file or "-") if arguments.text is None else texts_input(arguments.text)
    if (output := arguments.output) is not None:
        # The author of a model from the hub has another corpus, whatever the name.
        config = None if is_model_id(arguments.run) else locate_checkpoint(arguments.run)[0] / "config.yaml"
        data = load_config(config, saved=True).data if config else None
        for suffix in ("", ".part", ".part.json"):
            check_output(output.with_name(f"{output.name}{suffix}"), [source.path] if source.path else [], data)
    return source


def _write(
    arguments: argparse.Namespace, source: LineInput, translator: Translator, output: ResumableOutput | None
) -> None:
    num_done, notes, total = output.num_done if output else 0, InputNotes(), None

    def remaining() -> Iterator[str]:
        lines = source.read()
        return output.remaining(lines) if output else lines

    translator.notes = notes
    if source.pace == "file":  # which can be read twice
        # A line that cannot be translated is an error now, not after hours.
        total = num_done + _check(translator, remaining(), source.name, num_done + 1)
        print_notes(notes)
        translator.notes = None
    chunks = source.chunks(remaining(), _LINES_AT_A_TIME, _CHARACTERS_AT_A_TIME)
    if output and num_done:
        print(f"{output.part}: going on after line {num_done} of the input; delete it to start again", file=sys.stderr)
    # A bar for input of known length, on a terminal that shows nothing else.
    has_bar = total is not None and sys.stderr.isatty() and not (output is None and sys.stdout.isatty())
    with tqdm(total=total, initial=num_done, unit=" lines", dynamic_ncols=True, disable=not has_bar) as progress:
        for number, lines in translator.context.stream_from_main(_numbered(chunks, num_done + 1)):
            translations = translator.translate_nbest(lines, nbest=arguments.nbest, first_number=number)
            text = _as_text(translations, arguments.nbest, with_scores=arguments.scores)
            if output:
                output.add(lines, text)
            else:
                print(text, end="", flush=True)
            progress.update(len(lines))
    if output:
        output.complete()
    if total is None:
        print_notes(notes)


def _check(translator: Translator, lines: Iterator[str], name: str, first_number: int) -> int:
    """Count the lines; DataError names the first one that cannot be translated."""
    reader, num_lines = translator.source_reader(), 0
    for number, chunk in _numbered(in_chunks(lines, _LINES_AT_A_TIME, _CHARACTERS_AT_A_TIME, len), first_number):
        try:
            reader.read(chunk, first_number=number)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        num_lines += len(chunk)
    return num_lines


def _as_text(translations: Sequence[Sequence[Translation]], nbest: int, *, with_scores: bool) -> str:
    lines = []
    for found in translations:
        # Always nbest lines, even if the search found fewer.
        rows = [(x.text, x.score) for x in found] + [("", -math.inf)] * (nbest - len(found))
        lines += [f"{score:.4f}\t{text}\n" if with_scores else f"{text}\n" for text, score in rows]
    return "".join(lines)


def _numbered(chunks: Iterable[list[str]], first_number: int) -> Iterator[tuple[int, list[str]]]:
    """Chunks, each with the number of its first line."""
    for chunk in chunks:
        yield first_number, chunk
        first_number += len(chunk)

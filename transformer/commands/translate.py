"""Translate text with a trained model: transformer translate RUN [FILE | -] [--text "..."]

One line out per line in, in order; an empty line gives an empty line, and a line of which the model knows no word is
copied. Lines that arrive through a pipe are translated as they come. With --output FILE, finished lines are kept in
FILE.part, from which the same command resumes; standard input must then be given again from its beginning.

With --json, a line is an object: "line" (its number), "source", and "translations", a list of objects with "text",
"score", "log_prob" and "tokens"; and "precision", unless it is float32. The tokens end with </s>, or where the line is
translated in parts, each part does; an empty or copied line has none. With --alignment, "alignment" has pairs [word of
the line, word of the translation].

A FILE.srt, .html or .docx is a document: its sentences are translated, and all else is kept. --format text does so with
plain text in paragraphs.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from transformer.commands.document_files import add_format_option, chosen_format, translate_file
from transformer.commands.engine import (
    add_engine_option,
    check_engine_options,
    check_engine_output,
    check_engine_search,
    load_engine,
)
from transformer.commands.json_lines import json_lines
from transformer.commands.search_options import (
    add_sampling_options,
    add_search_options,
    apply_search_options,
    chosen_sampling,
    origins,
    precision_beside,
    print_notes,
)
from transformer.commands.selection import report_checkpoint
from transformer.data.corpus import in_chunks
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import align_translations, checked_layer, single_model
from transformer.inference.arguments import DEVICES, PRECISIONS, check_count
from transformer.inference.line_input import LineInput, file_input, texts_input
from transformer.inference.phrases import ConstraintFile, TextConstraints, unmet_messages
from transformer.inference.prefixes import Prefixes, PrefixReader
from transformer.inference.resumable import ResumableOutput, resumable_output
from transformer.inference.sampling import Sampling
from transformer.inference.sources import InputNotes
from transformer.inference.translator import Translation, Translator
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
    add_format_option(parser)
    add_search_options(parser)
    beginning = parser.add_mutually_exclusive_group()
    beginning.add_argument("--prefix", metavar="TEXT", help="begin each translation with this text")
    beginning.add_argument(
        "--prefix-file", type=Path, metavar="FILE", help="begin the translation of each line with that line of FILE"
    )
    parser.add_argument(
        "--constraints",
        type=Path,
        metavar="FILE",
        help="for each line, the phrases that its translation must contain, separated by tabs",
    )
    add_sampling_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--nbest", type=int, metavar="N", default=1, help="print N translations per line of the input, best first"
    )
    output.add_argument("--scores", action="store_true", help="put the score and a tab before each line")
    output.add_argument("--json", action="store_true", help="print a JSON object per input line")
    output.add_argument("--token-scores", action="store_true", help="add log P of each token to the JSON objects")
    output.add_argument("--alignment", action="store_true", help="add word alignments to the JSON objects")
    output.add_argument(
        "--alignment-layer", type=int, metavar="N", help="decoder layer to align by, from 1; default: the last"
    )
    output.add_argument("--output", type=Path, metavar="FILE", help="write to this file; resumable")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    add_engine_option(parser)
    arguments = parser.parse_intermixed_args(argv)  # FILE may stand after options
    with init_distributed() as context:
        return _translate(arguments, context)


def _translate(arguments: argparse.Namespace, context: DistributedContext) -> int:
    if (form := chosen_format(arguments)) is not None:
        return translate_file(arguments, form, context)
    sampling = _check_options(arguments)
    source = _source(arguments) if context.is_main else None
    constraints = ConstraintFile.read(arguments.constraints if context.is_main else None)
    tune_process(inference=True)
    translator = load_engine(arguments)
    apply_search_options(arguments, translator)
    check_engine_search(arguments, translator)
    translator.context = context
    if sampling is None and arguments.nbest > translator.search.beam:
        raise ConfigError(
            f"--nbest {arguments.nbest} must be between 1 and the beam size, {translator.search.beam}: raise --beam, "
            "or draw samples by --sample"
        )
    if context.is_main:
        for given, origin in zip([arguments.run, *arguments.ensemble], origins(translator), strict=True):
            report_checkpoint(given, origin)
    job = _Job(arguments, translator, sampling, constraints, _alignment_layer(arguments, translator))
    if source is None:
        for chunk in context.stream_from_main(job.numbered((), 1, PrefixReader(None))):
            job.as_text(chunk, job.translate(chunk))  # alignments are computed by all processes too
        return 0
    constraints.check(translator.tokenizer)
    path = arguments.output
    with resumable_output(path, job.settings()) if path else nullcontext() as output:
        _write(job, source, output)
    return 0


def _check_options(arguments: argparse.Namespace) -> Sampling | None:
    """How to sample, if at all. ConfigError for options that do not go together."""
    if arguments.file is not None and arguments.text is not None:
        raise ConfigError("FILE and --text exclude each other")
    if arguments.json and arguments.scores:
        raise ConfigError("--scores is for plain lines; with --json each translation has its score")
    for option in ("token_scores", "alignment"):
        if getattr(arguments, option) and not arguments.json:
            raise ConfigError(f"--{option.replace('_', '-')} is for --json")
    if arguments.alignment_layer is not None and not arguments.alignment:
        raise ConfigError("--alignment-layer needs --alignment")
    if arguments.sample and arguments.constraints is not None:
        raise ConfigError("--constraints and --sample exclude each other: samples are not steered to phrases")
    check_engine_options(arguments)
    check_count("--nbest", arguments.nbest)
    return chosen_sampling(arguments)


def _alignment_layer(arguments: argparse.Namespace, translator: Translator) -> int | None:
    """The decoder layer to align by, if at all. ConfigError if there is none such, or for an ensemble."""
    if not arguments.alignment:
        return None
    return checked_layer(single_model(translator), arguments.alignment_layer, "--alignment-layer")


class _Chunk(NamedTuple):
    """Lines with all that belongs to them."""

    number: int  # of the first
    lines: list[str]
    prefixes: list[str] | None
    constraints: TextConstraints | None


@dataclass(frozen=True)
class _Job:
    """What to do with the lines."""

    arguments: argparse.Namespace
    translator: Translator
    sampling: Sampling | None
    constraints: ConstraintFile
    alignment_layer: int | None  # None: no alignments

    @property
    def prefixes(self) -> Prefixes:
        return Prefixes(self.arguments.prefix, self.arguments.prefix_file)

    def numbered(self, chunks: Iterable[list[str]], first_number: int, prefixes: PrefixReader) -> Iterator[_Chunk]:
        for lines in chunks:
            constraints = self.constraints.of(first_number, len(lines))
            yield _Chunk(first_number, lines, prefixes.take(len(lines)), constraints)
            first_number += len(lines)

    def translate(self, chunk: _Chunk) -> list[list[Translation]]:
        options: Any = {"nbest": self.arguments.nbest, "token_scores": self.arguments.token_scores}
        options |= {"sampling": self.sampling, "prefixes": chunk.prefixes, "constraints": chunk.constraints}
        return self.translator.translate_nbest(chunk.lines, first_number=chunk.number, **options)

    def as_text(self, chunk: _Chunk, translations: list[list[Translation]]) -> str:
        if self.arguments.json:
            links = None
            if self.alignment_layer is not None:
                links = align_translations(self.translator, chunk.lines, translations, layer=self.alignment_layer)
            tokenizer = self.translator.tokenizer
            options: Any = {
                "first_number": chunk.number,
                "alignments": links,
                "made": precision_beside(self.translator),
            }
            return json_lines(chunk.lines, translations, tokenizer, **options)
        return _as_text(translations, self.arguments.nbest, with_scores=self.arguments.scores)

    def settings(self) -> dict[str, object]:
        """On what the output depends besides the lines."""
        options = {"nbest": self.arguments.nbest, "scores": self.arguments.scores}
        later = {name: True for name in ("json", "token_scores") if getattr(self.arguments, name)}
        aligned = {} if self.alignment_layer is None else {"alignment_layer": self.alignment_layer}
        drawn = {} if self.sampling is None else {"sampling": dataclasses.asdict(self.sampling)}
        return (
            self.translator.identity()
            | options
            | later
            | aligned
            | drawn
            | self.prefixes.settings()
            | self.constraints.settings()
        )


def _source(arguments: argparse.Namespace) -> LineInput:
    """Where the lines come from, which may not be where they go to."""
    source = file_input(arguments.file or "-") if arguments.text is None else texts_input(arguments.text)
    Prefixes(path=arguments.prefix_file).reader()  # so that a missing file is an error now
    if arguments.output is not None:
        inputs = [x for x in (source.path, arguments.prefix_file, arguments.constraints) if x is not None]
        check_engine_output(arguments, inputs)
    return source


def _write(job: _Job, source: LineInput, output: ResumableOutput | None) -> None:
    num_done, notes, total, translator = output.num_done if output else 0, InputNotes(), None, job.translator

    def remaining() -> Iterator[str]:
        lines = source.read()
        return output.remaining(lines) if output else lines

    translator.notes = notes
    if source.pace == "file":  # which can be read twice
        # A line that cannot be translated is an error now, not after hours.
        total = num_done + _check(job, remaining(), source.name, num_done)
        print_notes(notes)
        translator.notes = None
    chunks = source.chunks(remaining(), _LINES_AT_A_TIME, _CHARACTERS_AT_A_TIME)
    if output and num_done:
        print(f"{output.part}: going on after line {num_done} of the input; delete it to start again", file=sys.stderr)
    prefixes = job.prefixes.reader(num_done)
    # A bar for input of known length, on a terminal that shows nothing else.
    has_bar = total is not None and sys.stderr.isatty() and not (output is None and sys.stdout.isatty())
    with tqdm(total=total, initial=num_done, unit=" lines", dynamic_ncols=True, disable=not has_bar) as progress:
        for chunk in translator.context.stream_from_main(job.numbered(chunks, num_done + 1, prefixes)):
            translations = job.translate(chunk)
            for message in unmet_messages(chunk.constraints, translations, first_number=chunk.number):
                progress.write(message, file=sys.stderr)
            text = job.as_text(chunk, translations)
            if output:
                output.add(chunk.lines, text)
            else:
                print(text, end="", flush=True)
            progress.update(len(chunk.lines))
            num_done += len(chunk.lines)
    prefixes.finish()
    job.constraints.finish(num_done)
    if output:
        output.complete()
    if total is None:
        print_notes(notes)


def _check(job: _Job, lines: Iterator[str], name: str, num_done: int) -> int:
    """Count the lines; DataError names the first one that cannot be translated."""
    prefixes, num_lines = job.prefixes.reader(num_done), 0
    chunks = in_chunks(lines, _LINES_AT_A_TIME, _CHARACTERS_AT_A_TIME, len)
    for chunk in job.numbered(chunks, num_done + 1, prefixes):
        try:
            job.translator.check(chunk.lines, chunk.prefixes, chunk.constraints, first_number=chunk.number)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        num_lines += len(chunk.lines)
    prefixes.finish()
    job.constraints.finish(num_done + num_lines)
    return num_lines


def _as_text(translations: Sequence[Sequence[Translation]], nbest: int, *, with_scores: bool) -> str:
    lines = []
    for found in translations:
        # Always nbest lines, even if the search found fewer.
        rows = [(x.text, x.score) for x in found] + [("", -math.inf)] * (nbest - len(found))
        lines += [f"{score:.4f}\t{text}\n" if with_scores else f"{text}\n" for text, score in rows]
    return "".join(lines)

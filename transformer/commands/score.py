"""Score given translations with a trained model: transformer score RUN --src FILE --tgt FILE

For each pair a line of log P (nats, </s> included), score (log P over length penalty), perplexity per piece and number
of pieces, separated by tabs; the sums are printed on standard error, or alone with --summary. With --nbest FILE, the
candidates of an n-best list are scored, and with --rerank the best one of each source is printed. With --align, words
are aligned by the model's attention, as "0-0 1-2" (source-target).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from transformer.cli import print_aside
from transformer.commands.outputs import check_resumable_output
from transformer.commands.search_options import add_tag_options, check_alpha, choose_tag
from transformer.commands.selection import report_checkpoint
from transformer.config import override
from transformer.data.corpus import in_chunks
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import STEPS
from transformer.inference.arguments import DEVICES, PRECISIONS
from transformer.inference.forced import TOO_LONG_PAIR
from transformer.inference.line_input import LineInput, file_input
from transformer.inference.paired_input import nbest_input, paired_input
from transformer.inference.resumable import ResumableOutput, resumable_output
from transformer.inference.score_lines import NbestLines, PairLines, WordLinks, Work
from transformer.inference.translator import Translator
from transformer.training.device import tune_process
from transformer.training.distributed import DistributedContext, init_distributed

# Enough pairs to batch well by length; memory use does not grow with the input.
_ITEMS_AT_A_TIME = 4000
_CHARACTERS_AT_A_TIME = 1 << 20
# Options that belong to another one, with what they are when they are not given.
_BELONGS_TO: dict[str, dict[str, object]] = {
    "nbest": {"nbest_size": None, "rerank": False, "weight": None},
    "align": {"layer": None, "step": STEPS[0]},
}
_EXCLUDES = {
    "nbest": ("tgt", "align", "tokens", "summary"),
    "align": ("tokens", "summary", "alpha"),
    "summary": ("tokens", "output"),
    "rerank": ("json",),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    with init_distributed() as context:
        return _score(arguments, context)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--src", metavar="FILE", required=True, help="a sentence per line, plain or compressed, or -")
    parser.add_argument("--tgt", metavar="FILE", help="their translations, plain or compressed, or -")
    parser.add_argument(
        "--reverse", action="store_true", help="the model translates from --tgt to --src: log P(src|tgt)"
    )
    parser.add_argument("--tokens", action="store_true", help="log P and rank of each piece")
    parser.add_argument("--summary", action="store_true", help="print the sums of the corpus only")
    parser.add_argument("--json", action="store_true", help="print a JSON object per line")
    parser.add_argument(
        "--nbest", metavar="FILE", help="score these candidates; may have scores, or Moses' form with ids"
    )
    parser.add_argument("--nbest-size", type=int, metavar="K", help="candidates per source of a list without ids")
    parser.add_argument("--rerank", action="store_true", help="print the best candidate of each source")
    parser.add_argument("--weight", type=float, metavar="W", help="add W times the model's score to that of the list")
    parser.add_argument("--align", action="store_true", help="print word alignments")
    parser.add_argument("--layer", type=int, metavar="N", help="decoder layer to align by, from 1; default: the last")
    parser.add_argument("--step", choices=STEPS, default=STEPS[0], help="of the decoder, to align by")
    parser.add_argument("--alpha", type=float, help="exponent of the length penalty")
    add_tag_options(parser)
    parser.add_argument("--max-source-length", type=int, metavar="N", help="the most pieces of a source, </s> included")
    parser.add_argument("--too-long", choices=TOO_LONG_PAIR, default="error", help="do not score longer pairs")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file; resumable")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """ConfigError for options that do not go together."""
    given = vars(arguments)
    for owner, owned in _BELONGS_TO.items():
        for name, default in owned.items():
            if given[name] != default and not given[owner]:
                raise ConfigError(f"{_option(name)} needs {_option(owner)}")
    for name, others in _EXCLUDES.items():
        for other in others:
            if given[name] and given[other] is not None and given[other] is not False:
                raise ConfigError(f"{_option(name)} and {_option(other)} exclude each other")
    if arguments.tgt is None and arguments.nbest is None:
        raise ConfigError("give the translations: --tgt FILE or --nbest FILE")
    if arguments.weight is not None and not 0 < arguments.weight < float("inf"):
        raise ConfigError(f"--weight {arguments.weight} must be a finite number above 0")
    if arguments.nbest_size is not None and arguments.nbest_size < 1:
        raise ConfigError(f"--nbest-size {arguments.nbest_size} must be at least 1")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _score(arguments: argparse.Namespace, context: DistributedContext) -> int:
    source = _source(arguments) if context.is_main else None
    tune_process(inference=True)
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    translator.search = override(
        translator.search, alpha=arguments.alpha, max_source_length=arguments.max_source_length
    )
    check_alpha(arguments.alpha, translator.search)
    choose_tag(arguments, translator)
    translator.source_reader()  # so that a tag that the model does not know is an error now
    translator.context = context
    work = _work(arguments, translator)
    if context.is_main:
        report_checkpoint(arguments.run, str(translator.origin))
    if source is None:
        for number, items in context.stream_from_main(_numbered(iter(()), 1)):
            work.lines(items, number)
        return 0
    path, settings = arguments.output, _settings(arguments, translator)
    with resumable_output(path, settings) if path else nullcontext() as output:
        _write(source, work, translator, output)
    return 0


def _work(arguments: argparse.Namespace, translator: Translator) -> Work:
    options = {"reverse": arguments.reverse, "too_long": arguments.too_long, "as_json": arguments.json}
    if arguments.nbest:
        return NbestLines(translator, weight=arguments.weight, rerank=arguments.rerank, **options)
    if arguments.align:
        return WordLinks(translator, layer=arguments.layer, step=arguments.step, **options)
    return PairLines(translator, with_tokens=arguments.tokens, summary_only=arguments.summary, **options)


def _settings(arguments: argparse.Namespace, translator: Translator) -> dict[str, object]:
    """What the output depends on besides the input."""
    identity = translator.identity()
    names = ("reverse", "tokens", "json", "nbest_size", "rerank", "weight", "align", "layer", "step", "too_long")
    return {
        **{name: identity[name] for name in ("weights", "tokenizer", "precision")},
        "alpha": translator.search.alpha,
        **({} if translator.tag is None else {"tag": translator.tag}),
        **{name: getattr(arguments, name) for name in names},
    }


def _source(arguments: argparse.Namespace) -> LineInput:
    """The input. ConfigError if the output would replace a part of it."""
    src, other = _lines_of(arguments.src), _lines_of(arguments.nbest or arguments.tgt)
    if (output := arguments.output) is not None:
        inputs = [x.path for x in (src, other) if x.path]
        check_resumable_output(output, inputs, arguments.run)
    return nbest_input(src, other, arguments.nbest_size) if arguments.nbest else paired_input(src, other)


def _lines_of(file: str) -> LineInput:
    try:
        return file_input(file)
    except DataError as error:
        raise DataError(str(error).partition("; did you mean")[0]) from None  # there is no such option here


def _write(source: LineInput, work: Work, translator: Translator, output: ResumableOutput | None) -> None:
    num_done, total = output.num_done if output else 0, None

    def remaining() -> Iterator[str]:
        items = source.read()
        return output.remaining(items) if output else items

    if source.pace == "file":  # which can be read twice
        # A pair that cannot be scored, or a missing line, is an error now, not after hours.
        total = num_done
        for number, items in _numbered(
            in_chunks(remaining(), _ITEMS_AT_A_TIME, _CHARACTERS_AT_A_TIME, len), num_done + 1
        ):
            work.check(items, number)
            total += len(items)
        work.print_notes()
    chunks = source.chunks(remaining(), _ITEMS_AT_A_TIME, _CHARACTERS_AT_A_TIME)
    if output and num_done:
        print(f"{output.part}: going on after line {num_done} of the input; delete it to start again", file=sys.stderr)
    # A bar for input of known length, on a terminal that shows nothing else.
    has_bar = total is not None and sys.stderr.isatty() and not (output is None and sys.stdout.isatty())
    with tqdm(total=total, initial=num_done, unit=" lines", dynamic_ncols=True, disable=not has_bar) as progress:
        for number, items in translator.context.stream_from_main(_numbered(chunks, num_done + 1)):
            text = work.lines(items, number)
            if output:
                output.add(items, text)
            else:
                print(text, end="", flush=True)
            progress.update(len(items))
    if output:
        output.complete()
    if total is None:
        work.print_notes()
    if summary := work.summary(num_done):
        print(summary) if work.summary_only else print_aside(summary)


def _numbered(chunks: Iterator[list[str]], first_number: int) -> Iterator[tuple[int, list[str]]]:
    """Chunks, each with the number of its first line."""
    for chunk in chunks:
        yield first_number, chunk
        first_number += len(chunk)

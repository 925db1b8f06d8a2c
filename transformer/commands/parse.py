"""Parse sentences with a trained model: transformer parse RUN [FILE | -] [--evaluate]

One bracketed tree out per line in; an empty line gives an empty line. Words and punctuation marks are separated by
spaces, as in the treebank; parts of speech are XX, except for punctuation. With --evaluate, FILE contains trees, one
per line (default: the test split of the run's corpus), and the F1 of parsing their sentences is printed.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.commands.selection import report_checkpoint
from transformer.config import load_config, override
from transformer.data.corpus import decode_lines, load_split, read_lines
from transformer.errors import ConfigError, DataError
from transformer.inference.arguments import DEVICES, PRECISIONS
from transformer.inference.translator import Translator
from transformer.parsing.f1 import score_outputs
from transformer.parsing.treebank import sentence_pairs
from transformer.parsing.trees import bracketed, restore
from transformer.progress import stage
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.device import tune_process


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run or checkpoint directory")
    parser.add_argument("file", metavar="FILE", nargs="?", help="plain or compressed; - is standard input")
    parser.add_argument("--evaluate", action="store_true", help="print F1 instead of trees")
    parser.add_argument("--split", help="evaluate on this split of the run's corpus")
    parser.add_argument("--beam", type=int, metavar="N")
    parser.add_argument("--alpha", type=float, help="exponent of the length penalty")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS[:-1])
    arguments = parser.parse_intermixed_args(argv)
    if arguments.split is not None and (arguments.file is not None or not arguments.evaluate):
        raise ConfigError("--split goes with --evaluate, and without FILE")

    tune_process(inference=True)
    checkpoint, origin = locate_checkpoint(arguments.run)
    translator = Translator.load(checkpoint, device=arguments.device, precision=arguments.precision)
    translator.search = override(translator.search, beam=arguments.beam, alpha=arguments.alpha)
    if arguments.evaluate:
        name, pairs = _reference_trees(arguments, checkpoint)
        report_checkpoint(arguments.run, origin)
        _evaluate(translator, name, pairs, checkpoint)
    else:
        # Words that are brackets, written as the treebank does.
        lines = [line.replace("(", "-LRB-").replace(")", "-RRB-") for line in _lines(arguments.file or "-")]
        report_checkpoint(arguments.run, origin)
        _parse(translator, lines)
    return 0


def _reference_trees(arguments: argparse.Namespace, checkpoint: Path) -> tuple[str, list[tuple[str, str]]]:
    """Name and pairs of the trees to evaluate on. DataError if there are none."""
    if arguments.file is not None:
        name, pairs = arguments.file, list(sentence_pairs(_lines(arguments.file), arguments.file))
    else:
        data = load_config(checkpoint / "config.yaml", saved=True).data
        corpus = load_split(data, arguments.split or data.test_split)
        name, pairs = corpus.name, list(corpus)
    if not pairs:
        raise DataError(f"{name}: holds no trees")
    return name, pairs


def _parse(translator: Translator, lines: list[str]) -> None:
    with stage("parsing", "sentences", len(lines)) as translator.progress:
        outputs = translator.translate(lines)
    for line, output in zip(lines, outputs, strict=True):
        print(bracketed(restore(output, line.split())) if line.split() else "")


def _evaluate(translator: Translator, name: str, pairs: list[tuple[str, str]], checkpoint: Path) -> None:
    began = time.perf_counter()
    with stage("parsing", "sentences", len(pairs)) as translator.progress:
        outputs = translator.translate([source for source, _ in pairs])
    seconds = time.perf_counter() - began
    score, num_repaired = score_outputs(outputs, pairs)
    search = translator.search
    print(f"{checkpoint} on {name}: {len(pairs)} sentences, beam {search.beam}, alpha {search.alpha}")
    print(f"parsed in {seconds:.1f} s, {len(pairs) / seconds:.1f} sentences/s; malformed: {num_repaired}")
    print(f"brackets: {score.matched} of {score.predicted} right, {score.reference} in the reference")
    print(f"complete match = {score.complete_match:.2f} (sentences skipped: {score.skipped})")
    print(f"precision = {score.precision:.2f}, recall = {score.recall:.2f}")
    print(f"F1 = {score.f1:.2f}")


def _lines(file: str) -> Iterator[str]:
    return decode_lines(sys.stdin.buffer, "standard input") if file == "-" else read_lines(Path(file))

"""Measure word alignments of a model by layer: python scripts/alignment.py RUN

Prints the alignment error rate (AER; Och and Ney 2003) of the attention of each decoder layer, averaged over heads, by
the step that predicts a piece and by the one that reads it. The pairs are those of the built-in corpus, whose lexicon
gives gold alignments, or with --src, --tgt and --gold of files: a line of links for each pair, counted from 0, "0-0"
sure and "0?1" possible.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.cli import run
from transformer.data.builtin import builtin_pairs
from transformer.data.builtin_alignment import GoldLinks, alignment_error_rate, gold_alignment
from transformer.data.text_files import aligned_lines, read_lines
from transformer.errors import ConfigError, DataError
from transformer.inference.alignment import STEPS, word_alignment
from transformer.inference.translator import Translator

_LINK = re.compile(r"(\d{1,9})([-?])(\d{1,9})")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory, or a hub id as owner/name@revision")
    parser.add_argument("--pairs", type=int, metavar="N", default=1000, help="of the built-in test split")
    parser.add_argument("--src", type=Path, metavar="FILE", help="a sentence per line")
    parser.add_argument("--tgt", type=Path, metavar="FILE", help="their translations")
    parser.add_argument("--gold", type=Path, metavar="FILE", help="their alignments")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("auto", "fp32", "bf16", "int8"))
    arguments = parser.parse_args(argv)
    pairs, gold = _pairs(arguments)
    translator = Translator.load(arguments.run, device=arguments.device, precision=arguments.precision)
    sources, targets = ([pair[i] for pair in pairs] for i in (0, 1))
    rates = {
        step: [
            alignment_error_rate(word_alignment(translator, sources, targets, layer=layer, step=step), gold)
            for layer in range(1, len(translator.model.decoder.layers) + 1)
        ]
        for step in STEPS
    }
    if arguments.json:
        print(json.dumps({"pairs": len(pairs), "links": sum(len(links.sure) for links in gold), "aer": rates}))
        return 0
    print(f"| layer | {' | '.join(STEPS)} |\n| ---: |{' ---: |' * len(STEPS)}")
    for layer, row in enumerate(zip(*rates.values(), strict=True), start=1):
        print(f"| {layer} | {' | '.join(f'{rate:.3f}' for rate in row)} |")
    return 0


def _pairs(arguments: argparse.Namespace) -> tuple[list[tuple[str, str]], list[GoldLinks]]:
    files = (arguments.src, arguments.tgt, arguments.gold)
    if not any(files):
        if arguments.pairs < 1:
            raise ConfigError(f"--pairs {arguments.pairs} must be at least 1")
        pairs = list(builtin_pairs("test", arguments.pairs))
        return pairs, [gold_alignment(*pair) for pair in pairs]
    if not all(files):
        raise ConfigError("--src, --tgt and --gold belong together: give all three")
    pairs = list(aligned_lines(arguments.src, arguments.tgt))
    gold = list(_read_gold(arguments.gold))
    if len(gold) != len(pairs):
        raise DataError(f"{arguments.gold} has {len(gold)} lines, and {arguments.src} {len(pairs)}")
    return pairs, gold


def _read_gold(path: Path) -> Iterator[GoldLinks]:
    for number, line in enumerate(read_lines(path), start=1):
        found = [(link, _LINK.fullmatch(link)) for link in line.split()]
        if wrong := [link for link, match in found if match is None]:
            raise DataError(f"{path}, line {number}: {wrong[0][:40]!r} is no link such as 0-0 (sure) or 0?1 (possible)")
        links = [(match[2], (int(match[1]), int(match[3]))) for _, match in found if match]
        sure = frozenset(link for kind, link in links if kind == "-")
        yield GoldLinks(sure, sure | {link for _, link in links})


if __name__ == "__main__":
    run(main)

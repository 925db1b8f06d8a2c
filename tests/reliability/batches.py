"""Count translations that depend on the batch or on the number of threads.

python tests/reliability/batches.py RUN FILE [--threads N]

A row per precision, compared with batches of the usual size on one thread: the number of texts that differ and, in
brackets, the largest difference in score of those that do not. Translating the sentences one by one takes minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from transformer.cli import run
from transformer.data.corpus import read_lines
from transformer.inference.translator import Translation, Translator
from transformer.training.device import tune_process

PRECISIONS = ("fp32", "bf16", "int8")


def difference(found: Sequence[Translation], expected: Sequence[Translation]) -> str:
    """The number of differing texts, and the largest difference in score of the others."""
    pairs = list(zip(found, expected, strict=True))
    apart = [abs(x.score - y.score) for x, y in pairs if x.text == y.text]
    return f"{len(pairs) - len(apart)} ({max(apart, default=0.0):.1g})"


def differences(translator: Translator, lines: Sequence[str], num_threads: int) -> Iterator[str]:
    """For other batch sizes, orders, numbers of threads, and one by one."""

    def translate(texts: Sequence[str], batch_tokens: int = 4096) -> list[Translation]:
        return [best for best, *_ in translator.translate_nbest(texts, nbest=1, batch_tokens=batch_tokens)]

    torch.set_num_threads(1)
    expected = translate(lines)
    yield difference(translate(lines, batch_tokens=512), expected)
    yield difference(translate(lines[::-1])[::-1], expected)
    torch.set_num_threads(num_threads)
    yield difference(translate(lines), expected)
    torch.set_num_threads(1)
    yield difference([translate([line])[0] for line in lines], expected)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("file", metavar="FILE", type=Path, help="sentences, plain or compressed")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    tune_process(inference=True)
    lines = list(read_lines(arguments.file))
    print(f"| of {len(lines):,} | batches of 512 | lines reversed | {arguments.threads} threads | one line at a time |")
    print("|---|---:|---:|---:|---:|")
    for precision in PRECISIONS:
        translator = Translator.load(arguments.run, device="cpu", precision=precision)
        print(f"| {precision} | {' | '.join(differences(translator, lines, arguments.threads))} |", flush=True)
    return 0


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

"""Train and score rows of Table 3, and print them beside the paper's: python scripts/table3.py [ROW ...] --out DIR

A row is the name of a file in configs/table3, `all` of them, or any YAML file. The same command again resumes where it
was stopped. Several processes may share one --out: each run is done by one of them.
"""

from __future__ import annotations

import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from ablation.figure import plot
from ablation.report import as_rows, markdown, records
from ablation.rows import load_row, sort_key
from ablation.runs import read_results, train_and_score
from benchmarking.report import as_json

from transformer.cli import run
from transformer.commands.outputs import check_output
from transformer.config import Config
from transformer.errors import CheckpointError, ConfigError, InUseError, TrainingError, warn
from transformer.inference.bleu_tokenizer import TOKENIZERS, resolve_tokenizer
from transformer.training.device import tune_process
from transformer.training.signals import StopRequest

_ROWS = Path(__file__).parents[1] / "configs" / "table3"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    overrides = [word for word in arguments.words if "=" in word]
    if arguments.steps is not None:
        overrides.append(f"train.max_steps={arguments.steps}")
    runs = [
        (path.stem, load_row(path, overrides, divide_sizes=arguments.divide_sizes, seed=seed, out=arguments.out))
        for path, seeds in _choose([word for word in arguments.words if "=" not in word] or ["all"]).items()
        for seed in seeds
    ]
    if arguments.plot is not None:
        check_output(arguments.plot)
    status = 0 if arguments.report else _train(runs, arguments.tokenize)
    rows = as_rows(read_results(arguments.out))
    if rows:
        print(as_json(records(rows)) if arguments.json else markdown(rows))
    elif arguments.report:
        raise CheckpointError(f"--out {arguments.out}: holds no finished run")
    if arguments.plot is not None:
        plot(rows, arguments.plot)
    return status


def _train(runs: Sequence[tuple[str, Config]], tokenize: str | None) -> int:
    """Train and score the unfinished runs; returns the exit status."""
    tune_process()
    status = 0
    # Before hours of training; a row may have data of its own.
    resolve = functools.cache(resolve_tokenizer)
    tokenizers = [resolve(tokenize or config.data.bleu_tokenizer, config.data.tgt_lang, warn) for _, config in runs]
    with StopRequest() as stop:
        for (row, config), tokenizer in zip(runs, tokenizers, strict=True):
            print(config.run_dir, flush=True)
            try:
                result = train_and_score(row, config, tokenizer, stop)
            except InUseError:
                print("left to the process that is training it", flush=True)
                continue
            except TrainingError as error:
                print(f"error: {config.run_dir}: {error}", file=sys.stderr)
                status = 2
                continue
            if result is not None:
                print(f"PPL {result.ppl:.2f}, BLEU {result.bleu:.2f}, {result.minutes:.1f} minutes", flush=True)
            if stop.signal is not None:
                print("stopped; the same command goes on from here", flush=True)
                return 128 + int(stop.signal)
    return status


def _choose(words: Sequence[str]) -> dict[Path, list[int]]:
    """The files of `ROW[:SEED,...]` with their seeds; if a row is repeated, the last seeds count."""
    chosen: dict[Path, list[int]] = {}
    for word in words:
        row, colon, text = word.partition(":")
        seeds = text.split(",") if colon else ["1"]
        if not all(seed.isdecimal() and len(seed) < 20 for seed in seeds):
            raise ConfigError(f"{word}: the seeds of a row are whole numbers, as in {row}:1,2,3")
        for path in _files(row):
            chosen[path] = [int(seed) for seed in dict.fromkeys(seeds)]
    return chosen


def _files(row: str) -> list[Path]:
    known = sorted(_ROWS.glob("*.yaml"), key=lambda path: sort_key(path.stem))
    if row == "all":
        return known
    if row.endswith((".yaml", ".yml")):
        return [Path(row)]
    names = [path.stem for path in known]
    if row not in names:
        raise ConfigError(
            f"{row} is not one of the rows all, {', '.join(names)}; other rows are named by their YAML file"
        )
    return [known[names.index(row)]]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words",
        metavar="ROW[:SEED,...] | section.key=value",
        nargs="*",
        help="rows, such as: all base:1,2,3 (default: all, seed 1); values for every row, before sizes are divided",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/table3"), help="default: %(default)s")
    parser.add_argument("--steps", metavar="N", type=int, help="updates of every row; by default the paper's")
    parser.add_argument(
        "--divide-sizes", metavar="K", type=int, default=1, help="divide d_model, d_ff, d_k and d_v of every row by K"
    )
    parser.add_argument("--divide-width", type=int, help=argparse.SUPPRESS)  # former name of --divide-sizes
    parser.add_argument(
        "--tokenize",
        choices=("auto", *TOKENIZERS),
        help="of BLEU; by default data.bleu_tokenizer; auto: by language; none: the text is tokenised already",
    )
    parser.add_argument("--report", action="store_true", help="only print the finished runs in --out")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of a table")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw it, as .png, .svg or .pdf; needs matplotlib")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.divide_width is not None:
        print("--divide-width is now --divide-sizes", file=sys.stderr)
        arguments.divide_sizes = arguments.divide_width
    if arguments.divide_sizes < 1:
        raise ConfigError(f"--divide-sizes {arguments.divide_sizes} must be at least 1")
    return arguments


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

"""Show the learning curves of runs, as a table or drawn: transformer plot RUN [RUN ...] [--out FILE]

Prints the validations in a run's metrics.jsonl as a Markdown table; --out draws runs together instead. Instead of
runs, positional encodings (section 3.5) or learning rates (equation 3) can be drawn.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformer.commands.outputs import check_output
from transformer.errors import CheckpointError, ConfigError
from transformer.inspection.canvas import THEMES, save, theme
from transformer.training.metrics import bleu_tokenizer, bleu_tokenizers, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_VALUE = 1_000_000_000
# Values of PE: more cannot be seen, and matplotlib takes some hundred bytes for each.
_MAX_DRAWN = 10_000_000


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.out is not None:
        check_output(arguments.out, [path / "metrics.jsonl" for path in arguments.runs])
        with theme(arguments.theme or "light"):
            save(_draw(arguments), arguments.out)
    else:
        for path in arguments.runs:
            if len(arguments.runs) > 1:
                print(f"\n{path}\n")
            _print_table(path, arguments.every)
    return 0


def _draw(arguments: argparse.Namespace) -> "Figure":
    # Not needed for a table, and it imports torch.
    from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_training

    if arguments.positions is not None:
        return draw_positions(*arguments.positions)
    if arguments.schedule is not None:
        return draw_learning_rates(arguments.schedule)
    runs = {str(path): read_metrics(path) for path in arguments.runs}
    for name, records in runs.items():
        if not records:
            raise CheckpointError(f"{name}: nothing is recorded in metrics.jsonl")
    return draw_training(runs)


def _print_table(path: Path, every: int) -> None:
    needed = {"elapsed_s", "nll", "ppl"}
    validations = [line for line in read_metrics(path) if line["kind"] == "validation" and line.keys() >= needed]
    if not validations:
        raise CheckpointError(f"{path}: no validation is recorded in metrics.jsonl")
    tokenizers = bleu_tokenizers(validations)
    known = any("bleu_tokenizer" in line for line in validations)
    # In the rows, if a run was resumed with another one: such scores cannot be compared.
    title = f"greedy BLEU ({tokenizers[0]})" if known and len(tokenizers) == 1 else "greedy BLEU"
    print(f"| step | minutes | validation NLL | perplexity | {title} |")
    print("|---:|---:|---:|---:|---:|")
    for number, line in enumerate(validations, 1):
        if number % every == 0 or number == len(validations):
            bleu = f"{line['bleu']:.1f}" if "bleu" in line else ""
            if bleu and len(tokenizers) > 1:
                bleu += f" ({bleu_tokenizer(line)})"
            print(f"| {line['step']} | {line['elapsed_s'] / 60:.0f} | {line['nll']:.3f} | {line['ppl']:.2f} | {bleu} |")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="*", help="a run directory")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="print every N-th validation and the last")
    parser.add_argument("--positions", type=int, nargs=2, metavar=("LENGTH", "D_MODEL"), help="draw PE(pos, i)")
    parser.add_argument("--schedule", type=int, nargs=2, action="append", metavar=("D_MODEL", "WARMUP"), help="draw it")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".png, .svg or .pdf; needs matplotlib")
    parser.add_argument("--theme", choices=tuple(THEMES), help="colours of the drawing (default: light)")
    arguments = parser.parse_args(argv)
    if sum(map(bool, (arguments.runs, arguments.positions, arguments.schedule))) != 1:
        raise ConfigError("give either runs, or --positions, or --schedule")
    if not arguments.runs and arguments.out is None:
        raise ConfigError("--positions and --schedule need --out FILE")
    if arguments.theme is not None and arguments.out is None:
        raise ConfigError("--theme is that of a drawing: give --out FILE")
    sizes = [("--every", [arguments.every]), ("--positions", arguments.positions or [])]
    for name, values in (*sizes, *(("--schedule", values) for values in arguments.schedule or [])):
        if not all(1 <= value <= _MAX_VALUE for value in values):
            raise ConfigError(f"{name} {' '.join(map(str, values))} must be at least 1 and at most {_MAX_VALUE:,}")
    length, d_model = arguments.positions or (1, 1)
    if length * d_model > _MAX_DRAWN:
        raise ConfigError(f"--positions {length} {d_model}: more than {_MAX_DRAWN:,} values cannot be drawn")
    return arguments

"""Show the learning curves of runs, as a table or drawn: transformer plot RUN [RUN ...] [--out FILE]

Prints the validations in a run's metrics.jsonl as a Markdown table; --out draws runs together instead. Instead of
runs, positional encodings (section 3.5) or learning rates can be drawn: --schedule draws equation 3, --schedule-of the
schedule of a configuration or a run.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformer.commands.outputs import check_output
from transformer.config import load_config
from transformer.errors import CheckpointError, ConfigError
from transformer.inspection.canvas import THEMES, save, theme
from transformer.training.metrics import bleu_tokenizer, bleu_tokenizers, is_validation, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_VALUE = 1_000_000_000
# Values of PE: more cannot be seen, and matplotlib takes some hundred bytes for each.
_MAX_DRAWN = 10_000_000


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.out is not None:
        configs = [_path(words[0]) for words in arguments.schedule_of or []]
        check_output(arguments.out, [*(path / "metrics.jsonl" for path in arguments.runs), *configs])
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
    from transformer.inspection.curves import draw_learning_rates, draw_positions, draw_schedules, draw_training

    if arguments.positions is not None:
        return draw_positions(*arguments.positions)
    if arguments.schedule is not None:
        return draw_learning_rates(arguments.schedule)
    if arguments.schedule_of is not None:
        return draw_schedules(
            {" ".join(words): load_config(_path(words[0]), words[1:]) for words in arguments.schedule_of}
        )
    runs = {str(path): read_metrics(path) for path in arguments.runs}
    for name, records in runs.items():
        if not records:
            raise CheckpointError(f"{name}: nothing is recorded in metrics.jsonl")
    return draw_training(runs)


def _path(name: str) -> Path:
    """The file of a configuration, by its name, or that of a run."""
    of_run = Path(name) / "config.yaml"
    return of_run if of_run.is_file() else Path(name)


def _print_table(path: Path, every: int) -> None:
    """The validations of a run, then those of its further validation sets."""
    needed = {"elapsed_s", "nll", "ppl"}
    by_set: dict[str, list[Mapping[str, Any]]] = {"validation": []}
    for line in read_metrics(path):
        if is_validation(line) and line.keys() >= needed:
            by_set.setdefault(line["kind"], []).append(line)
    if not by_set["validation"]:
        raise CheckpointError(f"{path}: no validation is recorded in metrics.jsonl")
    for kind, validations in by_set.items():
        if kind != "validation":
            print(f"\n{kind.partition('/')[2]}\n")
        _print_validations(validations, every)


def _print_validations(validations: Sequence[Mapping[str, Any]], every: int) -> None:
    tokenizers = bleu_tokenizers(validations)
    known = any("bleu_tokenizer" in line for line in validations)
    # In the rows, if a run was resumed with another one: such scores cannot be compared.
    title = f"greedy BLEU ({tokenizers[0]})" if known and len(tokenizers) == 1 else "greedy BLEU"
    has_chrf = any("chrf" in line for line in validations)
    print(f"| step | minutes | validation NLL | perplexity | {title} |{' greedy chrF |' * has_chrf}")
    print(f"|---:|---:|---:|---:|---:|{'---:|' * has_chrf}")
    for number, line in enumerate(validations, 1):
        if number % every == 0 or number == len(validations):
            bleu = f"{line['bleu']:.1f}" if "bleu" in line else ""
            if bleu and len(tokenizers) > 1:
                bleu += f" ({bleu_tokenizer(line)})"
            chrf = f"{line['chrf']:.1f}" if "chrf" in line else ""
            numbers = f"| {line['step']} | {line['elapsed_s'] / 60:.0f} | {line['nll']:.3f} | {line['ppl']:.2f} |"
            print(f"{numbers} {bleu} |{f' {chrf} |' * has_chrf}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="*", help="a run directory")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="print every N-th validation and the last")
    parser.add_argument("--positions", type=int, nargs=2, metavar=("LENGTH", "D_MODEL"), help="draw PE(pos, i)")
    parser.add_argument("--schedule", type=int, nargs=2, action="append", metavar=("D_MODEL", "WARMUP"), help="draw it")
    parser.add_argument(
        "--schedule-of",
        nargs="+",
        action="append",
        metavar=("CONFIG", "section.key=value"),
        help="draw the learning rates of a configuration, or of a run directory",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=".png, .svg or .pdf; needs matplotlib")
    parser.add_argument("--theme", choices=tuple(THEMES), help="colours of the drawing (default: light)")
    arguments = parser.parse_args(argv)
    drawn = (arguments.runs, arguments.positions, arguments.schedule, arguments.schedule_of)
    if sum(map(bool, drawn)) != 1:
        raise ConfigError("give either runs, or --positions, or --schedule, or --schedule-of")
    if not arguments.runs and arguments.out is None:
        raise ConfigError("--positions, --schedule and --schedule-of need --out FILE")
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

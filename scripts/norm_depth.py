"""Compare post-norm with pre-norm by depth, with and without warm-up: python scripts/norm_depth.py --out DIR [--json]

At initialisation: norms of the gradient of W_2 in decoder layers, and the size of the encoder's stream, in the mean
over seeds; Xiong et al. (2020) derive how both grow with depth. Trained: the validation loss of small models after a
few updates on the built-in corpus, at a constant learning rate. The same command again goes on where it was stopped.
"""

from __future__ import annotations

import transformer.commands  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import itertools
import json
import math
import signal
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from transformer.cli import run
from transformer.config import Config, ModelConfig, load_config
from transformer.errors import CheckpointError
from transformer.inspection.examples import batch_of
from transformer.inspection.gradients import gradient_norms
from transformer.inspection.section_tables import table
from transformer.inspection.stream import residual_stream
from transformer.model.alternatives.build import build_model
from transformer.progress import stage
from transformer.training.device import tune_process
from transformer.training.metrics import read_metrics
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer

NORMS = ("post", "pre")
_INITIAL_DEPTHS = (2, 6, 12, 24)
_SEEDS = (1, 2, 3, 4, 5)
_SIZES = {"d_model": 64, "num_heads": 4, "d_ff": 256}
_VOCAB_SIZE, _SENTENCES, _LENGTH = 211, 7, 13  # of random ids
_TRAINED_DEPTHS, _UPDATES, _WARMUP = (2, 6, 12), 200, 100
_TRAIN = (
    *("model.d_model=32", "model.num_heads=2", "model.d_ff=64", "data.builtin_size=3000", "data.vocab_size=300"),
    *("train.tokens_per_update=256", "train.precision=fp32", "train.schedule=constant", "train.learning_rate=0.004"),
    *("train.validation_bleu=false", "train.save_steps=null"),
)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    chosen = (arguments.out, arguments.updates, arguments.depths, arguments.overrides)
    tune_process()
    with StopRequest() as stop:
        for _, config in configurations(*chosen):
            reason = Trainer.from_config(config, stage=stage).fit(stop)
            if reason in signal.Signals.__members__:
                return 128 + int(signal.Signals[reason])
    report = {"initial": [*initial()], "trained": [*trained(*chosen)]}
    print(json.dumps(report, indent=1) if arguments.json else markdown(report))
    return 0


def initial(
    depths: Sequence[int] = _INITIAL_DEPTHS, seeds: Sequence[int] = _SEEDS, **sizes: int
) -> Iterator[dict[str, Any]]:
    """Gradients and streams of untrained models on random ids, by norm and depth, in the mean over seeds.

    `first`, `middle` and `last` are ‖∂L/∂W_2‖ of decoder layers 1, N/2 and N; `stream` is ‖x_l‖²/d of the encoder
    behind each layer.
    """
    for norm, depth in itertools.product(NORMS, depths):
        config = ModelConfig(norm=norm, num_layers=depth, dropout=0.0, **{**_SIZES, **sizes})  # type: ignore[arg-type]
        found = [_measure(config, seed) for seed in seeds]
        names = [("first", 1), ("middle", max(1, depth // 2)), ("last", depth)]
        row: dict[str, Any] = {"norm": norm, "depth": depth}
        row |= {name: _digits(statistics.fmean(norms[layer - 1] for norms, _ in found)) for name, layer in names}
        streams = zip(*(stream for _, stream in found), strict=True)
        yield {**row, "stream": [_digits(statistics.fmean(of_layer)) for of_layer in streams]}


def _measure(config: ModelConfig, seed: int) -> tuple[list[float], list[float]]:
    """‖∂L/∂W_2‖ by decoder layer, and ‖x_l‖²/d by encoder layer."""
    torch.manual_seed(seed)
    model = build_model(_VOCAB_SIZE, config).eval()
    sides = (torch.randint(4, _VOCAB_SIZE, (_SENTENCES, _LENGTH)).tolist() for _ in range(2))
    batch = batch_of(*sides)
    norms = gradient_norms(model, [batch]).parameters
    rows = [row for row in residual_stream(model, [batch]).rows if (row.stack, row.name) == ("encoder", "feed_forward")]
    of_layer = [norms[f"decoder.layers.{i}.feed_forward.w_2.weight"] for i in range(config.num_layers)]
    return of_layer, [float(row.stream or 0.0) ** 2 for row in rows]


def configurations(
    out: Path, updates: int, depths: Sequence[int], overrides: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Any], Config]]:
    """What is trained: norm, depth and warm-up, with the configuration."""
    for depth, norm, warmup in itertools.product(depths, NORMS, (0, _WARMUP)):
        chosen = [f"model.norm={norm}", f"model.num_layers={depth}", f"train.warmup_steps={max(1, warmup)}"]
        chosen += [
            f"train.max_steps={updates}",
            f"train.validate_steps={max(1, updates // 2)}",
            f"run_dir={out}/{norm}_{depth}_{warmup}",
        ]
        yield (
            {"norm": norm, "depth": depth, "warmup": warmup},
            load_config("quickstart", [*_TRAIN, *chosen, *overrides]),
        )


def trained(out: Path, updates: int, depths: Sequence[int], overrides: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The validation losses of finished runs, in nats per token; CheckpointError if one is not finished."""
    for row, config in configurations(out, updates, depths, overrides):
        records = [one for one in read_metrics(config.run_dir) if one["kind"] == "validation"]
        if not records or records[-1]["step"] < updates:
            raise CheckpointError(f"{config.run_dir}: is not trained to update {updates}: the same command goes on")
        losses = {str(one["step"]): _digits(one["nll"]) for one in records if one["step"] <= updates}
        yield {**row, "learning_rate": config.train.learning_rate, "updates": updates, "nll": losses}


def markdown(report: dict[str, Any]) -> str:
    """The report as two tables."""
    return f"{initial_table(report['initial'])}\n{trained_table(report['trained'])}"


def initial_table(rows: Sequence[dict[str, Any]]) -> str:
    """Gradients of W_2 by depth, and the growth of the stream."""
    header = ["", "N", "first layer", "middle", "last layer", "last : first", "‖x_1‖²/d", "‖x_N‖²/d"]
    cells: list[list[object]] = []
    for row in rows:
        ends, ratio = (row["stream"][0], row["stream"][-1]), row["last"] / row["first"]
        cells.append([f"{row['norm']}-norm", row["depth"], row["first"], row["middle"], row["last"], ratio, *ends])
    return table(header, cells)


def trained_table(rows: Sequence[dict[str, Any]]) -> str:
    """Validation losses by update."""
    steps = sorted({step for row in rows for step in row["nll"]}, key=int)  # runs that went on have others besides
    header = ["", "N", "warm-up", *(f"NLL after {int(step):,} updates" for step in steps)]
    return table(
        header,
        ([f"{row['norm']}-norm", row["depth"], row["warmup"] or "none", *map(row["nll"].get, steps)] for row in rows),
    )


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The exponent of the power law that fits best: the slope of log y against log x."""
    return statistics.linear_regression([*map(math.log, xs)], [*map(math.log, ys)]).slope


def _digits(number: float) -> float:
    return float(f"{number:.4g}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="for all runs")
    parser.add_argument("--out", type=Path, default=Path("runs/norm_depth"), help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=_UPDATES, metavar="N", help="of each run; default: %(default)s")
    parser.add_argument("--depths", type=int, nargs="+", default=_TRAINED_DEPTHS, metavar="N", help="of trained models")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    run(main)

"""Rows of Table 3: what the paper reports of each, and their configurations at any scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config, ModelConfig, load_config
from transformer.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """What Table 3 says of a row, on newstest2013; without a number of parameters it is that of the base model."""

    ppl: float  # per piece
    bleu: float
    millions: int | None = None  # of parameters


# By the names of the files in configs/table3, in the order of the paper.
PUBLISHED = {
    "base": Published(4.92, 25.8, 65),
    "a_h1": Published(5.29, 24.9),
    "a_h4": Published(5.00, 25.5),
    "a_h16": Published(4.91, 25.8),
    "a_h32": Published(5.01, 25.4),
    "b_dk16": Published(5.16, 25.1, 58),
    "b_dk32": Published(5.01, 25.4, 60),
    "c_n2": Published(6.11, 23.7, 36),
    "c_n4": Published(5.19, 25.3, 50),
    "c_n8": Published(4.88, 25.5, 80),
    "c_d256": Published(5.75, 24.5, 28),
    "c_d1024": Published(4.66, 26.0, 168),
    "c_ff1024": Published(5.12, 25.4, 53),
    "c_ff4096": Published(4.75, 26.2, 90),
    "d_dropout0": Published(5.77, 24.6),
    "d_dropout2": Published(4.95, 25.5),
    "d_smoothing0": Published(4.67, 25.3),
    "d_smoothing2": Published(5.47, 25.7),
    "e_learned": Published(4.92, 25.7),
    "big": Published(4.33, 26.4, 213),
}


def load_row(path: Path, overrides: Sequence[str], *, divide_width: int, seed: int, out: Path) -> Config:
    """The run of one row with one seed, in a directory of `out`.

    ConfigError, which names the row, if the file or the overrides are wrong or a width cannot be divided.
    """
    try:
        config = load_config(path, [*overrides, f"seed={seed}", f"run_dir={out / f'{path.stem}-seed{seed}'}"])
        return dataclasses.replace(config, model=divide_widths(config.model, divide_width))
    except ConfigError as error:
        raise ConfigError(f"row {path.stem}: {error}") from None


def divide_widths(model: ModelConfig, divisor: int) -> ModelConfig:
    """The same layers and heads with every width divided, so that their ratios stay.

    ConfigError if a width is no multiple of `divisor`, or the smaller d_model cannot be shared out to the heads.
    """
    widths = {name: getattr(model, name) for name in ("d_model", "d_ff", "d_k", "d_v")}
    for name, width in widths.items():
        if width is not None and width % divisor:
            raise ConfigError(f"model.{name}={width} is not a multiple of --divide-width {divisor}")
    return dataclasses.replace(model, **{name: width and width // divisor for name, width in widths.items()})


def sort_key(row: str) -> tuple[int, str]:
    """Sorts rows as the paper does; others follow by name."""
    return (list(PUBLISHED).index(row) if row in PUBLISHED else len(PUBLISHED), row)

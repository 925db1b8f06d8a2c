"""Rows of Table 3: published results, and configurations at any scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config, ModelConfig, load_config
from transformer.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """Published results of a row on newstest2013; parameters default to those of the base model."""

    ppl: float  # per piece
    bleu: float
    millions: int | None = None  # of parameters


# By file name in configs/table3, in the paper's order.
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


def load_row(path: Path, overrides: Sequence[str], *, divide_sizes: int, seed: int, out: Path) -> Config:
    """The run of one row with one seed, in a directory of `out`.

    ConfigError, naming the row, if file or overrides are wrong or a size cannot be divided.
    """
    try:
        config = load_config(path, [*overrides, f"seed={seed}", f"run_dir={out / f'{path.stem}-seed{seed}'}"])
        return dataclasses.replace(config, model=divide_model(config.model, divide_sizes))
    except ConfigError as error:
        raise ConfigError(f"row {path.stem}: {error}") from None


def divide_model(model: ModelConfig, divisor: int) -> ModelConfig:
    """Divide d_model, d_ff, d_k and d_v; layers and heads stay.

    ConfigError if a size is not a multiple of `divisor`, or the smaller d_model not one of the number of heads.
    """
    sizes = {name: getattr(model, name) for name in ("d_model", "d_ff", "d_k", "d_v")}
    for name, size in sizes.items():
        if size is not None and size % divisor:
            raise ConfigError(f"model.{name}={size} is not a multiple of --divide-sizes {divisor}")
    return dataclasses.replace(model, **{name: size and size // divisor for name, size in sizes.items()})


def sort_key(row: str) -> tuple[int, str]:
    """Sort key: the paper's rows in its order, then others by name."""
    return (list(PUBLISHED).index(row) if row in PUBLISHED else len(PUBLISHED), row)

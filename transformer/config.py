"""Typed, frozen configuration; the defaults are the paper's base model and recipe.

Precedence: defaults < the YAML file that `base:` names, if any < YAML file < `section.key=value`. pydantic checks types
and ranges. The keys of the sections are in `sections/`; a key's comment is also its text in docs/CONFIGURATION.md and
configs/schema.json, which `python scripts/reference.py` writes.
"""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml
from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.config_file import apply_override, read_values
from transformer.config_hints import unknown_key
from transformer.errors import ConfigError
from transformer.sections.data import CorpusEntry, DataConfig
from transformer.sections.model import ModelConfig
from transformer.sections.search import SearchConfig
from transformer.sections.train import TrainConfig
from transformer.sections.types import STRICT, CountFromZero, NonEmptyPath
from transformer.shipped import find_config

__all__ = [
    "Config",
    "CorpusEntry",
    "DataConfig",
    "ModelConfig",
    "SearchConfig",
    "TrainConfig",
    "load_config",
    "override",
]


# Keys that saved configurations may lack, and how the versions behaved that wrote them: not as the defaults of today.
FORMER_VALUES = {"data.normalization": "nmt_nfkc", "train.batching": "bucketed"}


@one_line_errors("")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """All settings of a run."""

    run_dir: NonEmptyPath = "runs/base"  # directory of the run; default: runs/ and the name of the file
    seed: CountFromZero = 1  # random seed of initialisation, dropout and the order of batches
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        has_limit = self.model.positional == "learned" or self.model.attention_score == "location"
        if has_limit and self.model.max_positions < self.data.max_length:
            raise ConfigError(
                f"model.max_positions={self.model.max_positions} is less than data.max_length={self.data.max_length}: "
                "raise the first or lower the second"
            )
        data, default = self.data, DataConfig.corpus
        is_meant = data.revision is not None or any(entry.path == default for entry in data.corpora)
        if data.corpora and data.corpus == default and not is_meant and len({*data.hold_out}) < 2:
            raise ConfigError(
                f"data.corpora without data.corpus: give it for the validation and test data (its default is {default}"
                "), or take them out of the training data: data.corpus=none data.hold_out=[validation, test]"
            )

        if self.data.separate_vocabularies and self.model.tie == "all":
            raise ConfigError(
                "data.separate_vocabularies=true leaves nothing that model.tie=all could share between source and "
                "target: set model.tie=decoder or none"
            )

    def to_yaml(self) -> str:
        """The complete configuration, defaults included, in the format of `load_config`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)

    def differences(self) -> str:
        """The values that differ from the defaults, and `run_dir`, in the format of `load_config`."""
        defaults, tree = dataclasses.asdict(Config()), self._tree()
        shown: dict[str, Any] = {"run_dir": tree.pop("run_dir")}
        for name, value in tree.items():
            if isinstance(value, dict):
                value = {key: one for key, one in value.items() if one != defaults[name][key]}
                if value:
                    shown[name] = value
            elif value != defaults[name]:
                shown[name] = value
        return "".join(_dump({name: value}, in_line=isinstance(value, dict)) for name, value in shown.items())

    def flat(self) -> dict[str, Any]:
        """Values by dotted key, such as `train.max_steps`, as JSON has them: lists, not tuples."""
        return _flatten(self._tree())

    def _tree(self) -> dict[str, Any]:
        """Nested values, in which entries of lists have only the keys that differ from the defaults."""
        tree = dataclasses.asdict(self)
        tree["data"]["corpora"] = self.data.entries_as_given()
        return tree


_SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "search": SearchConfig}
_HINTS = {
    f"{prefix}{name}": hint
    for prefix, cls in {"": Config, **{f"{name}.": cls for name, cls in _SECTIONS.items()}}.items()
    for name, hint in typing.get_type_hints(cls).items()
    if name not in _SECTIONS
}


def override(search: SearchConfig, **values: Any) -> SearchConfig:
    """Replace the keys that are not None. ConfigError for an unknown key or a value out of range."""
    return dataclasses.replace(search, **{name: value for name, value in values.items() if value is not None})


def load_config(
    path: str | Path,
    overrides: typing.Iterable[str] = (),
    *,
    saved: bool = False,
    complete: Callable[[dict[str, Any]], None] | None = None,
) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and validate.

    A file may inherit from another by `base: PATH`, relative to itself, or by the name of a shipped configuration;
    everything but `run_dir` is inherited. YAML anchors, aliases and tags are not supported. Renamed keys are accepted,
    with a warning on stderr.

    Args:
        path: YAML file, or the name of a shipped configuration, such as `quickstart` or `table3/c_n2`.
        overrides: such as `train.max_steps=1000`; the last one of a key wins.
        saved: the file was written with a run or a model, so it has no `base`, and renamed keys are no reason to warn.
        complete: may add keys that file and overrides leave out to the values by section, before they are checked, as
            `transformer.training.initialization.inherit` does for fine-tuning.

    Raises:
        ConfigError: missing file, invalid YAML, circular `base`, unknown key, wrong type, value out of range or
            incompatible options.
        TypeError: `overrides` is one string, or one of them is not text.
    """
    overrides = overrides if isinstance(overrides, str) else [*overrides]
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise TypeError(f"overrides={overrides!r} must be a list of texts such as train.max_steps=1000")
    path = Path(path) if saved else find_config(path)
    values = read_values(path, saved=saved)
    for key, former in FORMER_VALUES.items() if saved else ():
        part, _, name = key.partition(".")
        if isinstance(values.get(part), dict):
            values[part].setdefault(name, former)
    values.setdefault("run_dir", f"runs/{path.stem if path.suffix in ('.yaml', '.yml') else path.name}")
    for override in overrides:
        apply_override(values, override, _HINTS)
    if complete is not None:
        complete(values)
    for name, section in _SECTIONS.items():
        if name in values:
            if not isinstance(values[name], dict):
                raise ConfigError(f"{name}: expected a section of keys, got {values[name]!r}")
            values[name] = section(**{str(key): value for key, value in values[name].items()})
    for name, value in values.items():
        if name not in _HINTS and isinstance(value, dict) and value:  # a section that does not exist
            raise ConfigError(unknown_key(f"{name}.{next(iter(value))}", _HINTS))
    return Config(**{str(key): value for key, value in values.items()})


def _dump(tree: dict[str, Any], *, in_line: bool = False) -> str:
    """As YAML, the innermost mappings in lines of about 80 characters or one key per line."""
    style = None if in_line else False
    # A line ends with the first key beyond the width.
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=style, width=55)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        value = list(value) if isinstance(value, tuple) else value
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

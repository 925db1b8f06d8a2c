"""Every knob, typed, frozen and strict; the defaults are the paper's base model and recipe.

One direction: defaults < the YAML file that `base:` names, if any < YAML file < `section.key=value`. Nothing edits a
configuration once it is built.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from transformer.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Keyword arguments of `Transformer`, under the same names (section 3)."""

    d_model: int = 512  # width of every sub-layer
    num_layers: int = 6  # N
    num_heads: int = 8  # h
    d_ff: int = 2048  # inner width of the feed-forward network
    d_k: int | None = None  # size of a key per head; null: d_model / num_heads
    d_v: int | None = None  # size of a value per head; null: d_k
    dropout: float = 0.1  # P_drop, in [0, 1)
    attention_dropout: float = 0.0  # on attention weights; not in the paper's translation models
    activation_dropout: float = 0.0  # inside the feed-forward network; not in the paper
    attention_bias: bool = False  # the paper writes the projections without; its code had them
    attention_score: Literal["scaled_dot", "dot", "general", "additive", "cosine", "location"] = "scaled_dot"
    attention_temperature: float = 1.0  # by which scores are divided
    attention_window: int | None = None  # r: positions that one sees in the encoder, odd; null: all
    norm: Literal["post", "pre"] = "post"  # where LayerNorm stands
    norm_eps: float = 1e-6  # added to the variance
    tie: Literal["all", "decoder", "none"] = "all"  # which embeddings share their matrix (section 3.4)
    positional: Literal["sinusoidal", "learned", "shaw", "t5", "rotary", "none"] = "sinusoidal"  # learned: row E
    max_positions: int = 512  # of learned positions and of attention_score location only
    max_relative_position: int = 20  # at which shaw positions clip distances

    def __post_init__(self) -> None:
        _check_range("model", self, ("d_model", "num_layers", "num_heads", "d_ff", "max_positions"), low=1)
        _check_range("model", self, ("d_k", "d_v", "attention_window", "max_relative_position"), low=1)
        _check_range("model", self, ("dropout", "attention_dropout", "activation_dropout"), low=0, below=1)
        _check_range("model", self, ("norm_eps", "attention_temperature"), above=0)
        if self.d_k is None and self.d_model % self.num_heads:
            raise ConfigError(
                f"model.d_model={self.d_model} is not a multiple of model.num_heads={self.num_heads}: "
                "change one of them, or give model.d_k"
            )
        self._check_attention()

    def _check_attention(self) -> None:
        """ConfigError if options of attention do not go together."""
        if self.attention_window is not None:
            if self.attention_window % 2 == 0:
                raise ConfigError(f"model.attention_window={self.attention_window} is not odd, so it has no centre")
            if self.attention_score == "location":
                raise ConfigError("model.attention_window is not defined for model.attention_score=location")
        products = {"rotary": ("scaled_dot", "dot", "general", "cosine"), "shaw": ("scaled_dot", "dot", "general")}
        accepted = products.get(self.positional)
        if accepted is not None and self.attention_score not in accepted:
            raise ConfigError(
                f"model.positional={self.positional} is not defined for model.attention_score={self.attention_score}, "
                f"only for {', '.join(accepted)}"
            )
        d_k = self.d_model // self.num_heads if self.d_k is None else self.d_k
        if self.positional == "rotary" and d_k % 2:
            raise ConfigError(f"model.positional=rotary turns pairs of channels and model.d_k={d_k} is odd")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where sentence pairs come from and how they become ids (section 5.1)."""

    corpus: str = "wmt/wmt14"  # hub id, local pattern with {split} (and {lang}), builtin or treebank
    subset: str | None = "de-en"  # the hub's name for a part of the corpus
    revision: str | None = None  # commit, tag or branch of the hub's repository; null: its newest
    src_lang: str = "en"
    tgt_lang: str = "de"
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    builtin_size: int = 30000  # training pairs of the builtin corpus or treebank
    vocab_size: int = 37000  # of the joint BPE model
    max_length: int = 256  # pieces per side with </s>; longer pairs are dropped and counted
    max_ratio: float | None = None  # drop training pairs whose lengths differ by more than this factor
    cache_dir: str = "runs/.cache"  # encoded corpora, by content: safe to share, safe to delete

    def __post_init__(self) -> None:
        _check_range("data", self, ("builtin_size",), low=1)
        _check_range("data", self, ("max_length",), low=2)
        _check_range("data", self, ("vocab_size",), low=8)
        _check_range("data", self, ("max_ratio",), low=1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimizer, schedule, batches, and when to look, save and stop (sections 5.1 to 5.4)."""

    tokens_per_update: int = 25000  # target tokens per optimizer step, gathered over as many batches as it takes
    max_tokens: int = 4096  # per batch and side, padding included: bounds memory
    label_smoothing: float = 0.1  # eps_ls
    warmup_steps: int = 4000
    lr_factor: float = 1.0  # multiplies equation 3
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_eps: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float | None = None  # largest gradient norm; null: no clipping
    skip_nonfinite: int = 0  # updates that may be left out, in all, because their gradient is not finite
    max_steps: int = 100_000  # in all, over every resumption
    max_hours: float | None = None  # of training, in all
    patience: int | None = None  # stop after this many validations without a better loss
    log_steps: int = 50
    validate_steps: int = 1000  # loss, and BLEU if validation_bleu
    validation_bleu: bool = True  # of greedy translations
    save_steps: int | None = None  # write a checkpoint every so many updates
    save_minutes: float | None = 10.0  # and every so many minutes
    keep_checkpoints: int = 5  # the last ones; the best is kept apart
    precision: Precision = (
        "auto"  # of the computing model; auto: bf16 where the hardware has it; master weights are fp32
    )
    device: Device = "auto"  # auto: cuda if there is one
    num_threads: int | None = None  # of a CPU; null: torch's choice

    def __post_init__(self) -> None:
        counts = ("tokens_per_update", "max_tokens", "warmup_steps", "max_steps", "log_steps", "validate_steps")
        _check_range("train", self, (*counts, "patience", "save_steps", "keep_checkpoints", "num_threads"), low=1)
        _check_range("train", self, ("label_smoothing", "adam_beta1", "adam_beta2"), low=0, below=1)
        _check_range("train", self, ("lr_factor", "adam_eps", "clip_norm", "max_hours", "save_minutes"), above=0)
        _check_range("train", self, ("weight_decay", "skip_nonfinite"), low=0)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Beam search (section 6.1)."""

    beam: int = 4
    alpha: float = 0.6  # of the length penalty ((5 + |Y|) / 6)^alpha
    max_extra: int = 50  # output, </s> included, may be this many pieces longer than the input
    max_source_length: int = 1024  # pieces with </s>; a longer input is an error

    def __post_init__(self) -> None:
        _check_range("search", self, ("beam", "max_source_length"), low=1)
        _check_range("search", self, ("alpha", "max_extra"), low=0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run: where it lives, what it trains on, and how."""

    run_dir: str = "runs/base"  # by default runs/<name of the YAML file>
    seed: int = 1
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        _check_range("", self, ("seed",), low=0)
        has_limit = self.model.positional == "learned" or self.model.attention_score == "location"
        if has_limit and self.model.max_positions < self.data.max_length:
            raise ConfigError(
                f"model.max_positions={self.model.max_positions} is less than data.max_length={self.data.max_length}: "
                "raise the one or lower the other"
            )

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as `load_config` reads it."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Values by dotted key, such as `train.max_steps`."""
        return _flatten(dataclasses.asdict(self))


def override(search: SearchConfig, *, beam: int | None = None, alpha: float | None = None) -> SearchConfig:
    """The same settings with those that are given; ConfigError if one is out of range."""
    return dataclasses.replace(
        search, beam=search.beam if beam is None else beam, alpha=search.alpha if alpha is None else alpha
    )


def load_config(path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` overrides, check everything.

    A file may name another by `base: PATH`, relative to itself, and then holds only what differs from that. Only the
    name of the run is never taken over.

    Raises:
        ConfigError: no such file, not YAML, files that are based on each other, unknown key, wrong type, value out of
            range or a bad combination.
    """
    path = Path(path)
    raw = _read(path, ())
    raw.setdefault("run_dir", f"runs/{path.stem}")
    for override in overrides:
        _apply_override(raw, override)
    config: Config = _build(Config, raw, "")
    return config


def _read(path: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file and of those that it is based on; `derived` are the files that are based on it."""
    if path.resolve() in (other.resolve() for other in derived):
        raise ConfigError(f"{' is based on '.join(map(str, (*derived, path)))}: remove one `base:`")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        wanted_by = f", which is the base of {derived[-1]}" if derived else ""
        raise ConfigError(f"{path}: no such configuration file{wanted_by}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, such as 2024-02-30
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {raw!r}")
    if "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of a YAML file, got {base!r}")
    inherited = _read(path.parent / base, (*derived, path))
    inherited.pop("run_dir", None)
    return _merge(inherited, raw)


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both; where both have a value, the one of `high`."""
    merged = {**low, **high}
    for name in low.keys() & high.keys():
        if isinstance(low[name], dict) and isinstance(high[name], dict):
            merged[name] = _merge(low[name], high[name])
    return merged


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not of the form section.key=value")
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except (yaml.YAMLError, ValueError):
        value = text  # such as a pattern with braces
    if isinstance(value, dict | list):
        value = text
    *sections, name = key.split(".")
    for section in sections:
        if raw.get(section) is None:
            raw[section] = {}
        raw = raw[section]
        if not isinstance(raw, dict):
            raise ConfigError(f"{override!r}: {section} is not a section")
    raw[name] = value


def _build(cls: type, raw: Any, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{prefix.rstrip('.')}: expected a section of keys, got {raw!r}")
    hints = typing.get_type_hints(cls)
    for name in raw:
        if name not in hints:
            raise ConfigError(_unknown_key(f"{prefix}{name}"))
    return cls(**{name: _convert(value, hints[name], f"{prefix}{name}") for name, value in raw.items()})


def _unknown_key(key: str) -> str:
    known = list(Config().flat())
    # A right name in the wrong section is nearer than a similar spelling.
    same_name = [other for other in known if other.rsplit(".")[-1] == key.rsplit(".")[-1]]
    nearest = same_name or difflib.get_close_matches(key, known, n=1, cutoff=0.3)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key {key}; {hint}"


def _convert(value: Any, hint: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{key}.")
    if typing.get_origin(hint) is Literal:
        accepted = typing.get_args(hint)
        if value not in accepted:
            raise ConfigError(f"{key}={value!r} is not one of {', '.join(map(str, accepted))}")
        return value
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{key} must be {_TYPE_NAMES[hint]}, got {value!r}{_number_hint(value, hint)}")
    return value


_TYPE_NAMES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _number_hint(value: Any, hint: type) -> str:
    if hint is float and isinstance(value, str):
        try:
            yaml_form = yaml.safe_dump(float(value)).splitlines()[0]
        except ValueError:
            return ""
        return f", which YAML reads as text; write {yaml_form}"
    return ""


# Of these, infinity says "no limit".
_LIMITS = {"max_ratio", "clip_norm", "max_hours", "save_minutes"}


def _check_range(
    section: str,
    config: Any,
    names: typing.Iterable[str],
    *,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        bounds = [
            (low is None or value >= low, f"at least {low}"),
            (above is None or value > above, f"more than {above}"),
            (below is None or value < below, f"less than {below}"),
        ]
        if name not in _LIMITS:
            bounds.append((value < math.inf, "finite"))
        # `not` catches NaN too, which no comparison accepts.
        for holds, bound in bounds:
            if not holds:
                raise ConfigError(f"{section}{'.' if section else ''}{name}={value} must be {bound}")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

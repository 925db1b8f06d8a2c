"""Typed, frozen configuration; the defaults are the paper's base model and recipe.

Precedence: defaults < the YAML file that `base:` names, if any < YAML file < `section.key=value`.
"""

import contextlib
import dataclasses
import difflib
import math
import re
import types
import typing
from dataclasses import dataclass, field
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any, Literal

import yaml

from transformer.config_file import apply_override, check_text, read_values
from transformer.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

# Limit of dimensions, vocabularies and lengths: a configuration may come with a model from anywhere.
_MAX_SIZE = 2**20


# Scores that are products of queries and keys, and all that read keys.
_PRODUCTS = ("scaled_dot", "dot", "general", "cosine")
_CONTENT_BASED = (*_PRODUCTS, "additive")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model (section 3) and the alternatives to its parts."""

    d_model: int = 512  # size of every sub-layer's output
    num_layers: int = 6  # N
    num_decoder_layers: int | None = None  # null: num_layers
    num_heads: int = 8  # h
    num_kv_heads: int | None = None  # fewer key/value heads (grouped-query attention); null: num_heads
    d_ff: int = 2048  # inner size of the feed-forward network
    activation: Literal["relu", "gelu", "swish"] = "relu"  # of the feed-forward network
    d_k: int | None = None  # size of a key per head; null: d_model / num_heads
    d_v: int | None = None  # size of a value per head; null: d_k
    dropout: float = 0.1  # P_drop, in [0, 1)
    attention_dropout: float = 0.0  # on attention weights; not in the paper's translation models
    activation_dropout: float = 0.0  # inside the feed-forward network; not in the paper
    attention_bias: bool = False  # biases of the projections; the paper's equations have none, its code had them
    attention_score: Literal["scaled_dot", "dot", "general", "additive", "cosine", "location"] = "scaled_dot"
    attention_temperature: float = 1.0  # scores are divided by it
    attention_window: int | None = None  # r: odd size of the encoder's local attention (section 4); null: unrestricted
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each sub-layer's residual sum, or before the sub-layer
    norm_eps: float = 1e-6  # added to the variance
    tie: Literal["all", "decoder", "none"] = "all"  # which embeddings share their matrix (section 3.4)
    positional: Literal["sinusoidal", "learned", "shaw", "t5", "alibi", "rotary", "none"] = "sinusoidal"
    max_positions: int = 512  # for learned positions (row E) and attention_score location only
    max_relative_position: int = 20  # shaw positions clip distances here

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(ModelConfig).items():
            if typing.get_origin(hint) is Literal:  # else an unknown value would build the paper's part
                _convert(getattr(self, name), hint, f"model.{name}")
        sizes = ("d_model", "num_heads", "num_kv_heads", "d_ff", "max_positions", "d_k", "d_v", "max_relative_position")
        _check_range("model", self, (*sizes, "attention_window"), low=1, high=_MAX_SIZE)
        _check_range("model", self, ("num_layers", "num_decoder_layers"), low=1, high=1000)
        _check_range("model", self, ("dropout", "attention_dropout", "activation_dropout"), low=0, below=1)
        _check_range("model", self, ("norm_eps", "attention_temperature"), above=0)
        if self.d_k is None and self.d_model % self.num_heads:
            raise ConfigError(
                f"model.d_model={self.d_model} is not a multiple of model.num_heads={self.num_heads}: "
                "change one of them, or give model.d_k"
            )
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} is not a multiple of model.num_kv_heads={self.num_kv_heads}: "
                "change one of them"
            )
        if self.attention_window is not None and self.attention_window % 2 == 0:
            raise ConfigError(f"model.attention_window={self.attention_window} must be odd, to have a centre")
        d_k = self.d_model // self.num_heads if self.d_k is None else self.d_k
        if self.positional == "rotary" and d_k % 2:
            raise ConfigError(f"model.positional=rotary rotates pairs of channels: model.d_k={d_k} must be even")
        self._check_score()

    def _check_score(self) -> None:
        """ConfigError if another option is not defined for the attention score."""
        is_grouped = self.num_kv_heads not in (None, self.num_heads)
        for name, applies, scores in (
            ("attention_window", self.attention_window is not None, _CONTENT_BASED),
            # Additive scores have parameters per key head; general and cosine ones per query head, as grouping allows.
            ("num_kv_heads", is_grouped, _PRODUCTS),
            ("positional", self.positional == "alibi", _CONTENT_BASED),
            ("positional", self.positional == "rotary", _PRODUCTS),
            ("positional", self.positional == "shaw", ("scaled_dot", "dot", "general")),
        ):
            if applies and self.attention_score not in scores:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} is not defined for "
                    f"model.attention_score={self.attention_score}, only for {', '.join(scores)}"
                )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Corpus, tokenizer and filtering of sentence pairs (section 5.1)."""

    corpus: str = "wmt/wmt14"  # hub id, local pattern with {split} (and {lang}), builtin, treebank or a registered name
    subset: str | None = "de-en"  # the hub's name for a part of the corpus
    revision: str | None = None  # commit, tag or branch of the hub's repository; null: the newest commit
    src_lang: str = "en"
    tgt_lang: str = "de"
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    builtin_size: int = 30000  # training pairs of the builtin corpus or treebank
    vocab_size: int = 37000  # of the joint BPE model
    max_length: int = 256  # tokens per side, </s> included; longer pairs are dropped and counted
    max_ratio: float | None = None  # drop training pairs whose lengths differ by more than this factor
    cache_dir: str = "runs/.cache"  # encoded corpora, keyed by content; can be shared and deleted

    def __post_init__(self) -> None:
        _check_range("data", self, ("builtin_size",), low=1, high=10**9)
        _check_range("data", self, ("max_length",), low=2, high=_MAX_SIZE)
        _check_range("data", self, ("vocab_size",), low=8, high=_MAX_SIZE)
        _check_range("data", self, ("max_ratio",), low=1)
        if not self.corpus:
            raise ConfigError("data.corpus must not be empty")
        for name in ("src_lang", "tgt_lang", "train_split", "validation_split", "test_split"):
            check_plain_name(f"data.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Batches, optimizer, schedule, validation and checkpoints (sections 5.1 to 5.4)."""

    tokens_per_update: int = 25000  # target tokens per optimizer step, accumulated over batches
    max_tokens: int = 4096  # per batch and side, padding included: limits memory
    label_smoothing: float = 0.1  # eps_ls
    warmup_steps: int = 4000
    lr_factor: float = 1.0  # multiplies equation 3
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_eps: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float | None = None  # maximum gradient norm; null: no clipping
    skip_nonfinite: int = 0  # maximum number of updates skipped because of non-finite gradients
    max_steps: int = 100_000  # total, including resumed runs
    max_hours: float | None = None  # of training, total
    patience: int | None = None  # stop after this many validations without improvement of the loss
    log_steps: int = 50
    validate_steps: int = 1000  # loss, and BLEU if validation_bleu
    validation_bleu: bool = True  # of greedy translations
    save_steps: int | None = None  # updates between checkpoints
    save_minutes: float | None = 10.0  # minutes between checkpoints
    keep_checkpoints: int = 5  # most recent ones, of stops only the last; the best is kept separately
    precision: Precision = "auto"  # bf16 where the hardware supports it, else fp32; master weights are always fp32
    device: Device = "auto"  # auto: cuda if available
    num_threads: int | None = None  # CPU threads; null: torch's default

    def __post_init__(self) -> None:
        counts = ("tokens_per_update", "max_tokens", "warmup_steps", "max_steps", "log_steps", "validate_steps")
        _check_range("train", self, (*counts, "patience", "save_steps", "keep_checkpoints"), low=1)
        _check_range("train", self, ("num_threads",), low=1, high=1024)
        _check_range("train", self, ("label_smoothing", "adam_beta1", "adam_beta2"), low=0, below=1)
        _check_range("train", self, ("lr_factor", "adam_eps", "clip_norm", "max_hours", "save_minutes"), above=0)
        _check_range("train", self, ("weight_decay", "skip_nonfinite"), low=0)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Beam search (section 6.1)."""

    beam: int = 4
    alpha: float = 0.6  # length penalty ((5 + |Y|) / 6)^alpha
    max_length_offset: int = 50  # maximum output length, </s> included, beyond the input's
    max_source_length: int = 1024  # tokens, </s> included; longer input is an error

    def __post_init__(self) -> None:
        _check_range("search", self, ("beam",), low=1, high=1000)
        _check_range("search", self, ("alpha",), low=0, high=10)
        _check_range("search", self, ("max_length_offset",), low=0, high=10_000)
        _check_range("search", self, ("max_source_length",), low=1, high=_MAX_SIZE)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run."""

    run_dir: str = "runs/base"  # in a file, by default runs/<name of the file>
    seed: int = 1
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        _check_range("", self, ("seed",), low=0)
        if not self.run_dir:
            raise ConfigError("run_dir must not be empty")
        has_limit = self.model.positional == "learned" or self.model.attention_score == "location"
        if has_limit and self.model.max_positions < self.data.max_length:
            raise ConfigError(
                f"model.max_positions={self.model.max_positions} is less than data.max_length={self.data.max_length}: "
                "raise the first or lower the second"
            )

    def to_yaml(self) -> str:
        """The complete configuration, defaults included, in the format of `load_config`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)

    def flat(self) -> dict[str, Any]:
        """Values by dotted key, such as `train.max_steps`."""
        return _flatten(dataclasses.asdict(self))


def override(search: SearchConfig, *, beam: int | None = None, alpha: float | None = None) -> SearchConfig:
    """Replace the settings that are not None. ConfigError if out of range."""
    return dataclasses.replace(
        search, beam=search.beam if beam is None else beam, alpha=search.alpha if alpha is None else alpha
    )


def check_plain_name(key: str, name: str) -> None:
    """ConfigError if a name, put into a path pattern, could leave the pattern's directory."""
    if not name or ".." in name or re.search(r"[/\\\x00]", name):
        raise ConfigError(f"{key}={name} must be a plain name, without /, \\ and ..")


def load_config(path: str | Path, overrides: typing.Sequence[str] = (), *, saved: bool = False) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and validate.

    A file may inherit from another by `base: PATH`, relative to itself; everything but `run_dir` is inherited. YAML
    anchors, aliases and tags are not supported. Renamed keys are accepted, with a warning on stderr.

    Args:
        path: YAML file.
        overrides: such as `train.max_steps=1000`; the last one of a key wins.
        saved: the file was written with a run or a model, so it has no `base`, and renamed keys are no reason to warn.

    Raises:
        ConfigError: missing file, invalid YAML, circular `base`, unknown key, wrong type, value out of range or
            incompatible options.
    """
    path = Path(path)
    values = read_values(path, saved=saved)
    values.setdefault("run_dir", f"runs/{path.stem}")
    for override in overrides:
        apply_override(values, override)
    config: Config = _build(Config, values, "")
    return config


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
    # The same name in another section is a better guess than a similar spelling.
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
        advice = ""
        if hint is float and isinstance(value, str):
            with contextlib.suppress(ValueError):
                advice = f", which YAML reads as text; write {yaml.safe_dump(float(value)).splitlines()[0]}"
        raise ConfigError(f"{key} must be {_TYPE_NAMES[hint]}, got {value!r}{advice}")
    if hint is str:
        check_text(key, value)
    return value


_TYPE_NAMES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_UNLIMITED = {"max_ratio", "clip_norm", "max_hours", "save_minutes"}  # may be infinite
_BOUNDS = {"low": (ge, "at least"), "high": (le, "at most"), "above": (gt, "more than"), "below": (lt, "less than")}


def _check_range(section: str, config: Any, names: typing.Iterable[str], **bounds: float) -> None:
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        # NaN fails every comparison.
        failed = [f"{_BOUNDS[kind][1]} {bound}" for kind, bound in bounds.items() if not _BOUNDS[kind][0](value, bound)]
        if value == math.inf and name not in _UNLIMITED:
            failed.append("finite")
        if failed:
            raise ConfigError(f"{section}{'.' if section else ''}{name}={value} must be {failed[0]}")


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

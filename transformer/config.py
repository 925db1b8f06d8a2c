"""Typed, frozen configuration; the defaults are the paper's base model and recipe.

Precedence: defaults < the YAML file that `base:` names, if any < YAML file < `section.key=value`. pydantic checks types
and ranges. The comment of a key is also its text in docs/CONFIGURATION.md and configs/schema.json, which
`python scripts/reference.py` writes.
"""

import dataclasses
import typing
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.config_file import MAX_INT, apply_override, plain_name, plain_text, read_values
from transformer.config_hints import unknown_key
from transformer.errors import ConfigError
from transformer.files import expand_home
from transformer.shipped import find_config

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]
NormalizationRule = Literal["minimal", "identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# A configuration may come with a model from anywhere, so sizes are limited.
Size = Annotated[int, Field(ge=1, le=2**20)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
CountFromZero = Annotated[int, Field(ge=0, le=MAX_INT)]
BoundedCount = Annotated[int, Field(ge=1, le=10**9)]
VocabSize = Annotated[int, Field(ge=8, le=2**20)]
Length = Annotated[int, Field(ge=2, le=2**20)]
Offset = Annotated[int, Field(ge=0, le=10_000)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Beam = Annotated[int, Field(ge=1, le=1000)]
Coverage = Annotated[float, Field(ge=0.98, le=1)]  # SentencePiece's limits
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Exponent = Annotated[float, Field(ge=0, le=10)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=True)]  # infinity switches a limit off
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=True)]
Text = Annotated[str, AfterValidator(plain_text)]
NonEmptyText = Annotated[str, Field(min_length=1), AfterValidator(plain_text)]
PathText = Annotated[Text, AfterValidator(expand_home)]
NonEmptyPath = Annotated[NonEmptyText, AfterValidator(expand_home)]
PlainName = Annotated[str, AfterValidator(plain_name), AfterValidator(plain_text)]

# `auto`, or one of sacreBLEU's.
BleuTokenizer = Literal[
    "auto", "13a", "char", "flores101", "flores200", "intl", "ja-mecab", "ko-mecab", "none", "spBLEU-1K", "spm", "zh"
]

# Scores that are products of queries and keys, and all that read keys.
_PRODUCTS = ("scaled_dot", "dot", "general", "cosine")
_CONTENT_BASED = (*_PRODUCTS, "additive")


@one_line_errors("model.", lambda: Config().flat())
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """The model (section 3) and the alternatives to its parts."""

    d_model: Size = 512  # size of every sub-layer's output
    num_layers: Layers = 6  # N, of the encoder and of the decoder
    num_decoder_layers: Layers | None = None  # layers of the decoder, if it has another depth; null: num_layers
    num_heads: Size = 8  # h, attention heads
    num_kv_heads: Size | None = None  # fewer key/value heads (grouped-query attention); null: num_heads
    d_ff: Size = 2048  # inner size of the feed-forward network
    activation: Literal["relu", "gelu", "swish"] = "relu"  # activation of the feed-forward network
    d_k: Size | None = None  # size of a key per head; null: d_model / num_heads
    d_v: Size | None = None  # size of a value per head; null: d_k
    dropout: Fraction = 0.1  # P_drop (section 5.4)
    attention_dropout: Fraction = 0.0  # dropout of attention weights; not in the paper's translation models
    activation_dropout: Fraction = 0.0  # dropout inside the feed-forward network; not in the paper
    attention_bias: bool = False  # biases of the projections; the paper's equations have none, its code had them
    # how queries are compared with keys; scaled_dot is equation 1 (section 3.2.1)
    attention_score: Literal["scaled_dot", "dot", "general", "additive", "cosine", "location"] = "scaled_dot"
    attention_temperature: Positive = 1.0  # scores are divided by it
    attention_window: Size | None = None  # r: odd size of the encoder's local attention (section 4); null: unrestricted
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each sub-layer's residual sum, or before the sub-layer
    norm_eps: Positive = 1e-6  # added to the variance in LayerNorm
    tie: Literal["all", "decoder", "none"] = "all"  # which embeddings share their matrix (section 3.4)
    # how positions enter; sinusoidal is section 3.5, learned is row E of Table 3
    positional: Literal["sinusoidal", "learned", "shaw", "t5", "alibi", "rotary", "none"] = "sinusoidal"
    max_positions: Size = 512  # longest sequence, for learned positions (row E) and attention_score location only
    max_relative_position: Size = 20  # shaw positions clip distances here

    def __post_init__(self) -> None:
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


@one_line_errors("data.", lambda: Config().flat())
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Corpus, tokenizer and filtering of sentence pairs (section 5.1)."""

    corpus: NonEmptyPath = "wmt/wmt14"  # hub id, pattern of local files with {split} and {lang}, builtin or treebank
    subset: Text | None = "de-en"  # the hub's name for a part of the corpus
    revision: Text | None = None  # commit, tag or branch of the hub's repository; null: the newest commit
    src_lang: PlainName = "en"  # source language: {lang} in file names, a column of tables
    tgt_lang: PlainName = "de"  # target language
    train_split: PlainName = "train"  # {split} of the training data
    validation_split: PlainName = "validation"  # {split} of the validation data; also finds valid, val and dev
    test_split: PlainName = "test"  # {split} that is scored by default
    # how BLEU splits words; auto: by tgt_lang, as zh for Chinese, char for Thai, else 13a; none: text is tokenised
    bleu_tokenizer: BleuTokenizer = "auto"
    builtin_size: BoundedCount = 30000  # training pairs of the builtin corpus or treebank
    vocab_size: VocabSize = 37000  # pieces of the joint SentencePiece BPE model of both languages
    # changes to all text before it is split; minimal: tabs and the like become spaces; others: SentencePiece's rules
    normalization: NormalizationRule = "minimal"
    character_coverage: Coverage = 1.0  # part of the training text whose characters become pieces
    byte_fallback: bool = False  # spell other characters in 256 byte pieces, instead of as unknown
    max_length: Length = 256  # pieces per side, </s> included; longer pairs are dropped and counted
    max_ratio: Ratio | None = None  # drop training pairs whose lengths differ by more than this factor
    cache_dir: PathText = "runs/.cache"  # encoded corpora, keyed by content; can be shared and deleted

    @property
    def tokenizer_settings(self) -> dict[str, Any]:
        """How `Tokenizer.train` makes the tokenizer, apart from its size."""
        names = ("normalization", "character_coverage", "byte_fallback")
        return {name: getattr(self, name) for name in names}


@one_line_errors("train.", lambda: Config().flat())
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Batches, optimizer, schedule, validation and checkpoints (sections 5.1 to 5.4)."""

    tokens_per_update: Count = 25000  # target tokens per optimizer step, accumulated over batches
    max_tokens: Count = 4096  # tokens per batch and side, padding included: limits memory
    label_smoothing: Fraction = 0.1  # eps_ls (section 5.4)
    warmup_steps: Count = 4000  # updates with a rising learning rate (equation 3)
    lr_factor: Positive = 1.0  # factor of the learning rate of equation 3
    adam_beta1: Fraction = 0.9  # beta_1 of Adam (section 5.3)
    adam_beta2: Fraction = 0.98  # beta_2 of Adam
    adam_eps: Positive = 1e-9  # epsilon of Adam
    weight_decay: NotNegative = 0.0  # decoupled weight decay, as in AdamW; 0 is Adam
    clip_norm: Limit | None = None  # maximum gradient norm; null: no clipping
    skip_nonfinite: CountFromZero = 0  # maximum number of updates skipped because of non-finite gradients
    max_steps: Count = 100_000  # updates in total, including resumed runs
    max_hours: Limit | None = None  # hours of training in total; null: unlimited
    patience: Count | None = None  # early stopping: stop after this many validations without improvement
    log_steps: Count = 50  # updates between lines of metrics
    validate_steps: Count = 1000  # updates between validations
    validation_bleu: bool = True  # also score greedy translations of the validation data
    best_by: Literal["loss", "bleu"] = "loss"  # which checkpoint is the best, and what patience waits for
    save_steps: Count | None = None  # updates between checkpoints; null: only save_minutes
    save_minutes: Limit | None = 10.0  # minutes between checkpoints; null: only save_steps
    keep_checkpoints: Count = 5  # number of most recent checkpoints to keep; the best is kept separately
    precision: Precision = "auto"  # bf16 where the hardware supports it, else fp32; master weights are always fp32
    device: Device = "auto"  # auto: CUDA if available
    num_threads: Threads | None = None  # CPU threads; null: torch's default, at most the CPUs of the process

    def __post_init__(self) -> None:
        if self.best_by == "bleu" and not self.validation_bleu:
            raise ConfigError("train.best_by=bleu needs train.validation_bleu=true; or use train.best_by=loss")

    @property
    def best_measure(self) -> str:
        """`best_by` in words."""
        return {"loss": "loss", "bleu": "BLEU"}[self.best_by]


@one_line_errors("search.", lambda: Config().flat())
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SearchConfig:
    """Beam search (section 6.1)."""

    beam: Beam = 4  # hypotheses per sentence; 1 is greedy search
    alpha: Exponent = 0.6  # exponent of the length penalty ((5 + |Y|) / 6)^alpha
    max_length_offset: Offset = 50  # maximum output length, </s> included, beyond the input's
    max_source_length: Size = 1024  # pieces of input, </s> included; longer input is an error, or see --too-long


@one_line_errors("", lambda: Config().flat())
@dataclass(frozen=True, kw_only=True, config=_STRICT)
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

    def to_yaml(self) -> str:
        """The complete configuration, defaults included, in the format of `load_config`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)

    def differences(self) -> str:
        """The values that differ from the defaults, and `run_dir`, in the format of `load_config`."""
        defaults, tree = dataclasses.asdict(Config()), dataclasses.asdict(self)
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
        """Values by dotted key, such as `train.max_steps`."""
        return _flatten(dataclasses.asdict(self))


_SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "search": SearchConfig}
_HINTS = {
    f"{prefix}{name}": hint
    for prefix, cls in {"": Config, **{f"{name}.": cls for name, cls in _SECTIONS.items()}}.items()
    for name, hint in typing.get_type_hints(cls).items()
    if name not in _SECTIONS
}


def override(
    search: SearchConfig,
    *,
    beam: int | None = None,
    alpha: float | None = None,
    max_length_offset: int | None = None,
    max_source_length: int | None = None,
) -> SearchConfig:
    """Replace the settings that are not None. ConfigError if out of range."""
    chosen = {"beam": beam, "alpha": alpha, "max_length_offset": max_length_offset}
    values: dict[str, Any] = chosen | {"max_source_length": max_source_length}
    return dataclasses.replace(search, **{name: value for name, value in values.items() if value is not None})


def load_config(path: str | Path, overrides: typing.Iterable[str] = (), *, saved: bool = False) -> Config:
    """Read a YAML file, apply `section.key=value` overrides and validate.

    A file may inherit from another by `base: PATH`, relative to itself, or by the name of a shipped configuration;
    everything but `run_dir` is inherited. YAML anchors, aliases and tags are not supported. Renamed keys are accepted,
    with a warning on stderr.

    Args:
        path: YAML file, or the name of a shipped configuration, such as `quickstart` or `table3/c_n2`.
        overrides: such as `train.max_steps=1000`; the last one of a key wins.
        saved: the file was written with a run or a model, so it has no `base`, and renamed keys are no reason to warn.

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
    if saved and isinstance(data := values.get("data"), dict):
        data.setdefault("normalization", "nmt_nfkc")  # the only rule of versions that did not name it
    values.setdefault("run_dir", f"runs/{path.stem if path.suffix in ('.yaml', '.yml') else path.name}")
    for override in overrides:
        apply_override(values, override, _HINTS)
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
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

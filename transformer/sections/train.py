"""The section `train`."""

from typing import Literal

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.errors import ConfigError
from transformer.sections.types import (
    STRICT,
    Count,
    CountFromZero,
    Device,
    Fraction,
    Limit,
    NotNegative,
    Positive,
    Precision,
    Threads,
)


@one_line_errors("train.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
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

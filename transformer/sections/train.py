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
    NonEmptyPath,
    NonEmptyText,
    NotNegative,
    Positive,
    Precision,
    Switch,
    Threads,
)


@one_line_errors("train.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """Batches, optimizer, schedule, validation and checkpoints (sections 5.1 to 5.4)."""

    # fine-tuning: a run, checkpoint or hub id whose weights and tokenizer a new run begins with; null: random weights
    init_from: NonEmptyPath | None = None
    # parameters that are not trained: names such as encoder or decoder.layers.0, with * and ?; or embeddings
    freeze: tuple[NonEmptyText, ...] = ()
    tokens_per_update: Count = 25000  # target tokens per optimizer step, accumulated over batches
    # which pairs make an update; mixed: a random sample; bucketed: whole batches of pairs of similar length
    batching: Literal["mixed", "bucketed"] = "mixed"
    # tokens per batch and side, padding included: limits memory; null: 4096, or if packed 4608 on CPUs, 32768 on CUDA
    max_tokens: Count | None = None
    # whether sentences stand end to end, without padding; auto: on CPUs and CUDA, where precision and model allow it
    packed: Switch = "auto"
    # whether packed batches are compiled by torch.compile; auto: with 10,000 or more updates to come
    compile: Switch = "auto"
    label_smoothing: Fraction = 0.1  # eps_ls (section 5.4)
    # learning rate by update; noam: equation 3; the others rise to learning_rate, then fall, or stay constant
    schedule: Literal["noam", "inverse_sqrt", "cosine", "linear", "constant"] = "noam"
    warmup_steps: Count = 4000  # updates with a rising learning rate (equation 3)
    lr_factor: Positive = 1.0  # factor of the learning rate of equation 3; of no other schedule
    learning_rate: Positive | None = None  # highest learning rate of the other schedules, which need it
    min_learning_rate: NotNegative = 0.0  # lowest learning rate of schedules cosine and linear, at their end
    decay_steps: Count | None = None  # update at which cosine and linear end; null: max_steps
    adam_beta1: Fraction = 0.9  # beta_1 of Adam (section 5.3)
    adam_beta2: Fraction = 0.98  # beta_2 of Adam
    adam_eps: Positive = 1e-9  # epsilon of Adam
    weight_decay: NotNegative = 0.0  # decoupled weight decay, as in AdamW; 0 is Adam
    ema_decay: Fraction | None = None  # validate and keep a moving average of the weights, such as 0.999; null: none
    clip_norm: Limit | None = None  # maximum gradient norm; null: no clipping
    skip_nonfinite: CountFromZero = 0  # maximum number of updates skipped because of non-finite gradients
    max_steps: Count = 100_000  # updates in total, including resumed runs
    max_hours: Limit | None = None  # hours of training in total; null: unlimited
    patience: Count | None = None  # early stopping: stop after this many validations without improvement
    log_steps: Count = 50  # updates between lines of metrics
    validate_steps: Count = 1000  # updates between validations
    validation_bleu: bool = True  # also score greedy translations of the validation data, by BLEU and chrF
    best_by: Literal["loss", "bleu", "chrf"] = "loss"  # which checkpoint is the best, and what patience waits for
    save_steps: Count | None = None  # updates between checkpoints; null: only save_minutes
    save_minutes: Limit | None = 10.0  # minutes between checkpoints; null: only save_steps
    keep_checkpoints: Count = 5  # number of most recent checkpoints to keep; the best is kept separately
    precision: Precision = "auto"  # bf16 where the hardware supports it, else fp32; master weights are always fp32
    gradient_checkpointing: bool = False  # recompute each layer in the backward pass: less memory, more time
    device: Device = "auto"  # auto: CUDA if available, else the CPU
    deterministic: bool = False  # on CUDA, equal results of equal runs to the bit: slower; on a CPU they always are
    num_threads: Threads | None = None  # CPU threads; null: torch's default, at most the CPUs of the process

    def __post_init__(self) -> None:
        self._check_schedule()
        if self.best_by != "loss" and not self.validation_bleu:
            raise ConfigError(
                f"train.best_by={self.best_by} needs train.validation_bleu=true; or use train.best_by=loss"
            )

    def _check_schedule(self) -> None:
        if self.decay_end is None:
            self._check_no_decay()
        if self.schedule == "noam":
            if self.learning_rate is not None:
                raise ConfigError(
                    f"train.learning_rate={self.learning_rate} is not used by train.schedule=noam (equation 3): give "
                    "train.lr_factor, which scales it, or another train.schedule"
                )
            return
        if self.learning_rate is None:
            raise ConfigError(
                f"train.schedule={self.schedule} needs train.learning_rate, its highest; only noam has one of its own"
            )
        if self.decay_end is not None and self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"train.min_learning_rate={self.min_learning_rate} is more than train.learning_rate="
                f"{self.learning_rate}: raise the second or lower the first"
            )
        if self.decay_end is not None and self.decay_end <= self.warmup_steps:
            key = "max_steps" if self.decay_steps is None else "decay_steps"
            hint = "; train.decay_steps sets another end than train.max_steps" if self.decay_steps is None else ""
            raise ConfigError(
                f"train.{key}={self.decay_end} must be more than train.warmup_steps={self.warmup_steps}, after which "
                f"the learning rate falls with train.schedule={self.schedule}{hint}"
            )

    def _check_no_decay(self) -> None:
        """ConfigError for keys of a decay without one."""
        for key, value, default in (
            ("min_learning_rate", self.min_learning_rate, 0.0),
            ("decay_steps", self.decay_steps, None),
        ):
            if value != default:
                raise ConfigError(
                    f"train.{key}={value} is not used by train.schedule={self.schedule}, only by cosine and linear: "
                    f"leave it out or set {'null' if default is None else default}"
                )

    @property
    def decay_end(self) -> int | None:
        """The update at which the learning rate reaches its lowest; None for schedules without an end."""
        return (self.decay_steps or self.max_steps) if self.schedule in ("cosine", "linear") else None

    @property
    def padded_tokens(self) -> int:
        """`max_tokens` of padded batches."""
        return 4096 if self.max_tokens is None else self.max_tokens

    @property
    def best_measure(self) -> str:
        """`best_by` in words."""
        return {"loss": "loss", "bleu": "BLEU", "chrf": "chrF"}[self.best_by]

"""The training loop (section 5): update, log, validate, save, stop?"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from transformer.config import Config
from transformer.data.batching import Batch, collate
from transformer.data.dataset import Ints
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, TrainingError
from transformer.files import remove_whole
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import RandomState, build_model, random_state, save_checkpoint
from transformer.training.distributed import ALONE, World, begin_alike, sum_gradients
from transformer.training.guard import FiniteGuard, is_out_of_memory
from transformer.training.metrics import MetricsLog, NoLog
from transformer.training.names import checkpoint_name
from transformer.training.optimizer import adam
from transformer.training.phases import Phase, untimed
from transformer.training.plan import Update, UpdatePlan, halve
from transformer.training.precision import MasterWeights, resolve_device, resolve_dtype
from transformer.training.process import return_freed_memory
from transformer.training.progress import Progress
from transformer.training.provenance import record_start
from transformer.training.resume import begin_beside, resume
from transformer.training.run import claim_run, prune, regular_steps
from transformer.training.run_data import load_data
from transformer.training.schedule import noam_lr
from transformer.training.step import train_step, validation_nll

# A tenth of a second each time, and as much again to take back what is needed.
_RETURN_MEMORY_STEPS = 25

# Scores a model's translations of sources against references: what `validation_bleu` logs.
Scorer = Callable[[Transformer, Tokenizer, Sequence[str], Sequence[str]], float]


class Trainer:
    """Everything a run needs, built from its configuration and, if it was begun before, from its last checkpoint.

    Args:
        config: the run. Its directory is created, or continued if it holds the same configuration.
        scorer: gives the `bleu` of validation; without it there is none.
        world: the processes that train together; each of them builds a trainer and calls the same methods.

    Attributes:
        phase: may be set to time the phases of an update.

    Raises:
        UserError: the run directory belongs to another configuration or process, the corpus cannot be read, the device
            is absent.
        OSError: the run directory cannot be written.
    """

    def __init__(self, config: Config, scorer: Scorer | None = None, world: World = ALONE) -> None:
        self.config = config
        self.world = world
        self.scorer = scorer if config.train.validation_bleu else None
        self.phase: Phase = untimed
        self.device = resolve_device(config.train.device)
        self.dtype = resolve_dtype(config.train.precision, self.device)
        if config.train.num_threads is not None:
            torch.set_num_threads(config.train.num_threads)
        self.run = Path(config.run_dir)
        world.from_main(self._claim)
        self.data = load_data(config, world)
        torch.manual_seed(config.seed)
        master = build_model(config, len(self.data.tokenizer)).to(self.device)
        self.optimizer = adam(master.parameters(), config.train)
        self.progress, states = world.from_main(lambda: resume(config, master, self.optimizer, self.data.fingerprints))
        begin_alike(master, self.optimizer, self.progress.step - self.progress.num_nonfinite, world)
        if not world.is_main:
            begin_beside(self.progress, states, config.seed, world)
        self.weights = MasterWeights(master, self.dtype)
        self.weights.model.train()
        window = (self.progress.window_loss, self.progress.window_nll, self.progress.window_tokens)
        self._window = torch.tensor(window, dtype=torch.float64).to(self.device)
        self._plan = UpdatePlan(self.data.train, config, world)
        self._guard = FiniteGuard()
        self._saved_at = (self.progress.step, time.monotonic())

    def fit(self, stop: Callable[[], str | None] = lambda: None) -> str:
        """Train until there is a reason to stop, save, and return that reason. `stop` is asked after each update."""
        settings = self.config.train
        if self._reason_to_stop() is None and self.world.is_main:
            if (averaged := self.run / "averaged").is_dir():
                # It is of the checkpoints that there were: from now on it would hide better ones.
                remove_whole(averaged)
            record_start(self.run, self.progress.step, self.device, self.data.fingerprints)
        with contextlib.closing(self._open_log()) as log:
            started = time.monotonic() - self.progress.elapsed_s
            while (reason := self._agreed(self._reason_to_stop() or stop())) is None:
                began = time.monotonic()
                self.update()
                step = self.progress.step
                self.progress.window_s += time.monotonic() - began
                self.progress.elapsed_s = time.monotonic() - started
                logs, validates = step == 1 or step % settings.log_steps == 0, step % settings.validate_steps == 0
                saves = self._save_is_due()
                if self.device.type == "cpu" or logs or validates or saves:
                    self._check_updates(log)
                if logs:
                    self._log(log)
                if validates:
                    self._validate(log)
                if saves:
                    self._save()
                if step % _RETURN_MEMORY_STEPS == 0:
                    return_freed_memory()
                log.advance()
            if self._saved_at[0] != self.progress.step:
                self._check_updates(log)
                self._save()
        return reason

    def summary(self) -> str:
        """What is about to be trained, on what, and how: for people to read before they wait."""
        settings = self.config.train
        num_parameters = sum(parameter.numel() for parameter in self.weights.master.parameters())
        lines = [
            f"parameters: {num_parameters:,} (vocabulary of {len(self.data.tokenizer):,})",
            f"peak learning rate: {self.learning_rate(settings.warmup_steps):.3e} at step {settings.warmup_steps}",
            *self.data.counts(),
            f"device: {self.device}, precision: {str(self.dtype).removeprefix('torch.')}",
        ]
        if self.world.size > 1:
            lines.append(f"processes: {self.world.size}")
        if self.progress.step:
            lines.append(f"resuming after step {self.progress.step}")
        return "\n".join(lines)

    def update(self) -> list[Batch]:
        """Learn from the next batches, once; returns those of this process. `fit` logs, validates and saves.

        Weights stay as they are if the gradient is not finite, which `fit` reports.
        """
        settings, progress, phase = self.config.train, self.progress, self.phase
        with phase("data"):
            update = self._plan.next(progress)
            pairs = self._plan.share(update)
            batches = self._collate(pairs)
        batches, loss, nll = self._add_up_gradients(update, pairs, batches)
        with phase("optimizer"):
            parameters = list(self.weights.master.parameters())
            sum_gradients(parameters, self.world)
            progress.step += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress.step)
            is_finite = self._guard.step(self.optimizer, parameters, update, settings.clip_norm)
            self.optimizer.zero_grad(set_to_none=True)
            self.weights.refresh()
        num_tokens = sum(batch.num_tokens for batch in batches)
        self._window += torch.where(is_finite, torch.stack((loss, nll, loss.new_tensor(num_tokens))), 0.0)
        return batches

    def learning_rate(self, step: int) -> float:
        """Equation 3 times `lr_factor`, for the update number `step`, counted from 1."""
        return self.config.train.lr_factor * noam_lr(step, self.config.model.d_model, self.config.train.warmup_steps)

    def _collate(self, pairs: list[Ints]) -> list[Batch]:
        return [collate(self.data.train, indices).to(self.device) for indices in pairs]

    def _add_up_gradients(
        self, update: Update, pairs: list[Ints], batches: list[Batch]
    ) -> tuple[list[Batch], Tensor, Tensor]:
        """This process's gradients of an update, on the master weights; its batches, and their loss and NLL sums.

        If a batch does not fit into memory, all are halved until they do: gradients are sums over pairs. TrainingError
        if a single pair does not.
        """
        label_smoothing = self.config.train.label_smoothing
        num_tokens = sum(int(self.data.train.tgt.lengths[indices].sum()) for indices in update.pairs)
        while True:
            try:
                return batches, *train_step(self.weights, batches, label_smoothing, self.phase, num_tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if all(len(indices) == 1 for indices in pairs):
                    raise TrainingError(
                        f"{update}: one pair alone does not fit into memory ({error}); lower data.max_length"
                    ) from None
            # Here, after the clause, nothing refers to the tensors of the attempt any more.
            pairs = self._with_less_memory(update, pairs)
            batches = self._collate(pairs)

    def _with_less_memory(self, update: Update, pairs: list[Ints]) -> list[Ints]:
        """Forget what an attempt has left and halve its batches."""
        for model in (self.weights.master, self.weights.model):
            model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return_freed_memory()
        self.progress.num_split += 1
        print(
            f"{update}: a batch did not fit into memory, its batches are halved ({self.progress.num_split} times so "
            "far); to do without, lower train.max_tokens",
            file=sys.stderr,
        )
        return halve(pairs)

    def _check_updates(self, log: MetricsLog) -> None:
        """Count updates whose gradient was not finite; TrainingError if they are more than may be."""
        settings, progress = self.config.train, self.progress
        for update in self._guard.skipped():
            progress.num_nonfinite += 1
            what = f"{update}: the gradient is not finite, at a learning rate of {self.learning_rate(update.step):.2e}"
            if progress.num_nonfinite > settings.skip_nonfinite:
                raise TrainingError(
                    f"{what}; the last checkpoint is intact. Lower train.lr_factor, raise train.warmup_steps or set "
                    "train.clip_norm, in a new run_dir; or go on without such updates: --skip-nonfinite N"
                )
            log.log("nonfinite", update.step, epoch=update.epoch, update=update.number, count=progress.num_nonfinite)
            log.say(f"{what}; left out ({progress.num_nonfinite} of train.skip_nonfinite={settings.skip_nonfinite})")

    def _reason_to_stop(self) -> str | None:
        settings, progress = self.config.train, self.progress
        if progress.step >= settings.max_steps:
            return f"train.max_steps={settings.max_steps} reached"
        if settings.max_hours is not None and progress.elapsed_s >= settings.max_hours * 3600:
            return f"train.max_hours={settings.max_hours} reached"
        if settings.patience is not None and progress.num_worse >= settings.patience:
            return f"no better validation loss in train.patience={settings.patience} validations"
        return None

    def _agreed(self, reason: str | None) -> str | None:
        """The first process's reason to stop, or else another's: their clocks and the signals they got may differ."""
        (is_any,) = self.world.max(reason is not None)
        return next(filter(None, self.world.gather(reason))) if is_any else None

    def _open_log(self) -> MetricsLog:
        if not self.world.is_main:
            return NoLog()
        return MetricsLog(self.run, self.progress.step, self.config.train.max_steps)

    def _log(self, log: MetricsLog) -> None:
        progress = self.progress
        *sums, num_tokens = self._finite_window()
        loss, nll = (total / max(num_tokens, 1) for total in sums)
        values = {
            "loss": loss,
            "nll": nll,
            "ppl": math.exp(min(nll, 700.0)),
            "lr": self.learning_rate(progress.step),
            "tokens_per_s": num_tokens / max(progress.window_s, 1e-9),
            "epoch": progress.epoch,
            "elapsed_s": progress.elapsed_s,
        }
        log.log("train", progress.step, **values)
        log.show(
            loss=f"{loss:.3f}",
            nll=f"{nll:.3f}",
            ppl=f"{values['ppl']:.2f}",
            lr=f"{values['lr']:.2e}",
            tok_s=f"{values['tokens_per_s']:.0f}",
        )
        self._window.zero_()
        progress.window_s = 0.0

    def _finite_window(self) -> list[float]:
        """Sums of loss, NLL and tokens since the last log line; TrainingError, before a save, if not finite."""
        sums: list[float] = self.world.sum(self._window).tolist()
        self._check_finite(*sums)
        return sums

    def _check_finite(self, *losses: float) -> None:
        if not all(map(math.isfinite, losses)):
            step = self.progress.step
            raise TrainingError(
                f"step {step}: the loss is not finite (learning rate {self.learning_rate(step):.2e}); lower "
                "train.lr_factor, raise train.warmup_steps or set train.clip_norm, in a new run_dir"
            )

    def _validate(self, log: MetricsLog) -> None:
        progress, model = self.progress, self.weights.model
        nll = validation_nll(model, self.data.validation, self.config.train.max_tokens, self.device, self.world)
        self._check_finite(nll)
        values = {"nll": nll, "ppl": math.exp(min(nll, 700.0)), "elapsed_s": progress.elapsed_s}
        if self.scorer is not None:
            sources, references = zip(*self.data.validation_text, strict=True)
            model.eval()
            values["bleu"] = self.scorer(model, self.data.tokenizer, sources, references)
            model.train()
        is_better = progress.best_nll is None or nll < progress.best_nll
        progress.num_worse = 0 if is_better else progress.num_worse + 1
        log.log("validation", progress.step, **values)
        shown = "  ".join(f"{name} {values[name]:.3f}" for name in ("nll", "ppl", "bleu") if name in values)
        log.say(f"step {progress.step}: validation {shown}{'  (best)' if is_better else ''}")
        if is_better:
            progress.best_nll = nll
            self._write(self.run / "best", 1)

    def _save_is_due(self) -> bool:
        settings = self.config.train
        by_step = settings.save_steps is not None and self.progress.step % settings.save_steps == 0
        if by_step or settings.save_minutes is None:
            return by_step
        (seconds,) = self.world.max(time.monotonic() - self._saved_at[1])
        return seconds >= settings.save_minutes * 60

    def _save(self) -> None:
        progress = self.progress
        progress.window_loss, progress.window_nll, num_tokens = self._finite_window()
        progress.window_tokens = int(num_tokens)
        # The last update came after the last loss.
        self._check_finite(sum(weight.sum().item() for weight in self.weights.master.parameters()))
        states = self.world.gather(random_state())
        training = (self.optimizer, progress)
        self._write(self.run / "checkpoints", self.config.train.keep_checkpoints, training, states[1:])
        self._saved_at = (progress.step, time.monotonic())

    def _write(
        self,
        parent: Path,
        keep: int,
        training: tuple[torch.optim.Optimizer, Progress] | None = None,
        others: Sequence[RandomState] = (),
    ) -> None:
        if not self.world.is_main:
            return
        if not (self.run / "config.yaml").is_file():
            # Perhaps its disk has been unmounted: what is written under the same name now would lie somewhere else.
            raise CheckpointError(f"{self.run}: the run directory is gone; nothing is saved")
        directory = parent / checkpoint_name(self.progress.step)
        weights = self.weights.master.state_dict()
        try:
            save_checkpoint(directory, self.config, self.data.tokenizer, weights, training, others)
        except OSError as error:
            raise CheckpointError(
                f"{directory}: cannot be written ({error.strerror or error}); earlier checkpoints are intact, and the "
                "same command goes on from the last one"
            ) from None
        prune(parent, keep, regular_steps(self.config.train))

    def _claim(self) -> None:
        # Other processes are kept out for as long as this trainer exists.
        self._lock = claim_run(self.config)

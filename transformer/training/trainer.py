"""The training loop (section 5): update, log, validate, save, stop."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from transformer.config import Config
from transformer.errors import TrainingError
from transformer.model.alternatives.build import build_model
from transformer.progress import Stage, no_stage, say
from transformer.training.agreement import Agreement
from transformer.training.averaging import MovingAverage, moving_average
from transformer.training.callbacks import Notifier, OnLog
from transformer.training.claim import Claim
from transformer.training.data import BatchSampler, RunData, Update, load_data
from transformer.training.determinism import prepare_process
from transformer.training.device import precision_name, resolve_device, resolve_dtype, return_freed_memory
from transformer.training.distributed import SINGLE_PROCESS, Abandoned, DistributedContext
from transformer.training.freezing import freeze, numbers_of_parameters
from transformer.training.initialization import claim_with_tokenizer
from transformer.training.interruption import WholeUpdates
from transformer.training.metrics import MetricsLog, NullLog
from transformer.training.nonfinite import check_finite, check_skipped
from transformer.training.optimizer import MasterWeights, adam, check_optimizer
from transformer.training.packed.packers import packer_of
from transformer.training.reduction import GradientReducer
from transformer.training.resumption import resume_run
from transformer.training.rng import OwnRNG, get_rng_state, process_kept
from transformer.training.run_directory import former_values, record_start, with_values
from transformer.training.running import RunningSums, training_values
from transformer.training.saving import RunSaver
from transformer.training.schedule import described, learning_rate
from transformer.training.train_step import AnyBatch, NonfiniteGuard, Timer, accumulate_in_memory, no_timer
from transformer.training.training_state import Progress, TrainingState, init_worker, reason_to_stop
from transformer.training.update_data import update_data
from transformer.training.validation import (
    BleuScorer,
    StopCheck,
    record_validation,
    recorded_tokenizer,
    unvalidated_line,
    used_scorer,
    validate_all,
    validation_line,
)

# A trim takes 0.1 s, and as much again to reallocate what is needed. On CUDA little of the memory is the host's.
_TRIM_STEPS = 25


class Trainer:
    """The training loop of a run; `from_config` builds it with its parts."""

    def __init__(
        self,
        config: Config,
        data: RunData,
        weights: MasterWeights,
        optimizer: Optimizer,  # of the master weights, as of `check_optimizer`
        progress: Progress,  # the step and the position in the data to continue from
        *,
        scorer: BleuScorer | None = None,  # computes the validation BLEU; without it there is none
        context: DistributedContext = SINGLE_PROCESS,  # every process creates a trainer and calls the same methods
        claim: Claim | None = None,  # to the run directory, held for the lifetime of the trainer
        average: MovingAverage | None = None,  # of train.ema_decay; by default it begins with the weights
    ) -> None:
        self.config, self.run, self.context = config, Path(config.run_dir), context
        self._claim = contextlib.nullcontext() if claim is None else claim
        self.data, self.weights, self.optimizer, self.progress = data, weights, optimizer, progress
        check_optimizer(optimizer, weights.master.parameters())
        self.scorer = used_scorer(scorer, config.train)
        self.average = average or moving_average(weights.master, config.train.ema_decay)
        self.timer: Timer = no_timer  # may be set to time the phases of an update
        weight = next(weights.model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        weights.model.train()
        self._running, settings = RunningSums(progress, self.device), config.train
        self._sampler = BatchSampler(data.train, settings, config.seed, context)
        self.packer = packer_of(settings, weights.model, settings.max_steps - progress.step)
        self._guard = NonfiniteGuard(weights.restore_scale(progress))
        self._agreement = Agreement(settings, context)
        self._saver, self._saved_at = RunSaver(config, data.tokenizer, self.device, progress), time.monotonic()
        self._rng, self._whole_updates = OwnRNG(), WholeUpdates(progress, weights)
        # What ranks have exchanged cannot be taken back.
        self._reducer = GradientReducer(weights, context, self._whole_updates.change_weights)

    @classmethod
    @process_kept()
    def from_config(
        cls,
        config: Config,
        scorer: BleuScorer | None = None,
        context: DistributedContext = SINGLE_PROCESS,
        stage: Stage = no_stage,
        change: bool = False,
    ) -> Trainer:
        """Create a configuration's run, or resume it from its last checkpoint; `stage` shows the preparation of data.

        `change` is --change. UserError if the run directory belongs to another configuration or process, the corpus
        cannot be read, the device is absent or another thread trains; OSError if the run directory cannot be written.
        The process keeps its random numbers, but gets the threads of `train.num_threads`.
        """
        former = functools.partial(former_values, config, change=change)
        config = with_values(config, context.broadcast_from_main(former))  # a rank's own paths stay
        settings, run = config.train, Path(config.run_dir)
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.precision, device)
        prepare_process(settings, device)
        claim = claim_with_tokenizer(config, change=change) if context.is_main else None
        data = load_data(config.data, run / "tokenizer.model", context, stage)
        torch.manual_seed(config.seed)
        vocab_size, source_vocab_size = data.tokenizer.sizes
        model = build_model(vocab_size, config.model, source_vocab_size=source_vocab_size)
        master = freeze(model, settings.freeze).to(device)
        optimizer = adam(master.parameters(), settings)
        average = moving_average(master, settings.ema_decay)
        progress, worker_states = context.broadcast_from_main(
            lambda: resume_run(config, master, optimizer, data, average)
        )
        context.broadcast_state(master, optimizer, progress.num_updates)
        if average is not None:
            context.broadcast_state(average.model, optimizer, 0)
        if not context.is_main:
            init_worker(progress, worker_states, config.seed, context.rank)
        weights = MasterWeights(master, dtype, recompute=settings.gradient_checkpointing)
        return cls(
            config, data, weights, optimizer, progress, scorer=scorer, context=context, claim=claim, average=average
        )

    def fit(self, stop: Callable[[], str | None] = lambda: None, on_log: OnLog | None = None) -> str:
        """Train until there is a reason to stop; save and return it.

        `stop()` is asked between updates, and during validations between batches and decoding steps. If it has a
        reason, the validation is left, and made up for on resumption. Without one, the last step is validated too.
        `on_log(kind, step, values)` gets what is logged, on the main process (`callbacks.py`). Random numbers are the
        trainer's own, whatever else this thread draws; other threads must draw none of torch's meanwhile. InUseError if
        one trains, or there is a later trainer of the run. After an exception, such as that of Ctrl-C, `fit` goes on as
        if there had been none; TrainingError if it left the optimizer's step.
        """
        self._whole_updates.check()
        with self._claim, self._rng.in_use():
            return self._fit(stop, Notifier(on_log))

    def _fit(self, stop: Callable[[], str | None], notify: Notifier) -> str:
        progress, is_main = self.progress, self.context.is_main
        if reason_to_stop(self.config.train, progress) is None and is_main:
            record_start(self.run, progress.step, self.device, self.data.fingerprints, len(self.data.train))
        metrics = MetricsLog.of_run(self.run, self.config.train, progress, notify) if is_main else NullLog()
        should_stop = StopCheck(stop, self.context)
        with contextlib.closing(metrics) as log, self._saver:
            log.notify("start", progress.step, elapsed_s=progress.elapsed_s)
            try:
                reason = self._train(log, should_stop)
            except Abandoned:
                reason = self._agreement.first(should_stop.reason)
            if (progress.step, progress.validated_step) != self._saver.saved:
                self._check_skipped(log)
                self._save()
            self._saver.wait()
            if is_main and (line := unvalidated_line(self.run, progress)) is not None:
                log.print(line)
            log.notify("end", progress.step, elapsed_s=progress.elapsed_s)
        return reason

    def _train(self, log: MetricsLog, should_stop: StopCheck) -> str:
        """Update and validate until training ends by itself; `Abandoned` if any rank is asked to stop."""
        settings, progress = self.config.train, self.progress
        if progress.step % settings.validate_steps == 0 and progress.validated_step < progress.step:
            # The run was stopped in this validation.
            self._validate(log, should_stop)
            self._save()
        started = time.monotonic() - progress.elapsed_s
        while (reason := self._agreement.reason_to_end(progress, should_stop)) is None:
            began = time.monotonic()
            self.update()
            self._saver.check()
            log.advance()
            step = progress.step
            progress.running_s += time.monotonic() - began
            progress.elapsed_s = time.monotonic() - started
            logs, validates = step == 1 or step % settings.log_steps == 0, step % settings.validate_steps == 0
            saves = self._agreement.is_save_due(progress, time.monotonic() - self._saved_at)
            if self.device.type == "cpu" or logs or validates or saves:
                self._check_skipped(log)
            if logs:
                self._log(log)
            if validates:
                self._validate(log, should_stop)
            if saves:
                self._save()
            if step % _TRIM_STEPS == 0 and self.device.type == "cpu":
                return_freed_memory()
        if progress.validated_step < progress.step:
            self._check_skipped(log)
            self._validate(log, should_stop)
        return reason

    def summary(self) -> str:
        """Model, data and device of the run, for the user."""
        lines = [
            f"parameters: {numbers_of_parameters(self.weights.master)} (vocabulary of {len(self.data.tokenizer):,})",
            described(self.config.train, self.config.model.d_model),
            *self.data.counts(),
            f"device: {self.device}, precision: {precision_name(self.dtype)}",
        ]
        lines += [self.packer.described(self.weights.model)] if self.packer else []
        lines += [f"processes: {self.context.size}"] if self.context.size > 1 else []
        lines += [f"resuming after step {self.progress.step}"] if self.progress.step else []
        return "\n".join(lines)

    def num_tokens(self) -> tuple[int, int]:
        """Source and target tokens of all updates so far."""
        return self._sampler.num_tokens(self.progress)

    def update(self) -> Sequence[AnyBatch]:
        """Run one update; returns the batches of this rank. One that an exception leaves is taken back, as in `fit`.

        A batch is a `GroupedBatch` on a CPU, a `PackedBatch` on CUDA, or a `Batch` where batches are padded. All have
        `num_tokens`, of targets without padding; `batch_loss` computes the loss of any.
        """
        with self._rng.in_use(), self._whole_updates.update():
            return self._update()

    def _update(self) -> Sequence[AnyBatch]:
        progress = self.progress
        with self.timer("data"):
            update = self._sampler.next(progress)
        batches, loss, nll = self._accumulate_gradients(update)
        with self.timer("optimizer"):
            parameters = list(self.weights.master.parameters())
            self._reducer.all_reduce_gradients()
            progress.step += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress.step)
            self._whole_updates.change_weights()
            # Non-finite gradients leave the weights unchanged; `fit` reports them.
            is_finite = self._guard.step(self.optimizer, parameters, update, self.config.train.clip_norm)
            self.optimizer.zero_grad(set_to_none=True)
            self.weights.refresh()
            if self.average is not None:
                self.average.update(self.weights.master, is_finite, progress.step)
        self._running.add(is_finite, loss, nll, sum(batch.num_tokens for batch in batches))
        return batches

    def learning_rate(self, step: int) -> float:
        """By `train.schedule`; `step` counts from 1."""
        return learning_rate(step, self.config.train, self.config.model.d_model)

    def _accumulate_gradients(self, update: Update) -> tuple[Sequence[AnyBatch], Tensor, Tensor]:
        """This rank's batches, loss and NLL, with gradients on the master weights."""
        smoothing = self.config.train.label_smoothing
        data, indices, num_tokens = update_data(self.data, update, self._sampler, self.config, self.context)

        def report_halving() -> None:
            self.progress.num_split += 1
            say(
                f"{update}: a batch did not fit into memory, halving the batches ({self.progress.num_split} times so "
                "far); to avoid this, lower train.max_tokens"
            )

        try:
            return accumulate_in_memory(
                self.weights, data, indices, smoothing, num_tokens, report_halving, self.timer, self.packer
            )
        except MemoryError as error:
            raise TrainingError(
                f"{update}: a single pair does not fit into memory ({error}); lower data.max_length"
            ) from None

    def _check_skipped(self, log: MetricsLog) -> None:
        check_skipped(self._guard, self.progress, self.config.train.skip_nonfinite, self.learning_rate, log)

    def _log(self, log: MetricsLog) -> None:
        progress = self.progress
        total = self._running_sums()
        if not total[-1] and self.weights.loss_scale is not None:  # all updates overflowed
            return
        values = training_values(progress, total, self.learning_rate(progress.step))
        # First, so that an exception of the user's function does not put two intervals into the next line.
        self._running.reset()
        progress.running_s = 0.0
        log.log("train", progress.step, **values)

    def _running_sums(self) -> list[float]:
        """Loss, NLL and tokens of all ranks since the last log line."""
        sums = self._running.total(self.context)
        self._check_finite(*sums)
        return sums

    def _check_finite(self, *losses: float) -> None:
        check_finite(self.progress.step, self.learning_rate(self.progress.step), *losses)

    def _validate(self, log: MetricsLog, should_stop: StopCheck) -> None:
        """Validate, log and keep the best; `Abandoned`, with nothing changed, if a rank is asked to stop."""
        progress, settings = self.progress, self.config.train
        log.note("validating")
        model = self.weights.model if self.average is None else self.average.computing(self.weights.model)
        found = validate_all(model, self.data, settings.padded_tokens, self.scorer, self.context, should_stop)
        self._check_finite(*(scores["nll"] for scores in found.values()))
        is_regular = progress.step % settings.validate_steps == 0
        is_best = record_validation(progress, found["validation"], settings.best_by, is_regular=is_regular)
        tokenizer = recorded_tokenizer(self.scorer)
        for kind, scores in found.items():
            log.log(kind, progress.step, **scores, elapsed_s=progress.elapsed_s, **tokenizer)
            log.print(validation_line(kind, progress.step, scores, is_best=is_best and kind == "validation"))
        if is_best:
            self._write(self.run / "best")

    def _save(self) -> None:
        progress = self.progress
        progress.running_loss, progress.running_nll, num_tokens = self._running_sums()
        progress.running_tokens = int(num_tokens)
        self.weights.save_scale(progress)
        # The last update may have spoiled the weights after its loss was computed.
        sums = torch.stack([weight.detach().sum() for weight in self.weights.master.parameters()])
        self._check_finite(sum(sums.tolist()))
        _, *worker_states = self.context.all_gather(get_rng_state())
        raw_weights = None if self.average is None else self.weights.master.state_dict()
        self._write(self.run / "checkpoints", TrainingState(self.optimizer, progress, worker_states, raw_weights))
        self._saver.mark_saved(progress)
        self._saved_at = time.monotonic()

    def _write(self, parent: Path, state: TrainingState | None = None) -> None:
        if self.context.is_main:
            weights = self.weights.master if self.average is None else self.average.model
            self._saver.write(parent, weights.state_dict(), self.progress, state)

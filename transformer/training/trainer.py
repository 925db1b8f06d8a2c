"""The training loop (section 5): update, log, validate, save, stop?"""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from transformer.config import Config
from transformer.data.batching import Batch, collate, plan_updates, share_update
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import Ints, PairDataset, corpus_tokenizer, encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, DataError, TrainingError
from transformer.files import remove_whole, write_whole
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import (
    Progress,
    RandomState,
    build_model,
    load_training,
    load_weights,
    other_random_states,
    random_state,
    save_checkpoint,
    set_random_state,
)
from transformer.training.distributed import ALONE, World, begin_alike, rank_seed, sum_gradients
from transformer.training.metrics import MetricsLog, NoLog
from transformer.training.phases import Phase, untimed
from transformer.training.precision import MasterWeights, resolve_device, resolve_dtype
from transformer.training.process import return_freed_memory
from transformer.training.run import checkpoint_name, checkpoints, claim_run, prune, step_of
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
        UserError: the run directory belongs to another configuration, the corpus cannot be read, the device is absent.
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
        self.run = world.from_main(lambda: claim_run(config))
        data = config.data
        with world.in_turn():
            train, self.validation = (load_split(data, split) for split in (data.train_split, data.validation_split))
        if train.name == self.validation.name:
            raise DataError(
                f"data.corpus={data.corpus}: training and validation are the same file; is {{split}} missing?"
            )
        self.tokenizer = Tokenizer(world.from_main(lambda: self._tokenizer(train).model))
        with world.in_turn():
            self.train_data = self._encode(train, data.max_ratio)
            self.validation_data = self._encode(self.validation, None)
        self._check_same_data()
        torch.manual_seed(config.seed)
        master = build_model(config, len(self.tokenizer)).to(self.device)
        self.optimizer = _adam(master, config)
        self.progress, states = world.from_main(lambda: self._resume(master))
        begin_alike(master, self.optimizer, self.progress.step, world)
        if not world.is_main:
            self._begin_beside(states)
        self.weights = MasterWeights(master, self.dtype)
        self.weights.model.train()
        self._window = torch.tensor([self.progress.window_loss, self.progress.window_nll], dtype=torch.float64)
        self._window = self._window.to(self.device)
        self._plan: list[list[Ints]] = []
        self._plan_epoch = -1
        self._saved_at = (self.progress.step, time.monotonic())

    def fit(self, stop: Callable[[], str | None] = lambda: None) -> str:
        """Train until there is a reason to stop, save, and return that reason. `stop` is asked after each update."""
        settings = self.config.train
        averaged = self.run / "averaged"
        if self._reason_to_stop() is None and self.world.is_main and averaged.is_dir():
            # An average is of the checkpoints that there were: from now on it would hide better ones.
            remove_whole(averaged)
        with contextlib.closing(self._open_log()) as log:
            started = time.monotonic() - self.progress.elapsed_s
            while (reason := self._agreed(self._reason_to_stop() or stop())) is None:
                began = time.monotonic()
                self.update()
                step = self.progress.step
                self.progress.window_s += time.monotonic() - began
                self.progress.elapsed_s = time.monotonic() - started
                if step == 1 or step % settings.log_steps == 0:
                    self._log(log)
                if step % settings.validate_steps == 0:
                    self._validate(log)
                if self._save_is_due():
                    self._save()
                if step % _RETURN_MEMORY_STEPS == 0:
                    return_freed_memory()
                log.advance()
            if self._saved_at[0] != self.progress.step:
                self._save()
        return reason

    def summary(self) -> str:
        """What is about to be trained, on what, and how: for people to read before they wait."""
        settings = self.config.train
        num_parameters = sum(parameter.numel() for parameter in self.weights.master.parameters())
        lines = [
            f"parameters: {num_parameters:,} (vocabulary of {len(self.tokenizer):,})",
            f"peak learning rate: {self.learning_rate(settings.warmup_steps):.3e} at step {settings.warmup_steps}",
            f"training pairs: {_count(self.train_data)}",
            f"validation pairs: {_count(self.validation_data)}",
            f"device: {self.device}, precision: {str(self.dtype).removeprefix('torch.')}",
        ]
        if self.world.size > 1:
            lines.append(f"processes: {self.world.size}")
        if self.progress.step:
            lines.append(f"resuming after step {self.progress.step}")
        return "\n".join(lines)

    def update(self) -> list[Batch]:
        """Learn from the next batches, once; returns those of this process. `fit` logs, validates and saves."""
        settings, progress, phase = self.config.train, self.progress, self.phase
        with phase("data"):
            update = self._next_update()
            num_tokens = sum(int(self.train_data.tgt.lengths[indices].sum()) for indices in update)
            batches = [collate(self.train_data, indices).to(self.device) for indices in self._share(update)]
        loss, nll = train_step(self.weights, batches, settings.label_smoothing, phase, num_tokens)
        with phase("optimizer"):
            parameters = list(self.weights.master.parameters())
            sum_gradients(parameters, self.world)
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            progress.step += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(progress.step)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.weights.refresh()
        self._window += torch.stack((loss, nll))
        progress.window_tokens += num_tokens
        return batches

    def learning_rate(self, step: int) -> float:
        """Equation 3 times `lr_factor`, for the update number `step`, counted from 1."""
        return self.config.train.lr_factor * noam_lr(step, self.config.model.d_model, self.config.train.warmup_steps)

    def _next_update(self) -> list[Ints]:
        """The batches of the next update; moves the position in the data past them."""
        progress = self.progress
        if self._plan_epoch != progress.epoch:
            self._make_plan()
        if progress.update == len(self._plan):
            progress.epoch, progress.update = progress.epoch + 1, 0
            self._make_plan()
        progress.update += 1
        return self._plan[progress.update - 1]

    def _share(self, update: list[Ints]) -> list[Ints]:
        """What this process does of an update."""
        rank, size = self.world.rank, self.world.size
        if size == 1:
            return update
        src, tgt = self.train_data.src.lengths, self.train_data.tgt.lengths
        return share_update(update, src, tgt, max_tokens=self.config.train.max_tokens, rank=rank, size=size)

    def _make_plan(self) -> None:
        self._plan_epoch = self.progress.epoch
        self._plan = plan_updates(
            self.train_data.src.lengths,
            self.train_data.tgt.lengths,
            max_tokens=self.config.train.max_tokens,
            tokens_per_update=self.config.train.tokens_per_update,
            seed=self.config.seed,
            epoch=self.progress.epoch,
        )

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
        loss, nll = (total / progress.window_tokens for total in self._finite_window())
        values = {
            "loss": loss,
            "nll": nll,
            "ppl": math.exp(min(nll, 700.0)),
            "lr": self.learning_rate(progress.step),
            "tokens_per_s": progress.window_tokens / max(progress.window_s, 1e-9),
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
        progress.window_tokens, progress.window_s = 0, 0.0

    def _finite_window(self) -> list[float]:
        """The loss and NLL sums since the last log line; TrainingError, before anything is saved, if not finite."""
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
        nll = validation_nll(model, self.validation_data, self.config.train.max_tokens, self.device, self.world)
        self._check_finite(nll)
        values = {"nll": nll, "ppl": math.exp(min(nll, 700.0)), "elapsed_s": progress.elapsed_s}
        if self.scorer is not None:
            sources, references = zip(*self.validation, strict=True)
            model.eval()
            values["bleu"] = self.scorer(model, self.tokenizer, sources, references)
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
        self.progress.window_loss, self.progress.window_nll = self._finite_window()
        # The last update came after the last loss.
        self._check_finite(sum(weight.sum().item() for weight in self.weights.master.parameters()))
        states = self.world.gather(random_state())
        training = (self.optimizer, self.progress)
        self._write(self.run / "checkpoints", self.config.train.keep_checkpoints, training, states[1:])
        self._saved_at = (self.progress.step, time.monotonic())

    def _write(
        self,
        parent: Path,
        keep: int,
        training: tuple[torch.optim.Optimizer, Progress] | None = None,
        others: Sequence[RandomState] = (),
    ) -> None:
        if not self.world.is_main:
            return
        directory = parent / checkpoint_name(self.progress.step)
        weights = self.weights.master.state_dict()
        try:
            save_checkpoint(directory, self.config, self.tokenizer, weights, training, others)
        except OSError as error:
            raise CheckpointError(
                f"{directory}: cannot be written ({error.strerror or error}); earlier checkpoints are intact, and the "
                "same command goes on from the last one"
            ) from None
        prune(parent, keep, self._regular_steps)

    @property
    def _regular_steps(self) -> int:
        """Checkpoints at multiples of this are there however the run is interrupted."""
        settings = self.config.train
        return settings.save_steps if settings.save_steps and settings.save_minutes is None else 1

    def _resume(self, master: Transformer) -> tuple[Progress, list[RandomState]]:
        """Load the last checkpoint, if there is one, into model, optimizer and random numbers.

        Returns also the random numbers of the other processes that there were.
        """
        fingerprints = {"train": self.train_data.fingerprint}
        found = checkpoints(self.run / "checkpoints")
        step = step_of(found[-1]) if found else 0
        # What was best after updates that will now be done again will be found again.
        for path in checkpoints(self.run / "best"):
            if step_of(path) > step:
                remove_whole(path)
        if not found:
            return Progress(fingerprints=fingerprints), []
        # The last save may have been killed before it did so, and there may be no other.
        prune(self.run / "checkpoints", self.config.train.keep_checkpoints, self._regular_steps)
        load_weights(master, found[-1])
        progress = load_training(found[-1], self.optimizer, list(master.state_dict()))
        if progress.fingerprints.get("train") != fingerprints["train"]:
            raise CheckpointError(
                f"{found[-1]}: was trained on other data than {self.config.data.corpus} holds now; restore the data or "
                "choose another run_dir"
            )
        return progress, other_random_states(found[-1])

    def _begin_beside(self, states: Sequence[RandomState]) -> None:
        """As another process than the first: with other random numbers, and without sums that the first one has."""
        rank, progress = self.world.rank, self.progress
        if rank <= len(states):
            set_random_state(states[rank - 1])
        else:
            torch.manual_seed(rank_seed(self.config.seed, progress.step, rank))
        progress.window_loss = progress.window_nll = 0.0

    def _check_same_data(self) -> None:
        """DataError unless all processes have sentences of the same lengths, from which each plans the same updates."""
        lengths = (side.lengths for side in (self.train_data.src, self.train_data.tgt))
        if len(set(self.world.gather(tuple(zlib.crc32(x.tobytes()) for x in lengths)))) > 1:
            raise DataError(f"data.corpus={self.config.data.corpus}: is not the same on all machines")

    def _tokenizer(self, corpus: Corpus) -> Tokenizer:
        """The run's tokenizer, learned from both sides of the corpus if the run has none yet."""
        path = self.run / "tokenizer.model"
        if not path.is_file():
            tokenizer = corpus_tokenizer(corpus, self.config.data.vocab_size, self.config.data.cache_dir)
            write_whole(path, tokenizer.model)
        return Tokenizer.load(path)

    def _encode(self, corpus: Corpus, max_ratio: float | None) -> PairDataset:
        data = self.config.data
        return encode_corpus(corpus, self.tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=max_ratio)


def _count(dataset: PairDataset) -> str:
    dropped = ", ".join(f"{reason} {count}" for reason, count in dataset.dropped.items())
    return f"{len(dataset):,} (dropped: {dropped})"


def _adam(model: Transformer, config: Config) -> torch.optim.Optimizer:
    settings = config.train
    # AdamW is Adam as long as weight_decay is 0; otherwise it is the kind of decay that Adam works with.
    return torch.optim.AdamW(
        model.parameters(),
        lr=0.0,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )

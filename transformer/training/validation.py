"""Validation (section 5.4): scores of the current weights, which are the best, and stopping in the middle of it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from transformer.config import TrainConfig
from transformer.data.batching import bucket_by_length, collate
from transformer.data.dataset import PairDataset
from transformer.data.tokenizer import Tokenizer
from transformer.errors import TrainingError, one_line
from transformer.model.transformer import Transformer
from transformer.training.data import RunData
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext
from transformer.training.rng import kept_rng_state
from transformer.training.run_directory import checkpoints, step_of
from transformer.training.train_step import batch_loss
from transformer.training.training_state import Progress

# BLEU of a model's translations of sources against references, or scores by name: `bleu`, `chrf` and others. Sources
# begin with their tags, as in training. Called on every rank; may communicate by `all_gather`. If it has an attribute
# `tokenize` of text, that is recorded as the tokenizer of BLEU.
BleuScorer = Callable[[Transformer, Tokenizer, Sequence[str], Sequence[str]], float | Mapping[str, float]]
# Names that the scores of a scorer cannot have.
_RESERVED = {"self", "kind", "step", "nll", "ppl", "elapsed_s", "bleu_tokenizer"}

# Between two looks at whether another rank was asked to stop, each of which is a message to the store of the job.
_POLL_S = 0.2
_NUMBERS = itertools.count()  # the same on all ranks


class StopCheck:
    """Asks whether to stop; cheap enough for every batch and decoding step."""

    def __init__(self, stop: Callable[[], str | None], context: DistributedContext = SINGLE_PROCESS) -> None:
        self.reason: str | None = None  # the first one in this process
        self._stop, self._context = stop, context
        self._next_look, self._is_seen = 0.0, False
        self._flag = f"stop {next(_NUMBERS)}"

    def ask(self) -> str | None:
        """The reason to stop in this process, if any; it does not change any more."""
        if self.reason is None:
            self.reason = self._stop()
        return self.reason

    def __call__(self) -> bool:
        """Whether this process is asked to stop, or another one was at the last look."""
        is_asked = self.ask() is not None
        if self._context.store is None:
            return is_asked
        if not self._is_seen and (is_asked or time.monotonic() >= self._next_look):
            self._is_seen = self._context.any_rank(self._flag, is_set=is_asked)
            self._next_look = time.monotonic() + _POLL_S
        return self._is_seen


class _StopNow(BaseException):
    """Leaves a computation of this rank; no `except Exception` of a scorer holds it."""


def used_scorer(scorer: BleuScorer | None, settings: TrainConfig) -> BleuScorer | None:
    """The scorer, unless `train.validation_bleu` is off. ValueError if there is none and its scores decide."""
    if scorer is None and settings.best_by != "loss":
        raise ValueError(f"train.best_by={settings.best_by} needs a scorer")
    return scorer if settings.validation_bleu else None


def validate(
    model: Transformer,
    data: RunData,
    max_tokens: int,
    scorer: BleuScorer | None,
    context: DistributedContext,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """NLL in nats per target token, perplexity and, with a scorer, its scores; keeps torch's RNG state.

    `Abandoned` is raised on all ranks if `should_stop()` on one, before a batch or a decoding step.
    TrainingError for a score that is not a finite number: it could neither be compared nor saved.
    """
    was_training = model.training
    try:
        with kept_rng_state(), _stopping(model, should_stop):
            nll = validation_nll(model, data.validation, max_tokens, context)
            values = {"nll": nll, "ppl": math.exp(min(nll, 700.0))}
            is_scored = scorer is not None and math.isfinite(nll)
            if scorer is not None and is_scored:
                sources, references = zip(*data.tagged_validation_text, strict=True)
                model.eval()
                found = scorer(model, data.tokenizer, sources, references)
        if scorer is not None and is_scored:  # not above: a stop that the scorer held goes first
            values |= _scores(found, scorer)
        context.all_gather(None)
    except _StopNow:
        context.abandon()
    finally:
        model.train(was_training)
    return values


@contextlib.contextmanager
def _stopping(model: Transformer, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Make the model raise `_StopNow` before a batch or a decoding step."""
    is_left = False

    def check(*_: object) -> None:
        nonlocal is_left
        if is_left := is_left or should_stop():
            raise _StopNow

    # Which every batch and step begins with, whatever layers follow. A scorer and its search need not know of this.
    hook = model.embedding.register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()
    if is_left:  # the scorer has a bare `except`: its score is not that of the model
        raise _StopNow


def validate_all(
    model: Transformer,
    data: RunData,
    max_tokens: int,
    scorer: BleuScorer | None,
    context: DistributedContext,
    should_stop: Callable[[], bool],
) -> dict[str, dict[str, float]]:
    """`validate` on every validation set; scores by kind of record, "validation" and "validation/NAME"."""
    sets = {"validation": data}
    for name, other in data.others.items():
        sets[f"validation/{name}"] = dataclasses.replace(data, validation=other.pairs, validation_text=other.text)
    return {kind: validate(model, one, max_tokens, scorer, context, should_stop) for kind, one in sets.items()}


def _scores(found: object, scorer: BleuScorer) -> dict[str, float]:
    """What a scorer returned, by name. TrainingError."""
    scores = found if isinstance(found, Mapping) else {"bleu": found}
    for name in scores:
        if not isinstance(name, str) or name in _RESERVED or not name.isprintable():
            shown = one_line(repr(name))[:100]
            raise TrainingError(f"the scorer {_name(scorer)} returned a score by the name {shown}: choose another")
    return {name: _finite(score, scorer) for name, score in scores.items()}


def _finite(score: object, scorer: BleuScorer) -> float:
    """A score, which may be a number of any library, as a float. TrainingError."""
    try:
        value = math.nan if isinstance(score, str | bytes) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last for tensors of several elements
        value = math.nan
    if not math.isfinite(value):
        shown = one_line(repr(score))[:100]
        raise TrainingError(f"the scorer {_name(scorer)} returned {shown}; it must return a finite number")
    return value


def _name(scorer: BleuScorer) -> str:
    name: str = getattr(scorer, "__qualname__", type(scorer).__qualname__)
    return name


def recorded_tokenizer(scorer: BleuScorer | None) -> dict[str, str]:
    """The tokenizer of a scorer's BLEU, for its record; empty if it names none."""
    name = getattr(scorer, "tokenize", None)
    return {"bleu_tokenizer": name} if isinstance(name, str) and name and name.isprintable() else {}


@torch.no_grad()
def validation_nll(
    model: Transformer, dataset: PairDataset, max_tokens: int, context: DistributedContext = SINGLE_PROCESS
) -> float:
    """NLL in nats per target token, without dropout; ranks share the batches."""
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float32, device=model.embedding.output_weight.device)
    batches = bucket_by_length(dataset.src.lengths, dataset.tgt.lengths, max_tokens, np.random.default_rng(0))
    for indices in context.shard(batches):
        total += batch_loss(model, collate(dataset, indices).to(total.device), 0.0)[1]
    model.train(was_training)
    context.all_gather(None)  # `Abandoned` if a rank has stopped: it would not take part in the sum
    return context.sum(total).item() / int(dataset.tgt.lengths.sum())


def record_validation(progress: Progress, scores: Mapping[str, float], best_by: str, *, is_regular: bool) -> bool:
    """Count a validation of the last update; returns whether it is the best so far by `train.best_by`.

    An earlier one stays the best if it is as good. Without a better one, only regular validations count for patience:
    a run that was validated because it ended, and goes on, then stops where it would have stopped. TrainingError if the
    scorer did not return the score that decides.
    """
    if best_by != "loss" and best_by not in scores:
        raise TrainingError(
            f"train.best_by={best_by}: the scorer returned no {best_by}; it must return scores by name, such as "
            f"{{'{best_by}': 30.0}}"
        )
    before = progress.best(best_by)
    if best_by == "loss":
        is_best = before is None or scores["nll"] < before
    else:
        is_best = before is None or scores[best_by] > before
    if is_best:
        progress.best_nll, progress.num_bad_validations = scores["nll"], 0
        progress.best_bleu, progress.best_chrf = scores.get("bleu"), scores.get("chrf")
    else:
        progress.num_bad_validations += is_regular
    progress.validated_step = progress.step
    return is_best


def validation_line(kind: str, step: int, scores: Mapping[str, float], *, is_best: bool) -> str:
    """The scores of a step on one validation set, for the user."""
    # Of a diverged model, perplexity has hundreds of digits.
    shown = "  ".join(f"{name} {value:{'.3f' if value < 1e6 else '.3e'}}" for name, value in scores.items())
    return f"step {step}: {kind} {shown}{'  (best)' if is_best else ''}"


def unvalidated_line(run: Path, progress: Progress) -> str | None:
    """Says, after the end of training, that the last step is newer than the best one and was not validated."""
    best = checkpoints(run / "best")
    if not best or progress.validated_step == progress.step:
        return None
    return (
        f"step {progress.step} is newer than the best (step {step_of(best[-1])}) and was not validated; it is kept in "
        f"{run / 'checkpoints'}"
    )

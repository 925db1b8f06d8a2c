"""Train one row with one seed, score it on the validation set and save the score."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.config import Config
from transformer.errors import CheckpointError, ConfigError
from transformer.files import write_atomic
from transformer.inference.bleu import score
from transformer.inference.translator import Translator
from transformer.training.device import return_freed_memory
from transformer.training.run_directory import claim_run, last_checkpoints
from transformer.training.trainer import Trainer
from transformer.training.validation import validation_nll

_NAME = "score.json"
_TOO_LARGE = 1e100  # no number in a result is larger; excludes NaN and infinity, which Python's JSON accepts


@dataclass(frozen=True)
class Result:
    """The scores of a run."""

    row: str
    seed: int
    steps: int
    parameters: int
    minutes: float  # of training
    nll: float  # of the validation set, nats per piece
    bleu: float
    signature: str
    tokenize: str
    config: dict[str, Any]  # as Config.flat

    @property
    def ppl(self) -> float:
        """Perplexity per piece."""
        return math.exp(min(self.nll, 700.0))


def train_and_score(row: str, config: Config, tokenize: str, stop: Callable[[], str | None]) -> Result | None:
    """Train a run, or resume it, and score it, unless that has been done.

    As in section 6.2: perplexity and BLEU of the validation set, beam search, last checkpoint, no averaging.

    Args:
        row: name in the table.
        tokenize: sacreBLEU's tokenizer.
        stop: called after each update; returns the reason to stop.

    Returns:
        The result; None if the run was stopped.

    Raises:
        UserError: as `Trainer` and `Trainer.fit`; ConfigError if the run already has more updates than it should.
        OSError: the run directory cannot be written.
    """
    run = Path(config.run_dir)
    _lock = claim_run(config)  # held until the run is scored
    done = _read(run / _NAME)
    if done is not None and done.tokenize == tokenize and _same_ending(done.config, config.flat()):
        return done
    trainer = Trainer.from_config(config)
    print(trainer.summary(), flush=True)
    trainer.fit(stop)
    if stop() is not None:
        return None
    steps = trainer.progress.step
    if steps > config.train.max_steps:
        raise ConfigError(f"{run} has had {steps} updates already, more than train.max_steps={config.train.max_steps}")
    nll = validation_nll(trainer.weights.model, trainer.data.validation, config.train.padded_tokens)
    parameters = sum(parameter.numel() for parameter in trainer.weights.master.parameters())
    minutes = trainer.progress.elapsed_s / 60
    sources, references = zip(*trainer.data.validation_text, strict=True)
    del trainer
    return_freed_memory()
    (checkpoint,) = last_checkpoints(run, 1)
    translator = Translator.load(checkpoint, device=config.train.device, precision=config.train.precision)
    translator.search = config.search
    scored = score(translator.translate(sources), references, tokenize)
    result = Result(
        row, config.seed, steps, parameters, minutes, nll, scored.bleu, scored.bleu_signature, tokenize, config.flat()
    )
    write_atomic(run / _NAME, json.dumps(dataclasses.asdict(result), indent=1))
    return result


def read_results(out: Path) -> list[Result]:
    """The results of all runs in a directory. CheckpointError if one is damaged."""
    results = (_read(path) for path in sorted(out.glob(f"*/{_NAME}")))
    return [result for result in results if result is not None]


def _read(path: Path) -> Result | None:
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise TypeError("not an object")
        result = Result(**saved)
        for name, hint in typing.get_type_hints(Result).items():
            _check(name, getattr(result, name), typing.get_origin(hint) or hint)
        for key, value in result.config.items():
            for one in value if isinstance(value, list) else [value]:
                _check(key, one, bool, int, float, str, type(None))
        return result
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a result of this version ({error}); delete it to score the run again"
        ) from None


def _check(name: str, value: Any, *accepted: type) -> None:
    """ValueError unless a value has an accepted type, is in range and is printable."""
    is_number = isinstance(value, int | float)
    if (
        type(value) not in accepted
        or (is_number and not 0 <= value < _TOO_LARGE)
        or (isinstance(value, str) and not value.isprintable())
    ):
        raise ValueError(f"{name} is {value!r}")


def _same_ending(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a run would end and be scored as before; `claim_run` compares all other keys."""
    ending = ("train.max_steps", "train.max_hours", "train.patience")
    before = {**Config().flat(), **before}  # keys that are newer than the run have their defaults
    return all(before[key] == now[key] for key in now if key in ending or key.startswith("search."))

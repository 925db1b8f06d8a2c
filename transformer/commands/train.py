"""Train a translation model: transformer train CONFIG [section.key=value ...]

The same command again resumes from the last checkpoint. --check is a dry run of some seconds: it overfits one batch and
translates it back, to show that data, model, loss and search work together. Two files are enough to begin with:
transformer train --src my.en --tgt my.de holds validation and test pairs out of them. With several GPUs or machines:
torchrun --nproc-per-node=GPUS -m transformer.commands train CONFIG [section.key=value ...]
"""

import transformer.commands.long_run  # noqa: F401 (first, as it prepares the process for torch)

# isort: split
import argparse
import dataclasses
import itertools
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformer.commands.end_summary import command, next_commands, results
from transformer.commands.overfit_check import overfit_check
from transformer.commands.two_files import add_config_arguments, config_and_overrides
from transformer.config import Config, DataConfig, load_config
from transformer.config_hints import unknown_option
from transformer.data.corpus import Corpus
from transformer.errors import ConfigError, warn
from transformer.hub import pin_data
from transformer.inference.text_checks import signs_of_other_words
from transformer.inference.validation_bleu import ValidationBleu
from transformer.progress import stage
from transformer.training.callbacks import OnLog
from transformer.training.description import outline
from transformer.training.device import tune_process
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext, init_distributed
from transformer.training.freezing import frozen_names
from transformer.training.initialization import add_inherited, inherited
from transformer.training.lost_output import lasting_output
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer


def main(argv: Sequence[str] | None = None, on_log: OnLog | None = None) -> int:
    """Run the command; from a program, `on_log(kind, step, values)` gets what is logged (docs/LOGGING.md)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--check", action="store_true", help="only overfit one batch and translate it back")
    parser.add_argument("--change", action="store_true", help="go on with other values of keys such as train.lr_factor")
    parser.add_argument("--skip-nonfinite", metavar="N", type=int, help="short for train.skip_nonfinite=N")
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        raise ConfigError(unknown_option(unknown[0], Config().flat()))
    path, overrides = config_and_overrides(arguments)
    if arguments.skip_nonfinite is not None:
        overrides.append(f"train.skip_nonfinite={arguments.skip_nonfinite}")
    with init_distributed() as context:
        if arguments.check:
            config = _load(path, overrides, context)
            _scorer(config, context)
            context.broadcast_from_main(lambda: overfit_check(config))
            return 0
        return _train(path, overrides, context, on_log, change=arguments.change)


def _load(path: str, overrides: Sequence[str], context: DistributedContext) -> Config:
    """The configuration, completed from what `train.init_from` names, which only the main process reads."""

    def complete(values: dict[str, Any]) -> None:
        add_inherited(values, context.broadcast_from_main(lambda: inherited(values)))

    config = load_config(path, overrides, complete=complete)
    # Before the data, whose preparation may take hours.
    frozen_names(list(outline((8, None), config.model).state_dict()), config.train.freeze)
    return config


def _train(
    path: str, overrides: Sequence[str], context: DistributedContext, on_log: OnLog | None, *, change: bool
) -> int:
    config = _load(path, overrides, context)
    # Only the revisions are taken from the main process: paths may differ from machine to machine.
    revision, *revisions = context.broadcast_from_main(lambda: _revisions(pin_data(config).data))
    corpora = zip(config.data.corpora, revisions, strict=True)
    entries = tuple(dataclasses.replace(entry, revision=found) for entry, found in corpora)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, revision=revision, corpora=entries))
    with lasting_output(Path(config.run_dir)):
        return _run(config, path, overrides, context, on_log, change=change)


def _revisions(data: DataConfig) -> list[str | None]:
    return [data.revision, *(entry.revision for entry in data.corpora)]


def _run(
    config: Config,
    path: str,
    overrides: Sequence[str],
    context: DistributedContext,
    on_log: OnLog | None,
    *,
    change: bool,
) -> int:
    complete = Path(config.run_dir) / "config.yaml"
    context.print0(f"# differs from the defaults; complete: {complete}\n{config.differences()}")
    tune_process()
    scorer = _scorer(config, context)
    trainer = Trainer.from_config(config, scorer=scorer, context=context, stage=stage, change=change)
    context.print0(trainer.summary())
    if scorer is not None and context.is_main:
        context.print0(f"validation BLEU: tokenizer {scorer.tokenize}")
        _check_references(trainer.data.validation_text, scorer.tokenize)
    with StopRequest(ignore_repeats=context is not SINGLE_PROCESS) as stop:
        reason = trainer.fit(stop, on_log)
        if context.is_main:
            print(results(trainer))
        context.print0(f"{reason} after step {trainer.progress.step}; checkpoints are in {trainer.run}")
    if reason not in signal.Signals.__members__:
        if context.is_main:
            print(next_commands(trainer), flush=True)
        return 0
    if context is SINGLE_PROCESS:
        context.print0(f"go on with: {command('train', path, *overrides)}")
    else:
        context.print0("go on with: the same torchrun command; it may start another number of processes")
    return 128 + int(signal.Signals[reason])


def _scorer(config: Config, context: DistributedContext) -> ValidationBleu | None:
    """Make what computes the validation BLEU, before training, so that what it lacks is found first."""
    return ValidationBleu.from_config(config, warn, context) if config.train.validation_bleu else None


def _check_references(validation: Corpus, tokenize: str) -> None:
    references = [target for _, target in itertools.islice(validation, 1000)]
    for sign in signs_of_other_words(references, tokenize, ["bleu"]):
        warn(f"{sign}: data.bleu_tokenizer")

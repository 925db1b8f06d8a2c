"""Train a translation model: python scripts/train.py CONFIG [section.key=value ...]

The same command again goes on from the last checkpoint. --check tells beforehand, in seconds, whether data, model, loss
and search fit together. With several GPUs or machines:
torchrun --nproc-per-node=GPUS scripts/train.py CONFIG [section.key=value ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.overfit_check import self_check
from transformer.config import load_config
from transformer.hub import pin_data
from transformer.inference.translator import greedy_bleu
from transformer.training.distributed import ALONE, World, joined
from transformer.training.process import tune_process
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file such as configs/base.yaml")
    parser.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="such as train.max_steps=1000 or run_dir=runs/mine"
    )
    parser.add_argument("--check", action="store_true", help="only learn a few pairs by heart and translate them")
    parser.add_argument(
        "--skip-nonfinite",
        metavar="N",
        type=int,
        help="leave out up to N updates whose gradient is not finite; short for train.skip_nonfinite=N",
    )
    arguments = parser.parse_intermixed_args(argv)
    overrides = list(arguments.overrides)
    if arguments.skip_nonfinite is not None:
        overrides.append(f"train.skip_nonfinite={arguments.skip_nonfinite}")
    with joined() as world:
        if arguments.check:
            world.from_main(lambda: self_check(load_config(arguments.config, overrides)))
            return 0
        return _train(arguments.config, overrides, world)


def _train(path: str, overrides: Sequence[str], world: World) -> int:
    config = load_config(path, overrides)
    # Only the commit is the first process's: paths may differ from machine to machine.
    revision = world.from_main(lambda: pin_data(config).data.revision)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, revision=revision))
    world.say(config.to_yaml())
    tune_process()
    trainer = Trainer(config, scorer=functools.partial(greedy_bleu, world=world), world=world)
    world.say(trainer.summary())
    with StopRequest(ignore_repeats=world is not ALONE) as stop:
        reason = trainer.fit(stop)
        world.say(f"{reason} after step {trainer.progress.step}; checkpoints are in {trainer.run}")
    if reason not in signal.Signals.__members__:
        world.say(f"translate with: {_command('translate.py', str(trainer.run))}")
        return 0
    if world is ALONE:
        world.say(f"go on with: {_command('train.py', path, *overrides)}")
    else:
        world.say("go on with: the same torchrun command; it may start another number of processes")
    return 128 + int(signal.Signals[reason])


def _command(script: str, *arguments: str) -> str:
    return shlex.join([sys.executable, str(Path(sys.argv[0]).with_name(script)), *arguments])

"""Train a translation model: python scripts/train.py CONFIG [section.key=value ...]

The same command again goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer.cli import run
from transformer.config import load_config
from transformer.inference.translator import greedy_bleu
from transformer.training.process import tune_process
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", metavar="CONFIG", help="a YAML file such as configs/base.yaml")
    parser.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="such as train.max_steps=1000 or run_dir=runs/mine"
    )
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    print(config.to_yaml(), flush=True)
    tune_process()
    trainer = Trainer(config, scorer=greedy_bleu)
    print(trainer.summary(), flush=True)
    with StopRequest() as stop:
        reason = trainer.fit(stop)
        print(f"{reason} after step {trainer.progress.step}; checkpoints are in {trainer.run}", flush=True)
    if stop.signal is None or reason != stop.signal.name:
        print(f"translate with: {_command('translate.py', str(trainer.run))}")
        return 0
    print(f"go on with: {_command('train.py', arguments.config, *arguments.overrides)}")
    return 128 + int(signal.Signals(stop.signal))


def _command(script: str, *arguments: str) -> str:
    return shlex.join([sys.executable, str(Path(__file__).with_name(script)), *arguments])


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

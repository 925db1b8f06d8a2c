"""Average the last checkpoints of a run (section 6.1): transformer average RUN --last N

Writes RUN/averaged, which evaluate and translate then prefer.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.training.checkpoint import average_checkpoints, load_checkpoint, save_checkpoint
from transformer.training.run_directory import last_checkpoints, lock_run, step_of


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    parser.add_argument("--last", metavar="N", type=int, default=5, help="how many checkpoints (default: %(default)s)")
    arguments = parser.parse_args(argv)
    last_checkpoints(arguments.run, arguments.last)  # an error, unless there is a run to lock
    _lock = lock_run(arguments.run)
    directories = last_checkpoints(arguments.run, arguments.last)
    config, tokenizer, _ = load_checkpoint(directories[-1])
    averaged = arguments.run / "averaged"
    steps = [step_of(path) for path in directories]
    save_checkpoint(averaged, config, tokenizer, average_checkpoints(directories), averaged_steps=steps)
    print(f"averaged {', '.join(path.name for path in directories)} into {averaged}")
    return 0

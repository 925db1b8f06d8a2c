"""Train a translation model: python scripts/train.py CONFIG [section.key=value ...]"""

from transformer.cli import run
from transformer.commands.train import main

if __name__ == "__main__":
    run(main)

"""Train a translation model: transformer train CONFIG [section.key=value ...]"""

from transformer.cli import run
from transformer.commands.train import main

if __name__ == "__main__":
    run(main)

"""Score given translations with a trained model: transformer score RUN --src FILE --tgt FILE"""

from transformer.cli import run
from transformer.commands.score import main

if __name__ == "__main__":
    run(main)

"""Score a trained model: transformer evaluate RUN [--split test | --test-set NAME | --src FILE --ref FILE]"""

from transformer.cli import run
from transformer.commands.evaluate import main

if __name__ == "__main__":
    run(main)

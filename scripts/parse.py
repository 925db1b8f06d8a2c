"""Parse sentences with a trained model: transformer parse RUN [FILE | -] [--evaluate]"""

from transformer.cli import run
from transformer.commands.parse import main

if __name__ == "__main__":
    run(main)

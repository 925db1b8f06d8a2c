"""Translate text with a trained model: transformer translate RUN [FILE | -] [--text "..."]"""

from transformer.cli import run
from transformer.commands.translate import main

if __name__ == "__main__":
    run(main)

"""Translate text with a trained model: python scripts/translate.py RUN [FILE | -] [--text "..."]"""

from transformer.cli import run
from transformer.commands.translate import main

if __name__ == "__main__":
    run(main)

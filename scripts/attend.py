"""Show who attends to whom in a translation: python scripts/attend.py RUN "sentence" [--out FILE]"""

from transformer.cli import run
from transformer.commands.attend import main

if __name__ == "__main__":
    run(main)

"""Draw the attention maps of a translation: transformer attend RUN "sentence" [--out FILE]"""

from transformer.cli import run
from transformer.commands.attend import main

if __name__ == "__main__":
    run(main)

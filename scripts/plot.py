"""Show how a run has learned, as a table or drawn: transformer plot RUN [RUN ...] [--out FILE]"""

from transformer.cli import run
from transformer.commands.plot import main

if __name__ == "__main__":
    run(main)

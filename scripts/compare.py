"""Compare systems on one test set: transformer compare A.txt B.txt ... --ref FILE, or RUN_A RUN_B ..."""

from transformer.cli import run
from transformer.commands.compare import main

if __name__ == "__main__":
    run(main)

"""Average the last checkpoints of a run (section 6.1): transformer average RUN --last N"""

from transformer.cli import run
from transformer.commands.average import main

if __name__ == "__main__":
    run(main)

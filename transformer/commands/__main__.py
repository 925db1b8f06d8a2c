"""The `transformer` command, also `python -m transformer.commands`: runs the command that its first argument names."""

import importlib
import sys

from transformer.cli import run
from transformer.config_hints import near_miss
from transformer.errors import ConfigError
from transformer.training.signals import ctrl_c_ends_at_once

_COMMANDS = {
    "train": "train a model; the same command again resumes",
    "evaluate": "score a model with BLEU and chrF",
    "compare": "compare systems, with confidence intervals and p-values",
    "translate": "translate a file, standard input or --text",
    "score": "score given translations; rerank n-best lists; align words",
    "average": "average the last checkpoints of a run",
    "import": "keep a copy of a Marian model, such as OPUS-MT's, as a checkpoint",
    "parse": "parse sentences with a model trained on trees",
    "attend": "draw the attention of a translation",
    "inspect": "look into a model: predictions by layer, gradients, spectra, heads",
    "serve": "serve models over HTTP, with a page to try them",
    "plot": "print or draw learning curves; draw positions and learning rates",
    "runs": "list runs with their state, scores and time",
    "export": "write a model for Hugging Face, CTranslate2, ONNX and others; upload it to the hub",
    "data": "describe the data of a configuration: lengths, what is dropped, overlaps",
    "tokenizer": "train a tokenizer; split text, join it, or count its pieces",
    "configs": "list the configurations of the package, or print one",
}
_USAGE = "\n".join(
    (
        "usage: transformer COMMAND [ARGUMENT ...]\n",
        *(f"  {name:<10} {purpose}" for name, purpose in _COMMANDS.items()),
        "\nWith COMMAND --help: its arguments.",
    )
)


def main() -> None:
    """Entry point of the console script."""
    run(_main)


def _main() -> int:
    name, *argv = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(_USAGE)
        return 0
    if name == "--version":
        print(f"transformer {sys.modules['transformer'].__version__}")
        return 0
    if name not in _COMMANDS:
        given = f"{name!r} is not one of the commands" if name else "give one of the commands"
        hint = near_miss(name, _COMMANDS) or "; transformer --help describes them"
        raise ConfigError(f"{given} {', '.join(_COMMANDS)}{hint}")
    sys.argv[0] = f"transformer {name}"  # what argparse calls the program in usage lines
    # Libraries that are interrupted while they are imported may raise another error, or swallow the interruption.
    with ctrl_c_ends_at_once():
        command = importlib.import_module(f"transformer.commands.{name}")
    return command.main(argv)


if __name__ == "__main__":
    main()

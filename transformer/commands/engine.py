"""Which engine translates: this project's own search with torch, or another one with an exported model."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformer.commands.outputs import check_output, check_resumable_output
from transformer.commands.search_options import load_translator
from transformer.config import load_config
from transformer.errors import ConfigError
from transformer.inference.ctranslate2_engine import CTranslate2Translator, check_export, check_search
from transformer.inference.translator import Translator

ENGINES = ("torch", "ctranslate2")
# Options that only this project's own search and model have.
_OWN = ("ensemble", "sample", "prefix", "prefix_file", "constraints", "token_scores", "alignment", "alignment_layer")


def add_engine_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that the functions here read."""
    parser.add_argument(
        "--engine",
        default="torch",
        choices=ENGINES,
        help="what searches; ctranslate2: RUN is a directory that transformer export --to ct2 wrote",
    )


def check_engine_options(arguments: argparse.Namespace) -> None:
    """ConfigError for options that the engine does not have."""
    if arguments.engine == "torch":
        return
    for name in _OWN:
        if getattr(arguments, name) not in (None, False, []):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: the engine {arguments.engine} has no such option; leave --engine out")


def load_engine(arguments: argparse.Namespace) -> Translator:
    """The translator of a run, an ensemble or an export; errors as of `Translator.load` and of the engine."""
    if arguments.engine == "torch":
        return load_translator(arguments, arguments.run)
    return CTranslate2Translator(arguments.run, device=arguments.device, precision=arguments.precision)


def check_engine_search(arguments: argparse.Namespace, translator: Translator) -> None:
    """ConfigError for a search that the engine does not have."""
    if arguments.engine == "ctranslate2":
        check_search(translator.search)


def check_engine_output(arguments: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """As `check_resumable_output`. Where the model is an export, no file of it may be replaced."""
    path, directory = arguments.output, Path(arguments.run)
    if arguments.engine == "torch":
        check_resumable_output(path, inputs, arguments.run)
        return
    check_export(directory)
    data = load_config(directory / "config.yaml", saved=True).data
    if path.absolute().parent.resolve() == directory.resolve():
        raise ConfigError(f"{path}: {directory} is a model, to which no other file belongs; choose another place")
    for suffix in ("", ".part", ".part.json"):
        check_output(path.with_name(f"{path.name}{suffix}"), inputs, data)

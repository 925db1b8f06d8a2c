"""The options of commands that take a configuration, or two line-aligned files and nothing else."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from transformer.config import load_config
from transformer.data.compression import COMPRESSION_SUFFIXES
from transformer.errors import ConfigError

_DEFAULT = "small"  # the configuration for two files
_CODE = re.compile(r"\.([a-z]{2,3}([-_][A-Za-z]{2,4})?)")
_NO_LANGUAGES = {".txt", ".src", ".tgt", ".trg", ".tok", ".bpe", ".raw", ".out", ".in", ".ref", ".hyp", ".tsv", ".csv"}


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG, overrides, and the options for two files."""
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="a YAML file, or a name that `transformer configs` lists"
    )
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="such as train.max_steps=1000")
    parser.add_argument(
        "--src", metavar="FILE", help=f"take two files as the corpus; without CONFIG, configuration {_DEFAULT}"
    )
    parser.add_argument("--tgt", metavar="FILE", help="the file with the translations of --src, line by line")
    parser.add_argument(
        "--validation-size", metavar="N", type=int, help="pairs held out of the training data, and as many for the test"
    )


def config_and_overrides(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """The configuration and its overrides, those that the options stand for first.

    ConfigError if there is no configuration, the languages of two files are not known, or pairs would be held out of a
    corpus that has splits.
    """
    config, overrides = arguments.config, list(arguments.overrides)
    if config is not None and "=" in config and not Path(config).is_file():
        config, overrides = None, [config, *overrides]
    size = arguments.validation_size
    held_out = [] if size is None else ["data.hold_out=[validation, test]", f"data.validation_size={size}"]
    if arguments.src is None and arguments.tgt is None:
        if config is None:
            raise ConfigError("give a CONFIG, such as quickstart, or two files: --src FILE --tgt FILE")
        return config, [*(held_out if size is None else _held_out(config, overrides, size)), *overrides]
    if arguments.src is None or arguments.tgt is None:
        raise ConfigError("--src and --tgt go together: two files with a sentence per line, translations of each other")
    files = {"src": arguments.src, "tgt": arguments.tgt}
    found = [f"data.corpora={json.dumps([files], ensure_ascii=False)}", "data.corpus=none"]
    found += held_out or ["data.hold_out=[validation, test]"]
    if config is None:
        found += [*_languages(files, overrides), f"run_dir=runs/{_name(arguments.src)}"]
    return config or _DEFAULT, [*found, *overrides]


def _held_out(config: str, overrides: Sequence[str], size: int) -> list[str]:
    """The overrides for `--validation-size` without two files: `data.hold_out` too, where it is not set."""
    wanted = [f"data.validation_size={size}", "data.hold_out=[validation, test]"]
    try:
        data = load_config(config, overrides).data
    except ConfigError:  # it lacks these keys, or has an error that is told later
        return wanted
    is_whole = Path(data.corpus).is_file() or ("{lang}" in data.corpus and "{split}" not in data.corpus)
    if not data.hold_out and not is_whole:
        raise ConfigError(
            f"--validation-size {size} holds validation and test pairs out of the training data, but "
            f"data.corpus={data.corpus} has splits of its own: leave it out, or set data.hold_out to those to "
            "hold out"
        )
    return wanted[:1] if data.hold_out else wanted


def _languages(files: dict[str, str], overrides: Sequence[str]) -> list[str]:
    """The languages by the suffixes of both files, for those that no override gives."""
    given = {override.partition("=")[0] for override in overrides}
    if {"data.src_lang", "data.tgt_lang"} <= given:
        return []
    codes = {side: _code(file) for side, file in files.items()}
    if None in codes.values() or codes["src"] == codes["tgt"]:
        raise ConfigError(
            f"the names {files['src']} and {files['tgt']} do not end in two languages, as my.en and my.de do: give "
            "data.src_lang=CODE data.tgt_lang=CODE"
        )
    return [f"data.{side}_lang={code}" for side, code in codes.items() if f"data.{side}_lang" not in given]


def _plain(file: str) -> Path:
    path = Path(file)
    return path.with_suffix("") if path.suffix in COMPRESSION_SUFFIXES else path


def _code(file: str) -> str | None:
    suffix = _plain(file).suffix
    match = _CODE.fullmatch(suffix)
    return match[1] if match and suffix not in _NO_LANGUAGES else None


def _name(file: str) -> str:
    """The name of a run: that of the file without its language."""
    return _plain(file).stem or "two_files"

"""List the configurations of the package, or print one to start from: transformer configs [NAME] > mine.yaml"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from transformer.errors import ConfigError
from transformer.shipped import DIRECTORY, shipped_configs

_SCHEMA = "# yaml-language-server:"  # of the editor, relative to the file


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help="print this one, such as quickstart or table3/c_n2")
    name = parser.parse_args(argv).name
    files = shipped_configs()
    if not files:
        raise ConfigError(f"{DIRECTORY}: the configurations of the package are missing; install it again")
    if name is None:
        for known, path in files.items():
            print(f"{known:<32} {_first_sentence(path)}")
        return 0
    if name not in files:
        raise ConfigError(f"{name} is not a configuration of the package; `transformer configs` lists them")
    print(*_lines(files[name]), sep="\n")
    return 0


def _first_sentence(path: Path) -> str:
    comment = []
    for line in _lines(path):
        if not line.startswith("# "):
            break
        comment.append(line[2:])
    return re.split(r"(?<!al)\. ", " ".join(comment))[0].rstrip(".")


def _lines(path: Path) -> list[str]:
    """The file as it can stand anywhere: its base by name, without the schema."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(_SCHEMA)]
    for number, line in enumerate(lines):
        if line.startswith("base: "):
            base = (path.parent / line.removeprefix("base: ")).resolve().relative_to(DIRECTORY.resolve())
            lines[number] = f"base: {base.with_suffix('').as_posix()}"
    return lines

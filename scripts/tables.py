"""Write measured results into the documents, from docs/results: python scripts/tables.py

Each table or block of output stands between `<!-- results: NAME -->` and `<!-- end of results -->`. Nothing is trained
or measured; docs/FIGURES.md has the commands that renew the results.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from drawing.kept_results import BLOCKS, ROOT

from transformer.cli import run
from transformer.errors import ConfigError

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"(?<=<!-- results: )([\w/]+)( -->\n)(.*?)(?=<!-- end of results -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    for path in DOCUMENTS:
        path.write_text(with_results(path), encoding="utf-8")
    return 0


def with_results(path: Path) -> str:
    """The text of a document with its blocks of results renewed. ConfigError for an unknown name."""

    def renew(found: re.Match[str]) -> str:
        if found[1] not in BLOCKS:
            raise ConfigError(f"{path.name}: {found[1]} is not one of the results {', '.join(BLOCKS)}")
        return f"{found[1]}{found[2]}{BLOCKS[found[1]]()}"

    return _BLOCK.sub(renew, path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run(main)

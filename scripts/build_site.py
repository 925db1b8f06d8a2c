"""Build the site of the documentation: python scripts/build_site.py --output DIR

Every page of docs/ as HTML, the walk through the paper (docs/WALKTHROUGH.md) with its code run and its pictures drawn,
and the reference of the API from docstrings, with search. The files need no server and load nothing from elsewhere. A
link or an anchor that leads nowhere is an error, and the directory stays as it was. Needs the extra `docs`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer.cli import run
from transformer.errors import ConfigError, warn


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="new, empty, or a site that this has built"
    )
    output: Path = parser.parse_args(argv).output
    try:
        from website.build import build
    except ModuleNotFoundError as error:
        raise ConfigError(f"the site needs {error.name}: pip install '.[docs]'") from None
    for message in build(output.absolute()):
        warn(message)
    print(f"{output}: {sum(1 for _ in output.rglob('*.html'))} pages; open {output / 'index.html'}")
    return 0


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))

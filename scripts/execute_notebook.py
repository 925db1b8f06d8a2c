"""Execute the notebook of the documentation and keep its outputs: python scripts/execute_notebook.py [FILE ...]

Runs all cells in order in a fresh kernel of this interpreter and writes the file with what they put out. Left out is
what differs from run to run or from machine to machine: times, standard error, the version of Python. A cell that
raises ends the program with its traceback, and the file stays as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from transformer.cli import run
from transformer.errors import DataError
from transformer.files import write_atomic

NOTEBOOK = Path(__file__).parents[1] / "docs" / "first_steps.ipynb"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="*", help="default: docs/first_steps.ipynb")
    arguments = parser.parse_args(argv)
    for path in arguments.files or [NOTEBOOK]:
        notebook = read(path)
        try:
            execute(notebook, path.parent)
        except CellExecutionError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        write_atomic(path, text_of(clean(notebook)))
    return 0


def read(path: Path) -> Any:
    """The notebook of a file; DataError if it is not one."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    # ValueError: no JSON, no UTF-8. nbformat has errors of its own, and lets through what it trips over.
    except (ValueError, LookupError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise DataError(f"{path}: not a notebook: {error}") from None
    return notebook


def execute(notebook: Any, directory: Path) -> None:
    """Run all cells in order in a fresh kernel of this interpreter, and keep their outputs in `notebook`.

    Reads and writes no settings of Jupyter or IPython in the home directory, which need not exist.

    Args:
        notebook: as `read` gives it; changed in place.
        directory: the working directory of the kernel.

    Raises:
        CellExecutionError: a cell raised an exception.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, _environment(home):
        # It shuts down a kernel of its own manager only; one that is killed would leave its temporary files.
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            kernel_manager_class=_ThisInterpreter,
            timeout=None,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # else it warns that its connection is not encrypted
            resources={"metadata": {"path": str(directory)}},
        )
        client.execute()


class _ThisInterpreter(AsyncKernelManager):
    """Without directories of specifications python3 is this interpreter, whatever the user has installed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True), **settings)


@contextlib.contextmanager
def _environment(home: str) -> Iterator[None]:
    """Let Jupyter and IPython keep their files in a directory; the kernel inherits it."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= {name: str(Path(home, name.lower())) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def clean(notebook: Any) -> Any:
    """Leave out what differs between runs; the fingerprint says of which sources the outputs are."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = list(_joined(cell.outputs))
    metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}, "executed": fingerprint(notebook)}
    notebook.metadata = nbformat.from_dict(metadata)
    nbformat.validate(notebook)
    return notebook


def _joined(outputs: Sequence[Any]) -> Iterator[Any]:
    """Outputs without standard error; what was printed in several parts becomes one, however it arrived."""
    last = None
    for output in outputs:
        if output.output_type == "stream":
            if output.name != "stdout":
                continue
            if last is not None:
                last.text += output.text
                continue
        yield output
        last = output if output.output_type == "stream" else None


def fingerprint(notebook: Any) -> str:
    """SHA-256 of the sources of all code cells."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def text_of(notebook: Any) -> str:
    """The file of a notebook."""
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


if __name__ == "__main__":
    run(main)

"""What the scripts share: expected errors become one line on stderr and exit status 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from transformer.errors import UserError, one_line


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with what it returns; bugs keep their traceback."""
    _open_what_is_closed()
    # UTF-8 whatever the locale, as the text files; a file name that is not comes out as the bytes that it is.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    try:
        status = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        _discard(sys.stdout)
        status = 141
    except UserError as error:
        status = _complain(str(error))
    except OSError as error:
        status = _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        status = _complain("there is not enough memory")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _complain(message: str) -> int:
    try:
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:  # as of a full disk
        _discard(sys.stderr)
    return 2


def _open_what_is_closed() -> None:
    """Read nothing from, and write nowhere, the standard streams that a process was started without."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (for as long as we live)


def _discard(stream: TextIO) -> None:
    """Forget what a stream has not written yet: Python would complain again, and change the status, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

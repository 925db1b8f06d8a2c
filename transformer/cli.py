"""What the scripts share: expected errors become one line on stderr and exit status 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from transformer.errors import UserError, one_line


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with what it returns; bugs keep their traceback."""
    # UTF-8 whatever the locale, as the text files; a file name that is not comes out as the bytes that it is.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    try:
        status = main() or 0
        if sys.stdout is not None:  # as of a process that was started without
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except UserError as error:
        status = _complain(str(error))
    except OSError as error:
        status = _complain(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _complain(message: str) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2

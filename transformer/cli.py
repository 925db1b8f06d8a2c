"""Entry point of all commands: user errors become one line on stderr, exit status 2."""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from transformer.errors import ConfigError, UserError, one_line


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its return value; bugs keep their traceback."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the process was started with a closed stream
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open until exit)
    # Text files are UTF-8 whatever the locale, so the streams are too. File names that are not round-trip as bytes.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)
    try:
        _check_working_directory()
        status = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has exited, like `head`
        discard(sys.stdout)
        status = 141
    except UserError as error:
        status = _print_error(str(error))
    except OSError as error:
        status = _print_error(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        status = _print_error("out of memory")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _check_working_directory() -> None:
    """ConfigError if it has been deleted: paths would have no meaning, and torch's libraries end the process."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory has been deleted; change to another one") from None


def _print_error(message: str) -> int:
    try:
        print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:  # for example a full disk
        discard(sys.stderr)
    return 2


def print_aside(line: str) -> None:
    """Print a line on standard error, whose loss is no reason to end."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Lead a stream to the null device, with all that it has buffered."""
    # Python would flush that at exit, fail, and change the status.
    with contextlib.suppress(OSError):  # streams of notebooks have no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)

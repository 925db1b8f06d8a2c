"""User errors: printed as one line, exit status 2; and warnings."""

import sys

_MAX_CHARACTERS = 2000


def warn(message: str) -> None:
    """Print a warning of one line to stderr."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


class UserError(ValueError):
    """An error that the user can fix; the message says how.

    It names the key or file, the value found and what is accepted, on one printable line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """Escape unprintable characters and shorten long messages in the middle.

    Messages quote untrusted input: file names with line feeds, terminal escape sequences, megabytes of text.
    """
    if len(message) > _MAX_CHARACTERS:
        half = _MAX_CHARACTERS // 2
        message = f"{message[:half]} [...] {message[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


class ConfigError(UserError):
    """Invalid key, value or combination of values in the configuration."""


class DataError(UserError):
    """Invalid corpus, tokenizer or text."""


class CheckpointError(UserError):
    """Invalid checkpoint or run directory."""


class InUseError(UserError):
    """A run or file is locked by another process."""


class TrainingError(UserError):
    """Training cannot continue, for example because it diverged."""


class WorkerError(UserError):
    """Another process of the same job has ended or does not respond."""


class DeviceError(UserError):
    """A device or precision that this machine does not have."""


class ExportError(UserError):
    """A model or an option that another format has no place for, or a directory that cannot be written."""

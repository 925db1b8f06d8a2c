"""The errors that a user can cause and mend. Scripts print them as one line and exit with status 2."""

from __future__ import annotations

_LONGEST_MESSAGE = 2000  # characters


class UserError(ValueError):
    """Something outside the code is wrong: the message names it, what was found, what is accepted and the mend.

    It is one line that a terminal can show, whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message with an escape for each character that does not print, and cut in the middle where it is too long.

    What messages quote comes from outside: a line feed in a file name, a terminal's commands in a text, megabytes.
    """
    if len(message) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        message = f"{message[:half]} [...] {message[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


class ConfigError(UserError):
    """A key, a value or a combination of values in the configuration."""


class DataError(UserError):
    """A corpus, a tokenizer or a text."""


class CheckpointError(UserError):
    """A checkpoint or a run directory."""


class InUseError(UserError):
    """Something that one process at a time may write, which another one is at."""


class TrainingError(UserError):
    """Training that cannot go on, such as one that has diverged."""


class WorkerError(UserError):
    """Another process of the same job, which has ended or does not answer."""


class DeviceError(UserError):
    """A device or a precision that this machine does not have."""

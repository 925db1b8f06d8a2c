"""The errors that a user can cause and mend. Scripts print them as one line and exit with status 2."""

from __future__ import annotations


class UserError(ValueError):
    """Something outside the code is wrong: the message names it, what was found, what is accepted and the mend."""


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

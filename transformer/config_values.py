"""Values as people write them, turned into those of the configuration.

YAML takes words and numbers for values where text is meant, and 1e-9 for text. numpy's numbers and paths come from
Python programs.
"""

import dataclasses
import os
import re
import types
import typing
from typing import Any

from transformer.errors import ConfigError

_NUMBER = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|\.?inf)", re.ASCII)


def plain_value(value: Any, hint: Any) -> Any:
    """The Python value for a key of this type, if there is one; else the value as it is.

    Args:
        value: also a number of numpy or torch, a path, or the text of a number.
        hint: type of the key, without constraints.
    """
    if (entry := entry_type(hint)) is not None and isinstance(value, list | tuple | str | os.PathLike | dict):
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(_entry(entry, one, index) for index, one in enumerate(values))
    if takes_list(hint) and isinstance(value, list | tuple | str | os.PathLike):
        # A single text is a list of one.
        values = value if isinstance(value, list | tuple) else [value]
        return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)
    if isinstance(value, os.PathLike) and takes_text(hint):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, str) and float in _alternatives(hint) and _NUMBER.fullmatch(value):
        return float(value.replace(".inf", "inf"))
    return value


def entry_type(hint: Any) -> Any:
    """The dataclass of which a key of this type takes a list, if there is one."""
    kinds = (kind for alternative in _alternatives(hint) for kind in typing.get_args(alternative))
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _entry(entry: Any, value: Any, index: int) -> Any:
    """An entry of a list from its keys, or from a single text, which is its `path`."""
    if isinstance(value, str | os.PathLike):
        value = {"path": value}
    if not isinstance(value, dict):
        return value
    try:
        return entry(**{str(key): one for key, one in value.items()})
    except ConfigError as error:
        raise ConfigError(str(error).replace("[]", f"[{index}]")) from None


def takes_text(hint: Any) -> bool:
    """Whether a key of this type takes text, or one of some words."""
    return any(kind is str or typing.get_origin(kind) is typing.Literal for kind in _alternatives(hint))


def takes_truth(hint: Any) -> bool:
    """Whether a key of this type may be true or false."""
    return bool in _alternatives(hint)


def takes_list(hint: Any) -> bool:
    """Whether a key of this type takes a list."""
    return any(typing.get_origin(kind) is tuple for kind in _alternatives(hint))


def takes_null(hint: Any) -> bool:
    """Whether a key of this type may be null."""
    return type(None) in _alternatives(hint)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def no_number(value: Any) -> Any:
    """ValueError for a number: other toolkits call the exponent of the length penalty by the name of this key."""
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError("is a number; the key names the kind of penalty, and search.alpha is its exponent")
    return value

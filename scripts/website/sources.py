"""Lines of the package, taken from its source when the page is made."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import textwrap
from typing import Any

from transformer.errors import DataError


def code_of(name: str) -> str:
    """The source of a function, method, property or class without its docstring; DataError if there is none.

    Args:
        name: such as transformer.model.attention.DotProductAttention.scores.
    """
    try:
        found: Any = pkgutil.resolve_name(name)
        lines = inspect.getsource(getattr(found, "fget", found))  # of a property its function
    except (ImportError, AttributeError, ValueError, TypeError, OSError) as error:
        raise DataError(f"source: {name}: has no source: {error}") from None
    return _without_docstring(textwrap.dedent(lines))


def _without_docstring(source: str) -> str:
    lines = source.rstrip("\n").split("\n")
    definition: Any = ast.parse(source).body[0]
    body = getattr(definition, "body", [])
    if len(body) > 1 and ast.get_docstring(definition) is not None:
        first, last = body[0].lineno - 1, body[0].end_lineno
        if not lines[last].strip():
            last += 1
        del lines[first:last]
    return "\n".join(lines) + "\n"


def api_address(name: str) -> str:
    """Where the reference of the API describes a name, from the directory of the reference."""
    parts = name.split(".")
    length = next(n for n in range(len(parts), 0, -1) if _is_module(".".join(parts[:n])))
    address = "/".join(parts[:length]) + ".html"
    is_described = length < len(parts) and not any(part.startswith("_") for part in parts[length:])
    return f"{address}#{'.'.join(parts[length:])}" if is_described else address


def _is_module(name: str) -> bool:
    try:
        return inspect.ismodule(pkgutil.resolve_name(name))
    except (ImportError, AttributeError):
        return False

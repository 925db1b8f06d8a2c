"""pydantic's errors as one line each: the key, the value, what is accepted."""

import dataclasses
import datetime
import inspect
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transformer.config_hints import unknown_key
from transformer.config_values import plain_value
from transformer.errors import ConfigError

_Section = TypeVar("_Section")

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dataclass_exact_type": "a path or keys",
}
_KNOWN_KEYS: list[str] = []  # of the decorated classes, from which hints are taken
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}


def one_line_errors(section: str) -> Callable[[type[_Section]], type[_Section]]:
    """Decorate a pydantic dataclass: its errors become a ConfigError, and plain dataclasses may extend it.

    `section` is the prefix of its keys in messages, such as `model.`.
    """

    def decorate(cls: type[_Section]) -> type[_Section]:
        validate, check = cls.__init__, getattr(cls, "__post_init__", None)
        hints = typing.get_type_hints(cls)
        keys = [f"{section}{name}" for name, hint in hints.items() if not dataclasses.is_dataclass(hint)]
        if not section.endswith("[]."):  # an entry of a list, whose keys are no keys of the configuration
            _KNOWN_KEYS[:] = [*_KNOWN_KEYS, *keys] if section else [*keys, *_KNOWN_KEYS]

        def init(self: _Section, **values: Any) -> None:
            try:
                validate(self, **{name: plain_value(value, hints.get(name)) for name, value in values.items()})
            except ValidationError as error:
                raise ConfigError(_message(error.errors(), section, cls)) from None

        def post_init(self: _Section) -> None:
            if type(self).__init__ is not init:  # of a subclass that is a plain dataclass: pydantic has not seen it
                checked = cls.__new__(cls)
                init(checked, **{name: getattr(self, name) for name in hints})
                for name in hints:  # converted
                    object.__setattr__(self, name, getattr(checked, name))
            elif check is not None:
                check(self)

        init.__qualname__ = f"{cls.__qualname__}.__init__"  # for Python's message about positional arguments
        cls.__init__ = init  # type: ignore[method-assign, assignment]
        cls.__signature__ = _signature(cls, hints)  # type: ignore[attr-defined]
        cls.__post_init__ = post_init  # type: ignore[attr-defined]
        return cls

    return decorate


def _signature(cls: type, hints: dict[str, Any]) -> inspect.Signature:
    """With plain types; pydantic's has the constraints, thousands of characters."""
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(cls)
    ]
    return inspect.Signature(parameters)


def _message(errors: list[ErrorDetails], section: str, cls: type) -> str:
    for error in errors:
        if error["type"] == "unexpected_keyword_argument":
            known = [f"{section}{field.name}" for field in dataclasses.fields(cls)] if "[]" in section else _KNOWN_KEYS
            return unknown_key(f"{section}{error['loc'][0]}", known)
    kind, value, context = errors[0]["type"], errors[0]["input"], errors[0].get("ctx", {})
    if not errors[0]["loc"]:  # from __post_init__
        return str(context["error"])
    name = str(errors[0]["loc"][0])
    key = f"{section}{name}"
    if kind == "dataclass_exact_type":  # of a list
        key = f"{key}[{errors[0]['loc'][-1]}]"
    if kind in _TYPES:
        return f"{key} must be {_TYPES[kind]}, got {value!r}{_advice(kind, value)}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        limit = context[bound]
        return f"{key}={value} must be {words} {int(limit) if limit == int(limit) else limit}"
    if kind == "finite_number":
        return f"{key}={value} must be finite"
    if kind == "string_unicode":  # a lone surrogate
        return f"{key}={value!r} must be text without control characters, in UTF-8"
    if kind == "string_too_short":
        return f"{key} must not be empty"
    if kind == "literal_error":
        return f"{key}={value!r} is not one of {', '.join(_accepted(cls, name))}"
    return f"{key}={value!r} {context.get('error', errors[0]['msg'])}"


def _advice(kind: str, value: Any) -> str:
    """YAML reads no, on, 2024 and 2024-01-01 as something else than text."""
    is_scalar = isinstance(value, bool | int | float | datetime.date)
    return "; in YAML, put quotes around it" if kind == "string_type" and is_scalar else ""


def _accepted(cls: type, name: str) -> list[str]:
    hint = typing.get_type_hints(cls)[name]
    literals = [hint] if typing.get_origin(hint) is Literal else typing.get_args(hint)
    words = [str(value) for literal in literals for value in typing.get_args(literal)]
    return [*words, "true", "false"] if bool in literals else words

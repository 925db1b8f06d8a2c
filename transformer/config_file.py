"""Configuration files as plain values: YAML without surprises, and files that are based on others.

A configuration can come with a model from anywhere: what reading one can cost is bounded, far from what is used.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import Node, ScalarNode

from transformer.errors import ConfigError
from transformer.files import is_no_file

_LARGEST_FILE = 100_000  # characters
_DEEPEST = 10  # sections inside of sections
_LONGEST_CHAIN = 10  # of files that are based on each other
_LARGEST_INT = 2**63 - 1


def read_values(path: Path, *, allow_base: bool) -> dict[str, Any]:
    """The values of a file and of those that it is based on, sections as dicts.

    ConfigError if there is no such file, it is not YAML, files are based on each other, or none may be and it is.
    """
    if not allow_base and is_no_file(path):
        raise ConfigError(f"{path}: is no file")
    values = _read(path, ())
    if "base" in values:
        if not allow_base:
            raise ConfigError(f"{path}: unknown key base: the configuration of a model stands by itself")
        values = _with_bases(values, path, (path,))
    return values


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Put `section.key=value` into the values of a file. ConfigError if it is not of that form."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not of the form section.key=value")
    try:
        value = _parse_yaml(text) if text.strip() else ""
    except ValueError:
        value = text  # such as a pattern with braces
    # "#" begins a comment in YAML, and may stand in a path.
    if isinstance(value, dict | list) or ("#" in text and text.lstrip()[0] not in "'\""):
        value = text
    *sections, name = key.split(".")
    for section in sections:
        if raw.get(section) is None:
            raw[section] = {}
        raw = raw[section]
        if not isinstance(raw, dict):
            raise ConfigError(f"{override!r}: {section} is not a section")
    raw[name] = value


def check_text(key: str, value: str) -> None:
    """ConfigError if there is in a value what no name and no path has, or not in the locale of this process."""
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
        raise ConfigError(f"{key}={value!r} must be text without control characters, in UTF-8")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{key}={value!r} cannot be written in this locale ({error.encoding}): use UTF-8") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML for configurations: no anchors, aliases and tags, little nesting, integers of 64 bits.

    Aliases can make gigabytes of a small file; tags call constructors, some of which fail in undocumented ways.
    """

    _depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            raise yaml.composer.ComposerError(
                problem="anchors, aliases and tags are not read", problem_mark=event.start_mark
            )
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(problem="nested too deeply", problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) > _LARGEST_INT:
            raise yaml.constructor.ConstructorError(
                problem="a number of more than 64 bits", problem_mark=node.start_mark
            )
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def _parse_yaml(text: str) -> Any:
    """ValueError if it is not YAML."""
    try:
        return _PlainLoader(text).get_single_data()
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _read(path: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file; `derived` are the files that are based on it."""
    try:
        if derived and is_no_file(path):  # only the user can have meant that
            raise ConfigError(f"{path}, which is the base of {derived[-1]}, is no file")
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        wanted_by = f", which is the base of {derived[-1]}" if derived else ""
        raise ConfigError(f"{path}: no such configuration file{wanted_by}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(text) > _LARGEST_FILE:
        raise ConfigError(f"{path}: not a configuration: more than {_LARGEST_FILE} characters")
    try:
        raw = _parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {raw!r}")
    return raw


def _with_bases(raw: dict[str, Any], path: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file with those of the file that it is based on, and so on; `derived` ends with the file."""
    base = raw.pop("base")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: base must be the name of a YAML file, got {base!r}")
    check_text(f"{path}: base", base)
    other = path.parent / base
    if other.resolve() in (file.resolve() for file in derived) or len(derived) > _LONGEST_CHAIN:
        raise ConfigError(f"{' is based on '.join(map(str, (*derived, other)))}: remove one `base:`")
    inherited = _read(other, derived)
    if "base" in inherited:
        inherited = _with_bases(inherited, other, (*derived, other))
    inherited.pop("run_dir", None)
    return _merge(inherited, raw)


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both; where both have a value, the one of `high`."""
    merged = {**low, **high}
    for name in low.keys() & high.keys():
        if isinstance(low[name], dict) and isinstance(high[name], dict):
            merged[name] = _merge(low[name], high[name])
    return merged

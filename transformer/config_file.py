"""Reading configuration files: a strict YAML subset, inheritance by `base:`, renamed keys.

A configuration may come with a model from anywhere, so file size, nesting and numbers are limited.
"""

import functools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from transformer.config_values import entry_type, takes_list, takes_null, takes_text, takes_truth
from transformer.errors import ConfigError, one_line
from transformer.files import is_special_file
from transformer.shipped import hint, shipped_config

# Old name -> new name, in the same section.
RENAMED_KEYS = {"search.max_extra": "search.max_length_offset"}

_MAX_CHARACTERS = 100_000
_MAX_DEPTH = 10  # nested sections
_MAX_BASES = 10
MAX_INT = 2**63 - 1


def read_values(path: Path, *, saved: bool, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and its bases as nested dicts, keys under their new names.

    Args:
        path: the file.
        saved: it was written with a run or a model, so `base` is refused and old keys are renamed silently.
        derived: the files based on it.

    Raises:
        ConfigError: missing, special or unreadable file, invalid YAML, circular or forbidden `base`, or a key given
            under both its names.
    """
    wanted_by = f", which is the base of {derived[-1]}" if derived else ""
    try:
        if (saved or derived) and is_special_file(path):  # a user's own file may be a pipe, as in <(command)
            raise ConfigError(f"{path}{wanted_by}: not a regular file")
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file{wanted_by}{hint(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: cannot be read: it is not text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{path}: not a configuration: more than {_MAX_CHARACTERS} characters")
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {values!r}")
    _rename_keys(values, path, silently=saved)
    if "base" not in values:
        return values
    if saved:
        raise ConfigError(f"{path}: unknown key base: a saved configuration must be complete")
    inherited = read_values(_base(values.pop("base"), path, derived), saved=False, derived=(*derived, path))
    inherited.pop("run_dir", None)
    return _merge(inherited, values)


def apply_override(values: dict[str, Any], override: str, hints: Mapping[str, Any]) -> None:
    """Apply `section.key=value` to nested values. ConfigError if malformed.

    For a key that takes text, what stands after `=` is the text, but for quotes around it, and `null` where the key may
    be null; for others it is a value in YAML. A key that takes a list takes `[one, two]`, or one text.

    Args:
        values: changed in place.
        override: as on the command line.
        hints: the types of all keys.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        example = f": write {override}=VALUE" if override in hints else ""
        raise ConfigError(f"{override!r} is not of the form section.key=value{example}")
    if key in RENAMED_KEYS:
        _report_renamed(key)
        key = RENAMED_KEYS[key]
    value = _override_value(text.strip(), hints.get(key))
    *sections, name = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise ConfigError(f"{override!r}: {section} is not a section")
    values[name] = value


def _override_value(text: str, hint: Any) -> Any:
    if takes_truth(hint) and text in ("true", "false"):  # of a key that also takes a word
        return text == "true"
    if takes_text(hint) and not (text == "null" and takes_null(hint)) and text[:1] not in ("'", '"'):
        return text
    try:
        value = parse_yaml(text) if text else ""
    except ValueError as error:
        if entry_type(hint) is not None and text[:1] in ("[", "{"):
            raise ConfigError(f"{text}: not YAML: {error}; text with braces needs quotes: path: 'a.{{lang}}'") from None
        return text  # such as a quote that is not closed
    if entry_type(hint) is not None and isinstance(value, dict):
        return [value]
    if takes_list(hint):
        is_quoted = isinstance(value, str) and text[:1] in ("'", '"')
        return value if isinstance(value, list | None) else [value if is_quoted else text]
    is_value = isinstance(value, str) if takes_text(hint) and text != "null" else not isinstance(value, dict | list)
    return value if is_value else text


def plain_text(value: str) -> str:
    """ValueError for control characters, surrogates and text that the locale cannot encode."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", value):
        raise ValueError("must be text without control characters, in UTF-8")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot be written in this locale ({error.encoding}): use UTF-8") from None
    return value


def plain_name(value: str) -> str:
    """ValueError if a name, put into a path pattern, could leave the pattern's directory."""
    if not value or ".." in value or re.search(r"[/\\\x00]", value):
        raise ValueError("must be a plain name, without /, \\ and ..")
    return value


def _rename_keys(values: dict[str, Any], path: Path, *, silently: bool) -> None:
    for old, new in RENAMED_KEYS.items():
        (section, old_name), new_name = old.split("."), new.rpartition(".")[2]
        keys = values.get(section)
        if isinstance(keys, dict) and old_name in keys:
            if new_name in keys:
                raise ConfigError(f"{path}: {old} is the old name of {new}: give only {new}")
            keys[new_name] = keys.pop(old_name)
            if not silently:
                _report_renamed(old, f"{path}: ")


@functools.cache  # once per process: a file may be read several times
def _report_renamed(old: str, where: str = "") -> None:
    print(one_line(f"warning: {where}{old} is now called {RENAMED_KEYS[old]}"), file=sys.stderr)


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors, aliases and tags, with limited nesting and 64-bit integers.

    Aliases can expand a small file to gigabytes; tags call constructors, some of which fail in undocumented ways.
    """

    _depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            problem = "anchors, aliases and tags are not supported"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        if self._depth > _MAX_DEPTH:
            raise yaml.composer.ComposerError(problem="nested too deeply", problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and key.value in seen:  # the later one would win, a whole section even
                problem = f"{key.value} is given twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, ScalarNode) else None)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: ScalarNode) -> int:
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):  # YAML 1.1 reads 0100 as 64 and 1:30 as 90
            problem = f"{node.value} is not a decimal number; quote it if it is text"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        value = super().construct_yaml_int(node)
        if abs(value) > MAX_INT:
            problem = "a number of more than 64 bits"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """ValueError for invalid YAML."""
    try:
        return _PlainLoader(text).get_single_data()
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _base(name: object, path: Path, derived: tuple[Path, ...]) -> Path:
    """Resolve the `base` of a file; `derived` are the files based on that file."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}: base must be the name of a YAML file, got {name!r}")
    try:
        plain_text(name)
    except ValueError as error:
        raise ConfigError(f"{path}: base={name!r} {error}") from None
    base, chain = path.parent / name, (*derived, path)
    if not base.is_file():
        base = shipped_config(name) or base
    if base.resolve() in (file.resolve() for file in chain) or len(chain) > _MAX_BASES:
        raise ConfigError(f"{' is based on '.join(map(str, (*chain, base)))}: remove one `base:`")
    return base


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Merge nested values; those of `high` win."""
    merged = {**low, **high}
    for name in low.keys() & high.keys():
        if isinstance(low[name], dict) and isinstance(high[name], dict):
            merged[name] = _merge(low[name], high[name])
    return merged

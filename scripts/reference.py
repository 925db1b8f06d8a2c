"""Write the reference of all configuration keys from transformer/sections: python scripts/reference.py

docs/CONFIGURATION.md for readers, configs/schema.json for editors. Types, ranges and defaults are those that are
checked; the text of a key is the comment beside or above it.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from transformer.cli import run
from transformer.config import Config, CorpusEntry, DataConfig, ModelConfig, SearchConfig, TrainConfig
from transformer.config_file import MAX_INT

_ROOT = Path(__file__).parents[1]
PAGE, SCHEMA = _ROOT / "docs" / "CONFIGURATION.md", _ROOT / "configs" / "schema.json"
_SECTIONS = {"": Config, "model": ModelConfig, "data": DataConfig, "train": TrainConfig, "search": SearchConfig}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
_HEADER = """\
# All configuration keys

A configuration is a YAML file with the keys below; a key that is left out has its default. On the command line,
`section.key=value` overrides the file: `transformer train quickstart train.max_steps=2000 model.dropout=0.2`.
[TRAINING.md](TRAINING.md) explains how to write a file; `transformer configs` lists those of the package. An unknown
key, a wrong type or a value out of range is an error before anything runs.

This page is generated from [transformer/sections](../transformer/sections) by `python scripts/reference.py`. So is
[configs/schema.json](../configs/schema.json), which gives completion and hints in editors with a YAML language server;
your own file names it in its first line: `# yaml-language-server: $schema=PATH/TO/configs/schema.json`.

`null` means that a value is not given. In a file, put
quotes around text that YAML reads as another value, such as `no` or `2024`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    return 0


def page() -> str:
    """The reference as Markdown, a table per section."""
    lines = [_HEADER]
    properties = schema()["properties"]
    for section, cls in _SECTIONS.items():
        keys = properties[section]["properties"] if section else properties
        lines += [
            f"## {section or 'Top level'}\n",
            f"{inspect.getdoc(cls)}\n",
            "| key | values | default | meaning |",
            "|---|---|---|---|",
        ]
        for name, key in keys.items():
            if name in _SECTIONS or name == "base":
                continue
            lines.append(_row(name, key))
        lines.append("")
        if section == "data":
            lines += [
                "Keys of an entry of `data.corpora`:\n",
                "| key | values | default | meaning |",
                "|---|---|---|---|",
                *(_row(name, key) for name, key in _entry_schema()["properties"].items()),
                "",
            ]
    return "\n".join(lines)


def _row(name: str, key: dict[str, Any]) -> str:
    default = yaml.safe_dump(key["default"]).splitlines()[0]
    return f"| `{name}` | {_values(key)} | `{default}` | {key['description'].replace('|', chr(92) + '|')} |"


def schema() -> dict[str, Any]:
    """JSON schema of a configuration file, with texts and defaults."""
    whole = TypeAdapter(Config).json_schema()
    sections = whole.pop("$defs")
    properties: dict[str, Any] = {
        "base": {"type": "string", "description": "a file or shipped configuration to inherit from"}
    }
    for section, cls in _SECTIONS.items():
        keys = (sections[cls.__name__] if section else whole)["properties"]
        texts = comments(cls)
        described = {
            name: {**_without_titles(key), "description": texts[name]}
            for name, key in keys.items()
            if name not in _SECTIONS
        }
        if section:
            text = inspect.getdoc(cls)
            properties[section] = {
                "type": "object",
                "description": text,
                "additionalProperties": False,
                "properties": described,
            }
        else:
            properties |= described
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of transformer",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def comments(cls: type) -> dict[str, str]:
    """The comment of each key: beside it, or in the lines above."""
    lines, first = inspect.getsourcelines(cls)
    found = {}
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls) or cls))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        number = node.lineno - first
        _, _, text = lines[number].partition("  # ")
        while not text and (above := lines[number - 1].strip()).startswith("# "):
            text = above[2:]
        found[node.target.id] = text.strip()
    return found


def _without_titles(key: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: _plain(value) if name in _BOUNDS else value for name, value in key.items() if name != "title"
    }
    if "anyOf" in kept:
        kept["anyOf"] = [_without_titles(option) for option in kept["anyOf"]]
    if "items" in kept:
        kept["items"] = _without_titles(kept["items"])
    if "$ref" in kept:
        return _entry_schema()
    return kept


def _entry_schema() -> dict[str, Any]:
    """An entry of `data.corpora`: keys, or a path alone."""
    keys, texts = TypeAdapter(CorpusEntry).json_schema()["properties"], comments(CorpusEntry)
    described = {name: {**_without_titles(key), "description": texts[name]} for name, key in keys.items()}
    return {"type": ["object", "string"], "additionalProperties": False, "properties": described}


def _plain(bound: float) -> float:
    """Older versions of pydantic write 0.0 for 0."""
    return int(bound) if bound == int(bound) else bound


def _values(key: dict[str, Any]) -> str:
    """The accepted values in words."""
    if "anyOf" in key:
        return " or ".join(_values(option) for option in key["anyOf"])
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    if "const" in key:
        return f"`{key['const']}`"
    if key["type"] == "null":
        return "`null`"
    if key["type"] == "array":
        return f"list: {_values(key['items'])}"
    if "properties" in key:
        return "paths, or keys as below"
    return " ".join([_TYPES[key["type"]], _range(key)]).strip()


def _range(key: dict[str, Any]) -> str:
    # 64 bits are a limit of files, and no news to readers.
    bounds = {name: f"{key[name]:,}" for name in _BOUNDS if name in key and key[name] != MAX_INT}
    if bounds.keys() == {"minimum", "maximum"}:
        return f"from {bounds['minimum']} to {bounds['maximum']}"
    return ", ".join(f"{_BOUNDS[name]} {bound}" for name, bound in bounds.items())


if __name__ == "__main__":
    run(main)

"""The reference of configuration keys is current, complete and true of the shipped configurations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import reference
import yaml

from transformer.config import Config, load_config
from transformer.config_file import MAX_INT
from transformer.errors import ConfigError

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
SCHEMA = reference.schema()["properties"]


def test_the_kept_files_are_what_the_program_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE", "SCHEMA"):
        kept = getattr(reference, name)
        monkeypatch.setattr(reference, name, tmp_path / kept.name)
    assert reference.main([]) == 0
    for kept in (ROOT / "docs" / "CONFIGURATION.md", ROOT / "configs" / "schema.json"):
        assert (tmp_path / kept.name).read_text(encoding="utf-8") == kept.read_text(encoding="utf-8"), (
            f"{kept.name}: run python scripts/reference.py"
        )


def keys(key: str) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    found: dict[str, Any] = (SCHEMA[section]["properties"] if section else SCHEMA)[name]
    return found


@pytest.mark.parametrize("key", Config().flat())
def test_every_key_has_a_text_and_its_default(key: str) -> None:
    assert re.match(r"[\w{]", keys(key)["description"])
    default = Config().flat()[key]
    assert keys(key)["default"] == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize("key", Config().flat())
def test_the_bounds_of_the_schema_are_those_that_are_checked(key: str, tmp_path: Path) -> None:
    """A value beyond a bound is refused by the program with that bound."""
    described = keys(key)
    options = [described, *described.get("anyOf", [])]
    for option in options:
        for name, beyond in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0)):
            if name in option and option[name] != MAX_INT:  # a file cannot hold more
                value = option[name] + beyond
                section, _, plain = key.rpartition(".")
                path = tmp_path / "mine.yaml"
                path.write_text(yaml.safe_dump({section: {plain: value}} if section else {plain: value}))
                with pytest.raises(ConfigError, match=rf"^{re.escape(key)}={value} must be (at|more|less)"):
                    load_config(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_configurations_name_the_schema_and_conform_to_its_keys(path: Path) -> None:
    first, _, text = path.read_text(encoding="utf-8").partition("\n")
    schema = (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve()
    assert schema == ROOT / "configs" / "schema.json"
    for section, value in yaml.safe_load(text).items():
        for name in value if isinstance(value, dict) else ():
            assert name in SCHEMA[section]["properties"]
        assert section in SCHEMA


def test_the_schema_is_json_that_forbids_unknown_keys() -> None:
    schema = json.loads(reference.schema_text())
    assert schema["additionalProperties"] is False
    assert all(schema["properties"][name]["additionalProperties"] is False for name in ("model", "data", "train"))

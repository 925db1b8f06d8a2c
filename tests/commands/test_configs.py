"""The configurations of the package are found by name, listed, and printed as a file to start from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from transformer.commands import configs
from transformer.config import load_config
from transformer.errors import ConfigError
from transformer.shipped import DIRECTORY, find_config, shipped_configs

ALL = shipped_configs()


@pytest.mark.parametrize("name", ALL)
def test_a_name_stands_for_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == load_config(DIRECTORY / f"{name}.yaml")


def test_a_file_of_that_name_wins_with_a_note_and_a_directory_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").mkdir()
    assert load_config("quickstart").run_dir == "runs/quickstart"
    Path("quickstart").rmdir()
    assert capsys.readouterr().err == ""
    Path("quickstart").write_text("seed: 3")
    assert load_config("quickstart").seed == 3
    assert capsys.readouterr().err == "note: the file quickstart is used, not the configuration of the package\n"


@pytest.mark.parametrize(
    "name", ["../configs/quickstart", "/quickstart", "table3/../quickstart", "quickstart.yaml", ""]
)
def test_only_a_plain_name_is_looked_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == Path(name)


def test_a_base_may_be_a_name_and_only_a_file_beside_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: quickstart\nseed: 5")
    shipped = load_config("quickstart")
    assert load_config(path) == dataclasses.replace(shipped, seed=5, run_dir="runs/mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("quickstart").write_text("model: {d_ff: 103}")  # in the working directory, not beside the file
    (tmp_path / "quickstart").mkdir()
    assert load_config(path) == dataclasses.replace(shipped, seed=5, run_dir="runs/mine")
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text("model: {d_ff: 101}")
    assert load_config(path).model.d_ff == 101


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quikstart", r"^quikstart: no such configuration file; did you mean quickstart\?$"),
        ("table3/c_n3", r"^table3/c_n3: no such configuration file; did you mean table3/c_n"),
        ("quickstart.yaml", r"^quickstart\.yaml: no such configuration file; did you mean quickstart\?$"),
        ("configs/BASE.yaml", r"^configs/BASE\.yaml: no such configuration file; did you mean base\?$"),
        ("xyzzy.yaml", r"^xyzzy\.yaml: no such configuration file$"),
        ("xyzzy", r"^xyzzy: no such configuration file; `transformer configs` lists those of the package$"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_the_nearest(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_config(name)


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main([]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == list(ALL)
    assert all(re.match(r"\w", text) for _, text in lines)


@pytest.mark.parametrize("name", ALL)
def test_a_printed_configuration_is_the_same_anywhere(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configs.main([name]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert "schema" not in path.read_text(encoding="utf-8")
    assert load_config(path) == dataclasses.replace(load_config(name), run_dir="runs/mine")


def test_a_package_without_configurations_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "shipped_configs", dict)
    with pytest.raises(ConfigError, match=r"configs: the configurations of the package are missing; install it again$"):
        configs.main([])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^quick is not a configuration of the package; `transformer configs` lists"):
        configs.main(["quick"])

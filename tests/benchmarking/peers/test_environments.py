"""Environments are built once, whole or not at all, and changed where they say; no package is installed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarking.peers.environments import CONSTRAINTS, Change, Environment, EnvironmentBuildError, build, change
from benchmarking.peers.fairseq import Fairseq
from benchmarking.peers.opennmt import OpenNMT

TOOLKIT = Environment(
    "toolkit",
    packages=("needed==2", "other"),
    alone=("toolkit==3",),
    stubs=("absent",),
    changes=(Change(("toolkit/main.py",), r"np\.int\b", "int", "numpy removed it"),),
)


class FakePip:
    """Notes commands; makes site-packages as `venv` does, and a file of the toolkit."""

    def __init__(self, text: str = "x = np.int(3)  # np.integer\n") -> None:
        self.commands: list[list[str]] = []
        self.text = text

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command))
        if command[1:3] == ["-m", "venv"]:
            main = Path(command[3]) / "lib" / "python3.11" / "site-packages" / "toolkit" / "main.py"
            main.parent.mkdir(parents=True)
            main.write_text(self.text)


def quiet(_line: str) -> None: ...


def test_torch_comes_first_and_the_toolkit_without_its_dependencies(tmp_path: Path) -> None:
    pip = FakePip()
    python = build(TOOLKIT, tmp_path, quiet, pip)
    assert python == tmp_path / "toolkit" / "bin" / "python"
    _, torch, alone, packages = pip.commands
    constrained = ["--constraint", str(CONSTRAINTS)]
    assert [torch[0], torch[-6:-2]] == [str(python), [*constrained, "torch", "numpy"]]
    assert alone[-3:] == ["--no-deps", "--no-build-isolation", "toolkit==3"]
    assert packages[-4:] == [*constrained, "needed==2", "other"]
    site = tmp_path / "toolkit" / "lib" / "python3.11" / "site-packages"
    assert (site / "toolkit" / "main.py").read_text() == "x = int(3)  # np.integer\n"
    assert (site / "absent.py").read_text() == ""


def test_an_environment_is_built_once(tmp_path: Path) -> None:
    lines: list[str] = []
    build(TOOLKIT, tmp_path, lines.append, FakePip())
    again = FakePip()
    assert build(TOOLKIT, tmp_path, lines.append, again) == tmp_path / "toolkit" / "bin" / "python"
    assert again.commands == []
    assert lines == [f"building the environment of toolkit in {tmp_path / 'toolkit'}"]


@pytest.mark.parametrize("changed", [{"packages": ("needed==3",)}, {"stubs": ()}, {"changes": ()}, {"alone": ()}])
def test_another_recipe_is_built_anew(tmp_path: Path, changed: dict[str, tuple[str, ...]]) -> None:
    build(TOOLKIT, tmp_path, quiet, FakePip())
    (tmp_path / "toolkit" / "left over").touch()
    again = FakePip()
    build(dataclasses.replace(TOOLKIT, **changed), tmp_path, quiet, again)
    assert again.commands
    assert not (tmp_path / "toolkit" / "left over").exists()


def test_a_file_that_is_not_as_expected_is_an_error_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"toolkit/main\.py: nothing matches .* \(numpy removed it\)$"):
        build(TOOLKIT, tmp_path, quiet, FakePip("x = 3\n"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    FakePip()(["python", "-m", "venv", str(tmp_path / "toolkit")])
    absent = dataclasses.replace(TOOLKIT, changes=(Change(("toolkit/no.py",), "x", "y", "reason"),))
    with pytest.raises(EnvironmentBuildError, match=r"toolkit/no\.py: nothing matches 'x' \(reason\)"):
        change(tmp_path / "toolkit", absent)


def test_a_package_that_cannot_be_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(EnvironmentBuildError, match=r"^-m venv .*toolkit: failed$"):
        build(TOOLKIT, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_fairseq_is_changed_where_python_and_torch_need_it(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages" / "fairseq"
    before = {
        "dataclass/configs.py": "    common: CommonConfig = CommonConfig()\n    model: Any = MISSING\n",
        "models/transformer/transformer_config.py": "    decoder: DecoderConfig = DecoderConfig()\n"
        "    quant_noise: QuantNoiseConfig = field(default=QuantNoiseConfig())\n",
        "dataclass/initialize.py": "        v = FairseqConfig.__dataclass_fields__[k].default\n",
        "data/data_utils.py": "                    np.int,\n                    np.int64,\n",
        "modules/transformer_layer.py": "                "
        "encoder_padding_mask if encoder_padding_mask is not None else attn_mask,\n            )\n",
    }
    after = {
        "dataclass/configs.py": "    common: CommonConfig = field(default_factory=CommonConfig)\n"
        "    model: Any = MISSING\n",
        "models/transformer/transformer_config.py": "    "
        "decoder: DecoderConfig = field(default_factory=DecoderConfig)\n"
        "    quant_noise: QuantNoiseConfig = field(default_factory=QuantNoiseConfig)\n",
        "dataclass/initialize.py": "        v = getattr(FairseqConfig(), k)\n",
        "data/data_utils.py": "                    int,\n                    np.int64,\n",
        "modules/transformer_layer.py": "                "
        "encoder_padding_mask if encoder_padding_mask is not None else attn_mask,\n"
        "                1 if encoder_padding_mask is not None else 0,\n            )\n",
    }
    for name, text in before.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    assert Fairseq.environment is not None
    change(tmp_path, Fairseq.environment)
    assert {name: (site / name).read_text() for name in after} == after


def test_every_change_has_a_reason_and_every_toolkit_a_version() -> None:
    for peer in (Fairseq, OpenNMT):
        assert peer.environment is not None
        assert all(each.reason for each in peer.environment.changes)
        version = peer.title.split()[-1]
        assert [requirement.split("==")[1] for requirement in peer.environment.alone] == [version]

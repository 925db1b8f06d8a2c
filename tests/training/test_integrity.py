"""Damaged checkpoints are refused by name, and an intact older one is offered."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from transformer.config import load_config
from transformer.errors import CheckpointError
from transformer.inference.translator import Translator
from transformer.training.checkpoint import average_checkpoints, load_checkpoint
from transformer.training.integrity import verify, write_checksums
from transformer.training.run_directory import last_checkpoints
from transformer.training.trainer import Trainer

FILES = ["config.yaml", "model.safetensors", "optimizer.safetensors", "tokenizer.model", "training.json"]


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of a run with the checkpoints 4, 8 and 11."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 5 // 7] ^= 16
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def mix_up(path: Path) -> None:
    """Replace a file by that of the previous checkpoint, itself intact."""
    other = path.parent.with_name("step-00000008") / path.name
    content = other.read_bytes()
    # The configuration and the tokenizer do not change from one to the next.
    path.write_bytes(content if content != path.read_bytes() else content + b"\n")


@pytest.mark.parametrize("spoil", [flip_a_bit, truncate, mix_up, Path.unlink])
@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_changed_file_is_named(run: Path, name: str, spoil: object) -> None:
    checkpoint = run / "checkpoints" / "step-00000011"
    spoil(checkpoint / name)  # type: ignore[operator]
    if (name, spoil) == ("SHA256SUMS", Path.unlink):
        verify(checkpoint)  # earlier versions wrote none
        return
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(checkpoint)
    message = str(error.value)
    assert name in message or "SHA256SUMS" in message
    older = checkpoint.with_name("step-00000008")
    offer = f"; {older} is intact: use it, or remove {checkpoint} and rerun to resume from an older one"
    assert message.startswith(str(checkpoint))
    assert message.endswith(offer)
    load_checkpoint(older)


def test_the_newest_intact_checkpoint_is_offered(run: Path) -> None:
    for step in (11, 8):
        flip_a_bit(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    with pytest.raises(CheckpointError, match="checkpoints/step-00000004 is intact: use it"):
        verify(run / "checkpoints" / "step-00000011")
    flip_a_bit(run / "checkpoints" / "step-00000004" / "model.safetensors")
    with pytest.raises(CheckpointError, match="no older checkpoint is intact"):
        verify(run / "checkpoints" / "step-00000011")


def test_a_damaged_average_offers_a_checkpoint(run: Path) -> None:
    shutil.copytree(run / "checkpoints" / "step-00000008", run / "averaged")
    flip_a_bit(run / "averaged" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"averaged/model\.safetensors: is damaged.*step-00000011 is intact"):
        Translator.load(run)


def test_training_refuses_a_damaged_checkpoint_and_resumes_from_an_older_one_once_it_is_removed(run: Path) -> None:
    config = load_config(run / "config.yaml", [f"run_dir={run}"])
    last = run / "checkpoints" / "step-00000011"
    flip_a_bit(last / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=rf"{last}/optimizer\.safetensors: is damaged"):
        Trainer.from_config(config)
    shutil.rmtree(last)
    assert Trainer.from_config(config).progress.step == 8


def test_a_checkpoint_without_weights_is_an_error(run: Path) -> None:
    (run / "checkpoints" / "step-00000011" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000011/model\.safetensors: is missing"):
        Trainer.from_config(load_config(run / "config.yaml", [f"run_dir={run}"]))


def test_a_damaged_checkpoint_is_not_averaged(run: Path) -> None:
    directories = sorted((run / "checkpoints").iterdir())
    truncate(directories[1] / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000008/model\.safetensors: is damaged"):
        average_checkpoints(directories)


def test_a_file_that_cannot_be_read_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, *_: object) -> object:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", broken)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: (_ for _ in ()).throw(OSError(5, "I/O", str(path))))
    with pytest.raises(CheckpointError, match="SHA256SUMS: cannot be read: I/O"):
        verify(run / "checkpoints" / "step-00000004")


def test_foreign_files_are_ignored_unless_they_are_named_like_checkpoint_files(run: Path) -> None:
    best = next((run / "best").iterdir())
    (best / "README.md").write_text("my model")
    verify(best)
    shutil.copy(run / "checkpoints" / "step-00000011" / "training.json", best)
    with pytest.raises(CheckpointError, match=re.escape("training.json: does not belong to this checkpoint")):
        verify(best)


def test_coreutils_accept_the_checksums(tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    (tmp_path / "one").write_bytes(b"\x00" * 4_000_037)
    (tmp_path / "two").write_text("zwei\n")
    write_checksums(tmp_path)
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "one: OK\ntwo: OK\n")


@pytest.mark.parametrize("name", ["/etc/hostname", "../../../tokenizer.model", "README.md", ""])
def test_checksums_may_list_checkpoint_files_only(run: Path, name: str) -> None:
    """Otherwise foreign checksums could have any file of this machine read and compared."""
    checkpoint = run / "checkpoints" / "step-00000011"
    (checkpoint / "README.md").write_text("my model")
    with (checkpoint / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(CheckpointError, match=rf"SHA256SUMS: lists '{name}', which does not belong to a checkpoint"):
        verify(checkpoint)


def test_a_renamed_copy_is_not_a_checkpoint_of_the_run(run: Path) -> None:
    last = run / "checkpoints" / "step-00000011"
    shutil.copytree(last, last.with_name("step-00000011.bak"))
    shutil.copytree(last, last.with_name("step-9"))
    assert [path.name for path in last_checkpoints(run, 2)] == ["step-00000008", "step-00000011"]
    assert Trainer.from_config(load_config(run / "config.yaml", [f"run_dir={run}"])).progress.step == 11
    flip_a_bit(last.with_name("step-00000011.bak") / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"step-00000011\.bak/model\.safetensors: is damaged.*no older checkpoint is intact"
    ):
        verify(last.with_name("step-00000011.bak"))


def test_a_checkpoint_with_the_name_of_another_step_is_refused(run: Path) -> None:
    last = run / "checkpoints" / "step-00000011"
    last.rename(last.with_name("step-00000013"))
    with pytest.raises(
        CheckpointError, match="step-00000013: contains the state after step 11, not after that of its name"
    ):
        Trainer.from_config(load_config(run / "config.yaml", [f"run_dir={run}"]))

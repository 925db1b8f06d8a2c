"""Checkpoints: whole or not at all, bit for bit, and never loaded where they do not fit."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.model.transformer import Transformer
from transformer.training import checkpoint as checkpoint_module
from transformer.training.checkpoint import (
    Progress,
    average_checkpoints,
    build_model,
    load_checkpoint,
    load_training,
    load_weights,
    other_random_states,
    save_checkpoint,
)

FILES = ["SHA256SUMS", "config.yaml", "model.safetensors", "tokenizer.model"]
TRAINING_FILES = sorted([*FILES, "optimizer.safetensors", "training.json"])
METADATA = {"format": "1"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)


@pytest.fixture
def model(tiny_config: Config, tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(5)
    return build_model(tiny_config, len(tokenizer))


def step(model: Transformer) -> torch.optim.Optimizer:
    """One update with random gradients; returns the optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer) -> Path:
    """A checkpoint for training, after 7 updates, so it says."""
    optimizer = step(model)
    directory = tmp_path / "saved"
    save_checkpoint(directory, tiny_config, tokenizer, model.state_dict(), (optimizer, Progress(step=7)))
    return directory


def names(directory: Path) -> list[str]:
    """What is in a directory, hidden or not."""
    return sorted(path.name for path in directory.iterdir())


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object], metadata: dict[str, str] | None) -> None:
    """Change the tensors of a file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_loaded_is_what_was_saved(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    assert names(saved) == TRAINING_FILES
    config, loaded_tokenizer, loaded = load_checkpoint(str(saved))
    assert config == tiny_config
    assert loaded_tokenizer.model == tokenizer.model
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert loaded.training
    src, tgt = torch.tensor([[5, 7, 11, 3]]), torch.tensor([[2, 13, 17]])
    assert torch.equal(loaded.eval()(src, tgt), model.eval()(src, tgt))


def test_who_may_read_one_file_may_read_all(saved: Path) -> None:
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


def test_saving_again_what_was_loaded_gives_the_same_files(saved: Path, tmp_path: Path) -> None:
    config, tokenizer, model = load_checkpoint(saved)
    save_checkpoint(tmp_path / "again", config, tokenizer, model.state_dict())
    assert names(tmp_path / "again") == FILES
    again = contents(tmp_path / "again")
    del again["SHA256SUMS"]  # of fewer files
    assert again == {name: data for name, data in contents(saved).items() if name in again}


def test_training_goes_on_with_the_same_moments_position_and_random_numbers(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    optimizer = step(model)
    progress = Progress(
        step=1,
        epoch=2,
        update=3,
        elapsed_s=0.1 + 0.2,
        best_nll=1 / 3,
        num_worse=5,
        window_loss=1e300,
        window_nll=1e-300,
        window_tokens=7,
        window_s=11.5,
        fingerprints={"train": "abc", "validation": "def"},
    )
    save_checkpoint(tmp_path / "saved", tiny_config, tokenizer, model.state_dict(), (optimizer, progress))
    expected_draws = torch.rand(13)
    _, _, loaded = load_checkpoint(tmp_path / "saved")
    loaded_optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.03, fused=True)
    assert load_training(tmp_path / "saved", loaded_optimizer, list(loaded.state_dict())) == progress
    assert torch.equal(torch.rand(13), expected_draws)
    for parameter, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert_close(loaded_optimizer.state[other], optimizer.state[parameter], rtol=0, atol=0)
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    optimizer.step()
    loaded_optimizer.step()
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_weights_that_are_not_contiguous_are_saved_as_they_are(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    weights = {name: weight.t().contiguous().t() for name, weight in model.state_dict().items() if weight.dim() == 2}
    assert not any(weight.is_contiguous() for weight in weights.values())
    save_checkpoint(tmp_path / "saved", tiny_config, tokenizer, weights)
    assert_close(load_file(tmp_path / "saved" / "model.safetensors"), weights, rtol=0, atol=0)


@pytest.mark.parametrize("tie", ["all", "decoder", "none"])
@pytest.mark.parametrize("positional", ["sinusoidal", "learned"])
def test_every_kind_of_embedding_comes_back(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, tie: str, positional: str
) -> None:
    (tmp_path / "other.yaml").write_text(tiny_config.to_yaml())
    config = load_config(tmp_path / "other.yaml", [f"model.tie={tie}", f"model.positional={positional}"])
    model = build_model(config, len(tokenizer))
    optimizer = step(model)
    save_checkpoint(tmp_path / "saved", config, tokenizer, model.state_dict(), (optimizer, Progress(step=1)))
    _, _, loaded = load_checkpoint(tmp_path / "saved")
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    loaded_optimizer = torch.optim.AdamW(loaded.parameters(), fused=True)
    load_training(tmp_path / "saved", loaded_optimizer, list(loaded.state_dict()))
    for parameter, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert_close(loaded_optimizer.state[other], optimizer.state[parameter], rtol=0, atol=0)


# Writing: whole or not at all.


def test_saving_replaces_what_was_there(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    weights = {name: weight + 1 for name, weight in model.state_dict().items()}
    save_checkpoint(saved, tiny_config, tokenizer, weights)
    assert names(saved) == FILES, "nothing of the old one is left"
    assert_close(load_file(saved / "model.safetensors"), weights, rtol=0, atol=0)
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_remains_of_a_crash_are_in_nobodys_way(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    for name in (".saved.tmp", ".saved.old"):
        shutil.copytree(saved, saved.with_name(name))
        (saved.with_name(name) / "surprise").touch()
    save_checkpoint(saved, tiny_config, tokenizer, model.state_dict())
    assert names(saved) == FILES
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


@pytest.mark.parametrize("with_training", [False, True])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
    ids=["system", "safetensors"],
)
def test_a_failing_write_leaves_the_earlier_checkpoint_intact(
    saved: Path,
    tiny_config: Config,
    tokenizer: Tokenizer,
    model: Transformer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    with_training: bool,
) -> None:
    before = contents(saved)

    def write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if path.name == ("optimizer.safetensors" if with_training else "model.safetensors"):
            path.write_bytes(b"as far as it came")
            raise error
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint_module, "save_file", write)
    training = (step(model), Progress(step=8)) if with_training else None
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(saved, tiny_config, tokenizer, model.state_dict(), training)
    assert contents(saved) == before
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_a_failing_first_write_leaves_nothing(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(tmp_path / "checkpoints" / "first", tiny_config, tokenizer, model.state_dict())
    assert names(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt("Ctrl-C")])
def test_a_checkpoint_that_cannot_take_its_name_leaves_the_earlier_one_there(
    saved: Path,
    tiny_config: Config,
    tokenizer: Tokenizer,
    model: Transformer,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    before = contents(saved)
    rename = Path.rename

    def fail_for_the_new_one(path: Path, target: Path) -> Path:
        if path.name == ".saved.tmp":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(type(error), match=r"Input/output error|Ctrl-C"):
        save_checkpoint(saved, tiny_config, tokenizer, model.state_dict())
    assert contents(saved) == before
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_a_write_that_was_killed_while_it_replaced_the_earlier_one_is_made_good_by_the_next(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    saved.rename(saved.with_name(".saved.old"))
    save_checkpoint(saved, tiny_config, tokenizer, model.state_dict())
    assert names(saved) == FILES
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_a_run_holds_the_files_it_should_and_no_pickle(trained_run: Path) -> None:
    files = {str(path.relative_to(trained_run)): path for path in trained_run.rglob("*") if path.is_file()}
    events = [name for name in files if re.fullmatch(r"tensorboard/events\.out\.tfevents\.[\w.-]+", name)]
    assert len(events) == 1
    checkpoints = [f"checkpoints/step-{step:08d}/{name}" for step in (4, 8, 11) for name in TRAINING_FILES]
    best = [f"best/step-00000010/{name}" for name in FILES]
    run = [".lock", "config.yaml", "metrics.jsonl", "starts.jsonl", "tokenizer.model"]
    assert sorted(files) == sorted([*run, *events, *checkpoints, *best])
    for path in files.values():
        # Pickle protocols 2 to 5, and the zip archives of torch.save. A safetensors file begins with its header's
        # length in 8 bytes, whose third is 0 here.
        assert not re.match(rb"PK\x03\x04|\x80[\x02-\x05][^\x00]", path.read_bytes()), path


# Reading: whatever does not fit is named.


@pytest.fixture
def no_sums(saved: Path) -> None:
    """As a version wrote it that had no checksums yet: what then is noticed all the same."""
    (saved / "SHA256SUMS").unlink()


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.model"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"saved: not a checkpoint: it has no {re.escape(name)}$"):
        load_checkpoint(saved)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: not a checkpoint: it has no config\.yaml$"):
        load_checkpoint(tmp_path / "absent")


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("size", [0, 5, 997, -1])
def test_truncated_weights_are_refused(saved: Path, size: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"saved/model\.safetensors: cannot be read: "):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize(("metadata", "shown"), [({"format": "2"}, "'2'"), ({"format": "pt"}, "'pt'"), (None, "None")])
def test_another_format_is_refused(saved: Path, name: str, metadata: dict[str, str] | None, shown: str) -> None:
    rewrite(saved / name, lambda _: None, metadata)
    with pytest.raises(CheckpointError, match=rf"{name}: checkpoint format {shown}; this version reads format 1$"):
        load_everything(saved)


def load_everything(directory: Path) -> None:
    _, _, model = load_checkpoint(directory)
    load_training(directory, torch.optim.AdamW(model.parameters(), fused=True), list(model.state_dict()))


@pytest.mark.usefixtures("no_sums")
def test_weights_of_another_vocabulary_are_refused(saved: Path) -> None:
    other = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 131)
    (saved / "tokenizer.model").write_bytes(other.model)
    expected = (
        r"model\.safetensors: embeddings\.source_weight is \(151, 22\), the configuration and tokenizer make it "
        r"\(131, 22\): weights of another vocabulary or size$"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
def test_a_checkpoint_from_before_an_option_existed_has_its_default(saved: Path) -> None:
    config, _, model = load_checkpoint(saved)
    path = saved / "config.yaml"
    text = path.read_text()
    options = ("attention_score", "attention_temperature", "attention_window", "max_relative_position")
    path.write_text("".join(line for line in text.splitlines(True) if line.split(":")[0].strip() not in options))
    assert len(text.splitlines()) - len(path.read_text().splitlines()) == len(options)
    config_without, _, model_without = load_checkpoint(saved)
    assert config_without == config
    assert_close(model_without.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.usefixtures("no_sums")
def test_weights_of_another_size_are_refused(saved: Path) -> None:
    path = saved / "config.yaml"
    path.write_text(path.read_text().replace("d_ff: 29", "d_ff: 31"))
    with pytest.raises(CheckpointError, match=r"w_1.* is \(29,.*\), .* make it \(31,.*\): weights of another "):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
def test_a_missing_weight_is_named(saved: Path, model: Transformer) -> None:
    rewrite(saved / "model.safetensors", lambda tensors: tensors.pop("embeddings.source_weight"), METADATA)
    expected = r"model\.safetensors: its weights are not this model's; first difference: embeddings\.source_weight$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(saved)
    with pytest.raises(CheckpointError, match=expected):
        load_weights(model, saved)


@pytest.mark.usefixtures("no_sums")
def test_an_additional_weight_is_named(saved: Path) -> None:
    rewrite(saved / "model.safetensors", lambda tensors: tensors.update(surprise=torch.ones(2)), METADATA)
    with pytest.raises(CheckpointError, match=r"its weights are not this model's; first difference: surprise$"):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
def test_refused_weights_leave_the_model_as_it_was(saved: Path, model: Transformer) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    rewrite(saved / "model.safetensors", lambda tensors: tensors.update(surprise=torch.ones(2)), METADATA)
    with pytest.raises(CheckpointError):
        load_weights(model, saved)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.usefixtures("no_sums")
def test_a_damaged_configuration_is_named(saved: Path) -> None:
    (saved / "config.yaml").write_text("model: {d_model: [}")
    with pytest.raises(ConfigError, match=r"saved/config\.yaml: not YAML: "):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
def test_a_damaged_tokenizer_is_named(saved: Path) -> None:
    (saved / "tokenizer.model").write_bytes(b"not this")
    with pytest.raises(DataError, match=r"saved/tokenizer\.model: not a SentencePiece model: "):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("text", ["", '{"step": 7, "epo', "[7]", '{"step": 7, "surprise": 1}', None], ids=repr)
def test_damaged_progress_is_named(saved: Path, text: str | None) -> None:
    path = saved / "training.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CheckpointError, match=r"saved/training\.json: cannot be read: "):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "20"),
        ("step", True),
        ("update", -3),
        ("epoch", 1.5),
        ("num_worse", 2**63),
        ("elapsed_s", None),
        ("best_nll", math.nan),
        ("window_loss", math.inf),
        ("window_s", 10**400),
        ("fingerprints", ["train"]),
        ("fingerprints", {"train": 7}),
    ],
)
def test_progress_that_cannot_be_is_named(saved: Path, name: str, value: object) -> None:
    path = saved / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=rf"saved/training\.json: cannot be read: {name} cannot be "):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize(
    ("name", "tensor", "pattern"),
    [
        ("exp_avg.embeddings.source_weight", torch.zeros(3), r"is \(3,\) of torch\.float32, not \(151, \d+\)"),
        ("exp_avg_sq.embeddings.source_weight", torch.zeros(()), r"is \(\) of torch\.float32, not \(151, \d+\)"),
        ("rng.cpu", torch.zeros(3), r"is \(3,\) of torch\.float32, not \(\d+,\) of torch\.uint8"),
        ("rng.cpu", torch.zeros_like(torch.get_rng_state()), "Invalid mt19937 state"),
    ],
    ids=["first moment", "second moment", "random numbers", "no random numbers"],
)
def test_tensors_that_the_optimizer_would_read_past_are_refused(
    saved: Path, name: str, tensor: Tensor, pattern: str
) -> None:
    rewrite(saved / "optimizer.safetensors", lambda tensors: tensors.update({name: tensor}), METADATA)
    with pytest.raises(CheckpointError, match=rf"saved/optimizer\.safetensors: {re.escape(name)}:? {pattern}"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize(
    ("file", "name", "value", "pattern"),
    [
        ("model", "embeddings.source_weight", math.nan, "holds what are no finite numbers"),
        ("optimizer", "exp_avg.embeddings.source_weight", -math.inf, "holds what are no finite numbers"),
        ("optimizer", "exp_avg_sq.embeddings.source_weight", math.inf, "holds what are no finite numbers"),
        ("optimizer", "exp_avg_sq.embeddings.source_weight", -1.0, "holds numbers below 0"),
    ],
)
def test_numbers_with_which_nothing_can_go_on_are_refused(
    saved: Path, file: str, name: str, value: float, pattern: str
) -> None:
    path = saved / f"{file}.safetensors"
    rewrite(path, lambda tensors: tensors[name].flatten()[7:8].fill_(value), METADATA)
    with pytest.raises(CheckpointError, match=rf"{file}\.safetensors: {re.escape(name)} {pattern}"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_weights_that_are_whole_numbers_are_refused(saved: Path) -> None:
    def truncate(tensors: dict[str, Tensor]) -> None:
        tensors["embeddings.source_weight"] = tensors["embeddings.source_weight"].long()

    rewrite(saved / "model.safetensors", truncate, METADATA)
    with pytest.raises(CheckpointError, match=r"embeddings\.source_weight holds what are no finite numbers"):
        average_checkpoints([saved])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "training.json", "SHA256SUMS"])
def test_pipes_are_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    with pytest.raises(CheckpointError, match=f"saved(/{name}: .*is no file|: not a checkpoint: it has no {name}$)"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("function", ["load_file", "safe_open"])
def test_too_many_open_files_are_no_bug(saved: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise RuntimeError("unable to open file: Too many open files (24)")

    monkeypatch.setattr(*(checkpoint_module, function) if function == "load_file" else (safetensors, function), refuse)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read: unable to open file: Too many"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_moments_of_another_type_are_refused(saved: Path) -> None:
    name = "exp_avg.embeddings.source_weight"

    def halve(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].half()

    rewrite(saved / "optimizer.safetensors", halve, METADATA)
    with pytest.raises(CheckpointError, match=r"is \(151, \d+\) of torch\.float16, not \(151, \d+\) of torch\.float32"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_random_numbers_of_another_process_are_checked_as_well(saved: Path) -> None:
    path = saved / "optimizer.safetensors"
    rewrite(path, lambda tensors: tensors.update({"rng.cpu.1": torch.zeros(3)}), METADATA)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: rng\.cpu\.1 is \(3,\) of torch\.float32"):
        other_random_states(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["exp_avg.embeddings.source_weight", "exp_avg_sq.embeddings.source_weight", "rng.cpu"])
def test_what_the_optimizer_lacks_is_named(saved: Path, name: str) -> None:
    rewrite(saved / "optimizer.safetensors", lambda tensors: tensors.pop(name), METADATA)
    with pytest.raises(CheckpointError, match=rf"optimizer\.safetensors: lacks '{re.escape(name)}'$"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("content", [b"", b"not this", None], ids=repr)
def test_a_damaged_optimizer_is_named(saved: Path, content: bytes | None) -> None:
    path = saved / "optimizer.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"saved/optimizer\.safetensors: cannot be read: "):
        load_everything(saved)


# Averaging.


def write_weights(directory: Path, **weights: Tensor) -> Path:
    directory.mkdir()
    save_file(weights, directory / "model.safetensors", metadata=METADATA)
    return directory


@pytest.mark.usefixtures("no_sums")
def test_the_average_of_one_checkpoint_is_that_checkpoint(saved: Path, model: Transformer) -> None:
    averaged = average_checkpoints([saved])
    assert_close(averaged, dict(model.state_dict()), rtol=0, atol=0)
    assert {tensor.dtype for tensor in averaged.values()} == {torch.float32}


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("number", [2, 3, 7])
def test_the_average_of_equal_checkpoints_is_that_checkpoint(saved: Path, model: Transformer, number: int) -> None:
    assert_close(average_checkpoints([saved] * number), dict(model.state_dict()), rtol=0, atol=0)


def test_an_average_is_the_mean(tmp_path: Path) -> None:
    values = ([1.0, 2.0, -3.0], [2.0, 2.0, 5.0], [6.0, 2.0, 1.0])
    directories = [
        write_weights(tmp_path / str(i), vector=torch.tensor(value), number=torch.tensor(value[0]))
        for i, value in enumerate(values)
    ]
    expected = {"vector": torch.tensor([3.0, 2.0, 1.0]), "number": torch.tensor(3.0)}
    assert_close(average_checkpoints(directories), expected, rtol=0, atol=0)


def test_an_average_of_random_weights_is_the_mean(tmp_path: Path) -> None:
    torch.manual_seed(3)
    weights = torch.randn(5, 7, 11)
    directories = [write_weights(tmp_path / str(i), weight=weight) for i, weight in enumerate(weights)]
    assert_close(average_checkpoints(directories), {"weight": weights.double().mean(0).float()}, rtol=0, atol=0)


@pytest.mark.parametrize(
    "other",
    [{"weight": torch.ones(3, 2)}, {"other": torch.ones(2, 3)}, {"weight": torch.ones(2, 3), "more": torch.ones(1)}],
    ids=["shape", "name", "number"],
)
def test_checkpoints_of_different_models_are_not_averaged(tmp_path: Path, other: dict[str, Tensor]) -> None:
    directories = [write_weights(tmp_path / "one", weight=torch.ones(2, 3)), write_weights(tmp_path / "two", **other)]
    with pytest.raises(CheckpointError, match=r"two: cannot be averaged with .*one: the weights differ in shape$"):
        average_checkpoints(directories)


def test_a_damaged_checkpoint_is_not_averaged(tmp_path: Path) -> None:
    directory = write_weights(tmp_path / "one", weight=torch.ones(2, 3))
    (directory / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"one/model\.safetensors: cannot be read: "):
        average_checkpoints([directory])

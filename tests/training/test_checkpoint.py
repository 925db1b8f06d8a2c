"""Checkpoints are written atomically, restored exactly and refused if they do not fit."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training import integrity
from transformer.training.checkpoint import (
    average_checkpoints,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from transformer.training.training_state import Progress, TrainingState, load_state

FILES = ["SHA256SUMS", "config.yaml", "model.safetensors", "tokenizer.model"]
TRAINING_FILES = sorted([*FILES, "optimizer.safetensors", "training.json"])
METADATA = {"format": "1"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)


@pytest.fixture
def model(tiny_config: Config, tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(5)
    return build_model(len(tokenizer), tiny_config.model)


def step(model: Transformer) -> torch.optim.Optimizer:
    """One update with random gradients; returns the optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer) -> Path:
    """A checkpoint with training state, marked as after 7 updates."""
    optimizer = step(model)
    directory = tmp_path / "saved"
    save_checkpoint(directory, tiny_config, tokenizer, model.state_dict(), TrainingState(optimizer, Progress(step=7)))
    return directory


def names(directory: Path) -> list[str]:
    """The names in a directory, hidden ones included."""
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


def test_loading_restores_what_was_saved(
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


def test_all_files_have_the_same_permissions(saved: Path) -> None:
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


def test_saving_a_loaded_checkpoint_gives_identical_files(saved: Path, tmp_path: Path) -> None:
    config, tokenizer, model = load_checkpoint(saved)
    save_checkpoint(tmp_path / "again", config, tokenizer, model.state_dict())
    assert names(tmp_path / "again") == FILES
    again = contents(tmp_path / "again")
    del again["SHA256SUMS"]  # of fewer files
    assert again == {name: data for name, data in contents(saved).items() if name in again}


def test_resuming_restores_moments_position_and_rng_state(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    optimizer = step(model)
    progress = Progress(
        step=1,
        epoch=2,
        update=3,
        elapsed_s=0.1 + 0.2,
        best_nll=1 / 3,
        num_bad_validations=5,
        running_loss=1e300,
        running_nll=1e-300,
        running_tokens=7,
        running_s=11.5,
        fingerprints={"train": "abc", "validation": "def"},
    )
    save_checkpoint(tmp_path / "saved", tiny_config, tokenizer, model.state_dict(), TrainingState(optimizer, progress))
    expected_draws = torch.rand(13)
    _, _, loaded = load_checkpoint(tmp_path / "saved")
    loaded_optimizer = torch.optim.AdamW(loaded.parameters(), lr=0.03, fused=True)
    assert load_state(tmp_path / "saved", loaded_optimizer, list(loaded.state_dict())) == (progress, [])
    assert torch.equal(torch.rand(13), expected_draws)
    for parameter, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert_close(loaded_optimizer.state[other], optimizer.state[parameter], rtol=0, atol=0)
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    optimizer.step()
    loaded_optimizer.step()
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_noncontiguous_weights_are_saved_correctly(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    weights = {name: weight.t().contiguous().t() for name, weight in model.state_dict().items() if weight.dim() == 2}
    assert not any(weight.is_contiguous() for weight in weights.values())
    save_checkpoint(tmp_path / "saved", tiny_config, tokenizer, weights)
    assert_close(load_file(tmp_path / "saved" / "model.safetensors"), weights, rtol=0, atol=0)


@pytest.mark.parametrize("tie", ["all", "decoder", "none"])
@pytest.mark.parametrize("positional", ["sinusoidal", "learned"])
def test_every_kind_of_embedding_is_restored(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, tie: str, positional: str
) -> None:
    (tmp_path / "other.yaml").write_text(tiny_config.to_yaml())
    config = load_config(tmp_path / "other.yaml", [f"model.tie={tie}", f"model.positional={positional}"])
    model = build_model(len(tokenizer), config.model)
    optimizer = step(model)
    save_checkpoint(
        tmp_path / "saved", config, tokenizer, model.state_dict(), TrainingState(optimizer, Progress(step=1))
    )
    _, _, loaded = load_checkpoint(tmp_path / "saved")
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    loaded_optimizer = torch.optim.AdamW(loaded.parameters(), fused=True)
    load_state(tmp_path / "saved", loaded_optimizer, list(loaded.state_dict()))
    for parameter, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert_close(loaded_optimizer.state[other], optimizer.state[parameter], rtol=0, atol=0)


# Atomic writes.


def test_saving_replaces_what_was_there(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    weights = {name: weight + 1 for name, weight in model.state_dict().items()}
    save_checkpoint(saved, tiny_config, tokenizer, weights)
    assert names(saved) == FILES, "nothing of the old one is left"
    assert_close(load_file(saved / "model.safetensors"), weights, rtol=0, atol=0)
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_leftovers_of_a_crash_do_not_prevent_saving(
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

    monkeypatch.setattr(integrity, "save_file", write)
    state = TrainingState(step(model), Progress(step=8)) if with_training else None
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(saved, tiny_config, tokenizer, model.state_dict(), state)
    assert contents(saved) == before
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_a_failing_first_write_leaves_no_files(
    tmp_path: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(tmp_path / "checkpoints" / "first", tiny_config, tokenizer, model.state_dict())
    assert names(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt("Ctrl-C")])
def test_a_failing_rename_restores_the_earlier_checkpoint(
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


def test_a_write_killed_between_two_renames_is_repaired_by_the_next(
    saved: Path, tiny_config: Config, tokenizer: Tokenizer, model: Transformer
) -> None:
    saved.rename(saved.with_name(".saved.old"))
    save_checkpoint(saved, tiny_config, tokenizer, model.state_dict())
    assert names(saved) == FILES
    assert [name for name in names(saved.parent) if "saved" in name] == ["saved"]


def test_a_run_contains_the_expected_files_and_no_pickle(trained_run: Path) -> None:
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


# Errors on reading.


@pytest.fixture
def no_sums(saved: Path) -> None:
    """As versions without checksums wrote it: the errors that are found without them."""
    (saved / "SHA256SUMS").unlink()


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "tokenizer.model"])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"saved: not a checkpoint: {re.escape(name)} is missing$"):
        load_checkpoint(saved)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: not a checkpoint: config\.yaml is missing$"):
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
@pytest.mark.parametrize(("metadata", "shown"), [({"format": "3"}, "'3'"), ({"format": "pt"}, "'pt'"), (None, "None")])
def test_another_format_is_refused(saved: Path, name: str, metadata: dict[str, str] | None, shown: str) -> None:
    rewrite(saved / name, lambda _: None, metadata)
    with pytest.raises(
        CheckpointError, match=rf"{name}: checkpoint format {shown}; this version reads formats 1 and 2$"
    ):
        load_everything(saved)


def load_everything(directory: Path) -> None:
    _, _, model = load_checkpoint(directory)
    load_state(directory, torch.optim.AdamW(model.parameters(), fused=True), list(model.state_dict()))


@pytest.mark.usefixtures("no_sums")
def test_weights_of_another_vocabulary_are_refused(saved: Path) -> None:
    other = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 131)
    (saved / "tokenizer.model").write_bytes(other.model)
    expected = (
        r"model\.safetensors: embedding\.weight has shape \(151, 22\), but the configuration and tokenizer "
        r"require \(131, 22\): vocabulary or model size differs$"
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
    with pytest.raises(
        CheckpointError, match=r"w_1.* has shape \(29,.*\), .* require \(31,.*\): vocabulary or model size"
    ):
        load_checkpoint(saved)


@pytest.mark.usefixtures("no_sums")
def test_a_missing_weight_is_named(saved: Path, model: Transformer) -> None:
    rewrite(saved / "model.safetensors", lambda tensors: tensors.pop("embedding.weight"), METADATA)
    expected = r"model\.safetensors: the weights do not match the model; first difference: embedding\.weight$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(saved)
    with pytest.raises(CheckpointError, match=expected):
        load_weights(model, saved)


@pytest.mark.usefixtures("no_sums")
def test_an_additional_weight_is_named(saved: Path) -> None:
    rewrite(saved / "model.safetensors", lambda tensors: tensors.update(surprise=torch.ones(2)), METADATA)
    with pytest.raises(CheckpointError, match=r"the weights do not match the model; first difference: surprise$"):
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
def test_invalid_progress_is_named(saved: Path, name: str, value: object) -> None:
    path = saved / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=rf"saved/training\.json: cannot be read: {name} cannot be "):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize(
    ("name", "tensor", "pattern"),
    [
        ("exp_avg.embedding.weight", torch.zeros(3), r"is \(3,\) of torch\.float32, not \(151, \d+\)"),
        ("exp_avg_sq.embedding.weight", torch.zeros(()), r"is \(\) of torch\.float32, not \(151, \d+\)"),
        ("rng.cpu", torch.zeros(3), r"is \(3,\) of torch\.float32, not \(\d+,\) of torch\.uint8"),
        ("rng.cpu", torch.zeros_like(torch.get_rng_state()), "Invalid mt19937 state"),
    ],
    ids=["first moment", "second moment", "random numbers", "no random numbers"],
)
def test_tensors_of_a_wrong_shape_or_dtype_are_refused(saved: Path, name: str, tensor: Tensor, pattern: str) -> None:
    rewrite(saved / "optimizer.safetensors", lambda tensors: tensors.update({name: tensor}), METADATA)
    with pytest.raises(CheckpointError, match=rf"saved/optimizer\.safetensors: {re.escape(name)}:? {pattern}"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize(
    ("file", "name", "value", "pattern"),
    [
        ("model", "embedding.weight", math.nan, "contains non-finite values"),
        ("optimizer", "exp_avg.embedding.weight", -math.inf, "contains non-finite values"),
        ("optimizer", "exp_avg_sq.embedding.weight", math.inf, "contains non-finite values"),
        ("optimizer", "exp_avg_sq.embedding.weight", -1.0, "contains values below 0"),
    ],
)
def test_nonfinite_weights_and_invalid_moments_are_refused(
    saved: Path, file: str, name: str, value: float, pattern: str
) -> None:
    path = saved / f"{file}.safetensors"
    rewrite(path, lambda tensors: tensors[name].flatten()[7:8].fill_(value), METADATA)
    with pytest.raises(CheckpointError, match=rf"{file}\.safetensors: {re.escape(name)} {pattern}"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_integer_weights_are_refused(saved: Path) -> None:
    def truncate(tensors: dict[str, Tensor]) -> None:
        tensors["embedding.weight"] = tensors["embedding.weight"].long()

    rewrite(saved / "model.safetensors", truncate, METADATA)
    with pytest.raises(CheckpointError, match=r"embedding\.weight contains non-finite values"):
        average_checkpoints([saved])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "training.json", "SHA256SUMS"])
def test_pipes_are_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink(missing_ok=True)
    os.mkfifo(saved / name)
    with pytest.raises(
        CheckpointError, match=f"saved(/{name}: .*not a regular file|: not a checkpoint: {name} is missing$)"
    ):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("function", ["load_file", "safe_open"])
def test_too_many_open_files_are_a_checkpoint_error(
    saved: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise RuntimeError("unable to open file: Too many open files (24)")

    monkeypatch.setattr(integrity, function, refuse)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read: unable to open file: Too many"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_moments_of_another_dtype_are_refused(saved: Path) -> None:
    name = "exp_avg.embedding.weight"

    def to_float16(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name].half()

    rewrite(saved / "optimizer.safetensors", to_float16, METADATA)
    with pytest.raises(CheckpointError, match=r"is \(151, \d+\) of torch\.float16, not \(151, \d+\) of torch\.float32"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
def test_worker_rng_states_are_checked_too(saved: Path) -> None:
    path = saved / "optimizer.safetensors"
    rewrite(path, lambda tensors: tensors.update({"rng.cpu.1": torch.zeros(3)}), METADATA)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: rng\.cpu\.1 is \(3,\) of torch\.float32"):
        load_everything(saved)


@pytest.mark.usefixtures("no_sums")
@pytest.mark.parametrize("name", ["exp_avg.embedding.weight", "exp_avg_sq.embedding.weight", "rng.cpu"])
def test_missing_optimizer_tensors_are_named(saved: Path, name: str) -> None:
    rewrite(saved / "optimizer.safetensors", lambda tensors: tensors.pop(name), METADATA)
    with pytest.raises(CheckpointError, match=rf"optimizer\.safetensors: '{re.escape(name)}' is missing$"):
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

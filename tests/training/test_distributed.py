"""Data-parallel training with real processes over gloo gives the results of one process."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import TCPStore
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import group_into_updates
from transformer.data.builtin import builtin_pairs
from transformer.errors import WorkerError
from transformer.inference.resumable import resumable_output
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.training import distributed
from transformer.training.checkpoint import (
    load_checkpoint,
    save_checkpoint,
)
from transformer.training.distributed import (
    SINGLE_PROCESS,
    DistributedContext,
    init_distributed,
)
from transformer.training.metrics import read_metrics
from transformer.training.rng import get_rng_state
from transformer.training.run_directory import find_checkpoint
from transformer.training.signals import StopRequest
from transformer.training.trainer import Trainer
from transformer.training.training_state import (
    Progress,
    TrainingState,
    load_state,
    rank_seed,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Imports take seconds: processes are forked from a server that has done them once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["transformer.training.trainer", "transformer.inference.translator", "torch.utils.tensorboard", "torch._dynamo"]
)
PROCESS = """
import os, runpy, sys, torch
os.environ.update({environment!r})
os.dup2(os.open({output!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
os.dup2(1, 2)
torch.set_num_threads(1)
{code}
"""
LOST = "error: another process of this job has exited or does not respond ("


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Job:
    """Processes as `torchrun` starts them, all running the same code; they print to `output`."""

    def __init__(self, size: int, output: Path, code: str) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        common |= {"GLOO_SOCKET_IFNAME": "lo", "LOCAL_WORLD_SIZE": str(size)}
        self.output = output
        self.processes = []
        for rank in map(str, range(size)):
            environment = {**common, "RANK": rank, "LOCAL_RANK": rank}
            text = PROCESS.format(environment=environment, output=str(output), code=code)
            self.processes.append(FORKS.Process(target=exec, args=(text, {"__name__": "__main__"}), daemon=True))
        for process in self.processes:
            process.start()

    def statuses(self) -> list[int | None]:
        for process in self.processes:
            process.join(timeout=120)
        return [process.exitcode for process in self.processes]

    def printed(self) -> str:
        return self.output.read_text()


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a script or code in several processes; kills them at the end."""
    jobs: list[Job] = []

    def start(size: int, *command: object, code: str | None = None) -> Job:
        if code is None:
            script, *arguments = map(str, command)
            code = (
                f"sys.argv = {[script, *arguments]!r}\nrunpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')"
            )
        jobs.append(Job(size, tmp_path / f"output-{len(jobs)}", code))
        return jobs[-1]

    yield start
    for job in jobs:
        for process in job.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def config(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Dropout; 7 updates, two epochs of 41 pairs and a bit of the third, of two to four batches each."""
    directory = tmp_path_factory.mktemp("distributed")
    for split, size in (("train", 41), ("validation", 17)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    data = (f"data.corpus={directory}/{{split}}.{{lang}}", f"data.cache_dir={directory / 'cache'}")
    sizes = ("data.vocab_size=151", "train.tokens_per_update=301", "train.max_tokens=149")
    times = ("train.max_steps=7", "train.save_steps=3", "train.save_minutes=7", "train.max_hours=7")
    return load_config(trained_run / "config.yaml", [*data, *sizes, *times])


def in_directory(config: Config, run_dir: Path, *overrides: str) -> tuple[Path, Config]:
    """The configuration in another directory and with other values, as a file and as it is."""
    path = run_dir.with_suffix(".yaml")
    path.write_text(config.to_yaml())
    changed = load_config(path, [f"run_dir={run_dir}", *overrides])
    path.write_text(changed.to_yaml())
    return path, changed


def tensors(run: Path, step: int, file: str = "model") -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors")


def train(start: Start, size: int, path: Path, *overrides: str) -> str:
    """Train in several processes to the end; returns their output."""
    job = start(size, "train.py", path, *overrides)
    assert job.statuses() == [0] * size, job.printed()
    return job.printed()


def wait_for(condition: Callable[[], object], is_running: Callable[[], bool]) -> None:
    while not condition():
        assert is_running()
        time.sleep(0.005)


# Updates.


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_processes_does_not_change_the_weights(
    config: Config, start: Start, tmp_path: Path, size: int
) -> None:
    values = ("model.dropout=0.0", "train.validation_bleu=true", "train.clip_norm=0.5")
    _, alone = in_directory(config, tmp_path / "one", *values)
    trainer = Trainer.from_config(alone, scorer=lambda *_: 23.0)
    trainer.fit()
    lengths = (trainer.data.train.src.lengths, trainer.data.train.tgt.lengths)
    plan = group_into_updates(*lengths, max_tokens=149, tokens_per_update=301, seed=7, epoch=0)
    assert {len(update) for update in plan} == {2, 3}, "fewer batches than there are processes to share their pairs"
    expected = [(line["kind"], line["step"], line["nll"]) for line in read_metrics(trainer.run)]
    path, _ = in_directory(config, tmp_path / "run", *values)
    train(start, size, path)
    run = path.with_suffix("")
    # Packed batches of a shard are other batches, whose sums are rounded otherwise.
    assert_close(tensors(run, 7), tensors(trainer.run, 7), rtol=0, atol=5e-6)
    lines = read_metrics(run)
    assert [(line["kind"], line["step"]) for line in lines] == [line[:2] for line in expected]
    assert [line["nll"] for line in lines] == pytest.approx([line[2] for line in expected], rel=1e-6)
    assert "bleu" in lines[-1] or "bleu" in lines[-2]
    progress, reference = (
        json.loads((where / "checkpoints" / "step-00000007" / "training.json").read_text())
        for where in (run, trainer.run)
    )
    for name in ("epoch", "update", "window_tokens", "num_worse"):
        assert progress[name] == reference[name]
    assert progress["window_loss"] == pytest.approx(reference["window_loss"], rel=1e-6)


@pytest.mark.slow
def test_every_process_computes_the_same_moving_average_and_takes_it_from_the_checkpoint(
    config: Config, start: Start, tmp_path: Path
) -> None:
    values = ("model.dropout=0.0", "train.ema_decay=0.9", "train.schedule=constant", "train.learning_rate=0.01")
    _, alone = in_directory(config, tmp_path / "one", *values)
    trainer = Trainer.from_config(alone)
    trainer.fit()
    path, _ = in_directory(config, tmp_path / "run", *values)
    train(start, 1, path, "train.max_steps=2")
    train(start, 2, path)
    run = path.with_suffix("")
    assert_close(tensors(run, 7), tensors(trainer.run, 7), rtol=0, atol=1e-6)
    expected, found = (
        [line["nll"] for line in read_metrics(where) if line["kind"] == "validation" and line["step"] > 2]
        for where in (trainer.run, run)
    )
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_dropout_differs_by_process_and_training_by_two_can_be_repeated_and_resumed(
    config: Config, start: Start, tmp_path: Path
) -> None:
    whole, _ = in_directory(config, tmp_path / "whole")
    printed = train(start, 2, whole)
    assert printed.count("parameters: ") == printed.count("reached after step 7; ") == 1, "one process speaks"
    assert "\nprocesses: 2\n" in printed
    parts, _ = in_directory(config, tmp_path / "parts")
    train(start, 2, parts, "train.max_steps=4")
    resumed = train(start, 2, parts)
    assert "\nresuming after step 4\n" in resumed
    for file in ("model", "optimizer"):
        saved, expected = (tensors(path.with_suffix(""), 7, file) for path in (parts, whole))
        assert_close(saved, expected, rtol=0, atol=0)
    assert saved["rng.cpu"].ne(saved["rng.cpu.1"]).any()
    assert {name for name in saved if name.startswith("rng.")} == {"rng.cpu", "rng.cpu.1"}

    # The number of processes may change on resumption.
    _, alone = in_directory(config, tmp_path / "parts", "train.max_steps=8")
    trainer = Trainer.from_config(alone)
    assert trainer.progress.step == 7
    with trainer._rng.in_use():
        assert torch.equal(torch.get_rng_state(), saved["rng.cpu"])
    trainer.fit()
    run = trainer.run
    del trainer  # and with it the lock
    assert "rng.cpu.1" not in tensors(run, 8, "optimizer")
    assert "\nresuming after step 8\n" in train(start, 2, parts, "train.max_steps=9")
    assert "rng.cpu.1" in tensors(run, 9, "optimizer")
    assert [line["step"] for line in read_metrics(run) if line["kind"] == "train"] == [1, 3, 6, 9]
    validated = [line["step"] for line in read_metrics(run) if line["kind"] == "validation"]
    assert validated == [4, 5, 7, 8, 9], "regularly after 5, and at each end"


def test_ranks_have_different_seeds() -> None:
    seeds = [rank_seed(7, step, rank) for step in (0, 11) for rank in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert rank_seed(7, 11, 2) == seeds[7]


def test_worker_rng_states_are_saved_in_order(config: Config, trained_run: Path, tmp_path: Path) -> None:
    tokenizer = Trainer.from_config(load_config(trained_run / "config.yaml")).data.tokenizer
    model = build_model(len(tokenizer), config.model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        optimizer.state[parameter] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    states = []
    for seed in range(11):
        torch.manual_seed(seed)
        states.append(get_rng_state())
    state = TrainingState(optimizer, Progress(step=3), states)
    save_checkpoint(tmp_path / "saved", config, tokenizer, model.state_dict(), state)
    _, worker_states = load_state(tmp_path / "saved", optimizer, list(model.state_dict()))
    assert_close(worker_states, states, rtol=0, atol=0)


# Communication.

PRIMITIVES = """
import itertools, time
from pathlib import Path
import torch
from torch import nn
from transformer.inference.translator import Translator
from types import SimpleNamespace
from transformer.training import reduction
from transformer.training.distributed import init_distributed

directory = Path({directory!r})
with init_distributed() as world:
    assert world.size == 3 and world.is_main == (world.rank == 0)
    assert sorted(itertools.chain(*world.all_gather(world.shard(range(7))))) == list(range(7))
    assert world.all_gather(world.rank) == [0, 1, 2]
    assert world.max(world.rank, -world.rank, float(world.rank == 1)) == [2, 0, 1]
    x = torch.tensor([1.0, world.rank])
    assert world.sum(x).tolist() == [3, 3] and x.tolist() == [1, world.rank]
    assert world.broadcast_from_main(lambda: ("made by", world.rank)) == ("made by", 0)
    lines = ([str(world.rank), str(i)] for i in range(2))
    assert list(world.stream_from_main(lines)) == [["0", "0"], ["0", "1"]]
    with world.main_process_first():
        assert not world.is_main or not list(directory.iterdir())
        time.sleep(0.1 * world.is_main)
        (directory / str(world.rank)).touch()
        assert (directory / "0").exists()
    # Two gradients to a bucket, but for one that is larger than a bucket.
    reduction._BUCKET_NUMEL = 5
    parameters = nn.ParameterList(torch.zeros(n) for n in (2, 3, 7, 1, 1, 5))
    weights = SimpleNamespace(master=parameters, model=parameters, collect_gradients=lambda _: None)
    reducer = reduction.GradientReducer(weights, world)
    for _ in range(2):
        parameters.zero_grad()
        # Rank 2 has no backward pass, rank 1 none of the first parameter, and the fourth has no gradient at all.
        if world.rank < 2:
            with weights.last_backward():
                sum(10**i * (world.rank + 1) * x.sum() for i, x in enumerate(parameters)
                    if i != 3 and (i, world.rank) != (0, 1)).backward()
        reducer.all_reduce_gradients()
    sums = [set(parameter.grad.tolist()) for parameter in parameters]
    assert sums == [{{1}}, {{30}}, {{300}}, {{0}}, {{30000}}, {{300000}}], sums
assert not torch.distributed.is_initialized()
sys.stdout.write("well\\n")  # in one write, unlike print
"""


def test_what_processes_exchange(start: Start, tmp_path: Path) -> None:
    (tmp_path / "turns").mkdir()
    job = start(3, code=PRIMITIVES.format(directory=str(tmp_path / "turns")))
    assert job.statuses() == [0, 0, 0], job.printed()
    assert job.printed() == "well\n" * 3


def test_a_single_process_exchanges_nothing() -> None:
    with init_distributed() as world:
        assert world is SINGLE_PROCESS
        with world.main_process_first():
            pass
    assert not torch.distributed.is_initialized()
    x = torch.ones(3)
    assert world.sum(x) is x
    assert list(world.stream_from_main(iter("ab"))) == ["a", "b"]
    assert world.shard([1, 2, 3]) == world.all_gather([1, 2, 3])[0] == [1, 2, 3]


# Errors.


def test_an_error_of_all_processes_is_printed_once(start: Start, tmp_path: Path) -> None:
    job = start(3, "train.py", tmp_path / "absent.yaml")
    assert job.statuses() == [2, 2, 2]
    assert job.printed() == f"error: {tmp_path / 'absent.yaml'}: no such configuration file\n"


def test_an_error_of_rank_0_ends_the_waiting_processes(config: Config, start: Start, tmp_path: Path) -> None:
    path, _ = in_directory(config, tmp_path / "run", "data.vocab_size=9973")
    job = start(2, "train.py", path)
    assert job.statuses() == [2, 2]
    (line,) = [line for line in job.printed().splitlines() if line.startswith("error: ")]
    assert "vocab_size" in line


def test_machines_with_different_sentences_are_refused(config: Config, start: Start, tmp_path: Path) -> None:
    path, _ = in_directory(config, tmp_path / "run")
    (tmp_path / "other").mkdir()
    for file in Path(config.data.corpus).parent.glob("*.??"):
        lines = file.read_text().splitlines()[:-1]
        (tmp_path / "other" / file.name).write_text("".join(f"{line}\n" for line in lines))
    other = f"data.corpus={tmp_path / 'other'}/{{split}}.{{lang}}"
    code = (
        f"sys.argv = ['train.py', {str(path)!r}] + [{other!r}] * (os.environ['RANK'] == '1')\n"
        f"runpy.run_path({str(SCRIPTS / 'train.py')!r}, run_name='__main__')"
    )
    job = start(2, code=code)
    assert job.statuses() == [2, 2]
    (line,) = [line for line in job.printed().splitlines() if line.startswith("error: ")]
    assert line.startswith("error: data.corpus=") and line.endswith(": differs between machines")


FEW_GPUS = """
import torch
from transformer.errors import DeviceError
from transformer.training.device import resolve_device
from transformer.training.distributed import init_distributed
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
os.environ["LOCAL_WORLD_SIZE"] = "2"
with init_distributed() as world:
    assert resolve_device("cpu").type == "cpu"
    assert world.sum(torch.ones(())).item() == 2
    for name in ("auto", "cuda"):
        try:
            resolve_device(name)
        except DeviceError as error:
            world.print0(str(error))
"""


def test_more_processes_than_gpus_may_compute_on_the_cpu_only(start: Start) -> None:
    job = start(2, code=FEW_GPUS)
    assert job.statuses() == [0, 0], job.printed()
    expected = (
        "2 processes on this machine, but 1 CUDA devices; start as many processes with --nproc-per-node, or compute on "
        "the CPU: train.device=cpu, --device cpu\n"
    )
    assert job.printed() == 2 * expected


def test_a_rank_not_set_by_torchrun_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with init_distributed() as world:
        assert world is SINGLE_PROCESS


def test_failing_to_connect_is_a_worker_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_COLLECTIVE_TIMEOUT", distributed.timedelta(seconds=1))
    values = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(WorkerError, match=r"^another process of this job has exited or does not respond \("),
        init_distributed(),
    ):
        pass


def test_greetings_of_libraries_are_kept_off_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def greet(*_: object, **__: object) -> Iterator[object]:
        os.write(1, b"Rank 0 is connected")
        raise RuntimeError("and gone")

    monkeypatch.setattr(distributed, "rendezvous", greet)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(WorkerError, match="and gone"), init_distributed():
        pass
    os.write(1, b"Eine Katze")
    assert capfd.readouterr().out == "Eine Katze"


def test_processes_without_standard_output_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with distributed._silent_stdout():
        os.fstat(1)


def test_a_barrier_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_BARRIER_TIMEOUT", distributed.timedelta(seconds=0.1))
    with (
        pytest.raises(WorkerError, match="failed while others were waiting"),
        DistributedContext(1, 2, 1, torch.distributed.HashStore()).main_process_first(),
    ):
        pass


LEAVING = """
import time
from transformer.training.distributed import Abandoned, init_distributed
from transformer.training.validation import StopCheck
with init_distributed() as world:
    should_stop = StopCheck(lambda: "SIGTERM" if world.rank == 1 else None, world)
    later = StopCheck(lambda: None, world)
    while not should_stop():
        time.sleep(0.01)
    assert should_stop.reason == (None, "SIGTERM", None)[world.rank]
    assert not later(), "which was asked for nothing"
    assert world.all_gather(world.rank) == [0, 1, 2]
    try:
        world.abandon() if world.rank == 1 else world.all_gather(world.rank)
    except Abandoned:
        sys.stdout.write("left\\n")
    assert world.all_gather(world.rank) == [0, 1, 2]
"""


def test_a_rank_that_leaves_common_work_takes_the_others_along(start: Start) -> None:
    job = start(3, code=LEAVING)
    assert job.statuses() == [0, 0, 0], job.printed()
    assert job.printed() == "left\n" * 3


STOPPING = """
import functools
from pathlib import Path
from transformer.config import load_config
from transformer.inference.validation_bleu import greedy_bleu
from transformer.training.distributed import init_distributed
from transformer.training.trainer import Trainer
with init_distributed() as world:
    config = load_config(Path({path!r}))
    trainer = Trainer.from_config(config, functools.partial(greedy_bleu, context=world), world)
    asked = 0
    def stop():
        global asked
        asked += trainer.progress.step == 5 and world.rank == {rank}
        return "SIGTERM" if asked >= {number} else None
    assert trainer.fit(stop) == {reason!r}
    world.print0(f"{{trainer.progress.step}} {{trainer.progress.validated_step}}")
"""


# Before the loss, in it, and in the translation, which rank 0 has for itself: the other one is waiting.
@pytest.mark.parametrize(("rank", "number"), [(1, 1), (1, 2), (0, 23), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_a_request_to_one_rank_in_a_validation_stops_all_and_is_made_up_for(
    config: Config, start: Start, tmp_path: Path, rank: int, number: int
) -> None:
    path, _ = in_directory(config, tmp_path / "run", "train.validation_bleu=true")
    job = start(2, code=STOPPING.format(path=str(path), rank=rank, number=number, reason="SIGTERM"))
    assert job.statuses() == [0, 0], job.printed()
    assert job.printed().splitlines()[-1] == "5 0"
    assert [line["step"] for line in read_metrics(tmp_path / "run") if line["kind"] == "validation"] == []
    job = start(2, code=STOPPING.format(path=str(path), rank=rank, number=99991, reason="train.max_steps=7 reached"))
    assert job.statuses() == [0, 0], job.printed()
    assert job.printed().splitlines()[-1] == "7 7"
    assert [line["step"] for line in read_metrics(tmp_path / "run") if line["kind"] == "validation"] == [5, 7]


# Failures and signals.


@pytest.mark.slow
def test_when_one_process_is_killed_the_others_exit_and_the_run_can_resume(
    config: Config, start: Start, tmp_path: Path
) -> None:
    path, _ = in_directory(config, tmp_path / "run", "train.max_steps=99991", "train.validate_steps=99991")
    run = tmp_path / "run"
    job = start(2, "train.py", path)
    wait_for(lambda: list(run.glob("checkpoints/step-*")), job.processes[0].is_alive)
    job.processes[1].kill()
    assert job.statuses() == [2, -signal.SIGKILL]
    *_, said = job.printed().splitlines()
    assert said.startswith(LOST) and said.endswith("; rerun the same command to resume")
    assert job.printed().count("error: ") == 1
    _, alone = in_directory(config, run)
    step = Trainer.from_config(alone).progress.step
    assert step and step % 3 == 0


def test_a_repeated_signal_can_be_ignored() -> None:
    previous = signal.getsignal(signal.SIGINT)
    with StopRequest(ignore_repeats=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop() == "SIGINT"
    assert signal.getsignal(signal.SIGINT) == previous


# With torchrun itself.


@contextlib.contextmanager
def torchrun(directory: Path, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--master-port={free_port()}", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")])
    with (directory / "stderr").open("w") as stderr:
        command = [*launcher, *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, **options
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # its workers would survive it
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.longest
def test_torchrun_starts_again_from_the_checkpoint_when_one_process_is_killed(
    config: Config, start: Start, tmp_path: Path
) -> None:
    # Enough updates that it is killed long before the last.
    values = ("train.max_steps=97", "train.validate_steps=99991", "train.keep_checkpoints=1")
    undisturbed, _ = in_directory(config, tmp_path / "undisturbed", *values)
    path, _ = in_directory(config, tmp_path / "killed", *values)
    run = tmp_path / "killed"
    with torchrun(tmp_path, "--max-restarts=1", SCRIPTS / "train.py", path) as process:
        wait_for(lambda: list(run.glob("checkpoints/step-*")), lambda: process.poll() is None)
        os.kill(max(children(process.pid)), signal.SIGKILL)
        train(start, 2, undisturbed)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    assert printed.count("\nresuming after step ") == printed.count("\ntrain.max_steps=97 reached after step 97; ") == 1
    assert_close(tensors(run, 97), tensors(tmp_path / "undisturbed", 97), rtol=0, atol=0)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_signal_to_torchrun_ends_all_processes_after_the_same_update(config: Config, tmp_path: Path) -> None:
    path, _ = in_directory(config, tmp_path / "run", "train.max_steps=99991", "train.validate_steps=99991")
    run = tmp_path / "run"
    with torchrun(tmp_path, SCRIPTS / "train.py", path) as process:
        wait_for(lambda: list(run.glob("checkpoints/step-*")), lambda: process.poll() is None)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=120)
    *_, reason, advice = printed.splitlines()
    last = max(path.name for path in (run / "checkpoints").iterdir())
    step = int(last.removeprefix("step-"))
    assert reason == f"SIGTERM after step {step}; checkpoints are in {run}"
    assert advice.startswith("go on with: the same torchrun command")
    assert "error: " not in (tmp_path / "stderr").read_text()
    _, alone = in_directory(config, run)
    assert Trainer.from_config(alone).progress.step == step


# Scoring and translating.

SENTENCES = [*(source for source, _ in builtin_pairs("test", 13)), "", "A cat is sleeping.", ""]
# A small token budget, so that each process has several batches.
SMALL_BATCHES = """
from transformer.inference.translator import Translator
Translator.translate_nbest.__kwdefaults__["batch_tokens"] = 37
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def in_small_batches(start: Start, size: int, script: str, *arguments: object) -> Job:
    argv = [script, *map(str, arguments), "--precision=fp32", "--device=cpu"]
    return start(size, code=SMALL_BATCHES.format(argv=argv, script=str(SCRIPTS / script)))


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_translating_a_file_equals_one_process_and_resumes(
    babbler: Path, start: Start, tmp_path: Path, size: int
) -> None:
    lists = Translator.load(babbler, device="cpu", precision="fp32").translate_nbest(
        SENTENCES, nbest=2, batch_tokens=37
    )
    # An empty line has one translation.
    expected = [text for nbest in lists for text in [*(one.text for one in nbest), *[""] * (2 - len(nbest))]]
    assert len(set(expected)) > 20
    file, output, part = (tmp_path / name for name in ("in", "out", "out.part"))
    file.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    settings = Translator.load(babbler, device="cpu", precision="fp32").identity() | {"nbest": 2, "scores": False}
    with resumable_output(output, settings) as begun:
        begun.add(SENTENCES[:1], "what was\nthere\n")
    with part.open("a") as killed:
        killed.write("half a li")
    job = in_small_batches(start, size, "translate.py", babbler, file, "--nbest=2", f"--output={output}")
    assert job.statuses() == [0] * size, job.printed()
    assert output.read_text().splitlines() == ["what was", "there", *expected[2:]]
    assert not part.exists()
    going_on = f"{part}: going on after line 1 of the input; delete it to start again\n"
    assert job.printed() == f"checkpoint: {babbler}\n{going_on}"


def test_a_sentence_that_is_too_long_is_named_once_by_its_number(babbler: Path, start: Start) -> None:
    texts = [f"--text={text}" for text in (*SENTENCES[:2], "cat " * 1024)]
    job = in_small_batches(start, 2, "translate.py", babbler, *texts)
    assert job.statuses() == [2, 2]
    assert re.fullmatch(
        r"checkpoint: .*\nerror: sentence 3 has \d+ pieces, more than the limit of 1024: split it, .*\n", job.printed()
    )


@pytest.mark.slow
def test_scores_are_those_of_one_process(babbler: Path, start: Start, tmp_path: Path) -> None:
    for i, name in enumerate(("src", "ref")):
        (tmp_path / name).write_text("".join(f"{pair[i]}\n" for pair in builtin_pairs("test", 23)))
    files = (f"--src={tmp_path / 'src'}", f"--ref={tmp_path / 'ref'}")
    reports = []
    for size in (1, 2):
        output = tmp_path / f"hypotheses{size}"
        job = in_small_batches(start, size, "evaluate.py", babbler, *files, "--json", f"--output={output}")
        assert job.statuses() == [0] * size, job.printed()
        reports.append(json.loads(job.printed().splitlines()[-1]))
    assert (tmp_path / "hypotheses1").read_text() == (tmp_path / "hypotheses2").read_text()
    times = ("seconds", "sentences_per_s")
    one, two = ({name: value for name, value in report.items() if name not in times} for report in reports)
    assert one == two
    assert one["sentences"] == 23


@pytest.mark.slow
def test_alignments_are_those_of_one_process(babbler: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    for size in (1, 2):
        options = (tmp_path / "in", "--json", "--alignment", f"--output={tmp_path / str(size)}")
        job = in_small_batches(start, size, "translate.py", babbler, *options)
        assert job.statuses() == [0] * size, job.printed()
    one, two = ([json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("1", "2"))
    links = [[x["alignment"] for x in line["translations"]] for line in one]
    assert links == [[x["alignment"] for x in line["translations"]] for line in two]
    assert sum(map(any, links)) > 10


@pytest.mark.slow
def test_torchrun_translates_standard_input_in_order(babbler: Path, tmp_path: Path) -> None:
    expected = Translator.load(babbler, device="cpu", precision="fp32").translate(SENTENCES)
    command = (SCRIPTS / "translate.py", babbler, "--precision=fp32")
    with torchrun(tmp_path, *command, stdin=subprocess.PIPE) as process:
        printed, _ = process.communicate("".join(f"{sentence}\n" for sentence in SENTENCES), timeout=120)
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    assert printed.splitlines() == expected


@pytest.mark.slow
def test_frozen_and_initial_weights_are_the_same_in_all_processes(
    config: Config, trained_run: Path, start: Start, tmp_path: Path
) -> None:
    """At a low learning rate, as the rounding of trained weights grows with each update."""
    values = ("model.dropout=0.0", "train.validation_bleu=false", "train.weight_decay=0.1", "train.lr_factor=0.02")
    values += ("train.freeze=[encoder]", f"train.init_from={trained_run}", "data.vocab_size=307")
    _, alone = in_directory(config, tmp_path / "one", *values)
    Trainer.from_config(alone).fit()
    path, _ = in_directory(config, tmp_path / "run", *values)
    train(start, 2, path, "train.max_steps=4")
    train(start, 2, path)
    run, initial = path.with_suffix(""), load_checkpoint(find_checkpoint(trained_run))[2].state_dict()
    here, there = tensors(run, 7), tensors(tmp_path / "one", 7)
    assert_close(here, there, rtol=0, atol=1e-6)
    for name, weight in here.items():
        assert torch.equal(weight, initial[name]) == name.startswith("encoder."), name
    assert not any("exp_avg.encoder" in name for name in tensors(run, 7, "optimizer"))

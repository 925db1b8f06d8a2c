"""DDP, FSDP2 and tensor parallelism in two real processes, which talk by gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes have left a file for each check that they passed, and what they printed."""
    directory = tmp_path_factory.mktemp("distributed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    processes = []
    for rank in ("0", "1"):
        with (directory / f"output.{rank}").open("w") as output:
            command = [sys.executable, str(WORKER), rank, str(directory)]
            processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
    try:
        for process in processes:
            process.wait(timeout=300)
    finally:
        for process in processes:
            process.kill()
    return directory


@pytest.mark.parametrize(
    "check",
    [
        "ddp_past_256_positions_on_one_rank",
        "fsdp_by_layer",
        "fsdp_of_alternatives",
        "fsdp_from_meta",
        "fsdp_decoding",
        "tensor_parallel",
    ],
)
def test_two_processes_equal_one(directory: Path, check: str) -> None:
    for rank in (0, 1):
        assert (directory / f"{check}.{rank}").exists(), (directory / f"output.{rank}").read_text()[-3000:]

"""The program of what to measure first on a GPU runs, on a CPU and on a pretended device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarking import gpu
from benchmarking.gpu import benchmark_gpu
from benchmarking.report import as_text
from pretended import PretendedCuda

from transformer.config import Config, load_config

BASE = Path(__file__).parents[2] / "configs" / "base.yaml"
SECTIONS = ["versions", "products", "attention", "update", "wait_in_update", "precision", "search"]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(BASE, ["train.precision=fp32"])


def test_tiny_sizes_run_on_a_cpu_and_are_shown(config: Config) -> None:
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    report: dict[str, Any] = dict(benchmark_gpu(config, torch.device("cpu"), tiny=True))
    assert torch.backends.cuda.cudnn_sdp_enabled() == cudnn
    assert list(report) == SECTIONS
    assert report["versions"]["card"] == "cpu" and report["wait_in_update"] == "not on CUDA"
    assert [row["cudnn"] for row in report["attention"]["passes"]] == ["off", "allowed"]
    assert [row["update"] for row in report["update"]["passes"]][:3] == [
        "one batch, cuDNN off",
        "2 batches of 60, cuDNN off",
        "a new shape each, cuDNN off",
    ]
    assert (
        report["precision"]["tf32"]
        == "failed: precision=tf32: device=cpu does not multiply it; use auto, fp32, bf16 or fp16"
    )
    assert report["precision"]["bf16"]["ms"] >= report["precision"]["bf16"]["host_ms"] > 0
    assert [(row["search"], row["sentences"]) for row in report["search"]["steps"]] == [("greedy", 2), ("beam 4", 2)]
    assert "update.passes" in as_text(report)


def test_a_section_that_fails_does_not_keep_the_next_from_running(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    for name in ("products", "attention", "updates", "precisions", "searches"):
        monkeypatch.setattr(gpu._Measurements, name, fail)
    report = benchmark_gpu(config, torch.device("cpu"), tiny=True)
    assert report["products"] == report["search"] == "failed: CUDA error: no kernel image is available"
    assert report["versions"]["torch"] == torch.__version__


def test_a_wait_in_an_update_is_named_with_its_place(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with PretendedCuda():
        measured = gpu._Measurements(gpu.shrunk(config), torch.device("cuda"), gpu.TINY)
        assert measured.wait_in_update() == "none"

        def refuse(trained: object, batches: object) -> None:  # noqa: ARG001
            if modes[-1:] == ["error"]:
                raise RuntimeError("called a synchronizing CUDA operation")

        monkeypatch.setattr(gpu._Trained, "update", refuse)
        found = measured.wait_in_update()
    assert found.startswith("called a synchronizing CUDA operation at ") and "test_gpu.py:" in found
    assert modes == ["error", "default"] * 2

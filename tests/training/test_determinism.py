"""Equal results on CUDA (`train.deterministic`): settings of the process, and on the CPU no difference."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest
import torch
from pretended import PretendedCuda

from transformer.config import Config, TrainConfig
from transformer.errors import DeviceError
from transformer.training.determinism import prepare_process, use_determinism
from transformer.training.run_keys import FREE_KEYS
from transformer.training.trainer import Trainer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    use_determinism(False, CPU)


def settings() -> tuple[bool, ...]:
    allowed = torch.backends.cuda
    return (
        torch.are_deterministic_algorithms_enabled(),
        allowed.cudnn_sdp_enabled(),
        allowed.flash_sdp_enabled(),
        allowed.mem_efficient_sdp_enabled(),
        allowed.math_sdp_enabled(),
    )


def test_cuda_gets_deterministic_kernels_until_another_run_takes_them_back() -> None:
    before = settings()
    use_determinism(False, CUDA)
    assert settings() == before
    for _ in range(2):
        use_determinism(True, CUDA)
        assert settings() == (True, False, False, False, True)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_determinism(True, CPU)
    assert settings() == before


def test_a_setting_of_the_environment_is_kept_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    use_determinism(True, CUDA)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    use_determinism(False, CUDA)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(DeviceError, match=r"has CUBLAS_WORKSPACE_CONFIG=:0:0, with .* take :4096:8 or :16:8$"):
        use_determinism(True, CUDA)
    assert not torch.are_deterministic_algorithms_enabled()
    use_determinism(True, CPU)


def test_an_apple_gpu_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"^train\.deterministic=true: not on an Apple GPU; use train\.device=cpu"):
        use_determinism(True, torch.device("mps"))


def test_threads_are_set_if_they_are_given() -> None:
    before = torch.get_num_threads()
    try:
        prepare_process(TrainConfig(num_threads=3), CPU)
        prepare_process(TrainConfig(), CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_update_on_cuda_takes_no_kernel_that_adds_in_any_order(tiny_config: Config, precision: str) -> None:
    train = dataclasses.replace(tiny_config.train, device="cuda", deterministic=True, precision=precision)
    model = dataclasses.replace(tiny_config.model, d_k=8, d_v=8)  # for which there are fused kernels
    with PretendedCuda() as cuda:
        trainer = Trainer.from_config(dataclasses.replace(tiny_config, train=train, model=model))
        trainer.update()
        assert cuda.attention.keys() == {"math"}
        assert cuda.calls.keys() & {"cumsum", "put_", "histc", "kthvalue", "median", "nll_loss2d_forward"} == set()


def test_on_a_cpu_nothing_changes_and_the_key_is_free(tiny_config: Config) -> None:
    assert "train.deterministic" in FREE_KEYS
    found = []
    for deterministic in (False, True):
        train = dataclasses.replace(tiny_config.train, deterministic=deterministic)
        run = dataclasses.replace(tiny_config, train=train, run_dir=f"{tiny_config.run_dir}-{deterministic}")
        trainer = Trainer.from_config(run)
        assert not torch.are_deterministic_algorithms_enabled()
        trainer.update()
        found.append([weight.detach().clone() for weight in trainer.weights.master.parameters()])
    for plain, deterministic_one in zip(*found, strict=True):
        assert torch.equal(plain, deterministic_one)

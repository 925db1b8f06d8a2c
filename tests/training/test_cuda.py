"""NVIDIA cards: what `auto` says if it does not take one, unsupported cards, and attention without cuDNN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from transformer.errors import DeviceError
from transformer.training import cuda as cuda_module
from transformer.training.cuda import (
    CUDNN_ATTENTION,
    avoid_cudnn_attention,
    warn_once,
    why_unavailable,
    why_unsupported,
)
from transformer.training.device import resolve_device, resolve_dtype

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was said or decided before, and the environment says nothing."""
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK", CUDNN_ATTENTION):
        monkeypatch.delenv(name, raising=False)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    for function in (warn_once, avoid_cudnn_attention):
        function.cache_clear()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)
    for function in (warn_once, avoid_cudnn_attention):
        function.cache_clear()


def use_torch(
    monkeypatch: pytest.MonkeyPatch,
    *,
    cuda: str | None = "13.0",
    failure: str | None = None,
    capability: tuple[int, int] = (9, 0),
    built: list[str] = WHEEL,
) -> None:
    """A torch with CUDA, which sees a card or fails to."""

    def init() -> None:
        if failure is not None:
            raise RuntimeError(failure)

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: failure is None and cuda is not None)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(
        torch.cuda, "get_device_name", lambda _=None: "Tesla V100" if capability == (7, 0) else "a card"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)


def use_machine(monkeypatch: pytest.MonkeyPatch, path: Path, *, card: bool = False, driver: bool = False) -> None:
    """A machine with an NVIDIA card on its PCI bus, beside another vendor's, and with its driver."""
    for name, vendor, kind in (("0", "0x8086", "0x030000"), ("1", "0x10de", "0x030200" if card else "0x040300")):
        (path / name).mkdir()
        (path / name / "vendor").write_text(f"{vendor}\n")
        (path / name / "class").write_text(f"{kind}\n")
    (path / "damaged").mkdir()
    (path / "driver").touch() if driver else None
    monkeypatch.setattr(cuda_module, "_PCI", path)
    monkeypatch.setattr(cuda_module, "_DRIVER", (path / "driver",))


def test_auto_says_once_why_it_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_torch(monkeypatch, failure=TOO_OLD)
    assert resolve_device("auto") == resolve_device("auto") == torch.device("cpu")
    assert capsys.readouterr().err == (
        "warning: device=auto takes the CPU: The NVIDIA driver on your system is too old (found version 12040) (torch "
        "for CUDA 13.0); see docs/GPU.md, or choose: cpu, cuda\n"
    )
    assert resolve_device("cpu") == torch.device("cpu")
    assert capsys.readouterr().err == ""


def test_of_several_processes_of_a_machine_one_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_torch(monkeypatch, failure=TOO_OLD)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("auto") == torch.device("cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("visible", [None, "7", "", "-1"])
def test_hidden_devices_are_named_unless_all_are_hidden_on_purpose(
    monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    use_torch(monkeypatch, failure="No CUDA GPUs are available")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    reason = "No CUDA GPUs are available (torch for CUDA 13.0)"
    expected = {None: reason, "7": f"{reason}, with CUDA_VISIBLE_DEVICES=7"}
    assert why_unavailable() == expected.get(visible)


@pytest.mark.parametrize("card", [False, True])
def test_a_missing_driver_is_told_only_where_there_is_a_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: bool
) -> None:
    use_torch(monkeypatch, failure=NO_DRIVER)
    use_machine(monkeypatch, tmp_path, card=card)
    reason = "Found no NVIDIA driver on your system (torch for CUDA 13.0)"
    assert why_unavailable() == (reason if card else None)


@pytest.mark.parametrize("driver", [False, True])
def test_a_torch_without_cuda_is_told_only_where_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: bool
) -> None:
    use_torch(monkeypatch, cuda=None)
    use_machine(monkeypatch, tmp_path, card=True, driver=driver)
    reason = why_unavailable()
    assert (reason is not None and "built for CPUs only" in reason) == driver


def test_nothing_is_wrong_if_cuda_can_be_initialised_or_is_amds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_torch(monkeypatch)
    assert why_unavailable() is None
    use_torch(monkeypatch, cuda=None)
    use_machine(monkeypatch, tmp_path, driver=True)
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert why_unavailable() is None and why_unsupported() is None


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_asking_for_cuda_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    use_torch(monkeypatch, failure=TOO_OLD)
    with pytest.raises(DeviceError, match=f"device={name}: .* sees no CUDA device; use cpu or auto: The NVIDIA driver"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("capability", "built", "is_supported"),
    [
        ((7, 5), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((8, 9), WHEEL, True),  # by the kernels of 8.6
        ((9, 0), ["sm_80", "sm_86"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((9, 0), ["sm_90a"], True),
        ((11, 0), WHEEL, False),
        ((12, 1), WHEEL, True),
        ((13, 0), WHEEL, True),  # compiled from compute_120
        ((9, 0), ["gfx942"], True),  # of another vendor: not known
        ((9, 0), [], True),
    ],
)
def test_a_card_is_supported_by_kernels_of_its_generation_or_by_those_that_it_compiles(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], is_supported: bool
) -> None:
    use_torch(monkeypatch, capability=capability, built=built)
    assert (why_unsupported() is None) == is_supported


def test_a_number_that_no_card_has_is_told_by_who_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_device_name(_: object) -> str:
        raise AssertionError("Invalid device id")

    use_torch(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_name", get_device_name)
    assert why_unsupported(7) is None


def test_an_unsupported_card_is_named_and_auto_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_torch(monkeypatch, capability=(7, 0))
    reason = "Tesla V100 has compute capability 7.0, and this torch kernels for 7.5, 8.0, 8.6, 9.0, 10.0, 12.0"
    assert resolve_device("auto") == torch.device("cpu")
    assert f"device=auto takes the CPU: {reason};" in capsys.readouterr().err
    with pytest.raises(DeviceError, match=f"device=cuda: {reason}; install a torch that has them"):
        resolve_device("cuda")


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32", "auto"])
def test_emulated_bfloat16_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    use_torch(monkeypatch, capability=(7, 5))
    for _ in range(2):
        resolve_dtype(precision, torch.device("cuda"))
    expected = (
        "warning: precision=bf16: a card (compute capability 7.5) emulates bfloat16, which is slow; use fp16, which it "
        "multiplies, or fp32\n"
    )
    assert capsys.readouterr().err == (expected if precision == "bf16" else "")


def test_attention_on_cuda_leaves_out_cudnn_until_the_program_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use_torch(monkeypatch)
    torch.backends.cuda.enable_cudnn_sdp(True)
    resolve_device("cpu")
    assert torch.backends.cuda.cudnn_sdp_enabled()
    resolve_device("auto")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    resolve_device("cuda")
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("value", ["1", "0"])
def test_an_environment_variable_allows_cudnn(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(CUDNN_ATTENTION, value)
    torch.backends.cuda.enable_cudnn_sdp(True)
    avoid_cudnn_attention()
    assert torch.backends.cuda.cudnn_sdp_enabled() == (value == "1")


def test_who_has_chosen_kernels_before_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(changed=False)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda _: setattr(found, "changed", True))
    monkeypatch.setattr(torch.backends.cuda, "math_sdp_enabled", lambda: False)
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: True)
    avoid_cudnn_attention()
    assert not found.changed

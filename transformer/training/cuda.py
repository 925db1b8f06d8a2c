"""NVIDIA cards: why torch sees none, which it supports, and the attention kernel that it should not take."""

import functools
import os
import re
from pathlib import Path

import torch

from transformer.errors import warn

# Set to 1, attention may use cuDNN's kernel.
CUDNN_ATTENTION = "TRANSFORMER_CUDNN_ATTENTION"
_DRIVER = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia"), Path("/usr/lib/wsl/lib/libcuda.so.1"))
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # vendor of PCI, and the class of graphics cards
_NOT_BUILT = "this torch is built for CPUs only; install one with CUDA"


@functools.cache
def warn_once(message: str) -> None:
    """Print a warning, unless this process has printed it before, or another on this machine will."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        warn(message)


def why_unavailable() -> str | None:
    """Why torch sees no CUDA device, on a machine that seems to have one; else None.

    None too if CUDA_VISIBLE_DEVICES hides all on purpose.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return None
    if torch.version.cuda is None:
        has_driver = any(path.exists() for path in _DRIVER)
        return _NOT_BUILT if has_driver and torch.version.hip is None else None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = re.split(r"\.\s", str(error).strip())[0].rstrip(".")
    else:
        return None
    if "no NVIDIA driver" in reason and not _has_card():
        return None
    reason = f"{reason} (torch for CUDA {torch.version.cuda})"
    return reason if visible is None else f"{reason}, with CUDA_VISIBLE_DEVICES={visible}"


def _has_card() -> bool:
    """Whether a graphics card of NVIDIA is on the PCI bus, with a driver or without."""
    for path in _PCI.glob("*"):
        try:
            vendor, kind = ((path / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False


def why_unsupported(index: int | None = None) -> str | None:
    """Why the installed torch has no kernels for a card; None if it has them or does not tell.

    A kernel for sm_XY runs on cards of capability X.Y and the later ones of the same X; `compute_XY` is compiled on the
    machine, for all later ones.
    """
    if torch.version.cuda is None:
        return None
    found = re.findall(r"\b(sm|compute)_(\d+)(\d)[a-z]?\b", " ".join(torch.cuda.get_arch_list()))
    built = [(kind, (int(major), int(minor))) for kind, major, minor in found]
    if not built:
        return None
    try:
        card, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    except (AssertionError, RuntimeError):  # of a number that does not exist, or out of order: others say that
        return None
    for kind, (major, minor) in built:
        if (major, minor) <= capability and (kind == "compute" or major == capability[0]):
            return None
    return (
        f"{card} has compute capability {capability[0]}.{capability[1]}, and this torch kernels for "
        f"{', '.join(sorted({f'{major}.{minor}' for _, (major, minor) in built}, key=float))}"
    )


@functools.cache
def avoid_cudnn_attention() -> None:
    """Let attention take torch's own kernels instead of cuDNN's; once per process.

    On cards of capability 9.0 and 10.0 torch prefers cuDNN, which builds a plan for every new shape. Here almost every
    batch and each step of a search has one: published measurements are 23 to 37 ms on an H100, and about a second for
    both passes on a B200. Whoever has turned kernels on or off before keeps that; TRANSFORMER_CUDNN_ATTENTION=1, or
    torch.backends.cuda.enable_cudnn_sdp(True) afterwards, allows cuDNN.
    """
    choices = torch.backends.cuda
    are_defaults = (
        choices.cudnn_sdp_enabled(),
        choices.flash_sdp_enabled(),
        choices.mem_efficient_sdp_enabled(),
        choices.math_sdp_enabled(),
    ) == (True, True, True, True)
    if are_defaults and os.environ.get(CUDNN_ATTENTION, "0") != "1":
        choices.enable_cudnn_sdp(False)

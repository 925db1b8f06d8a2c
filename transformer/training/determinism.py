"""Equal results of equal runs on CUDA, to the bit (`train.deterministic`); on a CPU they are so anyway."""

import os

import torch

from transformer.config import TrainConfig
from transformer.errors import DeviceError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # of which cuBLAS gives each stream its own


class _Determinism:
    """Torch's settings, as they were before and as `train.deterministic` wants them."""

    def __init__(self) -> None:
        self._before: tuple[bool, bool, bool, bool] | None = None  # None: not changed by us

    def use(self, is_wanted: bool) -> None:
        choices = torch.backends.cuda
        if is_wanted and self._before is None:
            self._before = (
                torch.are_deterministic_algorithms_enabled(),
                choices.cudnn_sdp_enabled(),
                choices.flash_sdp_enabled(),
                choices.mem_efficient_sdp_enabled(),
            )
            self._set(True, False, False, False)
        elif not is_wanted and self._before is not None:
            self._set(*self._before)
            self._before = None

    @staticmethod
    def _set(is_deterministic: bool, has_cudnn: bool, has_flash: bool, has_efficient: bool) -> None:
        torch.use_deterministic_algorithms(is_deterministic)
        # The backward passes of these attention kernels add in any order unless they are kept from it; what is left is
        # equation 1 in single steps.
        torch.backends.cuda.enable_cudnn_sdp(has_cudnn)
        torch.backends.cuda.enable_flash_sdp(has_flash)
        torch.backends.cuda.enable_mem_efficient_sdp(has_efficient)


_DETERMINISM = _Determinism()


def use_determinism(is_wanted: bool, device: torch.device) -> None:
    """Let CUDA compute the same numbers each time, a setting of the process that the next call takes back.

    Torch takes deterministic kernels or raises RuntimeError, products get workspaces of their own, and attention takes
    no fused kernel. To be called before the first product on the device. DeviceError on an Apple GPU, and if
    CUBLAS_WORKSPACE_CONFIG has another value.
    """
    if is_wanted and device.type == "mps":
        raise DeviceError(
            "train.deterministic=true: not on an Apple GPU; use train.device=cpu, where results are equal"
        )
    is_wanted = is_wanted and device.type == "cuda"
    if is_wanted:
        given = os.environ.setdefault(_WORKSPACE, _DETERMINISTIC_WORKSPACES[0])
        if given not in _DETERMINISTIC_WORKSPACES:
            raise DeviceError(
                f"train.deterministic=true: the environment has {_WORKSPACE}={given}, with which products are not "
                f"deterministic; unset it, or take {' or '.join(_DETERMINISTIC_WORKSPACES)}"
            )
    _DETERMINISM.use(is_wanted)


def prepare_process(settings: TrainConfig, device: torch.device) -> None:
    """Apply `train.num_threads` and `train.deterministic`, on which the last bits of results depend."""
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    use_determinism(settings.deterministic, device)

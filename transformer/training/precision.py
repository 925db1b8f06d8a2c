"""Devices and number formats: float32 master weights, a bfloat16 model where the hardware multiplies bfloat16."""

from __future__ import annotations

import copy

import torch
from torch import nn

from transformer.errors import DeviceError
from transformer.model.transformer import Transformer


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. DeviceError if torch sees no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device={name}: torch {torch.__version__} sees no CUDA device; use cpu or auto")
    return torch.device(name)


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for `auto`, `fp32` or `bf16`: auto takes bfloat16 where the device multiplies it natively.

    `int8`, which `Translator` knows, has that of `auto` between its products.
    """
    if precision in ("auto", "int8"):
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class MasterWeights:
    """The float32 weights that the optimizer updates and checkpoints hold, and the model that computes with them.

    In float32 the two are one. In bfloat16 the computing model is a copy: its gradients are added up in float32 on the
    master's parameters, and after an update its weights are rounded from the master's.

    Attributes:
        master: the float32 model.
        model: the one to compute with.
    """

    def __init__(self, master: Transformer, dtype: torch.dtype) -> None:
        self.master = master
        self.model = master if dtype == torch.float32 else copy.deepcopy(master).to(dtype)
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        if self.model is not master:
            self._pairs = list(zip(master.parameters(), self.model.parameters(), strict=True))

    def collect_gradients(self) -> None:
        """Add the computing model's gradients to the master's; call after each backward pass."""
        for weight, copied in self._pairs:
            if copied.grad is not None:
                if weight.grad is None:
                    weight.grad = copied.grad.float()
                else:
                    weight.grad += copied.grad
                copied.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the master's weights into the computing model; call after each update."""
        if self._pairs:
            torch._foreach_copy_([copied for _, copied in self._pairs], [weight for weight, _ in self._pairs])

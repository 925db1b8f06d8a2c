"""Weights laid out once for many products, on CPUs. oneDNN otherwise rearranges them at every product, which costs the
more the fewer rows there are, and float32 products go to another library that is slower on some CPUs."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from transformer.model.feedforward import FeedForward

Activation = Literal["none", "relu"]

# What stands for 0 where activations are quantized to bytes.
_ZERO = 128


def can_prepare(weight: Tensor) -> bool:
    """Whether this torch has the kernels, for the weight's device and dtype."""
    if weight.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def can_quantize(weight: Tensor) -> bool:
    """Whether this torch has products of 8-bit integers, for the weight's device and dtype."""
    has_kernels = all(hasattr(torch.ops.onednn, name) for name in ("qlinear_prepack", "qlinear_pointwise"))
    return has_kernels and can_prepare(weight)


class PreparedLinear(nn.Linear):
    """An `nn.Linear` for inference: same weights, which must no longer change, and same result but for rounding.

    Args:
        weight, bias: of the linear; kept, not copied.
        activation: "relu" to end with max(0, y), computed where y still is in registers.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> None:
        super().__init__(weight.size(1), weight.size(0), bias=False, device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.activation = activation
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features); records no gradient."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._prepared, self.bias, self.activation, [], "")
        return y

    def __getstate__(self) -> dict[str, Any]:
        # The layout belongs to this process and CPU.
        return {name: value for name, value in self.__dict__.items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def _prepare(self) -> None:
        self._prepared = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)


class QuantizedLinear(PreparedLinear):
    """An `nn.Linear` for inference that multiplies 8-bit integers: 127 steps on either side of 0.

    Weights have a scale for each output, activations one for each row: sums of integers are exact, so that what else is
    in a batch changes no bit of a row.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype of x; records no gradient."""
        x = x.detach()
        # In the dtype of x: at most 127 steps also where it is rounded, and no product of mixed types, which is slow.
        scales = x.abs().amax(dim=-1, keepdim=True).div_(127)  # (..., 1)
        # Rounded by cutting off, as all are positive. torch is slow from float32 to uint8 directly. A row of zeros, or
        # with what is no number, becomes any steps: its scale makes them zeros again, or no numbers.
        steps = x.to(torch.float32, copy=True).div_(scales).add_(_ZERO + 0.5).to(torch.int32).to(torch.uint8)
        weight, weight_scales, weight_zeros = self._prepared
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            steps, 1.0, _ZERO, weight, weight_scales, weight_zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        y = y.mul_(scales) if self.bias is None else torch.addcmul(self.bias, y, scales, out=y)
        return y.relu_() if self.activation == "relu" else y

    def _prepare(self) -> None:
        weight = self.weight.detach().float()  # (out, in)
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # (out,)
        steps = (weight / scales[:, None]).round().to(torch.int8)
        prepacked = torch.ops.onednn.qlinear_prepack(steps, None)
        self._prepared = prepacked, scales, torch.zeros_like(scales, dtype=torch.int64)


class PreparedFeedForward(FeedForward):
    """A `FeedForward` for inference, its activation within the first product.

    Args:
        plain: whose weights are kept.
        linear: what its two products become.
    """

    def __init__(self, plain: FeedForward, linear: type[PreparedLinear]) -> None:
        nn.Module.__init__(self)
        self.w_1 = linear(plain.w_1.weight, plain.w_1.bias, "relu")
        self.w_2 = linear(plain.w_2.weight, plain.w_2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        y: Tensor = self.w_2(self.w_1(x))
        return y


def prepare_linears(module: nn.Module, linear: type[PreparedLinear] = PreparedLinear) -> None:
    """Replace every `nn.Linear` inside a module, by `linear`."""
    for name, child in module.named_children():
        if type(child) is FeedForward:
            setattr(module, name, PreparedFeedForward(child, linear))
        elif type(child) is nn.Linear:
            setattr(module, name, linear(child.weight, child.bias))
        else:
            prepare_linears(child, linear)

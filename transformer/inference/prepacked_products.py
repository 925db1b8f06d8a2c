"""Products of rows with a frozen weight on a CPU, by the kernels that are fastest for its size and dtype."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from transformer.model import kernels

# A small product in float32 by MKL does without a kernel for every new number of rows, which takes oneDNN longer to
# make than the product takes. A large one is faster by oneDNN.
_MKL_UP_TO_NUMEL, _MKL_UP_TO_ROWS = 1 << 16, 512
# The byte that stands for 0 in quantized activations.
_ZERO_POINT = 128


def is_differentiated(x: Tensor) -> bool:
    """Whether x has a gradient or a tangent, which products with packed weights would lose."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        return True
    return x.requires_grad and torch.is_grad_enabled()


class Product(Protocol):
    """x Wᵀ + b for one W (N, K), then max(0, ·) if it was made with `relu`."""

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), in the dtype of x."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """`residual` (..., N) added to the product."""


class OneDnnProduct:
    """By oneDNN, with W in its own layout, in memory of its own: float32 or bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias, self._activation = bias, "relu" if relu else "none"

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._activation, [], "")
        return y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y


class SmallProduct:
    """In float32 by MKL, which torch's settings choose by default, and by oneDNN if there are many rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        self._weight, self._bias, self._relu = weight, bias, relu
        self._most_inputs = weight.size(1) * _MKL_UP_TO_ROWS
        self._large: OneDnnProduct | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() > self._most_inputs:
            return self._of_many_rows()(x)
        y = F.linear(x, self._weight, self._bias)
        return y.relu_() if self._relu else y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        if x.numel() > self._most_inputs:
            return self._of_many_rows().plus(x, residual)
        return F.linear(x, self._weight, self._bias).add_(residual)

    def _of_many_rows(self) -> OneDnnProduct:
        if self._large is None:
            self._large = OneDnnProduct(self._weight, self._bias, relu=self._relu)
        return self._large


class Int8Product:
    """In 8-bit integers: symmetric per-channel weights, dynamic per-token activations.

    Sums of integers are exact, so that the rest of a batch changes no bit of a row.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        weight = weight.float()  # (N, K)
        self._scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # (N,)
        quantized = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._zeros = torch.zeros_like(self._scales, dtype=torch.int64)
        self._bias, self._relu = bias, relu

    def __call__(self, x: Tensor) -> Tensor:
        if not x.numel():  # of which `qlinear_pointwise` loses the shape
            return x.new_empty((*x.shape[:-1], len(self._scales)))
        # In the dtype of x: at most 127 steps also where it is rounded, and no product of mixed types, which is slow.
        scales = x.abs().amax(dim=-1, keepdim=True).div_(127)  # (..., 1)
        # Rounded by truncation, as all are positive. torch is slow from float32 to uint8 directly. In a row of zeros or
        # with NaN, `quantized` is arbitrary: the scale makes zeros or NaN of it again.
        shifted = x.to(torch.float32, copy=True).div_(scales).add_(_ZERO_POINT + 0.5)
        quantized = shifted.to(torch.int32).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, _ZERO_POINT, self._weight, self._scales, self._zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        y = y.mul_(scales) if self._bias is None else torch.addcmul(self._bias, y, scales, out=y)
        return y.relu_() if self._relu else y

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return self(x).add_(residual)


def make_product(
    weight: Tensor, bias: Tensor | None = None, *, relu: bool = False, quantize: bool = False
) -> OneDnnProduct | SmallProduct | Int8Product:
    """The product for a weight (N, K) and bias (N,), with `quantize` in 8-bit integers."""
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if quantize:
        return Int8Product(weight, bias, relu=relu)
    is_small = weight.dtype == torch.float32 and weight.numel() <= _MKL_UP_TO_NUMEL
    if is_small and not kernels.onednn_multiplies_float32():
        return SmallProduct(weight, bias, relu=relu)
    return OneDnnProduct(weight, bias, relu=relu)

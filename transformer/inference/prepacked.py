"""oneDNN-prepacked linear layers for inference on a CPU.

Otherwise oneDNN rearranges the weights at every product, which costs the more the fewer rows there are, and float32
products go to another library that is slower on some CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.errors import DeviceError
from transformer.model.layers import FeedForward
from transformer.model.transformer import Transformer
from transformer.training.device import precision_name

# The byte that stands for 0 in quantized activations.
_ZERO_POINT = 128
_GUARD = "prepacked"  # the name of a module


def can_prepack(weight: Tensor) -> bool:
    """Whether this torch has the kernels for the weight's device and dtype."""
    if weight.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def can_quantize(weight: Tensor) -> bool:
    """Whether this torch multiplies 8-bit integers, on the weight's device and from its dtype."""
    has_kernels = all(hasattr(torch.ops.onednn, name) for name in ("qlinear_prepack", "qlinear_pointwise"))
    return has_kernels and can_prepack(weight)


class PrepackedLinear(nn.Linear):
    """An `nn.Linear` for inference: the same weights, frozen, and the same result up to rounding.

    With `activation` "relu" it ends with max(0, y), fused into the product. RuntimeError in training mode, for an input
    that requires a gradient, and when weights are loaded, moved or converted: the packed copy would not follow.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> None:
        super().__init__(weight.size(1), weight.size(0), bias=False, device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.activation = activation
        self._prepack()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if torch.is_grad_enabled() and (self.training or x.requires_grad):
            raise _frozen("cannot be trained")
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self.activation, [], "")
        return y

    def _load_from_state_dict(self, *_: Any) -> None:
        raise _frozen("cannot load other weights")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrepackedLinear:  # noqa: ARG002
        _check_same(fn, self.parameters(recurse=False))
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The layout belongs to this process and CPU.
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepack()

    def _prepack(self) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), None)


class PrepackedGuard(nn.Module):
    """First child of a prepacked model: refuses what would change its weights, before any of them is changed.

    Args:
        weights: of which there are packed copies.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = list(weights)
        self.sample: Tensor
        self.register_buffer("sample", self.weights[0].new_empty(0), persistent=False)
        self._version = self._count_changes()

    def check(self) -> None:
        """RuntimeError if a weight was changed in place."""
        if self._count_changes() != self._version:
            raise _frozen("was changed in place, and its packed copies were not")

    def _count_changes(self) -> int:
        return sum(weight._version for weight in self.weights if not weight.is_inference())

    def _load_from_state_dict(self, *_: Any) -> None:
        raise _frozen("cannot load other weights")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrepackedGuard:  # noqa: ARG002
        _check_same(fn, [self.sample])
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._version = self._count_changes()  # of a copy, which is packed again


def _check_same(fn: Callable[[Tensor], Tensor], tensors: Iterable[Tensor]) -> None:
    if any(fn(x).dtype != x.dtype or fn(x).device != x.device for x in tensors):
        raise _frozen("cannot be moved or converted")


def _frozen(what: str) -> RuntimeError:
    return RuntimeError(f"a model prepacked for inference {what}; use load_model, or Translator.load(prepack=False)")


class QuantizedLinear(PrepackedLinear):
    """An int8 `nn.Linear` for inference: symmetric per-channel weights, dynamic per-token activations.

    Sums of integers are exact, so that the rest of a batch changes no bit of a row.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), in the dtype of x."""
        if torch.is_grad_enabled() and (self.training or x.requires_grad):
            raise _frozen("cannot be trained")
        # In the dtype of x: at most 127 steps also where it is rounded, and no product of mixed types, which is slow.
        scales = x.abs().amax(dim=-1, keepdim=True).div_(127)  # (..., 1)
        # Rounded by truncation, as all are positive. torch is slow from float32 to uint8 directly. In a row of zeros or
        # with NaN, `quantized` is arbitrary: the scale makes zeros or NaN of it again.
        shifted = x.to(torch.float32, copy=True).div_(scales).add_(_ZERO_POINT + 0.5)
        quantized = shifted.to(torch.int32).to(torch.uint8)
        weight, weight_scales, weight_zeros = self._packed
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, _ZERO_POINT, weight, weight_scales, weight_zeros, None, 1.0, 0, x.dtype, "none", [], ""
        )
        y = y.mul_(scales) if self.bias is None else torch.addcmul(self.bias, y, scales, out=y)
        return y.relu_() if self.activation == "relu" else y

    def _prepack(self) -> None:
        weight = self.weight.detach().float()  # (out, in)
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # (out,)
        quantized = (weight / scales[:, None]).round().to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._packed = packed, scales, torch.zeros_like(scales, dtype=torch.int64)


class _NoDropout:
    """In place of a module: calling one takes 3 µs, of the 500 µs of a layer of a small model."""

    p, training = 0.0, False

    def __call__(self, x: Tensor) -> Tensor:
        return x


def prepack_model(model: Transformer, *, quantize: bool = False) -> PrepackedLinear | None:
    """Prepack and freeze a model, so that it refuses other weights as a whole.

    Returns its output projection; None where it has one of its own, and where nothing is packed, as on a GPU.

    Args:
        quantize: to 8-bit integers.

    Raises:
        DeviceError: this machine does not multiply 8-bit integers.
        RuntimeError: the model was compiled before, or a weight was changed in place after it was prepacked.
    """
    if not hasattr(type(model), "logits"):  # torch.compile gives a module that forwards to the model
        raise RuntimeError(f"a model compiled to {type(model).__name__} cannot be prepacked: prepack it before")
    output_weight = ready_model(model).embedding.output_weight
    if quantize and not can_quantize(output_weight):
        raise DeviceError(
            f"precision=int8: not with device={output_weight.device.type} and torch {torch.__version__}; "
            "use auto, fp32 or bf16"
        )
    if not can_prepack(output_weight):
        return None
    linear = QuantizedLinear if quantize else PrepackedLinear
    prepack_linears(model.requires_grad_(False), linear)
    packed = [module.weight for module in model.modules() if isinstance(module, PrepackedLinear)]
    children = {name: child for name, child in model._modules.items() if name != _GUARD}
    model._modules.clear()
    model._modules.update({_GUARD: PrepackedGuard([*packed, output_weight]), **children})
    is_own = type(model).logits is not Transformer.logits or "logits" in vars(model)
    return None if is_own else linear(output_weight)


def ready_model(model: Transformer) -> Transformer:
    """A model in `eval` mode. RuntimeError if it is prepacked and a weight was changed in place since."""
    guard = getattr(model, _GUARD, None)
    if isinstance(guard, PrepackedGuard):
        guard.check()
    return model.eval()


def precision_of(models: Iterable[Transformer]) -> str:
    """What models compute in, such as `bfloat16`, `tf32` or `int8`; joined by plus signs if they differ."""
    found = (
        "int8"
        if any(isinstance(module, QuantizedLinear) for module in model.modules())
        else precision_name(model.embedding.weight.dtype)
        for model in models
    )
    return " + ".join(dict.fromkeys(found))


def prepack_linears(module: nn.Module, linear: type[PrepackedLinear] = PrepackedLinear) -> None:
    """Replace every `nn.Linear` without hooks inside a module by `linear`, and every dropout by nothing."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and _is_plain(child):
            setattr(module, name, linear(child.weight, child.bias))
        elif isinstance(child, nn.Dropout):
            delattr(module, name)
            setattr(module, name, _NoDropout())
        else:
            if type(child) is FeedForward and child.activation is F.relu and _is_plain(child.w_1):
                child.w_1, child.activation = linear(child.w_1.weight, child.w_1.bias, "relu"), _NoDropout()
            prepack_linears(child, linear)


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks

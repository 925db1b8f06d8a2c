"""Models prepacked for inference on a CPU: frozen, with copies of their weights in the layout of fast products.

Otherwise oneDNN rearranges the weights at every product, which costs the more the fewer rows there are, and large
float32 products go to another library that is slower on some CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transformer.errors import DeviceError
from transformer.inference.prepacked_layer import PrepackedLayer, is_as_its_class, is_plain
from transformer.inference.prepacked_products import Product, is_differentiated, make_product
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.model.transformer import Transformer
from transformer.training.device import precision_name

_GUARD = "prepacked"  # the name of a module
_NUM_SAMPLED = 32  # numbers of a weight that are compared


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

    RuntimeError in training mode, for an input or a weight with a gradient or tangent, and when weights are loaded,
    moved or converted: the packed copy would not follow.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.size(1), weight.size(0), bias=False, device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self._product: Product | None = None  # made when it is first used: a layer may do without
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        if is_differentiated(x) or (torch.is_grad_enabled() and (self.training or self.weight.requires_grad)):
            raise _frozen("cannot be trained")
        if self._product is None:
            self._product = make_product(self.weight, self.bias, quantize=isinstance(self, QuantizedLinear))
        return self._product(x)

    def _load_from_state_dict(self, *_: Any) -> None:
        raise _frozen("cannot load other weights")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrepackedLinear:  # noqa: ARG002
        _check_same(fn, self.parameters(recurse=False))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_product": None}  # its layout belongs to this process and CPU


class PrepackedGuard(nn.Module):
    """First child of a prepacked model: refuses what would change its weights, before any of them is changed.

    Args:
        places: modules and names of their attributes, the weights of which there are packed copies; the embedding last.
    """

    def __init__(self, places: Sequence[tuple[nn.Module, str]]) -> None:
        super().__init__()
        self.places = list(places)
        self.sample: Tensor
        self.register_buffer("sample", self._sample(), persistent=False)
        self._version = self._count_changes()

    def check(self, embedding: nn.Module) -> None:
        """RuntimeError if a weight was changed in place, or has given way to another; `embedding` is the model's."""
        is_same = self.places[-1][0] is embedding and self._count_changes() == self._version
        if not is_same or not torch.equal(self._sample(), self.sample):
            raise _frozen("was changed in place, and its packed copies were not")

    def _weights(self) -> list[Tensor]:
        return [getattr(module, name) for module, name in self.places]

    def _count_changes(self) -> int:
        return sum(weight._version for weight in self._weights() if not weight.is_inference())

    @torch.no_grad()
    def _sample(self) -> Tensor:
        """The bytes of some numbers of each weight: a fused optimizer step and `weight.data = x` count no change."""
        rows = [weight.flatten() for weight in self._weights()]
        return torch.cat([row[:: 1 + row.numel() // _NUM_SAMPLED] for row in rows]).view(torch.uint8)

    def _load_from_state_dict(self, *_: Any) -> None:
        raise _frozen("cannot load other weights")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrepackedGuard:  # noqa: ARG002
        _check_same(fn, [self._weights()[-1][:0]])
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._version = self._count_changes()  # of a copy, which is packed again
        self.sample = self._sample()


def _check_same(fn: Callable[[Tensor], Tensor], tensors: Iterable[Tensor]) -> None:
    if any(fn(x).dtype != x.dtype or fn(x).device != x.device for x in tensors):
        raise _frozen("cannot be moved or converted")


def _frozen(what: str) -> RuntimeError:
    return RuntimeError(f"a model prepacked for inference {what}; use load_model, or Translator.load(prepack=False)")


class QuantizedLinear(PrepackedLinear):
    """An int8 `nn.Linear` for inference: symmetric per-channel weights, dynamic per-token activations."""


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
    packed: list[tuple[nn.Module, str]] = [
        (module, name)
        for module in model.modules()
        if isinstance(module, PrepackedLinear)
        for name in module._parameters
        if module._parameters[name] is not None
    ]
    bias = None
    if isinstance(model, BiasedTransformer):
        bias = model.embedding.output_bias
        packed.append((model.embedding, "output_bias"))
    guard = PrepackedGuard([*packed, (model.embedding, "output_weight")])
    children = {name: child for name, child in model._modules.items() if name != _GUARD}
    model._modules.clear()
    model._modules.update({_GUARD: guard, **children})
    is_own = type(model).logits not in (Transformer.logits, BiasedTransformer.logits)
    return None if is_own or "logits" in vars(model) else linear(output_weight, bias)


def ready_model(model: Transformer) -> Transformer:
    """A model in `eval` mode. RuntimeError if it is prepacked and a weight was changed since."""
    guard = getattr(model, _GUARD, None)
    if isinstance(guard, PrepackedGuard):
        guard.check(model.embedding)
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
    """Replace every `nn.Linear` without hooks inside a module by `linear`, and every dropout by nothing.

    Layers without alternatives or hooks become a `PrepackedLayer`, but in bfloat16, where that is not faster.
    """
    for name, child in list(module.named_children()):
        quantize = linear is QuantizedLinear
        if is_plain(child) and (quantize or child.feed_forward.w_1.weight.dtype == torch.float32):
            layer = PrepackedLayer(child, quantize=quantize)
            prepack_linears(layer, linear)
            layer.keep_parts()
            setattr(module, name, layer)
        elif type(child) is nn.Linear and is_as_its_class(child):
            setattr(module, name, linear(child.weight, child.bias))
        elif isinstance(child, nn.Dropout):
            delattr(module, name)
            setattr(module, name, _NoDropout())
        else:
            prepack_linears(child, linear)

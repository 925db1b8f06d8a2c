"""The layer of section 3.1 for inference on a CPU: fewer, larger products, and nothing that only training needs.

Dimension key: as in `transformer.model.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.inference.prepacked_products import Product, is_differentiated, make_product
from transformer.model import kernels
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention, masked_softmax
from transformer.model.layers import FeedForward, Layer

_PARTS: dict[str, tuple[type[nn.Module], ...]] = {
    **dict.fromkeys(("self_attention", "cross_attention"), (MultiHeadAttention,)),
    **dict.fromkeys(("w_q", "w_k", "w_v", "w_o", "w_1", "w_2"), (nn.Linear,)),
    **dict.fromkeys(("norm_1", "norm_2", "norm_cross"), (nn.LayerNorm, nn.Identity)),
    "attention": (DotProductAttention,),
    "feed_forward": (FeedForward,),
    "dropout": (kernels.Dropout,),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS_OF_ALL = [getattr(nn.modules.module, f"_global{hooks}") for hooks in _HOOKS]


def is_as_its_class(module: nn.Module) -> bool:
    """Whether no hook, and no method that was set on the module itself, changes what its class computes."""
    own = vars(module).items()
    return not any(getattr(module, hooks) for hooks in _HOOKS) and not any(
        callable(value) and hasattr(type(module), name) for name, value in own
    )


def is_plain(module: nn.Module) -> TypeGuard[Layer]:
    """Whether a module is a layer that computes as its class says: without other parts, hooks or methods."""
    return type(module) in (Layer, PreNormLayer) and all(
        (part is module or type(part) in _PARTS.get(name.rpartition(".")[2], ())) and is_as_its_class(part)
        for name, part in module.named_modules()
    )


class _Products(NamedTuple):
    """The products of a layer; those of cross-attention are None in an encoder."""

    qkv: Product  # of self-attention: (..., H·d_k + H·d_k + H·d_v)
    out: Product
    cross_q: Product | None
    cross_kv: Product | None
    cross_out: Product | None
    inner: Product  # of the feed-forward network
    outer: Product


class PrepackedLayer(Layer):
    """A plain `Layer` or `PreNormLayer` for inference: with the same parts, and the same result up to rounding.

    Queries, keys and values of self-attention come from one product, queries scaled by 1 / √d_k in their weights, and
    residual sums are part of the products before them. Where a part has a hook, as to record attention weights, or was
    replaced, the layer computes as the one that it was made from, with the parts.

    Args:
        layer: for which `is_plain` holds; its parts become those of this layer.
        quantize: to 8-bit integers.
    """

    def __init__(self, layer: Layer, *, quantize: bool = False) -> None:
        nn.Module.__init__(self)
        self._modules.update(layer._modules)
        self.cross_attention = layer.cross_attention  # an attribute of its own if it is None
        self.plain, self.quantize = type(layer), quantize
        self.is_relu = self.feed_forward.activation is F.relu
        self._products: Any = self._prepack()  # None in a copy with other parts
        self.keep_parts()
        self.eval()

    def keep_parts(self) -> None:
        """Take the parts of the layer as those that it was made from."""
        parts = self.self_attention, self.cross_attention, self.feed_forward
        self._containers = [self, *(part for part in parts if part is not None)]
        self._hooks = [getattr(part, hooks) for part in self.modules() if part is not self for hooks in _HOOKS]
        self._watched = [part for part in self.modules() if part is not self]
        self._kept = self._parts()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: KeyValue | None = None,
        memory: Tensor | KeyValue | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue, Tensor | KeyValue | None]:
        """As of the layer that it was made from; RuntimeError in training mode, as of its prepacked linear layers."""
        if not (self._is_as_made() and self._takes(x, mask, past, memory, memory_mask)):
            return self.plain.forward(self, x, mask, past, memory, memory_mask)
        products, is_post_norm = self._products, self.plain is Layer
        context, kv = self._self_attention(x if is_post_norm else self.norm_1.forward(x), mask, past)
        x = products.out.plus(context, x)
        if is_post_norm:
            x = self.norm_1.forward(x)
        if products.cross_out is not None:
            y = x if is_post_norm else self.norm_cross.forward(x)
            context, memory = self._cross_attention(y, memory, memory_mask)
            x = products.cross_out.plus(context, x)
            if is_post_norm:
                x = self.norm_cross.forward(x)
        y = products.inner(x if is_post_norm else self.norm_2.forward(x))
        x = products.outer.plus(y if self.is_relu else self.feed_forward.activation(y), x)
        return (self.norm_2.forward(x) if is_post_norm else x), kv, memory

    def _self_attention(self, x: Tensor, mask: Tensor | None, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        of = self.self_attention
        size = of.num_heads * of.d_k
        q, k, v = self._products.qkv(x).split((size, size, of.num_heads * of.d_v), dim=-1)
        q, k, v = of._split_heads(q, of.d_k), of._split_heads(k, of.d_k), of._split_heads(v, of.d_v)
        if past is not None:  # contiguous: concatenated in long runs
            k = torch.cat((past.keys, k.contiguous()), dim=2)
            v = torch.cat((past.values, v.contiguous()), dim=2)
        elif self.cross_attention is not None:  # what a decoder keeps
            k, v = k.contiguous(), v.contiguous()
        return _attend(q, k, v, mask), KeyValue(k, v)

    def _cross_attention(self, x: Tensor, memory: Any, mask: Tensor | None) -> tuple[Tensor, KeyValue]:
        of: Any = self.cross_attention
        products = self._products
        if not isinstance(memory, KeyValue):
            k, v = products.cross_kv(memory).split((of.num_heads * of.d_k, of.num_heads * of.d_v), dim=-1)
            memory = KeyValue(of._split_heads(k, of.d_k).contiguous(), of._split_heads(v, of.d_v).contiguous())
        (num_rows, length, _), num_sentences = x.shape, memory.keys.size(0)
        q = products.cross_q(x)  # (B·W, Q, H·d_k)
        q = of._split_heads(q.view(num_sentences, num_rows // num_sentences * length, -1), of.d_k)  # (B, H, W·Q, d_k)
        return _attend(q, memory.keys, memory.values, mask).view(num_rows, length, -1), memory

    def _is_as_made(self) -> bool:
        if self._products is None or torch.compiler.is_compiling():
            return False
        return not (any(_HOOKS_OF_ALL) or any(self._hooks)) and self._parts() == self._kept

    def _parts(self) -> list[Any]:
        """What the products hold for; a method that is set on a part is one more attribute of it."""
        parts = [part for container in self._containers for part in container._modules.values()]
        *attentions, network = self._containers[1:]
        sizes = [size for of in attentions for size in (of.num_heads, of.d_k, of.d_v)]
        return [*parts, *sizes, network.activation, network.dropout, self.dropout, *map(len, map(vars, self._watched))]

    def _takes(self, x: Tensor, mask: Any, past: KeyValue | None, memory: Any, memory_mask: Any) -> bool:
        """Whether inputs are those of inference; the parts have the error, or the result, for others."""
        inputs = [x, *(past or ())]
        if self._products.cross_kv is not None:
            inputs += memory if isinstance(memory, KeyValue) else [memory]
        if not all(isinstance(y, Tensor) and y.numel() and not is_differentiated(y) for y in inputs):
            return False
        if not all(given is None or isinstance(given, Tensor) for given in (mask, memory_mask)):
            return False
        if torch.is_grad_enabled() and (self.training or any(y.requires_grad for y in self._parameters_of_parts())):
            return False
        return x.size(0) % inputs[-1].size(0) == 0  # of the last, the memory, several rows share one

    def _parameters_of_parts(self) -> Iterator[Tensor]:
        return (x for part in self._watched for x in part._parameters.values() if x is not None)

    def _prepack(self) -> _Products:
        own, cross, network = self.self_attention, self.cross_attention, self.feed_forward

        def product(*linears: nn.Linear, scale: float = 1.0, relu: bool = False) -> Product:
            weights: list[Any] = [linear.weight for linear in linears]
            biases: list[Any] = [linear.bias for linear in linears]
            if scale != 1:
                weights[0], biases[0] = weights[0] * scale, None if biases[0] is None else biases[0] * scale
            weight = weights[0] if len(linears) == 1 else torch.cat(weights)
            bias = biases[0] if len(linears) == 1 or biases[0] is None else torch.cat(biases)
            return make_product(weight, bias, relu=relu, quantize=self.quantize)

        with torch.no_grad():
            return _Products(
                qkv=product(own.w_q, own.w_k, own.w_v, scale=own.d_k**-0.5),
                out=product(own.w_o),
                cross_q=None if cross is None else product(cross.w_q, scale=cross.d_k**-0.5),
                cross_kv=None if cross is None else product(cross.w_k, cross.w_v),
                cross_out=None if cross is None else product(cross.w_o),
                inner=product(network.w_1, relu=self.is_relu),
                outer=product(network.w_2),
            )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_products": None}  # packed copies belong to this process and CPU

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._parts() == self._kept:
            self._products = self._prepack()


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Equation 1 for queries (B, H, Q, d_k) that are scaled already: (B, Q, H·d_v)."""
    kernels.check_mask(mask, (*q.shape[:3], k.size(2)))
    if kernels.prefers_fused(q, k):
        context = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)
    else:
        context = masked_softmax(q @ k.mT, mask) @ v
    return context.transpose(1, 2).flatten(2)

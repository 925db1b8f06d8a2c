"""Attention on the pretended CUDA device: which kernel torch 2.13 takes, and what it computes.

Selection and preparation of masks follow aten/src/ATen/native/transformers (cuda/sdp_utils.cpp, attention.cpp) of torch
2.13, as wheels for CUDA 13 with cuDNN 9.20 have it. Numbers are those of equation 1, computed in float32.

Shapes: B sentences, H heads, Q queries, M keys, d; N queries or keys of all sentences, end to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


def choose_kernel(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, is_causal: bool, capability: tuple[int, int]
) -> str:
    """The kernel of F.scaled_dot_product_attention: cudnn, flash, efficient or math."""
    allowed, is_ampere, is_half = torch.backends.cuda, capability >= (8, 0), q.dtype in _HALF
    sizes = {x.size(-1) for x in (q, k, v)}
    if q.dim() != 4:
        return "math"
    if allowed.cudnn_sdp_enabled() and capability[0] in (9, 10) and is_half:  # elsewhere it is the last choice
        is_fine = max(sizes) <= 128 and all(size % 8 == 0 for size in sizes) and k.size(2) != 1
        if is_fine and (16 * dropout).is_integer():
            return "cudnn"
    is_plain = mask is None and len(sizes) == 1 and max(sizes) <= 256 and (not is_causal or q.size(2) == k.size(2))
    if allowed.flash_sdp_enabled() and is_ampere and is_half and is_plain:
        return "flash"
    multiple = (8 if is_half else 4) if is_ampere or is_half else 1
    is_known = q.dtype in (torch.float32, torch.float16) or (q.dtype == torch.bfloat16 and is_ampere)
    if allowed.mem_efficient_sdp_enabled() and is_known and all(x.size(-1) % multiple == 0 for x in (q, v)):
        return "efficient"
    return "math"


def attend(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: float,
    is_causal: bool,
    scale: float | None,
) -> Tensor:
    """Call the chosen kernel as torch does, with a mask that it takes."""
    if kernel == "math":
        return _math(q, k, v, mask, dropout, is_causal, scale)
    if kernel == "flash":
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout, is_causal, False, scale=scale)[0]
    bias = mask
    if mask is not None and mask.dtype is torch.bool:
        bias = torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=q.dtype, device=q.device))
    if bias is not None and kernel == "efficient":
        if bias.stride(-1) != 1 or any(stride % 8 for stride in bias.stride()[:-1]):
            size = bias.size(-1)
            bias = torch.nn.functional.pad(bias, (0, 8 - size % 8))[..., :size]
        bias = bias.expand(*q.shape[:3], k.size(2))
    needs_lse = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    # In numbers, cuDNN's kernel is no other than this one.
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, needs_lse, dropout, is_causal, scale=scale)[0]


def _math(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, is_causal: bool, scale: float | None
) -> Tensor:
    root = math.sqrt(scale or 1 / math.sqrt(q.size(-1)))
    scores = (q * root) @ (k * root).mT  # (B, H, Q, M)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        if mask.dtype is torch.bool:
            mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -math.inf)
        scores = scores + mask
    return torch.nn.functional.dropout(scores.softmax(-1), dropout) @ v


def operation(name: str) -> Callable[[dict[str, Any], bool], Any] | None:
    """The computation of an attention operation on tensors of the host, from its named arguments; None for others."""
    return _OPERATIONS.get(name)


class _Attention:
    """Equation 1 and its gradient, written out: softmax(s QKᵀ + bias), with dropout."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, given: dict[str, Any], seed: Tensor
    ) -> None:
        self.q, self.k, self.v = (x.float() for x in (q, k, v))
        scale = given.get("scale")
        self.scale = 1 / math.sqrt(q.size(-1)) if scale is None else scale
        scores = self.scale * self.q @ self.k.mT
        if bias is not None:
            scores = scores + bias.float()
        self.weights = scores.softmax(-1).nan_to_num()  # a query without keys gets zeros
        p = given.get("dropout_p", 0.0)
        drawn = torch.rand(scores.shape, generator=torch.Generator().manual_seed(int(seed))) if p else 1.0
        self.keep: Any = (drawn >= p) / (1 - p) if p else 1.0

    def forward(self) -> Tensor:
        return (self.keep * self.weights) @ self.v

    def backward(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = grad.float()
        of_weights = self.keep * (grad @ self.v.mT)
        of_scores = self.weights * (of_weights - (of_weights * self.weights).sum(-1, keepdim=True)) * self.scale
        return of_scores @ self.k, of_scores.mT @ self.q, (self.keep * self.weights).mT @ grad


def _causal(num_queries: int, num_keys: int) -> Tensor:
    return torch.zeros(num_queries, num_keys).masked_fill(~torch.ones(num_queries, num_keys).tril().bool(), -math.inf)


def _by_length(x: Tensor) -> Tensor:
    """The memory layout (B, Q, H, d) that the kernels return."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _bias(given: dict[str, Any]) -> Tensor | None:
    return _causal(given["query"].size(2), given["key"].size(2)) if given["is_causal"] else given.get("attn_bias")


def _forward(given: dict[str, Any], has_values: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and the seed of dropout."""
    q, k, v = (given[name] for name in ("query", "key", "value"))
    seed = torch.randint(1 << 31, ()) if given["dropout_p"] and has_values else q.new_zeros((), dtype=torch.int64)
    if has_values:
        found = _by_length(_Attention(q, k, v, _bias(given), given, seed).forward().to(q.dtype))
    else:
        found = _by_length(q.new_empty(*q.shape[:3], v.size(3)))
    return found, q.new_zeros(q.shape[:3], dtype=torch.float32), seed


def _efficient(given: dict[str, Any], has_values: bool) -> tuple[Tensor, ...]:
    output, lse, seed = _forward(given, has_values)
    return output, lse, seed, seed.clone()


def _flash(given: dict[str, Any], has_values: bool) -> tuple[Any, ...]:
    output, lse, seed = _forward(given, has_values)
    return output, lse, None, None, output.size(2), given["key"].size(2), seed, seed.clone(), seed.clone()


def _backward(given: dict[str, Any], has_values: bool) -> tuple[Any, ...]:
    q, k, v = (given[name] for name in ("query", "key", "value"))
    if has_values:
        seed = given.get("philox_seed", given.get("rng_state"))
        gradients = _Attention(q, k, v, _bias(given), given, seed).backward(
            given.get("grad_out_", given.get("grad_out"))
        )
    else:
        gradients = q, k, v
    found = [_by_length(grad.to(x.dtype)) for grad, x in zip(gradients, (q, k, v), strict=True)]
    return (*found, None) if "grad_out_" in given else tuple(found)


def _packed(given: dict[str, Any]) -> _Attention:
    """Attention within sentences that stand end to end; a window and the last queries end where the keys do."""
    starts_q, starts_k = given["cu_seq_q"].long(), given["cu_seq_k"].long()
    lengths_q, lengths_k = starts_q.diff(), starts_k.diff()
    if given.get("seqused_k") is not None:
        lengths_k = given["seqused_k"].long()
    numbers = torch.arange(len(lengths_q))

    def places(starts: Tensor, total: int) -> tuple[Tensor, Tensor]:  # sentence and position in it
        sentence = (torch.bucketize(torch.arange(total), starts, right=True) - 1).clamp(0, len(numbers) - 1)
        return sentence, torch.arange(total) - starts[sentence]

    (of_q, place_q), (of_k, place_k) = places(starts_q, len(given["query"])), places(starts_k, len(given["key"]))
    ahead = place_k - (place_q + (lengths_k - lengths_q)[of_q])[:, None]  # (N, N)
    is_seen = (of_q[:, None] == of_k) & (place_k < lengths_k[of_k])
    left, right = given.get("window_size") or (-1, -1)
    right = 0 if given["is_causal"] else right
    is_seen &= (ahead <= right) | (right < 0)
    is_seen &= (-ahead <= left) | (left < 0)
    q, k, v = (given[name].transpose(0, 1) for name in ("query", "key", "value"))  # (H, N, d)
    bias = torch.zeros(is_seen.shape).masked_fill(~is_seen, -math.inf)
    return _Attention(q, k, v, bias, given, torch.zeros(()))


def _varlen(given: dict[str, Any], has_values: bool) -> tuple[Tensor, Tensor, Tensor]:
    q = given["query"]
    output = torch.empty_like(q)
    if has_values:
        output = _packed(given).forward().transpose(0, 1).contiguous().to(q.dtype)
    return output, q.new_zeros(q.shape[1::-1], dtype=torch.float32), q.new_zeros(2, dtype=torch.uint64)


def _varlen_out(given: dict[str, Any], has_values: bool) -> Tensor:
    output, lse, _ = _varlen(given, has_values)
    given["out"].copy_(output)
    return lse


def _varlen_backward(given: dict[str, Any], has_values: bool) -> tuple[Tensor, ...]:
    inputs = tuple(given[name] for name in ("query", "key", "value"))
    if not has_values:
        return tuple(torch.empty_like(x) for x in inputs)
    gradients = _packed(given).backward(given["grad_out"].transpose(0, 1))
    return tuple(grad.transpose(0, 1).contiguous().to(x.dtype) for grad, x in zip(gradients, inputs, strict=True))


_OPERATIONS: dict[str, Callable[[dict[str, Any], bool], Any]] = {
    "_scaled_dot_product_efficient_attention": _efficient,
    "_scaled_dot_product_efficient_attention_backward": _backward,
    "_scaled_dot_product_flash_attention": _flash,
    "_scaled_dot_product_flash_attention_backward": _backward,
    "_varlen_attn": _varlen,
    "_varlen_attn_out": _varlen_out,
    "_varlen_attn_backward": _varlen_backward,
}

"""Which kernel computes equation 1, its softmax and dropout, by device and shape; masks checked, tables kept.

Results of kernels differ by rounding only.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a CPU, equation 1 written out beats the fused kernel up to about these many keys, with and without a backward pass:
# for short sentences, and for few queries, as in decoding, the fused kernel takes several times as long. Beyond, with a
# backward pass, the written-out form would be a little faster, but it keeps the weights of all pairs of positions.
# In bfloat16 the kernels round at other places. So without a backward pass, as in translation, 1,024 keys, though fused
# is faster from 160: a long sentence in a batch, to which all are padded, would change the others.
_FUSED_FROM_NUM_KEYS = {torch.float32: (192, 160), torch.bfloat16: (320, 1024)}
# It is oneDNN's float32 products of few keys that the fused kernel waits for, not those of torch's default library.
_FUSED_FROM_NUM_KEYS_BY_DEFAULT = 16
# Between the two, and one for all dtypes and modes: every threshold that lengths cross is another graph.
_FUSED_FROM_NUM_KEYS_COMPILED = 48
_FUSED_FROM_NUM_QUERIES = 9
# Up to Q·M·d_k = 16³, though, it leaves out oneDNN, which builds a kernel for every new M: in float32 without a
# backward pass it is faster there, and slower beyond, each by up to several times.
_SMALL = 4096
# For this many sentences times heads, one call is faster than several, again without a backward pass. Not in bfloat16,
# which the kernels round at other places, so that a sentence would depend on the number of others in its batch.
_FEW_HEADS = 32
# A CPU's vectors hold 16 float32 numbers. On rows that do not fill one, torch's softmax is a scalar loop.
_VECTOR_NUMEL = 16


def prefers_fused(q: Tensor, k: Tensor) -> bool:
    """Whether F.scaled_dot_product_attention beats equation 1 written out."""
    if not q.is_cpu or torch.compiler.is_exporting():  # an exported graph must hold for every length
        return True
    num_queries, num_keys = q.size(-2), k.size(-2)
    if q.dtype == torch.float32 and not torch.is_grad_enabled():
        if q.size(0) * q.size(1) <= _FEW_HEADS:
            return True
        if num_queries * num_keys * q.size(-1) <= _SMALL and onednn_multiplies_float32():
            return True
    return num_queries >= _FUSED_FROM_NUM_QUERIES and num_keys >= _fused_from_num_keys(q.dtype)


def _fused_from_num_keys(dtype: torch.dtype) -> int:
    if torch.compiler.is_compiling():
        return _FUSED_FROM_NUM_KEYS_COMPILED
    if dtype == torch.float32 and not onednn_multiplies_float32():
        return _FUSED_FROM_NUM_KEYS_BY_DEFAULT
    with_gradient, without = _FUSED_FROM_NUM_KEYS.get(dtype, (0, 0))
    return with_gradient if torch.is_grad_enabled() else without


def onednn_multiplies_float32() -> bool:
    """Whether `use_onednn_for_float32` (training/device.py) is in effect, or torch has no other library."""
    if torch.compiler.is_compiling():  # which cannot trace the setting of the library
        return True
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    return getattr(settings, "fp32_precision", "none") == "bf16" or not torch.backends.mkl.is_available()


class PackedMask(Protocol):
    """Stands where a mask does, for sentences end to end in one row, (1, N, D): `Packing`, `Grouping`."""

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError unless it is of queries and keys of this shape, (1, H, Q, M)."""

    def attend(self, attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (1, H, Q, d_k), keys (1, H, M, d_k), values (1, H, M, d_v) to (1, H, Q, d_v), by sentence."""


def check_mask(mask: Tensor | PackedMask | None, shape: tuple[int, ...]) -> None:
    """TypeError or ValueError for masks that some kernels would take in silence, and others as something else."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        if not hasattr(mask, "attend"):
            raise TypeError(f"mask is a {type(mask).__name__}; it must be a bool tensor or a PackedMask")
        mask.check(shape)
        return
    if mask.dtype is not torch.bool:
        raise TypeError(f"mask is {mask.dtype}; it must be bool, True where a query may attend")
    try:
        is_right = mask.dim() in (2, 4) and mask.expand(shape) is not None
    except RuntimeError:
        is_right = False
    if not is_right:
        raise ValueError(f"mask {tuple(mask.shape)} is neither (Q, M) nor broadcastable to (B, H, Q, M) = {shape}")


def check_decoder_mask(mask: Tensor | None, num_keys: int) -> None:
    """TypeError or ValueError for a mask of the decoder that is not of all its keys, past and new."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"mask is a {type(mask).__name__}; sentences end to end are for the decoder's layers, one by one"
        )
    if mask.size(-1) != num_keys:
        raise ValueError(f"mask {tuple(mask.shape)} is not of all {num_keys} keys, past and new")


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, computed in float32 at least."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    num_keys = scores.size(-1)
    if scores.is_cpu and not torch.compiler.is_compiling() and num_keys < _VECTOR_NUMEL:
        padded = F.pad(scores, (0, _VECTOR_NUMEL - num_keys), value=-math.inf)
        return padded.softmax(dim=-1, dtype=dtype)[..., :num_keys].to(scores.dtype)
    return scores.softmax(dim=-1, dtype=dtype).to(scores.dtype)


class Dropout(nn.Dropout):
    """nn.Dropout with p in [0, 1) and, on a CPU, cheaper random numbers.

    torch draws one slow number per element there. Here one 64-bit word serves four elements, which makes p a multiple
    of 1/65536; the scale is that of the rounded p.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"dropout={p} is not in [0, 1)")
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element of x with probability p and scale the others, in training mode."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        num_dropped = min(round(self.p * 65536), 65535)
        # Of x, not torch.empty: inside torch.func.vmap it must be a batch as x is.
        words = x.new_empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        # In place it stays int16, 0 or 1: a vector loop, unlike the one to bool, and unlike the conversion from bool.
        keep = words.view(torch.int16)[: x.numel()].view(x.shape).ge_(num_dropped - 32768)
        return x * keep.to(x.dtype).mul_(65536 / (65536 - num_dropped))


def table_rows(compute: Callable[..., Tensor], d_model: int, start: int, end: int, like: Tensor) -> Tensor:
    """Rows start to end - 1 of a table of positions, which is kept: (end - start, D).

    `compute` takes the table's length, d_model and a device. The rows have the device and the dtype of `like`.
    """
    # A graph must hold for every length, and a FakeTensor must not stay in the cache for real ones to meet.
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return compute(end, d_model, like.device)[start:].to(like.dtype)
    return _table(compute, max(256, 1 << (end - 1).bit_length()), d_model, like.device)[start:end].to(like.dtype)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # usable in training too
def _table(compute: Callable[..., Tensor], length: int, d_model: int, device: torch.device) -> Tensor:
    return compute(length, d_model, device)

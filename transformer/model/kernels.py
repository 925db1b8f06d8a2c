"""Which kernel computes equation 1, its softmax and dropout, by device and shape. Results differ by rounding only."""

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a CPU, equation 1 written out beats the fused kernel up to about these many keys, with and without a backward pass.
# By one thread, 3,000 tokens of 4 heads, d_k = 64, take, written out and fused: at 24 keys in float32, 11 and 60 ms; at
# 128, 30 and 58 in float32, 19 and 38 in bfloat16; at 192, forward only, 16 and 12, 11 and 9. With few queries, as in
# decoding, the fused kernel takes 2 to 6.5 times as long. Beyond, with a backward pass, the written-out
# form would still take 12 to 16 % less time, but it keeps the weights of all pairs of positions.
_FUSED_FROM_NUM_KEYS = {torch.float32: (192, 160), torch.bfloat16: (320, 160)}
# It is oneDNN's float32 products that it waits for: by torch's default library it takes 10 ms for 24 keys, not 60.
_FUSED_FROM_NUM_KEYS_BY_DEFAULT = 16
# Between the two, and one for all dtypes and modes: every threshold that lengths cross is another graph.
_FUSED_FROM_NUM_KEYS_COMPILED = 48
_FUSED_FROM_NUM_QUERIES = 9
# Up to Q·M·d_k = 16³, though, it leaves out oneDNN, which builds a kernel for every new M: 1.0 to 10 times faster in
# float32 without a backward pass. Beyond, it is up to 10 times slower.
_SMALL = 4096
# A CPU's vectors hold 16 float32 numbers. On rows that do not fill one, torch's softmax is a scalar loop.
_VECTOR_NUMEL = 16
# Flash attention takes 256, but has no backward pass beyond 192 on consumer GPUs (8.6, 8.9, 12.0).
_FLASH_MAX_D_K = 192
_flash: Callable[..., Tensor] | None = None


def prefers_fused(q: Tensor, k: Tensor) -> bool:
    """Whether F.scaled_dot_product_attention beats equation 1 written out."""
    if not q.is_cpu or torch.compiler.is_exporting():  # an exported graph must hold for every length
        return True
    num_queries, num_keys = q.size(-2), k.size(-2)
    if q.dtype == torch.float32 and not torch.is_grad_enabled() and num_queries * num_keys * q.size(-1) <= _SMALL:
        return True
    return num_queries >= _FUSED_FROM_NUM_QUERIES and num_keys >= _fused_from_num_keys(q.dtype)


def _fused_from_num_keys(dtype: torch.dtype) -> int:
    if torch.compiler.is_compiling():  # which cannot trace the setting of the library
        return _FUSED_FROM_NUM_KEYS_COMPILED
    if dtype == torch.float32 and not _onednn_multiplies_float32():
        return _FUSED_FROM_NUM_KEYS_BY_DEFAULT
    with_gradient, without = _FUSED_FROM_NUM_KEYS.get(dtype, (0, 0))
    return with_gradient if torch.is_grad_enabled() else without


def _onednn_multiplies_float32() -> bool:
    """Whether `use_onednn_for_float32` (training/device.py) is in effect, or torch has no other library."""
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    return getattr(settings, "fp32_precision", "none") == "bf16" or not torch.backends.mkl.is_available()


class PackedMask(Protocol):
    """Stands where a mask does, for sentences end to end in one row, (1, N, D): `Packing`, `grouping.Grouping`."""

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError unless it is of queries and keys of this shape, (1, H, Q, M)."""

    def attend(self, attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (1, H, Q, d_k), keys (1, H, M, d_k), values (1, H, M, d_v) to (1, H, Q, d_v), by sentence."""


class Packing(NamedTuple):
    """Sentences end to end, without padding: stands where a mask does, for x of shape (1, N, D).

    Sentence i has the queries from query_starts[i] to query_starts[i + 1] and attends to the keys from key_starts[i] to
    key_starts[i + 1]; the last entries are the numbers of queries and of keys. `is_causal` is for self-attention.
    """

    query_starts: Tensor  # (sentences + 1,) int32, on the device of the queries
    key_starts: Tensor
    longest_query: int  # at least as many tokens as the longest sentence has, or a kernel leaves out the rest of it
    longest_key: int
    is_causal: bool = False

    def check(self, shape: tuple[int, ...]) -> None:
        """ValueError unless it is of shape (1, H, Q, M), as far as is known without waiting for a GPU."""
        num_rows, _, *numbers = shape
        starts = self.query_starts, self.key_starts
        if not all(isinstance(x, Tensor) for x in starts):
            raise ValueError(f"starts of packed sentences are {starts}; both must be tensors, (sentences + 1,) int32")
        if any(x.dtype is not torch.int32 or x.dim() != 1 or not len(x) for x in starts) or len(starts[0]) != len(
            starts[1]
        ):
            found = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in starts)
            raise ValueError(f"starts of packed sentences are {found}; both must be (sentences + 1,) int32")
        if num_rows != 1:
            raise ValueError(f"{num_rows} rows with packed sentences; they stand in one row, (1, N, D)")
        if self.is_causal and numbers[0] != numbers[1]:
            raise ValueError(f"causal packed attention has as many keys as queries, not {numbers[1]} and {numbers[0]}")
        if all(x.is_cpu for x in starts) and not torch.compiler.is_compiling():
            self._check_starts(numbers)

    def _check_starts(self, numbers: list[int]) -> None:
        queries, keys = self.query_starts.tolist(), self.key_starts.tolist()
        if [queries[-1], keys[-1]] != numbers:
            raise ValueError(f"packed sentences end at {[queries[-1], keys[-1]]}, not at {numbers} queries and keys")
        for starts, longest in ((queries, self.longest_query), (keys, self.longest_key)):
            lengths = [end - start for start, end in itertools.pairwise(starts)]
            if starts[0] != 0 or min(lengths, default=0) < 0:
                raise ValueError(f"packed sentences start at {starts}; starts begin with 0 and do not decrease")
            if max(lengths, default=0) > longest:
                raise ValueError(f"a packed sentence has {max(lengths)} tokens, more than the longest, {longest}")
        if self.is_causal and queries != keys:
            raise ValueError(f"causal packed attention has the starts {keys} of keys, not those of queries, {queries}")

    def attend(self, attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `DotProductAttention.forward` within each sentence; TypeError for one that computes anything else."""
        if not attention.is_equation_1 or attention._forward_hooks or attention._forward_pre_hooks:
            raise TypeError(
                f"{type(attention).__name__} computes more than equation 1; packed attention would ignore it"
            )
        return packed_attention(q, k, v, self, attention.dropout.p * attention.dropout.training)


def flash_attention() -> Callable[..., Tensor] | None:
    """varlen_attn, called with q, k, v and the fields of a `Packing`; None before torch 2.10."""
    global _flash  # no functools.cache, of which a compiler warns
    if _flash is None:
        try:
            from torch.nn.attention.varlen import varlen_attn  # takes longer than all else that is imported here
        except ImportError:
            return None
        _flash = _by_window(varlen_attn)
    return _flash


def _by_window(varlen_attn: Any) -> Callable[..., Tensor]:
    if "window_size" not in inspect.signature(varlen_attn).parameters:  # torch 2.10
        return varlen_attn

    def attend(*inputs: Any) -> Tensor:
        *others, is_causal = inputs
        context: Tensor = varlen_attn(*others, window_size=(-1, 0 if is_causal else -1))
        return context

    return attend


def packing_obstacle(device: torch.device, dtype: torch.dtype, d_k: int, d_v: int) -> str | None:
    """Why flash attention, the only fast kernel for packed sentences, cannot compute them; None if it can."""
    if device.type != "cuda":
        return f"device={device.type} has no kernel for sentences end to end"
    if torch.are_deterministic_algorithms_enabled():
        return "flash attention adds gradients in any order, which deterministic algorithms do not"
    if not _fits_flash(device, dtype):
        return f"flash attention computes in bf16 or fp16, not in {str(dtype).removeprefix('torch.')}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "flash attention needs a GPU of compute capability 8.0 or later"
    if d_k != d_v or d_k % 8 or d_k > _FLASH_MAX_D_K:
        return f"flash attention needs d_k = d_v, a multiple of 8 up to {_FLASH_MAX_D_K}, not {d_k} and {d_v}"
    if flash_attention() is None:
        return f"torch {torch.__version__} has no varlen_attn; 2.10 and later have"
    return None


def packed_attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing, dropout: float = 0.0) -> Tensor:
    """Equation 1 within each sentence: queries (1, H, Q, d_k), keys and values (1, H, M, ·) to (1, H, Q, d_v).

    By flash attention on CUDA in half precision, elsewhere by one product with a mask of all queries and keys.
    ValueError for a dropout of the weights by flash attention, which has none.
    """
    attend = flash_attention() if _fits_flash(q.device, q.dtype) else None
    if attend is None:
        mask = _block_mask(packing, q.size(2), k.size(2))
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout)
    if dropout:
        raise ValueError(f"dropout={dropout} of attention weights: flash attention of packed sentences has none")
    # Not x[0], whose gradient is copied into zeros.
    context = attend(*(x.squeeze(0).transpose(0, 1) for x in (q, k, v)), *packing)  # (Q, H, d_v)
    return context.transpose(0, 1).unsqueeze(0)  # (1, H, Q, d_v)


def _fits_flash(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def _block_mask(packing: Packing, num_queries: int, num_keys: int) -> Tensor:
    """True where query and key are of one sentence, and the key is not after the query if causal: (Q, M)."""
    starts = packing.query_starts, packing.key_starts
    query, key = (
        torch.arange(number, dtype=torch.int32, device=x.device)
        for number, x in zip((num_queries, num_keys), starts, strict=True)
    )
    of_query, of_key = (torch.bucketize(x, edges, right=True) for x, edges in zip((query, key), starts, strict=True))
    mask = of_query[:, None] == of_key
    return mask & (query[:, None] >= key) if packing.is_causal else mask


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

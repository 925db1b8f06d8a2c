"""Attention within sentences that stand end to end in one row, by flash attention where there is one."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model import kernels
from transformer.model.attention import DotProductAttention

# Flash attention takes 256, but has no backward pass beyond 192 on consumer GPUs (8.6, 8.9, 12.0).
_FLASH_MAX_D_K = 192
_flash: Callable[..., Tensor] | None = None


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
        if torch.compiler.is_compiling():
            return
        longest = self.longest_query, self.longest_key
        if not all(isinstance(x, Integral) for x in longest):
            raise ValueError(f"the longest packed sentences have {longest} tokens; both must be whole numbers")
        if all(x.is_cpu for x in starts):
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

    def attend(self, attention: DotProductAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `DotProductAttention.forward` within each sentence; TypeError for one that computes anything else."""
        if not _is_equation_1(attention):
            raise TypeError(
                f"{type(attention).__name__} computes more than equation 1; packed attention would ignore it"
            )
        return packed_attention(q, k, v, self, attention.dropout.p * attention.dropout.training)


def _is_equation_1(attention: DotProductAttention) -> bool:
    """Whether no subclass, hook or method of its own changes what follows `queries` and `keys`."""
    own, given, dropout = DotProductAttention, type(attention), attention.dropout
    is_own = (given.forward, given.weights, given.scores) == (own.forward, own.weights, own.scores)
    if not is_own or any(name in vars(attention) for name in ("forward", "weights", "scores")):
        return False
    if not isinstance(dropout, nn.Module):  # of a prepacked model: none
        return not attention._forward_hooks and not attention._forward_pre_hooks
    is_dropout = type(dropout) in (kernels.Dropout, nn.Dropout) and "forward" not in vars(dropout)
    return is_dropout and not any(x._forward_hooks or x._forward_pre_hooks for x in (attention, dropout))


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

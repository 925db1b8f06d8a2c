"""Another placement of LayerNorm, and fewer heads of keys and values than of queries."""

from typing import Any

from torch import Tensor, nn

from transformer.model.attention import KeyValue, MultiHeadAttention
from transformer.model.kernels import PackedMask
from transformer.model.layers import Layer


class PreNormLayer(Layer):
    """x + Dropout(Sublayer(LayerNorm(x))), pre-norm, as in the authors' later code; its stack ends with a norm."""

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: KeyValue | None = None,
        memory: Tensor | KeyValue | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue, Tensor | KeyValue | None]:
        y = self.norm_1(x)
        kv = self.self_attention.project(y, past)
        x = x + self.dropout(self.self_attention(y, kv, mask=mask))
        if self.cross_attention is not None:
            if not isinstance(memory, KeyValue):  # contiguous once, or each step would copy them for its products
                memory = KeyValue(*(y.contiguous() for y in self.cross_attention.project(memory)))  # type: ignore[arg-type]
            x = x + self.dropout(self.cross_attention(self.norm_cross(x), memory, mask=memory_mask))
        return x + self.dropout(self.feed_forward(self.norm_2(x))), kv, memory


class GroupedQueryAttention(MultiHeadAttention):
    """Groups of query heads share a head of keys and values, and its cache; `num_kv_heads` divides `num_heads`."""

    def __init__(self, d_model: int, num_heads: int, *, num_kv_heads: int, **options: Any) -> None:
        super().__init__(d_model, num_heads, **options)
        if num_heads % num_kv_heads:
            raise ValueError(f"num_heads={num_heads} is not a multiple of num_kv_heads={num_kv_heads}")
        bias = self.w_q.bias is not None
        self.w_k, self.w_v = (nn.Linear(d_model, num_kv_heads * size, bias) for size in (self.d_k, self.d_v))
        self.reset_parameters()

    def forward(
        self, x: Tensor, memory: Tensor | KeyValue | None = None, *, mask: Tensor | PackedMask | None = None
    ) -> Tensor:
        """As `MultiHeadAttention.forward`, keys and values repeated for the query heads of their group."""
        kv = memory if isinstance(memory, KeyValue) else self.project(x if memory is None else memory)
        group_size = self.num_heads // kv.keys.size(1)
        return super().forward(x, KeyValue(*(y.repeat_interleave(group_size, dim=1) for y in kv)), mask=mask)

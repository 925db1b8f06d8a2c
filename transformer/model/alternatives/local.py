"""Self-attention restricted to a neighbourhood of size r (section 4, last row of Table 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.model.alternatives.relative import WrappedAttention
from transformer.model.attention import DotProductAttention

_MIN_BLOCK = 32  # smaller blocks of queries make products too small to be fast


class LocalAttention(WrappedAttention):
    """Restricted self-attention (section 4): each position attends to the r = `window` around it, in O(r·n·d)."""

    def __init__(self, inner: DotProductAttention, window: int) -> None:
        super().__init__(inner)
        if window < 1 or window % 2 == 0:
            raise ValueError(f"attention_window={window} is not odd and positive, so it has no centre")
        self.window = window

    def extra_repr(self) -> str:
        return f"window={self.window}"

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        near = self._near(q.size(2), q.size(2), 0, q.device)
        return self.inner.weights(q, k, near if mask is None else near & mask)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `DotProductAttention.forward`; ValueError if `mask` is not that of padding, (B, 1, 1, n)."""
        length, reach = q.size(2), self.window // 2
        if k.size(2) != length:
            raise ValueError(f"local attention has as many keys as queries, not {k.size(2)} and {length}")
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"mask {tuple(mask.shape)} is not (B, 1, 1, {length}), that of padding")
        size = max(self.window, _MIN_BLOCK)
        # A block would meet the whole sequence: a mask is cheaper. An exported graph must hold for every length.
        if torch.compiler.is_exporting() or size + 2 * reach >= length:
            near = self._near(length, length, 0, q.device)
            return self.inner(q, k, v, near if mask is None else near & mask)
        if mask is None:
            mask = torch.ones((1, 1, 1, length), dtype=torch.bool, device=q.device)
        mask = mask.expand(q.size(0), -1, -1, -1).transpose(2, 3)  # (B, 1, n, 1), as keys of size 1
        # Blocks of queries meet their own positions and (r - 1) / 2 on either side; a mask hides the corners.
        k, v, mask = (_blocks(x, size, reach) for x in (k, v, mask))
        near = self._near(size, size + 2 * reach, reach, q.device)
        context = self.inner(_blocks(q, size, 0), k, v, near & mask.transpose(2, 3))  # (B * blocks, H, size, d_v)
        context = context.unflatten(0, (q.size(0), -(-length // size)))  # (B, blocks, H, size, d_v)
        return context.transpose(1, 2).flatten(2, 3)[:, :, :length]  # (B, H, n, d_v)

    def _near(self, num_queries: int, num_keys: int, first: int, device: torch.device) -> Tensor:
        position = torch.arange(num_keys, device=device)
        return (position - position[first : first + num_queries, None]).abs() <= self.window // 2  # (Q, M)


def _blocks(x: Tensor, size: int, reach: int) -> Tensor:
    """(B, H, n, d) to (B * blocks, H, size + 2 * reach, d), zero-padded past the ends."""
    num_blocks = -(-x.size(2) // size)
    x = F.pad(x, (0, 0, reach, reach + num_blocks * size - x.size(2)))
    return x.unfold(2, size + 2 * reach, size).permute(0, 2, 1, 4, 3).flatten(0, 1)

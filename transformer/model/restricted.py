"""Self-attention restricted to a neighbourhood (section 4, last row of table 1)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.model.attention import KeysValues, MultiHeadAttention
from transformer.model.relative import Relation, all_offsets

# Smaller blocks of queries make for products too small to be fast.
_MIN_BLOCK = 32


class RestrictedAttention(MultiHeadAttention):
    """Self-attention in which each position sees the r positions centred on it: O(r·n·d) instead of O(n²·d).

    Sentences are cut into blocks of queries, each of which attends to its own positions and (r - 1) / 2 on either side,
    in one batch of products; a mask hides the corners. Nothing of size n² is made, save by `weights`.

    Args:
        d_model, num_heads: as in `MultiHeadAttention`.
        window: r, odd.
        options: the other arguments of `MultiHeadAttention`.

    Raises:
        ValueError: `window` is not odd and positive, or the score is by location, which has no neighbourhood.
    """

    def __init__(self, d_model: int, num_heads: int, *, window: int, **options: Any) -> None:
        super().__init__(d_model, num_heads, **options)
        if window < 1 or window % 2 == 0:
            raise ValueError(f"attention_window={window} is not odd and positive, so it has no centre")
        if options.get("score") == "location":
            raise ValueError("attention_window is not defined for attention_score='location'")
        self.window = window

    def key_offsets(self, num_positions: int, device: torch.device | str | None = None) -> Tensor:
        """The offsets of the keys that a block's queries meet, (1, size, size + r - 1), the same for every block."""
        size = self._block_size(num_positions)
        if size is None:
            return all_offsets(num_positions, device)
        return (
            torch.arange(size + self.window - 1, device=device)
            - torch.arange(self.window // 2, self.window // 2 + size, device=device)[None, :, None]
        )

    def weights(
        self, query: Tensor, kv: KeysValues, mask: Tensor | None = None, relation: Relation | None = None
    ) -> Tensor:
        q, num_positions = self._queries(query, relation), query.size(1)
        size, reach = self._block_size(num_positions), self.window // 2
        blocked_q, blocked_kv, blocked_mask = self._blocks(q, kv, mask)
        weights = self._weights(blocked_q, blocked_kv.keys, blocked_mask, relation)
        if size is None:
            return weights
        weights = weights.unflatten(0, (len(q), -1)).transpose(1, 2)  # (B, H, blocks, size, size + r - 1)
        num_blocks = weights.size(2)
        first = torch.arange(num_blocks, device=q.device)[:, None, None] * size
        columns = (first + torch.arange(weights.size(-1), device=q.device)).expand_as(weights)
        whole = weights.new_zeros(*weights.shape[:-1], num_blocks * size + 2 * reach).scatter(-1, columns, weights)
        return whole.flatten(2, 3)[:, :, :num_positions, reach : reach + num_positions]

    def _context(self, q: Tensor, kv: KeysValues, mask: Tensor | None, relation: Relation | None) -> Tensor:
        context = super()._context(*self._blocks(q, kv, mask), relation)
        if self._block_size(q.size(2)) is None:
            return context
        return context.unflatten(0, (len(q), -1)).transpose(1, 2).flatten(2, 3)[:, :, : q.size(2)]

    def _block_size(self, num_positions: int) -> int | None:
        """Queries per block; None if a block would meet the whole sentence, for which a mask is cheaper."""
        size = max(self.window, _MIN_BLOCK)
        return size if size + self.window - 1 < num_positions else None

    def _blocks(self, q: Tensor, kv: KeysValues, mask: Tensor | None) -> tuple[Tensor, KeysValues, Tensor]:
        """Queries, their neighbourhoods and their mask, with blocks as if they were sentences."""
        num_sentences, _, num_positions, _ = q.shape
        if mask is not None and mask.shape[1:3] != (1, 1):
            raise ValueError(f"mask {tuple(mask.shape)} is not (B, 1, 1, {num_positions}), that of padding")
        near = (self.key_offsets(num_positions, q.device).abs() <= self.window // 2)[:, None]
        size = self._block_size(num_positions)
        if size is None:
            return q, kv, near if mask is None else near & mask
        if mask is None:
            mask = torch.ones((1, 1, 1, num_positions), dtype=torch.bool, device=q.device)
        mask = mask.expand(num_sentences, -1, -1, -1)
        reach = self.window // 2
        kv = KeysValues(*(_neighbourhoods(x, size, reach) for x in kv))
        mask = _neighbourhoods(mask.transpose(2, 3), size, reach).transpose(2, 3)
        return _neighbourhoods(q, size, 0), kv, near & mask


def _neighbourhoods(x: Tensor, size: int, reach: int) -> Tensor:
    """Cut positions of x (B, H, L, K) into blocks and give each `reach` more on either side, zeros past the ends.

    Returns (B * blocks, H, size + 2 * reach, K), the blocks of a sentence side by side.
    """
    num_blocks = -(-x.size(2) // size)
    x = F.pad(x, (0, 0, reach, reach + num_blocks * size - x.size(2)))
    return x.unfold(2, size + 2 * reach, size).permute(0, 2, 1, 4, 3).flatten(0, 1)

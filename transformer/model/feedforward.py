"""The position-wise feed-forward network (section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.model.dropout import dropout as apply_dropout


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2: equation 2, the same at every position.

    Args:
        d_model: width of input and output.
        d_ff: width between the two layers.
        dropout: probability of dropping an inner activation, Dropout(max(0, x W_1 + b_1)); the paper drops none.
    """

    def __init__(self, d_model: int, d_ff: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.dropout = dropout
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform weights, zero biases."""
        for linear in (self.w_1, self.w_2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        hidden = F.relu(self.w_1(x))  # (..., F)
        hidden = apply_dropout(hidden, self.dropout, self.training)
        return self.w_2(hidden)  # (..., D)

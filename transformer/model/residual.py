"""The connection around every sub-layer (sections 3.1 and 5.4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from transformer.model.dropout import dropout as apply_dropout
from transformer.model.options import LayerOptions, NormPlacement


class Residual(nn.Module):
    """LayerNorm(x + Dropout(Sublayer(x))), the paper's post-norm; or x + Dropout(Sublayer(LayerNorm(x))), pre-norm.

    Args:
        d_model: width of x.
        dropout: P_drop, in [0, 1).
        norm: "post" as in the paper, or "pre", whose stack needs one more LayerNorm at its end.
        norm_eps: added to the variance inside the square root.

    Raises:
        ValueError: `norm` is neither "post" nor "pre".
    """

    def __init__(
        self, d_model: int, *, dropout: float = 0.1, norm: NormPlacement = "post", norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ValueError(f"norm={norm!r} is not one of 'post', 'pre'")
        self.norm = nn.LayerNorm(d_model, eps=norm_eps)
        self.is_pre_norm = norm == "pre"
        self.dropout = dropout

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply `sublayer`, a function of (..., D) to (..., D), to x (..., D)."""
        if self.is_pre_norm:
            return x + apply_dropout(sublayer(self.norm(x)), self.dropout, self.training)
        return self.norm(x + apply_dropout(sublayer(x), self.dropout, self.training))


def final_norm(options: LayerOptions) -> nn.Module:
    """The end of a stack: pre-norm leaves the residual sum unnormalised, post-norm does not."""
    if options.get("norm", "post") == "pre":
        return nn.LayerNorm(options.get("d_model", 512), eps=options.get("norm_eps", 1e-6))
    return nn.Identity()

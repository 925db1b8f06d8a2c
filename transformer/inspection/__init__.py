"""Looking into a trained model: attention weights, and figures of them."""

from typing import TYPE_CHECKING

from transformer.lazy import lazy_names

if TYPE_CHECKING:
    from transformer.inspection.recording import AttentionMaps, attention_maps, record_attention
else:  # recording needs torch, a table of learning curves does not
    __getattr__ = lazy_names(
        __name__,
        {"transformer.inspection.recording": "AttentionMaps attention_maps record_attention"},
        first="torch",
    )

__all__ = ["AttentionMaps", "attention_maps", "record_attention"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

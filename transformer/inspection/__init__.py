"""Looking into a trained model: attention weights, and figures of them."""

from transformer.inspection.recording import AttentionMaps, attention_maps, record_attention

__all__ = ["AttentionMaps", "attention_maps", "record_attention"]

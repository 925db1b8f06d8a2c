"""Which models and devices can train on packed batches; the others train on padded ones, with the same results."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from transformer.model.alternatives import embeddings, layers, scores
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions
from transformer.model.kernels import Dropout
from transformer.model.layers import FeedForward, Layer
from transformer.model.packed_attention import packing_obstacle
from transformer.model.transformer import Decoder, Encoder, Transformer
from transformer.training.recomputation import own_forward

# They compute each token by itself, or attend by what `DotProductAttention` makes of a mask. A subclass may do anything
# with its second dimension, so these are exact types.
_KNOWN_TYPES = {
    *(Transformer, embeddings.BiasedTransformer, Encoder, Decoder),
    *(Layer, layers.PreNormLayer, FeedForward, nn.ModuleList),
    *(nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout, Dropout),
    *(MultiHeadAttention, layers.GroupedQueryAttention, DotProductAttention),
    *(scores.TemperatureAttention, scores.DotAttention, scores.GeneralAttention, scores.CosineAttention),
    *(SharedEmbedding, embeddings.DecoderTiedEmbedding, embeddings.UntiedEmbedding),
    *(embeddings.BiasedEmbedding, embeddings.BiasedDecoderTiedEmbedding, embeddings.BiasedUntiedEmbedding),
    *(SinusoidalPositions, embeddings.LearnedPositions, embeddings.NoPositions),
}
_KNOWN_ACTIVATIONS = (F.relu, F.gelu, F.silu)
_METHODS = {"encode", "decode", "logits", "project", "queries", "keys", "weights", "scores"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def obstacle(model: Transformer, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a model on this device cannot train on packed batches, in words; None if it can."""
    return model_obstacle(model) or (None if device.type == "cpu" else _flash_obstacle(model, device, dtype))


def _flash_obstacle(model: Transformer, device: torch.device, dtype: torch.dtype) -> str | None:
    for module in model.modules():
        if isinstance(module, DotProductAttention) and module.dropout.p > 0:
            return "flash attention of packed sentences has no model.attention_dropout"
        if isinstance(module, MultiHeadAttention):
            reason = packing_obstacle(device, dtype, module.d_k, module.d_v)
            if reason is not None:
                return reason
    return None


def model_obstacle(model: Transformer) -> str | None:
    """Likewise, whatever the device: a part that needs sentences in rows, (B, L, D), or may do so."""
    for name, module in model.named_modules():
        what = name or "the model"
        if type(module) not in _KNOWN_TYPES:
            return f"{what} is a {type(module).__name__}, which takes padded batches only"
        values = vars(module)
        if any(values[hooks] for hooks in _HOOKS):
            return f"{what} has a hook, which may expect a row for each sentence"
        if (values.keys() & _METHODS) or own_forward(module) is not None:
            return f"{what} has methods of its own, which may take padded batches only"
        if isinstance(module, FeedForward) and module.activation not in _KNOWN_ACTIVATIONS:
            return f"{what} has an activation that may take padded batches only"
    if any(layer.cross_attention is None for layer in model.decoder.layers):
        return "a layer of the decoder has no cross-attention"
    return None

"""Attention Is All You Need in PyTorch. Importing this starts nothing and prints nothing."""

from typing import TYPE_CHECKING

from transformer import parsing as parsing  # registers its corpora
from transformer.config import Config, ModelConfig, SearchConfig, load_config
from transformer.data.corpus import Corpus, register_corpus
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from transformer.errors import UserError
from transformer.lazy import lazy_names

if TYPE_CHECKING:
    from transformer.inference.alignment import word_alignment
    from transformer.inference.constraints import constrained_beam_search
    from transformer.inference.ensemble import Ensemble
    from transformer.inference.forced import ForcedScore, score_ids, score_translations
    from transformer.inference.penalties import length_penalty
    from transformer.inference.sampling import Sampling, sample
    from transformer.inference.search import Hypothesis, SearchState, beam_search, greedy_search
    from transformer.inference.translator import Translation, Translator
    from transformer.model.alternatives.build import build_model
    from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention, causal_mask, padding_mask
    from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions, sinusoidal_positions
    from transformer.model.layers import FeedForward, Layer
    from transformer.model.transformer import Decoder, DecoderState, Encoder, Transformer
    from transformer.training.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model
    from transformer.training.loss import label_smoothed_cross_entropy, linear_cross_entropy
    from transformer.training.schedule import noam_lr
else:  # they need torch, which takes over a second to import: not for a command that only lists or prints
    __getattr__ = lazy_names(
        __name__,
        {
            "transformer.inference.alignment": "word_alignment",
            "transformer.inference.constraints": "constrained_beam_search",
            "transformer.inference.ensemble": "Ensemble",
            "transformer.inference.forced": "ForcedScore score_ids score_translations",
            "transformer.inference.penalties": "length_penalty",
            "transformer.inference.sampling": "Sampling sample",
            "transformer.inference.search": "Hypothesis SearchState beam_search greedy_search",
            "transformer.inference.translator": "Translation Translator",
            "transformer.model.alternatives.build": "build_model",
            "transformer.model.attention": "DotProductAttention KeyValue MultiHeadAttention causal_mask padding_mask",
            "transformer.model.embeddings": "SharedEmbedding SinusoidalPositions sinusoidal_positions",
            "transformer.model.layers": "FeedForward Layer",
            "transformer.model.transformer": "Decoder DecoderState Encoder Transformer",
            "transformer.training.checkpoint": "load_checkpoint load_model save_checkpoint save_model",
            "transformer.training.loss": "label_smoothed_cross_entropy linear_cross_entropy",
            "transformer.training.schedule": "noam_lr",
        },
        first="torch",
    )

__version__ = "0.5.0"

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "PAD_ID",
    "Config",
    "Corpus",
    "Decoder",
    "DecoderState",
    "DotProductAttention",
    "Encoder",
    "Ensemble",
    "FeedForward",
    "ForcedScore",
    "Hypothesis",
    "KeyValue",
    "Layer",
    "ModelConfig",
    "MultiHeadAttention",
    "Sampling",
    "SearchConfig",
    "SearchState",
    "SharedEmbedding",
    "SinusoidalPositions",
    "Tokenizer",
    "Transformer",
    "Translation",
    "Translator",
    "UserError",
    "beam_search",
    "build_model",
    "causal_mask",
    "constrained_beam_search",
    "greedy_search",
    "label_smoothed_cross_entropy",
    "length_penalty",
    "linear_cross_entropy",
    "load_checkpoint",
    "load_config",
    "load_model",
    "noam_lr",
    "padding_mask",
    "register_corpus",
    "sample",
    "save_checkpoint",
    "save_model",
    "score_ids",
    "score_translations",
    "sinusoidal_positions",
    "word_alignment",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Attention Is All You Need in PyTorch. Importing this starts nothing and prints nothing."""

from transformer.config import Config, load_config
from transformer.data.tokenizer import Tokenizer
from transformer.errors import UserError
from transformer.inference.search import Hypothesis, beam_search, greedy_search, length_penalty
from transformer.inference.translator import Translation, Translator
from transformer.model.attention import KeysValues, MultiHeadAttention, attention
from transformer.model.decoder import Decoder, DecoderLayer, DecoderState
from transformer.model.embeddings import SharedEmbeddings
from transformer.model.encoder import Encoder, EncoderLayer
from transformer.model.feedforward import FeedForward
from transformer.model.masks import causal_mask, padding_mask
from transformer.model.positions import LearnedPositions, SinusoidalPositions, sinusoidal_positions
from transformer.model.transformer import AttentionMaps, Transformer
from transformer.training.loss import label_smoothed_loss, projected_loss
from transformer.training.schedule import noam_lr

__version__ = "0.1.0"

__all__ = [
    "AttentionMaps",
    "Config",
    "Decoder",
    "DecoderLayer",
    "DecoderState",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "Hypothesis",
    "KeysValues",
    "LearnedPositions",
    "MultiHeadAttention",
    "SharedEmbeddings",
    "SinusoidalPositions",
    "Tokenizer",
    "Transformer",
    "Translation",
    "Translator",
    "UserError",
    "attention",
    "beam_search",
    "causal_mask",
    "greedy_search",
    "label_smoothed_loss",
    "length_penalty",
    "load_config",
    "noam_lr",
    "padding_mask",
    "projected_loss",
    "sinusoidal_positions",
]

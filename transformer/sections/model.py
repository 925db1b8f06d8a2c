"""The section `model`."""

import dataclasses
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.errors import ConfigError
from transformer.sections.types import (
    STRICT,
    Fraction,
    Layers,
    Positive,
    Size,
)

# Scores that are products of queries and keys, and all that read keys.
_PRODUCTS = ("scaled_dot", "dot", "general", "cosine")
_CONTENT_BASED = (*_PRODUCTS, "additive")


@one_line_errors("model.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The model (section 3) and the alternatives to its parts."""

    d_model: Size = 512  # size of every sub-layer's output
    num_layers: Layers = 6  # N, of the encoder and of the decoder
    num_decoder_layers: Layers | None = None  # layers of the decoder, if it has another depth; null: num_layers
    num_heads: Size = 8  # h, attention heads
    num_kv_heads: Size | None = None  # fewer key/value heads (grouped-query attention); null: num_heads
    d_ff: Size = 2048  # inner size of the feed-forward network
    activation: Literal["relu", "gelu", "swish"] = "relu"  # activation of the feed-forward network
    d_k: Size | None = None  # size of a key per head; null: d_model / num_heads
    d_v: Size | None = None  # size of a value per head; null: d_k
    dropout: Fraction = 0.1  # P_drop (section 5.4)
    attention_dropout: Fraction = 0.0  # dropout of attention weights; not in the paper's translation models
    activation_dropout: Fraction = 0.0  # dropout inside the feed-forward network; not in the paper
    attention_bias: bool = False  # biases of the projections; the paper's equations have none, its code had them
    # how queries are compared with keys; scaled_dot is equation 1 (section 3.2.1)
    attention_score: Literal["scaled_dot", "dot", "general", "additive", "cosine", "location"] = "scaled_dot"
    attention_temperature: Positive = 1.0  # scores are divided by it
    attention_window: Size | None = None  # r: odd size of the encoder's local attention (section 4); null: unrestricted
    norm: Literal["post", "pre"] = "post"  # LayerNorm after each sub-layer's residual sum, or before the sub-layer
    norm_eps: Positive = 1e-6  # added to the variance in LayerNorm
    tie: Literal["all", "decoder", "none"] = "all"  # which embeddings share their matrix (section 3.4)
    output_bias: bool = False  # a bias of each piece before the softmax, as Marian's models have; the paper has none
    # how positions enter; sinusoidal is section 3.5, learned is row E of Table 3
    positional: Literal["sinusoidal", "learned", "shaw", "t5", "alibi", "rotary", "none"] = "sinusoidal"
    max_positions: Size = 512  # longest sequence, for learned positions (row E) and attention_score location only
    max_relative_position: Size = 20  # shaw positions clip distances here

    def __post_init__(self) -> None:
        if self.d_k is None and self.d_model % self.num_heads:
            raise ConfigError(
                f"model.d_model={self.d_model} is not a multiple of model.num_heads={self.num_heads}: "
                "change one of them, or give model.d_k"
            )
        if self.num_kv_heads is not None and self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} is not a multiple of model.num_kv_heads={self.num_kv_heads}: "
                "change one of them"
            )
        if self.attention_window is not None and self.attention_window % 2 == 0:
            raise ConfigError(f"model.attention_window={self.attention_window} must be odd, to have a centre")
        d_k = self.d_model // self.num_heads if self.d_k is None else self.d_k
        if self.positional == "rotary" and d_k % 2:
            raise ConfigError(f"model.positional=rotary rotates pairs of channels: model.d_k={d_k} must be even")
        self._check_score()

    def computed(self) -> dict[str, Any]:
        """What trained weights compute, however it is written: null as what it stands for, without unused keys."""
        values = dataclasses.asdict(self)
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            del values[name]
        d_k = self.d_k or self.d_model // self.num_heads
        values |= {"d_k": d_k, "d_v": self.d_v or d_k, "num_kv_heads": self.num_kv_heads or self.num_heads}
        values["num_decoder_layers"] = self.num_decoder_layers or self.num_layers
        if self.positional != "learned" and self.attention_score != "location":
            values["max_positions"] = None
        if self.positional != "shaw":
            values["max_relative_position"] = None
        return values

    def _check_score(self) -> None:
        """ConfigError if another option is not defined for the attention score."""
        is_grouped = self.num_kv_heads not in (None, self.num_heads)
        for name, applies, scores in (
            ("attention_window", self.attention_window is not None, _CONTENT_BASED),
            # Additive scores have parameters per key head; general and cosine ones per query head, as grouping allows.
            ("num_kv_heads", is_grouped, _PRODUCTS),
            ("positional", self.positional == "alibi", _CONTENT_BASED),
            ("positional", self.positional == "rotary", _PRODUCTS),
            ("positional", self.positional == "shaw", ("scaled_dot", "dot", "general")),
        ):
            if applies and self.attention_score not in scores:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} is not defined for "
                    f"model.attention_score={self.attention_score}, only for {', '.join(scores)}"
                )

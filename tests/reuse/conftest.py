"""A small model of every kind, for tests of the modules as other people's code uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer

VOCAB_SIZE = 53
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 1, "num_decoder_layers": 2, "num_heads": 2, "d_ff": 31}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "d_k": {"d_k": 6, "d_v": 5},
    "bias": {"attention_bias": True},
    "attention_dropout": {"attention_dropout": 0.1},
    "gelu": {"activation": "gelu", "activation_dropout": 0.1},
    "pre_norm": {"norm": "pre"},
    "tie_decoder": {"tie": "decoder"},
    "tie_none": {"tie": "none"},
    "grouped_query": {"num_kv_heads": 1},
    "learned": {"positional": "learned"},
    "no_positions": {"positional": "none"},
    "rotary": {"positional": "rotary", "d_k": 6},
    "shaw": {"positional": "shaw"},
    "t5": {"positional": "t5"},
    "alibi": {"positional": "alibi"},
    "temperature": {"attention_temperature": 2.0},
    "dot": {"attention_score": "dot"},
    "general": {"attention_score": "general"},
    "additive": {"attention_score": "additive"},
    "cosine": {"attention_score": "cosine"},
    "location": {"attention_score": "location"},
    "window": {"attention_window": 5},
    "window_t5": {"attention_window": 5, "positional": "t5"},
    "window_rotary": {"attention_window": 5, "positional": "rotary", "d_k": 6},
    "shaw_general": {"positional": "shaw", "attention_score": "general"},
}
# The kinds that differ most in hooks, copies and inputs; the slow tests run all. Laws of all kinds are in
# tests/model/alternatives, in the first stage.
EACH_PART = {"paper", "pre_norm", "tie_none", "grouped_query", "learned", "shaw", "t5", "additive", "window_rotary"}
Build = Callable[..., Transformer]


@pytest.fixture(params=[name if name in EACH_PART else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS])
def variant(request: pytest.FixtureRequest) -> str:
    """The name of a kind of model; a test that needs few of them overrides it by parametrize."""
    return request.param


@pytest.fixture
def build() -> Build:
    """Makes the model of a name, the same at each call; keywords are options of `ModelConfig`."""

    def build(variant: str = "paper", **options: Any) -> Transformer:
        torch.manual_seed(0)
        return build_model(VOCAB_SIZE, ModelConfig(**{**SIZES, **VARIANTS[variant], **options}))

    return build


@pytest.fixture
def ids() -> Callable[..., torch.Tensor]:
    """Makes random ids (B, L) without padding."""
    return lambda *shape: torch.randint(1, VOCAB_SIZE, shape)

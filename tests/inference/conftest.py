"""A tokenizer of the grammar, and a small model of every kind that answers different texts differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer.config import ModelConfig, SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model

# Each alternative once, alone or with others that it may disturb.
KINDS: dict[str, dict[str, Any]] = {
    "paper": {"norm": "post", "tie": "all"},
    "pre-norm": {},
    "learned": {"positional": "learned", "max_positions": 61, "attention_bias": True},
    "dot": {"attention_score": "dot", "attention_temperature": 3.0},
    "general": {"attention_score": "general", "positional": "none"},
    "additive": {"attention_score": "additive", "positional": "t5"},
    "cosine": {"attention_score": "cosine", "positional": "rotary", "d_k": 6},
    "location": {"attention_score": "location", "max_positions": 61},
    "temperature": {"attention_temperature": 0.5, "activation": "swish"},
    "shaw": {"positional": "shaw", "max_relative_position": 2, "attention_window": 3},
    "alibi": {"positional": "alibi", "attention_window": 3},
    "grouped": {"num_heads": 4, "num_kv_heads": 2, "attention_bias": True, "activation": "gelu"},
    "multi-query": {"num_kv_heads": 1, "positional": "rotary", "d_k": 6},
    "different depths": {"num_decoder_layers": 3, "num_layers": 1},
    "output bias": {"output_bias": True, "attention_bias": True, "activation": "swish"},
}
MakeTranslator = Callable[..., Translator]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """211 pieces, learned from pairs of the grammar."""
    return Tokenizer.train((side for pair in builtin_pairs("train", 199) for side in pair), 211)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a kind of model."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def make_translator(tokenizer: Tokenizer) -> MakeTranslator:
    """Makes an untrained translator, the same at each call; keywords are options of `ModelConfig`."""

    def make(kind: str = "pre-norm", dtype: torch.dtype = torch.float32, **options: Any) -> Translator:
        torch.manual_seed(2)
        sizes = {"d_model": 22, "num_layers": 2, "num_heads": 3, "d_ff": 29, "d_k": 7, "d_v": 5, "norm": "pre"}
        model = build_model(len(tokenizer), ModelConfig(**{**sizes, "tie": "none", **KINDS[kind], **options}))
        with torch.no_grad():  # large weights: outputs that depend on the source
            for name, weight in model.named_parameters():
                if weight.dim() == 2 and "embed" not in name:
                    weight *= 2
                elif name.endswith("output_bias"):
                    weight.normal_()
            if kind != "paper":
                model.embedding.target_weight *= 0.3
                model.embedding.output_weight[EOS_ID] *= 2.5  # some outputs end before their limit
        return Translator(model.to(dtype), tokenizer, SearchConfig(beam=3, max_length_offset=7))

    return make


@pytest.fixture(scope="module")
def translator(make_translator: MakeTranslator) -> Translator:
    """The one that is made without options."""
    return make_translator()

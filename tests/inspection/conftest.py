"""Small models of every kind that the inspection of layers must work with, in float64, and a batch with padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from transformer.config import ModelConfig
from transformer.data.batching import Batch
from transformer.inspection.examples import batch_of
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer

V, D, H, D_FF, N = 31, 22, 2, 29, 3
SOURCES = [[5, 17, 23, 29, 11, 7, 3], [13, 19, 3], [9, 4, 30, 3]]
TARGETS = [[7, 11, 5, 3], [23, 29, 13, 17, 3], [6, 3]]
VARIANTS: dict[str, dict[str, object]] = {
    "paper": {},
    "pre": {"norm": "pre"},
    "rotary": {"positional": "rotary", "d_k": 10},
    "grouped": {"num_kv_heads": 1, "norm": "pre"},
    "untied": {"tie": "none", "output_bias": True},
    "learned": {"positional": "learned", "max_positions": 17, "tie": "decoder"},
    "t5": {"positional": "t5", "norm": "pre", "activation": "gelu"},
    "window": {"attention_window": 3, "attention_bias": True},
    "additive": {"attention_score": "additive"},
}


@pytest.fixture
def make_model() -> Callable[..., Transformer]:
    """A model of a variant in evaluation mode, with weights, biases and norms at random."""

    def make(variant: str = "paper", **options: object) -> Transformer:
        sizes: dict[str, object] = {"d_model": D, "num_heads": H, "d_ff": D_FF, "num_layers": N}
        torch.manual_seed(7)
        model = build_model(V, ModelConfig(**{**sizes, **VARIANTS[variant], **options}))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
        return model.double().eval()

    return make


@pytest.fixture(params=VARIANTS)
def any_model(request: pytest.FixtureRequest, make_model: Callable[..., Transformer]) -> Transformer:
    """The model of each variant in turn."""
    return make_model(request.param)


@pytest.fixture
def batch() -> Batch:
    return batch_of(SOURCES, TARGETS)


@pytest.fixture
def pairs() -> list[Batch]:
    """The sentences of the batch one by one, without padding."""
    return [batch_of([src], [tgt]) for src, tgt in zip(SOURCES, TARGETS, strict=True)]

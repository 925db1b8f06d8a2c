"""Models written by `save_model` and read by `load_model`, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from transformer.config import ModelConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.model.attention import DotProductAttention
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import load_model, save_model

V = 53
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29}
SRC, TGT = torch.tensor([[3, 17, 23, 5, 2], [11, 7, 2, 0, 0]]), torch.tensor([[1, 13, 29], [1, 5, 2]])
VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie": "decoder"},
    {"tie": "none", "norm": "pre", "positional": "rotary", "d_k": 6},
    {"num_kv_heads": 1, "activation": "gelu", "num_decoder_layers": 1, "positional": "alibi"},
    {"attention_score": "location", "max_positions": 31, "attention_bias": True},
    {"positional": "t5", "attention_window": 3},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_model_comes_back_trainable_with_its_configuration(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    model = build_model(V, ModelConfig(**SIZES, **options))
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.eval()(SRC, TGT), model.eval()(SRC, TGT))
    loaded(SRC, TGT).sum().backward()
    with torch.no_grad():
        next(loaded.parameters()).add_(1)
    save_model(loaded, tmp_path / "model")  # over the first
    assert torch.equal(load_model(tmp_path / "model").eval()(SRC, TGT), loaded(SRC, TGT))


def test_a_transformer_built_by_hand_is_saved_with_a_configuration_that_describes_it(tmp_path: Path) -> None:
    model = Transformer(V, 22, 2, 2, 29).eval()
    with pytest.raises(ValueError, match=r"does not know its configuration: give config=ModelConfig"):
        save_model(model, tmp_path / "model")
    save_model(model, tmp_path / "model", ModelConfig(**SIZES))
    assert torch.equal(load_model(tmp_path / "model").eval()(SRC, TGT), model(SRC, TGT))


def changed(model: Transformer, change: str) -> Transformer:
    layer = next(iter(model.encoder.layers))
    match change:
        case "padding":
            model.pad_id = 1
        case "dropout":
            model.dropout.p = 0.3
        case "activation":
            layer.feed_forward.activation = F.gelu
        case "attention":
            layer.self_attention.attention = type("Other", (DotProductAttention,), {})()
        case "heads":
            return Transformer(V, 22, 2, 11, 29)
    return model


@pytest.mark.parametrize("change", ["padding", "dropout", "activation", "attention", "heads"])
def test_a_configuration_that_describes_another_model_is_refused(tmp_path: Path, change: str) -> None:
    model = changed(build_model(V, ModelConfig(**SIZES)), change)
    with pytest.raises(ValueError, match="the configuration does not describe the model"):
        save_model(model, tmp_path / "model", ModelConfig(**SIZES))
    assert not (tmp_path / "model").exists()


def test_a_directory_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("Attention")
    with pytest.raises(ValueError, match="holds other files than a model's, which would be replaced"):
        save_model(build_model(V, ModelConfig(**SIZES)), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "Attention"


def test_compiled_models_are_refused_and_those_with_a_tokenizer_translate(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)
    model = build_model(len(tokenizer), ModelConfig(**SIZES))
    with pytest.raises(ValueError, match="does not describe the model"):
        save_model(torch.compile(model), tmp_path / "model", ModelConfig(**SIZES))
    save_model(model, tmp_path / "model", tokenizer=tokenizer)
    assert len(Translator.load(tmp_path / "model", device="cpu").translate(["A cat.", ""])) == 2


def test_no_model_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: no such run or checkpoint directory"):
        load_model(tmp_path / "absent")

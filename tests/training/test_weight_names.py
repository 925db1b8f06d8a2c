"""The names of weights in checkpoints of format 1, of every variant, and what they are called today."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.training.integrity import present_name as renamed

V, N = 31, 2
SIZES = {"d_model": 12, "num_layers": N, "num_heads": 3, "d_ff": 29}

# Name in format 1 -> name today; {i} is the number of a layer. The paper's model:
PAPER = {
    "embedding.weight": "embedding.weight",
    **{
        f"{stack}.layers.{{i}}.{sub_layer}.{linear}.weight": f"{stack}.layers.{{i}}.{sub_layer}.{linear}.weight"
        for stack, sub_layer in (
            ("encoder", "self_attention"),
            ("decoder", "self_attention"),
            ("decoder", "cross_attention"),
        )
        for linear in ("w_q", "w_k", "w_v", "w_o")
    },
    **{
        f"{stack}.layers.{{i}}.feed_forward.{linear}.{kind}": f"{stack}.layers.{{i}}.feed_forward.{linear}.{kind}"
        for stack in ("encoder", "decoder")
        for linear in ("w_1", "w_2")
        for kind in ("weight", "bias")
    },
    "encoder.layers.{i}.residual_1.norm.weight": "encoder.layers.{i}.norm_1.weight",
    "encoder.layers.{i}.residual_1.norm.bias": "encoder.layers.{i}.norm_1.bias",
    "encoder.layers.{i}.residual_2.norm.weight": "encoder.layers.{i}.norm_2.weight",
    "encoder.layers.{i}.residual_2.norm.bias": "encoder.layers.{i}.norm_2.bias",
    "decoder.layers.{i}.residual_1.norm.weight": "decoder.layers.{i}.norm_1.weight",
    "decoder.layers.{i}.residual_1.norm.bias": "decoder.layers.{i}.norm_1.bias",
    "decoder.layers.{i}.residual_2.norm.weight": "decoder.layers.{i}.norm_cross.weight",
    "decoder.layers.{i}.residual_2.norm.bias": "decoder.layers.{i}.norm_cross.bias",
    "decoder.layers.{i}.residual_3.norm.weight": "decoder.layers.{i}.norm_2.weight",
    "decoder.layers.{i}.residual_3.norm.bias": "decoder.layers.{i}.norm_2.bias",
}
FINAL_NORMS = {
    f"{stack}.norm.{kind}": f"{stack}.norm.{kind}" for stack in ("encoder", "decoder") for kind in ("weight", "bias")
}
T5 = {f"{stack}.relative.table": f"{stack}.relative_bias.table" for stack in ("encoder", "decoder")}
BIASES = {old.replace("weight", "bias"): new.replace("weight", "bias") for old, new in PAPER.items() if ".w_" in old}


def shaw(encoder: str = "", decoder: str = "") -> dict[str, str]:
    """Tables that were lists of the stack and are in each layer's attention, below these wrappers."""
    return {
        f"{stack}.relative.{kind}s.{{i}}": f"{stack}.layers.{{i}}.self_attention.attention{inner}.{kind}_table"
        for stack, inner in (("encoder", encoder), ("decoder", decoder))
        for kind in ("key", "value")
    }


def score(*parameters: str, encoder: str = "", decoder: str = "") -> dict[str, str]:
    """Parameters of the score of every attention, below these wrappers in self-attention."""
    return {
        f"{place}.score.{name}": f"{place}.attention{inner}.{name}"
        for place, inner in (
            ("encoder.layers.{i}.self_attention", encoder),
            ("decoder.layers.{i}.self_attention", decoder),
            ("decoder.layers.{i}.cross_attention", ""),
        )
        for name in parameters
    }


# By variant: options, and the names that it has besides those of the paper.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "paper": ({}, {}),
    "biases": ({"attention_bias": True, "d_k": 7, "d_v": 5}, BIASES),
    "pre-norm": ({"norm": "pre"}, FINAL_NORMS),
    "decoder-tied": ({"tie": "decoder"}, {"embeddings.target_weight": "embedding.target_weight"}),
    "untied": (
        {"tie": "none"},
        {
            "embeddings.target_weight": "embedding.target_weight",
            "embeddings.output_weight": "embedding.projection_weight",
        },
    ),
    "learned": (
        {"positional": "learned"},
        {f"{side}_positions.table": f"{side}_positions.table" for side in ("source", "target")},
    ),
    "none": ({"positional": "none"}, {}),
    "rotary": ({"positional": "rotary"}, {}),
    "shaw": ({"positional": "shaw"}, shaw()),
    "t5": ({"positional": "t5"}, T5),
    "dot": ({"attention_score": "dot"}, {}),
    "general": ({"attention_score": "general"}, score("weight")),
    "additive": ({"attention_score": "additive"}, score("w_q", "w_k", "v")),
    "cosine": ({"attention_score": "cosine"}, score("log_strength")),
    "location": ({"attention_score": "location"}, score("weight")),
    "temperature": ({"attention_temperature": 2.0}, {}),
    "window": ({"attention_window": 3}, {}),
    "window rotary": ({"attention_window": 3, "positional": "rotary"}, {}),
    "window shaw": ({"attention_window": 3, "positional": "shaw"}, shaw(encoder=".inner")),
    "window shaw pre-norm": (
        {"attention_window": 3, "positional": "shaw", "norm": "pre"},
        shaw(encoder=".inner") | FINAL_NORMS,
    ),
    "window t5": ({"attention_window": 3, "positional": "t5"}, T5),
    "window general": ({"attention_window": 3, "attention_score": "general"}, score("weight", encoder=".inner")),
    "t5 additive": (
        {"positional": "t5", "attention_score": "additive"},
        T5 | score("w_q", "w_k", "v", encoder=".inner", decoder=".inner"),
    ),
    "cosine rotary": (
        {"positional": "rotary", "attention_score": "cosine"},
        score("log_strength", encoder=".inner", decoder=".inner"),
    ),
    "general shaw pre-norm": (
        {"attention_score": "general", "positional": "shaw", "norm": "pre"},
        shaw() | score("weight", encoder=".inner", decoder=".inner") | FINAL_NORMS,
    ),
    "window general shaw": (
        {"attention_window": 3, "attention_score": "general", "positional": "shaw"},
        shaw(encoder=".inner") | score("weight", encoder=".inner.inner", decoder=".inner"),
    ),
    "window cosine rotary": (
        {"attention_window": 3, "attention_score": "cosine", "positional": "rotary"},
        score("log_strength", encoder=".inner.inner", decoder=".inner"),
    ),
    "window t5 additive biases": (
        {"attention_window": 3, "attention_score": "additive", "positional": "t5", "attention_bias": True},
        T5 | score("w_q", "w_k", "v", encoder=".inner.inner", decoder=".inner") | BIASES,
    ),
}


def expected_names(variant: str) -> dict[str, str]:
    """Today's name of each weight of a checkpoint of format 1."""
    options, extra = VARIANTS[variant]
    names = PAPER | extra
    if options.get("attention_score") == "location":  # which has no W^K
        names = {old: new for old, new in names.items() if ".w_k." not in old}
    return {old.replace("{i}", str(i)): new.replace("{i}", str(i)) for old, new in names.items() for i in range(N)}


def present_names(variant: str) -> list[str]:
    with torch.device("meta"):
        return list(build_model(V, ModelConfig(**SIZES, **VARIANTS[variant][0])).state_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_name_of_format_1_has_its_place_in_the_model(variant: str) -> None:
    names = present_names(variant)
    expected = expected_names(variant)
    assert {old: renamed(old, names) for old in expected} == expected
    assert sorted(expected.values()) == sorted(names)


@pytest.mark.parametrize("variant", VARIANTS)
def test_present_names_stay(variant: str) -> None:
    names = present_names(variant)
    assert [renamed(name, names) for name in names] == names


@pytest.mark.parametrize("name", ["generator.bias", "encoder.layers.2.self_attention.w_q.weight", "", "weight"])
def test_a_name_that_is_no_weight_of_the_model_stays(name: str) -> None:
    assert renamed(name, present_names("paper")) == name


def test_a_weight_that_the_model_lacks_is_not_given_the_place_of_another() -> None:
    # An error of loading then names what is in the file too much.
    for name, names in (
        ("embeddings.target_weight", present_names("paper")),
        ("encoder.layers.0.self_attention.score.weight", present_names("shaw")),
        ("encoder.relative.keys.0", present_names("rotary")),
        ("encoder.relative.table", present_names("paper")),
        ("decoder.layers.0.residual_3.norm.scale", present_names("paper")),
    ):
        assert renamed(name, names) not in names

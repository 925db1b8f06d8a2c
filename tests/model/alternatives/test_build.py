"""The model that a configuration describes: its parts, its errors, and where the names of options may stand."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import transformer
from transformer.config import ModelConfig
from transformer.errors import ConfigError
from transformer.model.alternatives import embeddings, relative, scores
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.layers import GroupedQueryAttention, PreNormLayer
from transformer.model.alternatives.local import LocalAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Transformer

V, SIZES = 31, {"d_model": 12, "num_layers": 2, "num_heads": 3, "d_ff": 29}
PACKAGE = Path(typing.cast(str, transformer.__file__)).parent


def build(**options: Any) -> Transformer:
    torch.manual_seed(3)
    return build_model(V, ModelConfig(**{**SIZES, **options}))


def attentions(model: Transformer) -> list[MultiHeadAttention]:
    return [module for module in model.modules() if isinstance(module, MultiHeadAttention)]


def chain(attention: DotProductAttention) -> list[type]:
    """The types of an attention and of those inside of it."""
    types = [type(attention)]
    while hasattr(attention, "inner"):
        attention = attention.inner
        types.append(type(attention))
    return types


# The paper's model


@pytest.mark.parametrize(
    "sizes",
    [SIZES, {**SIZES, "d_k": 7, "d_v": 5}, {**SIZES, "num_decoder_layers": 3}, {**SIZES, "dropout": 0.3}],
)
def test_it_builds_the_same_model_as_transformer_does(sizes: dict[str, Any]) -> None:
    torch.manual_seed(3)
    plain = Transformer(V, **sizes)
    built = build(**sizes)
    assert list(built.state_dict()) == list(plain.state_dict())
    assert_close(built.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert str(built) == str(plain)  # the same modules with the same sizes and dropout
    src, tgt = torch.randint(1, V, (2, 7)), torch.randint(1, V, (2, 5))
    for train in (False, True):
        logits = []
        for model in (plain, built):
            torch.manual_seed(5)
            logits.append(model.train(train)(src, tgt))
        assert torch.equal(*logits)


def test_the_defaults_of_the_configuration_are_those_of_transformer() -> None:
    with torch.device("meta"):
        plain, built = Transformer(V), build_model(V, ModelConfig())
    assert str(built) == str(plain)
    norms = [[m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)] for model in (plain, built)]
    assert norms[0] == norms[1]
    assert (built.pad_id, built.max_length) == (plain.pad_id, plain.max_length) == (0, None)


def test_the_papers_model_has_only_the_papers_parts() -> None:
    model = build()
    for module in model.modules():
        assert "alternatives" not in type(module).__module__
    assert {type(attention.attention) for attention in attentions(model)} == {DotProductAttention}


# The part that each option replaces


@pytest.mark.parametrize(
    ("options", "part", "expected"),
    [
        ({}, lambda m: m.embedding, SharedEmbedding),
        ({"tie": "decoder"}, lambda m: m.embedding, embeddings.DecoderTiedEmbedding),
        ({"tie": "none"}, lambda m: m.embedding, embeddings.UntiedEmbedding),
        ({}, lambda m: m.target_positions, SinusoidalPositions),
        ({"positional": "learned"}, lambda m: m.source_positions, embeddings.LearnedPositions),
        ({"positional": "learned"}, lambda m: m.target_positions, embeddings.LearnedPositions),
        ({"positional": "none"}, lambda m: m.source_positions, embeddings.NoPositions),
        ({"positional": "rotary"}, lambda m: m.target_positions, embeddings.NoPositions),
        ({"positional": "alibi"}, lambda m: m.source_positions, embeddings.NoPositions),
        ({}, lambda m: m.encoder.layers[1], Layer),
        ({"norm": "pre"}, lambda m: m.encoder.layers[1], PreNormLayer),
        ({"norm": "pre"}, lambda m: m.decoder.layers[1], PreNormLayer),
        ({}, lambda m: m.encoder.norm, nn.Identity),
        ({"norm": "pre"}, lambda m: m.decoder.norm, nn.LayerNorm),
        ({"num_kv_heads": 1}, lambda m: m.encoder.layers[0].self_attention, GroupedQueryAttention),
        ({"num_kv_heads": 3}, lambda m: m.decoder.layers[0].cross_attention, GroupedQueryAttention),
        (
            {"attention_score": "location"},
            lambda m: m.decoder.layers[0].cross_attention,
            scores.LocationMultiHeadAttention,
        ),
    ],
)
def test_an_option_replaces_its_part(options: dict[str, Any], part: Any, expected: type) -> None:
    assert type(part(build(**options))) is expected


@pytest.mark.parametrize(
    ("options", "encoder", "decoder", "cross"),
    [
        ({"attention_score": "dot"}, *[[scores.DotAttention]] * 3),
        ({"attention_score": "general"}, *[[scores.GeneralAttention]] * 3),
        ({"attention_score": "additive"}, *[[scores.AdditiveAttention]] * 3),
        ({"attention_score": "cosine"}, *[[scores.CosineAttention]] * 3),
        ({"attention_score": "location"}, *[[scores.LocationAttention]] * 3),
        ({"attention_temperature": 2.0}, *[[scores.TemperatureAttention]] * 3),
        ({"positional": "learned"}, *[[DotProductAttention]] * 3),
        ({"positional": "none"}, *[[DotProductAttention]] * 3),
        # Relative positions enter in self-attention only.
        ({"positional": "rotary"}, *[[relative.RotaryAttention, DotProductAttention]] * 2, [DotProductAttention]),
        ({"positional": "shaw"}, *[[relative.ShawAttention, DotProductAttention]] * 2, [DotProductAttention]),
        ({"positional": "t5"}, *[[relative.T5Attention, DotProductAttention]] * 2, [DotProductAttention]),
        ({"positional": "alibi"}, *[[relative.AlibiAttention, DotProductAttention]] * 2, [DotProductAttention]),
        (
            {"positional": "rotary", "attention_score": "cosine"},
            *[[relative.RotaryAttention, scores.CosineAttention]] * 2,
            [scores.CosineAttention],
        ),
        # Only the encoder is local.
        (
            {"attention_window": 5},
            [LocalAttention, DotProductAttention],
            *[[DotProductAttention]] * 2,
        ),
        (
            {"attention_window": 5, "positional": "alibi", "attention_score": "dot"},
            [LocalAttention, relative.AlibiAttention, scores.DotAttention],
            [relative.AlibiAttention, scores.DotAttention],
            [scores.DotAttention],
        ),
    ],
)
def test_an_option_of_attention_reaches_every_layer(
    options: dict[str, Any], encoder: list[type], decoder: list[type], cross: list[type]
) -> None:
    model = build(**options)
    for layer in model.encoder.layers:
        assert chain(layer.self_attention.attention) == encoder
        assert layer.cross_attention is None
    for layer in model.decoder.layers:
        assert chain(layer.self_attention.attention) == decoder
        assert chain(layer.cross_attention.attention) == cross


@pytest.mark.parametrize("positional", ["shaw", "t5", "alibi"])
def test_only_positions_of_local_attention_are_centred(positional: str) -> None:
    for window in (None, 5):
        model = build(positional=positional, attention_window=window)
        encoder = model.encoder.layers[0].self_attention.attention
        assert (encoder if window is None else encoder.inner).centred == (window is not None)
        assert not model.decoder.layers[0].self_attention.attention.centred


def test_t5s_table_is_one_per_stack_and_none_is_in_cross_attention() -> None:
    model = build(positional="t5")
    tables = {name: tuple(p.shape) for name, p in model.named_parameters() if "bias.table" in name}
    assert tables == {"encoder.relative_bias.table": (32, 3), "decoder.relative_bias.table": (32, 3)}
    assert model.encoder.relative_bias.bidirectional
    assert not model.decoder.relative_bias.bidirectional
    for stack in (model.encoder, model.decoder):
        for layer in stack.layers:
            assert layer.self_attention.attention._bias == (stack.relative_bias,)


@pytest.mark.parametrize("positional", ["sinusoidal", "learned", "none", "rotary", "shaw", "alibi"])
def test_other_positions_have_no_table_of_the_stack(positional: str) -> None:
    model = build(positional=positional)
    assert not any("relative_bias" in name for name, _ in model.named_modules())


def test_shaws_tables_belong_to_one_layer_each() -> None:
    model = build(positional="shaw", max_relative_position=7, d_k=5, d_v=11)
    tables = {name: tuple(p.shape) for name, p in model.named_parameters() if name.endswith("_table")}
    assert tables == {
        f"{stack}.layers.{layer}.self_attention.attention.{kind}_table": (15, size)
        for stack in ("encoder", "decoder")
        for layer in (0, 1)
        for kind, size in (("key", 5), ("value", 11))
    }


@pytest.mark.parametrize("activation", ["relu", "gelu", "swish"])
def test_the_activation_reaches_every_feed_forward_network(activation: str) -> None:
    expected = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu}[activation]
    networks = [m for m in build(activation=activation).modules() if isinstance(m, FeedForward)]
    assert [network.activation for network in networks] == [expected] * 4


@pytest.mark.parametrize("positional", ["sinusoidal", "rotary", "shaw", "t5", "alibi"])
@pytest.mark.parametrize("window", [None, 5])
def test_each_dropout_reaches_the_places_of_its_kind(positional: str, window: int | None) -> None:
    model = build(
        dropout=0.2,
        attention_dropout=0.3,
        activation_dropout=0.4,
        positional=positional,
        attention_window=window,
    )
    for attention in attentions(model):
        inner = attention.attention
        assert inner.dropout.p == 0.3
        while hasattr(inner, "inner"):
            inner = inner.inner
            assert inner.dropout.p == 0.3
    layers = (*model.encoder.layers, *model.decoder.layers)
    assert [layer.dropout.p for layer in layers] == [0.2] * 4
    assert [layer.feed_forward.dropout.p for layer in layers] == [0.4] * 4
    assert model.dropout.p == 0.2


@pytest.mark.parametrize("score", ["scaled_dot", "dot", "general", "additive", "cosine", "location"])
def test_temperature_and_dropout_reach_every_score(score: str) -> None:
    model = build(attention_score=score, attention_temperature=3.0, attention_dropout=0.3)
    assert {attention.attention.temperature for attention in attentions(model)} == {3.0}
    assert {attention.attention.dropout.p for attention in attentions(model)} == {0.3}


@pytest.mark.parametrize(("options", "num_heads"), [({}, 3), ({"num_heads": 4, "num_kv_heads": 2}, 4)])
def test_sizes_and_biases_reach_every_attention(options: dict[str, Any], num_heads: int) -> None:
    model = build(d_k=7, d_v=5, attention_bias=True, norm="pre", num_layers=3, **options)
    assert len(attentions(model)) == 9
    for attention in attentions(model):
        assert (attention.num_heads, attention.d_k, attention.d_v) == (num_heads, 7, 5)
        assert attention.w_q.weight.shape == (num_heads * 7, 12)
        for linear in (attention.w_q, attention.w_k, attention.w_v, attention.w_o):
            assert linear.bias is not None


@pytest.mark.parametrize(("num_decoder_layers", "expected"), [(None, 2), (1, 1), (5, 5)])
def test_the_decoder_may_have_a_depth_of_its_own(num_decoder_layers: int | None, expected: int) -> None:
    model = build(num_decoder_layers=num_decoder_layers)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (2, expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"positional": "rotary"}, None),
        ({"positional": "learned"}, 17),
        ({"attention_score": "location"}, 17),
    ],
)
def test_max_length_is_that_of_learned_positions_and_of_scores_by_location(
    options: dict[str, Any], expected: int | None
) -> None:
    model = build(max_positions=17, **options)
    assert model.max_length == expected
    if "attention_score" in options:
        assert {attention.attention.weight.size(1) for attention in attentions(model)} == {17}
    if "learned" in options.values():
        assert len(model.source_positions.table) == len(model.target_positions.table) == 17


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positional": "absolute"}, "model.positional='absolute' is not one of sinusoidal, learned, shaw, t5, "),
        ({"attention_score": "bilinear"}, "model.attention_score='bilinear' is not one of scaled_dot, dot, general, "),
        ({"norm": "sandwich"}, "model.norm='sandwich' is not one of post, pre"),
        ({"tie": "some"}, "model.tie='some' is not one of all, decoder, none"),
        ({"activation": "elu"}, "model.activation='elu' is not one of relu, gelu, swish"),
        ({"positional": "rotary", "d_k": 7}, "model.positional=rotary .*model.d_k=7"),
        (
            {"positional": "rotary", "attention_score": "additive"},
            "model.positional=rotary is not defined for model.attention_score=additive, only for scaled_dot, dot, "
            "general, cosine",
        ),
        ({"positional": "rotary", "attention_score": "location"}, "not defined for model.attention_score=location"),
        (
            {"positional": "shaw", "attention_score": "cosine"},
            "model.positional=shaw is not defined for model.attention_score=cosine, only for scaled_dot, dot, general",
        ),
        ({"attention_window": 3, "attention_score": "location"}, "model.attention_window.* is not defined for "),
        ({"attention_temperature": 0.0}, "model.attention_temperature=0.0 must be more than 0"),
        ({"attention_window": 4}, "model.attention_window=4 "),
        ({"positional": "shaw", "max_relative_position": 0}, "model.max_relative_position=0 must be at least 1"),
        ({"d_model": 11}, "model.d_model=11 is not a multiple of model.num_heads=3"),
        ({"dropout": 1.0}, "model.dropout=1.0 must be less than 1"),
        ({"attention_dropout": -0.1}, "model.attention_dropout=-0.1 must be at least 0"),
        ({"activation_dropout": 1.5}, "model.activation_dropout=1.5 must be less than 1"),
    ],
)
def test_an_option_out_of_range_is_an_error_that_names_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_heads_that_are_not_a_multiple_of_those_of_keys_and_values_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"num_heads=3 is not a multiple of .*num_kv_heads=2"):
        build(num_kv_heads=2)


# Where things may stand


def trees(*directories: str) -> Iterator[tuple[Path, ast.Module]]:
    for directory in directories:
        for path in sorted((PACKAGE / directory).glob("*.py")):
            yield path.relative_to(PACKAGE), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_core_imports_no_alternative_and_nothing_else_of_the_package() -> None:
    modules = dict(trees("model"))
    assert {path.stem for path in modules} >= {"attention", "layers", "embeddings", "transformer", "kernels"}
    for path, tree in modules.items():
        for name in imported(tree):
            if name.split(".")[0] == "transformer":
                assert name.startswith("transformer.model."), (path, name)
                assert "alternatives" not in name, (path, name)


def test_alternatives_import_the_core_and_only_build_reads_the_configuration() -> None:
    for path, tree in trees("model/alternatives"):
        for name in imported(tree):
            if name.startswith("transformer.") and path.stem != "build":
                assert name.startswith("transformer.model."), (path, name)


def compared(tree: ast.Module) -> set[str]:
    """The strings against which code compares: with operators, in `match`, or as keys of a table."""
    nodes: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            nodes += [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            nodes.append(node.value)
        elif isinstance(node, ast.Dict):
            nodes += [key for key in node.keys if key is not None]
    constants = [constant for node in nodes for constant in ast.walk(node) if isinstance(constant, ast.Constant)]
    return {constant.value for constant in constants if isinstance(constant.value, str)}


def test_option_names_occur_in_the_configuration_and_in_build_only() -> None:
    hints = typing.get_type_hints(ModelConfig)
    choices = {f.name: typing.get_args(hints[f.name]) for f in dataclasses.fields(ModelConfig)}
    options = {v for name, values in choices.items() if typing.get_origin(hints[name]) is Literal for v in values}
    # Words that mean something else in other modules.
    options -= {"all", "none", "decoder", "relu", "cosine"}
    assert options > {"rotary", "shaw", "alibi", "pre", "additive", "location", "gelu"}
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if name.startswith("interop/"):  # which says what each option is called elsewhere
            continue
        words = compared(ast.parse(path.read_text(encoding="utf-8"))) & options
        if words:
            found[name] = words
    assert "model/alternatives/build.py" in found
    assert found.keys() <= {"config.py", "sections/model.py", "model/alternatives/build.py"}, found

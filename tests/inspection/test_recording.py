"""Recorded attention weights are those of equation 1 in the model's only forward pass."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.inspection import attention_maps, record_attention
from transformer.model.attention import MultiHeadAttention
from transformer.model.transformer import Transformer

V, N, H, D, D_K, D_V, D_FF = 31, 3, 2, 22, 7, 5, 13
SRC = torch.tensor([[3, 17, 23, 5, 2], [11, 7, 2, 0, 0]])
TGT = torch.tensor([[1, 13, 29, 19], [1, 5, 2, 0]])
B, S, T = 2, 5, 4
NAMES = {
    *(f"encoder.layers.{i}.self_attention" for i in range(N)),
    *(f"decoder.layers.{i}.{name}" for i in range(N) for name in ("self_attention", "cross_attention")),
}


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(7)
    return Transformer(V, D, N, H, D_FF, d_k=D_K, d_v=D_V).double().eval()


def attentions(model: nn.Module) -> dict[str, MultiHeadAttention]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MultiHeadAttention)}


def heads(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x).unflatten(-1, (H, D_K)).transpose(1, 2)  # (B, H, L, d_k)


@torch.no_grad()
def test_weights_are_those_of_equation_1(model: Transformer) -> None:
    queries: dict[str, Tensor] = {}  # the input of each attention
    memory: list[Tensor] = []
    for name, module in attentions(model).items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: queries.update({name: inputs[0]}))
    model.encoder.register_forward_hook(lambda _, __, output: memory.append(output))
    with record_attention(model) as weights:
        model(SRC, TGT)
    assert weights.keys() == NAMES
    padding = (SRC != 0)[:, None, None]  # (B, 1, 1, S)
    for name, module in attentions(model).items():
        keys = memory[0] if "cross" in name else queries[name]
        mask = torch.ones(T, T, dtype=torch.bool).tril() if name.startswith("decoder") and "self" in name else padding
        scores = heads(module.w_q, queries[name]) @ heads(module.w_k, keys).mT / math.sqrt(D_K)  # (B, H, Q, M)
        assert_close(weights[name], scores.masked_fill(~mask, -torch.inf).softmax(-1))


def test_there_is_no_second_forward_pass_and_the_output_is_the_same(model: Transformer) -> None:
    expected = model(SRC, TGT)
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    with record_attention(model):
        assert torch.equal(model(SRC, TGT), expected)
    for name in ("", "encoder", "decoder", *NAMES, *(f"{name}.attention" for name in NAMES)):
        assert calls[name] == 1, name


def test_a_model_that_is_called_again_overwrites_its_weights(model: Transformer) -> None:
    with record_attention(model) as weights:
        model(SRC, TGT)
        model(SRC[:, 1:], TGT[:1].expand(B, -1))
    assert {weights[name].shape[2:] for name in NAMES} == {(S - 1, S - 1), (T, T), (T, S - 1)}


def test_calls_of_other_threads_are_not_recorded(model: Transformer) -> None:
    with record_attention(model) as weights:
        model(SRC, TGT)
        expected = {name: weight.clone() for name, weight in weights.items()}
        other = threading.Thread(target=model, args=(SRC[:, 1:], TGT))
        other.start()
        other.join()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_hooks_are_removed_also_after_an_exception(model: Transformer) -> None:
    def num_hooks() -> int:
        return sum(len(module._forward_hooks) for module in model.modules())

    with record_attention(model):
        assert num_hooks() == 3 * N
    assert num_hooks() == 0
    with pytest.raises(RuntimeError, match="stop"), record_attention(model):
        raise RuntimeError("stop")
    assert num_hooks() == 0
    with pytest.raises(IndexError), record_attention(model):
        model(SRC + V, TGT)
    assert num_hooks() == 0


def test_maps_come_by_stack_first_layer_first(model: Transformer) -> None:
    maps = attention_maps(model, SRC, TGT)
    with record_attention(model) as weights:
        model(SRC, TGT)
    for layers, name, shape in (
        (maps.encoder, "encoder.layers.{}.self_attention", (B, H, S, S)),
        (maps.decoder, "decoder.layers.{}.self_attention", (B, H, T, T)),
        (maps.cross, "decoder.layers.{}.cross_attention", (B, H, T, S)),
    ):
        assert len(layers) == N
        for i, layer in enumerate(layers):
            assert layer.shape == shape
            assert not layer.requires_grad
            assert_close(layer, weights[name.format(i)])
            assert_close(layer.sum(-1), torch.ones(shape[:-1], dtype=torch.double))


def test_a_part_of_a_model_is_recorded_by_the_names_it_has_there(model: Transformer) -> None:
    with record_attention(model.decoder) as weights:
        model(SRC, TGT)
    assert weights.keys() == {name.removeprefix("decoder.") for name in NAMES if name.startswith("decoder.")}


def test_models_in_which_hooks_see_less_than_all_attentions_are_refused(model: Transformer) -> None:
    message = "not every attention can be recorded: give the Transformer itself"
    with pytest.raises(ValueError, match=message):
        attention_maps(torch.compile(model, backend="eager"), SRC, TGT)
    first, second = model.encoder.layers[:2]
    second.self_attention.attention = first.self_attention.attention
    with pytest.raises(ValueError, match=message):
        attention_maps(model, SRC, TGT)

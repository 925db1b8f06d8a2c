"""Pre-norm: by hand, as printed, and torch.nn's layers and stacks with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import KeyValue, MultiHeadAttention, causal_mask, padding_mask
from transformer.model.layers import FeedForward
from transformer.model.transformer import DecoderState

V, B, S, T, D, H, D_FF = 31, 3, 7, 5, 15, 3, 29


class FunctionAttention(nn.Module):
    """Computes a function of its input instead of attention."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def project(self, x: Tensor, past: KeyValue | None = None) -> KeyValue:  # noqa: ARG002
        return KeyValue(x, x)

    def forward(self, x: Tensor, memory: Any, *, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.function(x)


class FunctionFeedForward(FunctionAttention):
    """Likewise instead of the feed-forward network, of which a layer reads its size."""

    def __init__(self, function: Callable[[Tensor], Tensor], d_model: int) -> None:
        super().__init__(function)
        self.w_2 = nn.Linear(1, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def function_layer(*functions: Callable[[Tensor], Tensor], d_model: int = D, dropout: float = 0.0) -> PreNormLayer:
    """A layer with these sub-layers, two or, with cross-attention in the middle, three."""
    first, *cross, last = functions
    cross_attention = FunctionAttention(cross[0]) if cross else None
    feed_forward = FunctionFeedForward(last, d_model)
    return PreNormLayer(FunctionAttention(first), feed_forward, cross_attention, dropout=dropout)


def randomise(module: nn.Module) -> Any:
    """In float64, each parameter of it, biases and norms included, with a value that would show a mistake."""
    torch.manual_seed(3)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return module


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + eps), with the variance of a whole population."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def test_pre_norm_gives_the_values_computed_by_hand() -> None:
    layer = function_layer(lambda y: 3 * y, torch.zeros_like, d_model=2)
    # LayerNorm([1, 5]) = [-1, 1]; times 3 and added: [-2, 8].
    assert_close(layer(torch.tensor([1.0, 5.0]))[0], torch.tensor([-2.0, 8.0]), rtol=0, atol=1e-5)


def test_each_sublayer_reads_the_norm_of_the_sum_before_it() -> None:
    layer = randomise(function_layer(torch.sin, torch.tanh, torch.cos))
    x, memory = torch.randn(2, 5, D).double(), torch.randn(2, 7, D).double()
    y = x + layer_norm(layer.norm_1, x).sin()
    y = y + layer_norm(layer.norm_cross, y).tanh()
    assert_close(layer(x, memory=memory)[0], y + layer_norm(layer.norm_2, y).cos())


def test_dropout_leaves_the_residual_path_alone() -> None:
    layer = randomise(function_layer(torch.zeros_like, torch.zeros_like, dropout=0.7)).train()
    x = torch.randn(2, 5, D).double()
    assert_close(layer(x)[0], x)


def test_dropout_is_of_the_sublayers_output_before_the_sum() -> None:
    for functions in ((torch.ones_like, torch.zeros_like), (torch.zeros_like, torch.ones_like)):
        layer, x = function_layer(*functions, d_model=101, dropout=0.5).double().train(), torch.randn(101).double()
        added = layer(x)[0] - x
        dropped = added.abs() < 1e-9
        assert_close(added, torch.where(dropped, 0.0, 2.0).double())
        assert 0.3 < dropped.double().mean() < 0.7


def test_in_eval_nothing_is_dropped() -> None:
    x = torch.randn(2, 5, D).double()
    dropping = randomise(function_layer(torch.sin, torch.cos, dropout=0.7)).eval()
    clean = randomise(function_layer(torch.sin, torch.cos))
    assert torch.equal(dropping(x)[0], clean(x)[0])


# Against torch.nn


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    """Copy our weights into torch's attention."""
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


def torch_layer(ours: PreNormLayer, norm_eps: float = 1e-6) -> Any:
    """Torch's layer with our weights; its activation is ReLU by default."""
    is_decoder = ours.cross_attention is not None
    layer_class = nn.TransformerDecoderLayer if is_decoder else nn.TransformerEncoderLayer
    theirs: Any = layer_class(
        D, H, D_FF, 0.0, layer_norm_eps=norm_eps, batch_first=True, norm_first=True, dtype=torch.float64
    )
    copy_attention(ours.self_attention, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())
    norms = [ours.norm_1, ours.norm_2]
    if is_decoder:
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        norms.insert(1, ours.norm_cross)
    for i, norm in enumerate(norms, start=1):
        getattr(theirs, f"norm{i}").load_state_dict(norm.state_dict())
    return theirs


def make_input(length: int, *lengths: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random x (B, length, D), its padding mask, and torch's, which is True at padding."""
    is_padding = torch.arange(length) >= torch.tensor(lengths)[:, None]
    x = torch.randn(B, length, D, dtype=torch.float64, requires_grad=True)
    return x, padding_mask((~is_padding).long()), is_padding


def assert_same_gradients(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    upstream = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad(y, inputs, upstream) for y in (actual, expected)), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
def test_an_encoder_layer_equals_that_of_torch_nn(norm_eps: float) -> None:
    layer = PreNormLayer(MultiHeadAttention(D, H, bias=True), FeedForward(D, D_FF), dropout=0.0, norm_eps=norm_eps)
    ours = randomise(layer)
    theirs = torch_layer(ours, norm_eps)
    x, mask, is_padding = make_input(S, 7, 4, 2)
    for our_mask, their_mask in ((None, None), (mask, is_padding)):
        actual, expected = ours(x, our_mask)[0], theirs(x, src_key_padding_mask=their_mask)
        assert_close(actual, expected)
        assert_same_gradients(actual, expected, [x])


@pytest.mark.parametrize("norm_eps", [1e-6, 0.1])
def test_a_decoder_layer_equals_that_of_torch_nn(norm_eps: float) -> None:
    attentions = (MultiHeadAttention(D, H, bias=True) for _ in range(2))
    ours = randomise(
        PreNormLayer(next(attentions), FeedForward(D, D_FF), next(attentions), dropout=0.0, norm_eps=norm_eps)
    )
    theirs = torch_layer(ours, norm_eps)
    memory, memory_mask, is_padding = make_input(S, 7, 4, 2)
    x, causal = make_input(T, 5, 5, 5)[0], causal_mask(T)
    actual, _, _ = ours(x, causal, None, memory, memory_mask)
    expected = theirs(x, memory, tgt_mask=~causal[0, 0], memory_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])
    assert_close(ours(x, memory=memory)[0], theirs(x, memory))


def test_a_layer_goes_on_from_the_keys_and_values_that_it_returned() -> None:
    attentions = (MultiHeadAttention(D, H, bias=True) for _ in range(2))
    layer = randomise(PreNormLayer(next(attentions), FeedForward(D, D_FF), next(attentions), dropout=0.0))
    memory, memory_mask, _ = make_input(S, 7, 4, 2)
    x = torch.randn(B, T, D, dtype=torch.float64)
    expected, expected_kv, _ = layer(x, causal_mask(T), None, memory, memory_mask)
    outputs, past, kept = [], None, memory
    for position in range(T):
        y, past, kept = layer(x[:, position : position + 1], None, past, kept, memory_mask)
        outputs.append(y)
        assert all(tensor.is_contiguous() for tensor in kept)
    assert_close(torch.cat(outputs, dim=1), expected)
    assert_close(past, expected_kv)


def make_model(**options: Any) -> Any:
    sizes = {"d_model": D, "num_layers": 3, "num_heads": H, "d_ff": D_FF, "dropout": 0.0, "attention_bias": True}
    return build_model(V, ModelConfig(**{**sizes, "norm": "pre", **options}))


def final_norm(ours: Any) -> nn.LayerNorm:
    """Torch's stacks have a final norm only if they are given one: the paper's have none."""
    norm = nn.LayerNorm(D, eps=1e-6, dtype=torch.float64)
    norm.load_state_dict(ours.norm.state_dict())
    return norm


def test_an_encoder_equals_that_of_torch_nn() -> None:
    ours = randomise(make_model().encoder)
    theirs = nn.TransformerEncoder(torch_layer(ours.layers[0]), 3, norm=final_norm(ours), enable_nested_tensor=False)
    theirs.layers = nn.ModuleList(map(torch_layer, ours.layers))
    x, mask, is_padding = make_input(S, 7, 4, 2)
    actual, expected = ours(x, mask), theirs(x, src_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x])


def test_a_decoder_equals_that_of_torch_nn() -> None:
    ours = randomise(make_model().decoder)
    theirs = nn.TransformerDecoder(torch_layer(ours.layers[0]), 3, norm=final_norm(ours))
    theirs.layers = nn.ModuleList(map(torch_layer, ours.layers))
    memory, memory_mask, is_padding = make_input(S, 7, 4, 2)
    x = make_input(T, 5, 5, 5)[0]
    actual, _ = ours(x, DecoderState(memory, memory_mask))
    expected = theirs(x, memory, tgt_mask=~causal_mask(T)[0, 0], memory_key_padding_mask=is_padding)
    assert_close(actual, expected)
    assert_same_gradients(actual, expected, [x, memory])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_stack_ends_normalised_wherever_its_norms_stand(norm: str) -> None:
    torch.manual_seed(3)
    model = make_model(norm=norm).double().eval()
    state = model.encode(torch.randint(1, V, (B, S)))
    hidden, _ = model.decode(torch.randint(1, V, (B, T)), state)
    for x in (state.memory, hidden):
        zeros = torch.zeros(x.shape[:-1], dtype=x.dtype)
        assert_close(x.mean(-1), zeros)
        assert_close(x.square().mean(-1), zeros + 1, rtol=1e-4, atol=0.0)  # short of 1 by the epsilon


def test_only_pre_norm_has_final_norms() -> None:
    names = {norm: set(make_model(norm=norm).state_dict()) for norm in ("post", "pre")}
    final = {f"{stack}.norm.{kind}" for stack in ("encoder", "decoder") for kind in ("weight", "bias")}
    assert names["pre"] - names["post"] == final
    assert names["post"] < names["pre"]


def test_the_norms_epsilon_reaches_every_norm() -> None:
    model = make_model(norm_eps=0.01)
    assert [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)] == [0.01] * (3 * (2 + 3) + 2)
    assert [m.eps for m in make_model().modules() if isinstance(m, nn.LayerNorm)] == [1e-6] * (3 * (2 + 3) + 2)
    assert [m.eps for m in make_model(norm="post").modules() if isinstance(m, nn.LayerNorm)] == [1e-6] * 15

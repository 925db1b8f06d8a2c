"""Hooks, switches and replacements on single modules, and what `print(model)` shows."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from transformer.model.alternatives.relative import RelativeAttention
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.kernels import Dropout
from transformer.model.layers import FeedForward, Layer


@pytest.mark.parametrize("length", [7, 60])
@pytest.mark.parametrize("training", [True, False])
def test_forward_hooks_of_all_that_computes_fire(variant, build, ids, length: int, training: bool) -> None:
    model = build(variant).train(training)
    # The only exceptions: attentions of which a relative attention uses the scores alone.
    exceptions = {module.inner for module in model.modules() if isinstance(module, RelativeAttention)}
    fired: set[nn.Module] = set()
    expected = set()
    for module in model.modules():
        module.register_forward_hook(lambda module, *_: fired.add(module))
        has_parameters = any(True for _ in module.parameters(recurse=False))
        if has_parameters or isinstance(module, DotProductAttention | MultiHeadAttention | FeedForward | Layer):
            expected.add(module)
    model(ids(2, length), ids(2, length))
    assert expected - exceptions <= fired


def test_a_forward_hook_changes_the_output_of_any_attention(build, ids) -> None:
    model, src, tgt = build().eval(), ids(2, 7), ids(2, 5)
    expected = model(src, tgt)
    for name, module in model.named_modules():
        if isinstance(module, MultiHeadAttention | DotProductAttention):
            handle = module.register_forward_hook(lambda *args: torch.zeros_like(args[-1]))
            assert not torch.equal(model(src, tgt), expected), name
            handle.remove()
    assert torch.equal(model(src, tgt), expected)


@pytest.mark.parametrize("variant", ["paper", "pre_norm"])
def test_full_backward_hooks_fire_and_change_no_gradient(variant, build, ids) -> None:
    hooked, plain, fired = build(variant, dropout=0), build(variant, dropout=0), set()
    modules = [m for m in hooked.modules() if isinstance(m, Layer | MultiHeadAttention | FeedForward)]
    for module in modules:
        module.register_full_backward_hook(lambda module, *_: fired.add(module))
    src, tgt = ids(2, 7), ids(2, 5)
    for model in (hooked, plain):
        model(src, tgt).logsumexp(-1).sum().backward()
    assert fired == set(modules)
    for a, b in zip(hooked.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("length", [7, 60])
def test_monte_carlo_dropout_switches_each_dropout_module(build, ids, length: int) -> None:
    model = build("attention_dropout", dropout=0).eval()
    src, tgt = ids(2, length), ids(2, length)
    assert torch.equal(model(src, tgt), model(src, tgt))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    assert not torch.equal(model(src, tgt), model(src, tgt))


def test_low_rank_adapters_in_place_of_projections_are_used_and_trained(build, ids) -> None:
    class LoRA(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.down, self.up = nn.Linear(base.in_features, 3, False), nn.Linear(3, base.out_features, False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    model = build().requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, MultiHeadAttention):
            module.w_q, module.w_v, module.w_o = LoRA(module.w_q), LoRA(module.w_v), LoRA(module.w_o)
    model(ids(2, 7), ids(2, 5)).logsumexp(-1).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 5 * 3 * 2  # 5 attentions
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_linear_layers_can_be_normalised_pruned_and_quantized(build, ids) -> None:
    src, tgt = ids(2, 7), ids(2, 5)
    model = build().eval()
    expected = model(src, tgt)
    for module in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        parametrizations.weight_norm(module)
    torch.testing.assert_close(model(src, tgt), expected)
    for module in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        prune.l1_unstructured(module.parametrizations.weight, "original1", 0.3)
    assert not torch.allclose(model(src, tgt), expected)


def test_feed_forward_network_and_norms_of_a_layer_can_be_replaced() -> None:
    class SwiGLU(nn.Module):
        def __init__(self, d_model: int, d_ff: int) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.silu(self.gate(x)) * self.up(x))

    layer = Layer(MultiHeadAttention(22, 2), FeedForward(22, 31), dropout=0)
    layer.feed_forward, layer.norm_1, layer.norm_2 = SwiGLU(22, 17), nn.RMSNorm(22), nn.RMSNorm(22)
    x = torch.randn(2, 7, 22)
    y, kv, memory = layer(x)
    inner = layer.norm_1(x + layer.self_attention(x))
    torch.testing.assert_close(y, layer.norm_2(inner + layer.feed_forward(inner)))
    assert kv.keys.shape == (2, 2, 7, 11) and memory is None


def test_the_activation_is_any_function() -> None:
    feed_forward, x = FeedForward(6, 11, activation=functools.partial(F.gelu, approximate="tanh")), torch.randn(3, 6)
    hidden = F.gelu(feed_forward.w_1(x), approximate="tanh")
    torch.testing.assert_close(feed_forward(x), feed_forward.w_2(hidden))


def test_dropout_is_one_of_torch_and_follows_its_p() -> None:
    dropout = Dropout(0.5)
    assert isinstance(dropout, nn.Dropout)
    dropout.p = 0.0
    assert torch.equal(dropout(torch.ones(1000)), torch.ones(1000))


def test_repr_shows_heads_sizes_dropout_and_placement_of_the_norm(build) -> None:
    text = repr(build(d_k=6, d_v=5, dropout=0.3))
    for part in (
        "num_heads=2, d_k=6, d_v=5",
        "p=0.3",
        "in_features=22, out_features=31",
        "2 x Layer(",
    ):
        assert part in text
    assert "2 x PreNormLayer(" in repr(build("pre_norm"))


@pytest.mark.parametrize(
    ("variant", "part"),
    [
        ("temperature", "temperature=2.0"),
        ("window", "window=5"),
        ("shaw", "ShawAttention("),
        ("tie_none", "UntiedEmbedding("),
        ("grouped_query", "GroupedQueryAttention("),
    ],
)
def test_repr_shows_what_is_special_about_alternatives(variant, build, part: str) -> None:
    assert part in repr(build(variant))

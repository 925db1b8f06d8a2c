"""Layers and stacks: where positions meet, which stack is which, how many weights, how far gradients reach."""

from __future__ import annotations

import pytest
import torch
from benchmarking.table1 import LAYER_TYPES, Sizes
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.attention import MultiHeadAttention, causal_mask
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, DecoderState, Encoder, Transformer
from transformer.training.loss import label_smoothed_cross_entropy

B, L, D, H, D_FF, N = 2, 5, 14, 2, 31, 3


def make_layers(num_layers: int = N) -> list[Layer]:
    torch.manual_seed(3)
    return [Layer(MultiHeadAttention(D, H), FeedForward(D, D_FF)).double().eval() for _ in range(num_layers)]


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_a_decoder_without_cross_attention_is_an_encoder_with_a_causal_mask() -> None:
    layers, x = make_layers(), rows(B, L, D)
    decoded, _ = Decoder(layers)(x, DecoderState())
    assert_close(decoded, Encoder(layers)(x, causal_mask(L)))
    assert (decoded - Encoder(layers)(x)).abs().max() > 1e-2


def test_positions_meet_in_attention_only() -> None:
    layers, x = make_layers(), rows(B, L, D)
    together = Encoder(layers)(x)
    alone = torch.cat([Encoder(layers)(row) for row in x.split(1, dim=1)], dim=1)
    assert (together - alone).abs().amax(-1).min() > 1e-2
    for layer in layers:
        nn.init.zeros_(layer.self_attention.w_o.weight)
    together = Encoder(layers)(x)
    alone = torch.cat([Encoder(layers)(row) for row in x.split(1, dim=1)], dim=1)
    assert_close(together, alone)


def num_block_weights(module: nn.Module) -> int:
    """The weights of matrices, embeddings aside."""
    return sum(p.numel() for name, p in module.named_parameters() if p.dim() == 2 and "embedding" not in name)


@pytest.mark.parametrize(("d", "num_layers"), [(512, 6), (64, 3)])
def test_an_encoder_has_12_n_d_squared_weights_and_a_pair_of_stacks_28(d: int, num_layers: int) -> None:
    with torch.device("meta"):
        model = Transformer(101, d, num_layers, 8, 4 * d)
    assert num_block_weights(model.encoder) == 12 * num_layers * d**2
    assert num_block_weights(model) == 28 * num_layers * d**2
    if d == 512:
        assert num_block_weights(model) == 44_040_192


def test_the_gradient_of_a_recurrent_layer_decays_exponentially_with_distance_and_that_of_attention_does_not() -> None:
    sizes = Sizes(n=23, d=16, r=3, k=3)
    slopes, fits = [], []
    for name in ("recurrent", "self-attention"):
        torch.manual_seed(3)
        x = torch.randn(61, sizes.n, sizes.d, requires_grad=True)
        (gradient,) = torch.autograd.grad(LAYER_TYPES[name].build(sizes, 0)(x)[:, -1].square().sum(), x)
        # From the inputs before the last one, of which attention treats that of its own position differently.
        log_norms = gradient.norm(dim=-1).log().mean(0)[:-1].flip(0)
        distance = torch.arange(1.0, sizes.n)
        fits.append(torch.corrcoef(torch.stack((distance, log_norms)))[0, 1].item())
        slopes.append(((distance - distance.mean()) * log_norms).mean().item() / distance.var(correction=0).item())
    assert slopes[0] < -0.2 and fits[0] < -0.99  # a straight line in the logarithm
    assert abs(slopes[1]) < 0.03


def test_backpropagation_multiplies_by_a_jacobian_that_it_does_not_form() -> None:
    (layer,), x, upstream = make_layers(1), rows(1, L, D), rows(1, L, D) + 1
    jacobian = torch.func.jacrev(lambda y: layer(y)[0])(x).view(L * D, L * D)
    y, pull_back = torch.func.vjp(lambda y: layer(y)[0], x)
    assert_close(pull_back(upstream)[0].flatten(), upstream.flatten() @ jacobian)
    assert jacobian.numel() == (L * D) ** 2 and y.numel() == L * D
    # Of two layers, the product of their Jacobians.
    first, second = make_layers(2)
    whole = torch.func.jacrev(lambda y: second(first(y)[0])[0])(x).view(L * D, L * D)
    inner = torch.func.jacrev(lambda y: first(y)[0])(x).view(L * D, L * D)
    outer = torch.func.jacrev(lambda y: second(y)[0])(first(x)[0]).view(L * D, L * D)
    assert_close(whole, outer @ inner)


def last_to_first_gradient(norm: str, num_layers: int) -> tuple[float, float]:
    """Norm of the gradient of W_2 in the highest layer over that in the lowest, of a new encoder and decoder."""
    torch.manual_seed(3)
    sizes = {"d_model": 32, "num_layers": num_layers, "num_heads": 2, "d_ff": 128}
    model = build_model(101, ModelConfig(**sizes, norm=norm)).eval()
    src, tgt, gold = (torch.randint(1, 101, (13, 11)) for _ in range(3))
    label_smoothed_cross_entropy(model(src, tgt).flatten(0, 1), gold.flatten(), 0.0)[0].backward()
    norms = [
        [layer.feed_forward.w_2.weight.grad.norm().item() for layer in stack.layers]
        for stack in (model.encoder, model.decoder)
    ]
    encoder, decoder = (each[-1] / each[0] for each in norms)
    return encoder, decoder


def test_low_layers_of_a_deep_post_norm_decoder_get_small_gradients_and_those_of_pre_norm_do_not() -> None:
    # The sum that each norm divides has a term of cross-attention, which hardly passes gradients to the layer below.
    assert 1 / 3 < last_to_first_gradient("post", 2)[1] < 3
    encoder, decoder = last_to_first_gradient("post", 12)
    assert decoder > 7 and decoder > 3 * encoder  # the encoder gets gradients from every layer of the decoder
    assert all(1 / 5 < ratio < 5 for ratio in last_to_first_gradient("pre", 12))

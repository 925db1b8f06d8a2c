"""Local attention, against attention to all positions under a mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.local import LocalAttention
from transformer.model.alternatives.relative import (
    AlibiAttention,
    RotaryAttention,
    ShawAttention,
    T5Attention,
    T5Bias,
)
from transformer.model.alternatives.scores import (
    AdditiveAttention,
    CosineAttention,
    DotAttention,
    GeneralAttention,
)
from transformer.model.attention import DotProductAttention, MultiHeadAttention, padding_mask

B, H, D_MODEL, D_K, D_V = 3, 2, 11, 6, 5

pytestmark = pytest.mark.usefixtures("small_blocks")
both_kernels = pytest.mark.usefixtures("kernel")


def pair(
    window: int,
    inner: Callable[[], DotProductAttention] = DotProductAttention,
    outer: Callable[[], DotProductAttention] | None = None,
) -> tuple[MultiHeadAttention, MultiHeadAttention]:
    """Local attention, and attention to all positions with the same weights."""
    torch.manual_seed(3)
    options = {"d_k": D_K, "d_v": D_V, "bias": True}
    attention = LocalAttention(inner(), window)
    ours = MultiHeadAttention(D_MODEL, H, **options, attention=attention).double()
    whole = MultiHeadAttention(D_MODEL, H, **options, attention=(outer or inner)()).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    whole.load_state_dict({name.replace(".inner", "", 1): weight for name, weight in ours.state_dict().items()})
    return ours, whole


def band(length: int, window: int) -> Tensor:
    """True where a key is one of the `window` positions centred on the query, written out."""
    return torch.tensor([[abs(i - j) <= window // 2 for j in range(length)] for i in range(length)])


def padding(length: int) -> Tensor:
    """(B, 1, 1, length): the second sentence is half padding, the third has one token."""
    lengths = torch.tensor([length, (length + 1) // 2, 1])
    return padding_mask((torch.arange(length) < lengths[:, None]).long())


def weights_of(module: MultiHeadAttention, x: Tensor, mask: Tensor) -> Tensor:
    q = module.w_q(x).unflatten(-1, (H, -1)).transpose(1, 2)
    return module.attention.weights(module.attention.queries(q, 0), module.project(x).keys, mask)


def test_a_neighbourhood_of_three_by_hand() -> None:
    # Queries are 0, so weights are equal; values are 1, 10, 100, ...
    v = torch.tensor([1.0, 10, 100, 1000, 10_000, 100_000, 1_000_000]).view(1, 1, -1, 1)
    means = [11 / 2, 111 / 3, 1110 / 3, 11_100 / 3, 111_000 / 3, 1_110_000 / 3, 1_100_000 / 2]
    attention = LocalAttention(DotProductAttention(), 3)
    assert_close(attention(torch.zeros_like(v), v, v).flatten(), torch.tensor(means))


@both_kernels
@pytest.mark.parametrize("length", [1, 2, 5, 7, 8, 12, 23])
@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_full_attention_under_a_mask_in_value_and_gradient(length: int, window: int, padded: bool) -> None:
    ours, whole = pair(window)
    x = torch.randn(B, length, D_MODEL, dtype=torch.float64, requires_grad=True)
    mask = padding(length) if padded else None
    full_mask = band(length, window) if mask is None else band(length, window) & mask
    actual, expected = ours(x, mask=mask), whole(x, mask=full_mask.expand(B, 1, length, length))
    assert_close(actual, expected)
    upstream = torch.randn_like(actual)
    gradients = [
        torch.autograd.grad(y, [x, *module.parameters()], upstream) for y, module in ((actual, ours), (expected, whole))
    ]
    assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("length", [2, 23])
def test_weights_are_those_of_full_attention_under_a_mask(length: int) -> None:
    ours, whole = pair(3)
    x, mask = torch.randn(B, length, D_MODEL, dtype=torch.float64), padding(length)
    assert_close(weights_of(ours, x, mask), weights_of(whole, x, mask & band(length, 3)))
    x = x[:1]
    assert_close(weights_of(ours, x, None), weights_of(whole, x, band(length, 3)))


SCORES: dict[str, Callable[[], DotProductAttention]] = {
    "dot": DotAttention,
    "general": lambda: GeneralAttention(H, D_K, 0.0, 1.7),
    "additive": lambda: AdditiveAttention(H, D_K),
    "cosine": lambda: CosineAttention(H, D_K),
}


@both_kernels
@pytest.mark.parametrize("name", SCORES)
def test_it_goes_with_other_scores(name: str) -> None:
    ours, whole = pair(5, SCORES[name])
    x, mask = torch.randn(B, 23, D_MODEL, dtype=torch.float64), padding(23)
    assert_close(ours(x, mask=mask), whole(x, mask=mask & band(23, 5)))


def make_relative(name: str, *, centred: bool) -> Callable[[], DotProductAttention]:
    bias = T5Bias(H, bidirectional=True, max_distance=17).double()
    nn.init.normal_(bias.table)
    return {
        "shaw": lambda: ShawAttention(DotProductAttention(), D_K, D_V, 1, centred=centred),
        "t5": lambda: T5Attention(DotProductAttention(), bias, centred=centred),
        "alibi": lambda: AlibiAttention(DotProductAttention(), centred=centred),
        "rotary": lambda: RotaryAttention(DotProductAttention(), D_K),
    }[name]


@both_kernels
@pytest.mark.parametrize("length", [3, 23])
@pytest.mark.parametrize("name", ["shaw", "t5", "alibi", "rotary"])
def test_it_goes_with_relative_positions(name: str, length: int) -> None:
    torch.manual_seed(7)
    near = make_relative(name, centred=True)
    torch.manual_seed(7)
    ours, whole = pair(5, near, make_relative(name, centred=False))
    x, mask = torch.randn(B, length, D_MODEL, dtype=torch.float64), padding(length)
    full_mask = mask & band(length, 5)
    assert_close(ours(x, mask=mask), whole(x, mask=full_mask))
    assert_close(weights_of(ours, x, mask), weights_of(whole, x, full_mask))


def flops(attention: DotProductAttention, length: int) -> int:
    """Of the products of queries with keys and of weights with values."""
    q, v = torch.randn(1, H, length, D_K), torch.randn(1, H, length, D_V)
    with FlopCounterMode(display=False) as counter:
        attention(q, q, v)
    return counter.get_total_flops()


def test_its_cost_grows_with_the_length_and_the_window_and_not_with_their_squares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformer.model.kernels.prefers_fused", lambda *_: False)
    full = [flops(DotProductAttention(), length) for length in (240, 480)]
    assert full == [2 * n * n * H * (D_K + D_V) for n in (240, 480)]
    for window in (3, 5):
        attention = LocalAttention(DotProductAttention(), window)
        # Each query meets its block of `window` positions and (window - 1) / 2 on either side.
        assert [flops(attention, n) for n in (240, 480)] == [
            2 * math.ceil(n / window) * window * (2 * window - 1) * H * (D_K + D_V) for n in (240, 480)
        ]


def test_nothing_of_the_size_of_all_pairs_is_made() -> None:
    length = 1009
    module = MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V, attention=LocalAttention(DotProductAttention(), 3))
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        module(torch.randn(1, length, D_MODEL))
    assert 0 < largest < 100 * length


def test_only_the_encoders_layers_are_local() -> None:
    config = ModelConfig(d_model=12, num_layers=2, num_heads=3, d_ff=5, attention_window=7)
    model = build_model(31, config)
    assert [layer.self_attention.attention.window for layer in model.encoder.layers] == [7, 7]
    assert not any(isinstance(module, LocalAttention) for module in model.decoder.modules())


def test_information_goes_as_far_as_the_layers_have_neighbourhoods() -> None:
    # The last column of table 1: a path of n / r layers.
    config = ModelConfig(d_model=12, num_layers=2, num_heads=3, d_ff=5, attention_window=5)
    encoder = build_model(31, config).encoder.eval()
    x = torch.randn(1, 23, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x)[0, 11, 0], x)
    reached = gradient[0].abs().amax(-1) > 0
    assert_close(reached, (torch.arange(23) - 11).abs() <= 2 * 2)


@pytest.mark.parametrize("window", [0, 4, -3])
def test_a_window_without_a_centre_is_an_error(window: int) -> None:
    with pytest.raises(ValueError, match=f"attention_window={window} is not odd and positive, so it has no centre"):
        LocalAttention(DotProductAttention(), window)


@both_kernels
@pytest.mark.parametrize("length", [2, 7])
def test_a_mask_that_is_not_that_of_padding_is_an_error(length: int) -> None:
    module, _ = pair(3)
    x = torch.randn(B, length, D_MODEL, dtype=torch.float64)
    for shape in ((1, 1, length, length), (length, length), (B, H, 1, length)):
        written = r"\({}\)".format(", ".join(map(str, shape)))
        with pytest.raises(ValueError, match=rf"mask {written} is not \(B, 1, 1, {length}\), that of padding"):
            module(x, mask=torch.ones(shape, dtype=torch.bool))


def test_keys_of_another_number_than_the_queries_are_refused() -> None:
    attention = LocalAttention(DotProductAttention(), 3)
    q, k = torch.randn(2, 3, 1, 5), torch.randn(2, 3, 7, 5)
    with pytest.raises(ValueError, match="local attention has as many keys as queries, not 7 and 1"):
        attention(q, k, k)

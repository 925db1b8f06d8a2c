"""Restricted self-attention, against attention to everything under a mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from transformer.model import restricted as restricted_module
from transformer.model.attention import MultiHeadAttention
from transformer.model.encoder import Encoder, EncoderLayer
from transformer.model.masks import padding_mask
from transformer.model.relative import Place, RelativePositions, RotaryPositions, ShawPositions, T5Positions
from transformer.model.restricted import RestrictedAttention

B, H, D_MODEL, D_K, D_V = 3, 2, 11, 6, 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of as few queries as the window has positions, so that short sentences have several."""
    monkeypatch.setattr(restricted_module, "_MIN_BLOCK", 1)


def pair(window: int, **options: Any) -> tuple[RestrictedAttention, MultiHeadAttention]:
    """Restricted attention, and attention to everything with the same weights."""
    torch.manual_seed(3)
    options = {"d_k": D_K, "d_v": D_V, "bias": True, **options}
    ours = RestrictedAttention(D_MODEL, H, window=window, **options).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    whole = MultiHeadAttention(D_MODEL, H, **options).double()
    whole.load_state_dict(ours.state_dict())
    return ours, whole


def band(length: int, window: int) -> Tensor:
    """True where a key is one of the `window` positions centred on the query, written out."""
    return torch.tensor([[abs(i - j) <= window // 2 for j in range(length)] for i in range(length)])


def padding(length: int) -> Tensor:
    """(B, 1, 1, length): the second sentence is half padding, the third has one token."""
    lengths = torch.tensor([length, (length + 1) // 2, 1])
    return padding_mask((torch.arange(length) < lengths[:, None]).long())


def test_a_neighbourhood_of_three_by_hand() -> None:
    # Queries are 0, so weights are equal; values are 1, 10, 100, ...
    module = RestrictedAttention(1, 1, window=3)
    for linear, value in ((module.w_q, 0.0), (module.w_k, 1.0), (module.w_v, 1.0), (module.w_o, 1.0)):
        nn.init.constant_(linear.weight, value)
    x = torch.tensor([1.0, 10, 100, 1000, 10_000, 100_000, 1_000_000])
    means = [11 / 2, 111 / 3, 1110 / 3, 11_100 / 3, 111_000 / 3, 1_110_000 / 3, 1_100_000 / 2]
    assert_close(module(x.view(1, -1, 1)).flatten(), torch.tensor(means))


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
    expected = whole.weights(x, whole.keys_values(x), mask & band(length, 3))
    assert_close(ours.weights(x, ours.keys_values(x), mask), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"score": "dot"},
        {"score": "general", "temperature": 1.7},
        {"score": "additive"},
        {"score": "cosine"},
    ],
)
def test_it_goes_with_other_scores(options: dict[str, Any]) -> None:
    ours, whole = pair(5, **options)
    x, mask = torch.randn(B, 23, D_MODEL, dtype=torch.float64), padding(23)
    assert_close(ours(x, mask=mask), whole(x, mask=mask & band(23, 5)))


@pytest.mark.parametrize("length", [3, 23])
@pytest.mark.parametrize(
    "positions",
    [ShawPositions(1, D_K, D_V, 1), T5Positions(1, H, bidirectional=True, max_distance=17), RotaryPositions(1, D_K)],
    ids=["shaw", "t5", "rotary"],
)
def test_it_goes_with_relative_positions(positions: RelativePositions, length: int) -> None:
    ours, whole = pair(5)
    positions, x, mask = positions.double(), torch.randn(B, length, D_MODEL, dtype=torch.float64), padding(length)
    near, far = (positions(Place(0, length, 1, lambda m=m: m.key_offsets(length)))[0] for m in (ours, whole))
    full_mask = mask & band(length, 5)
    assert_close(ours(x, mask=mask, relation=near), whole(x, mask=full_mask, relation=far))
    weights = ours.weights(x, ours.keys_values(x, near), mask, near)
    assert_close(weights, whole.weights(x, whole.keys_values(x, far), full_mask, far))


def flops(attention: MultiHeadAttention, length: int) -> int:
    """Of the products of queries with keys and of weights with values: without the projections."""
    x = torch.randn(1, length, D_MODEL)
    with FlopCounterMode(display=False) as counter:
        attention(x)
    projections = 2 * length * D_MODEL * H * (2 * D_K + 2 * D_V)
    return counter.get_total_flops() - projections


def test_its_cost_grows_with_the_length_and_the_window_and_not_with_their_squares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformer.model.attention._fused_kernel_wins", lambda *_: False)
    full = [flops(MultiHeadAttention(D_MODEL, H, d_k=D_K, d_v=D_V), length) for length in (240, 480)]
    assert full == [2 * n * n * H * (D_K + D_V) for n in (240, 480)]
    for window in (3, 5):
        module = RestrictedAttention(D_MODEL, H, window=window, d_k=D_K, d_v=D_V)
        # Each query meets its block of `window` positions and (window - 1) / 2 on either side.
        assert [flops(module, n) for n in (240, 480)] == [
            2 * math.ceil(n / window) * window * (2 * window - 1) * H * (D_K + D_V) for n in (240, 480)
        ]


def test_nothing_of_the_size_of_all_pairs_is_made() -> None:
    module, length = RestrictedAttention(D_MODEL, H, window=3, d_k=D_K, d_v=D_V), 1009
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


def test_layers_and_stacks_hand_the_window_on() -> None:
    assert EncoderLayer(d_model=12, num_heads=3, d_ff=5, attention_window=7).self_attention.window == 7
    encoder = Encoder(2, d_model=12, num_heads=3, d_ff=5, attention_window=7)
    assert [layer.self_attention.window for layer in encoder.layers] == [7, 7]


def test_information_goes_as_far_as_the_layers_have_neighbourhoods() -> None:
    # The last column of table 1: a path of n / r layers.
    encoder = Encoder(2, d_model=12, num_heads=3, d_ff=5, attention_window=5).eval()
    x = torch.randn(1, 23, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder(x)[0, 11, 0], x)
    reached = gradient[0].abs().amax(-1) > 0
    assert_close(reached, (torch.arange(23) - 11).abs() <= 2 * 2)


@pytest.mark.parametrize("window", [0, 4, -3])
def test_a_window_without_a_centre_is_an_error(window: int) -> None:
    with pytest.raises(ValueError, match=f"attention_window={window} is not odd and positive, so it has no centre"):
        RestrictedAttention(D_MODEL, H, window=window, d_k=D_K)


def test_scores_by_location_have_no_neighbourhood() -> None:
    with pytest.raises(ValueError, match="attention_window is not defined for attention_score='location'"):
        RestrictedAttention(D_MODEL, H, window=3, d_k=D_K, score="location")


def test_a_mask_that_is_not_that_of_padding_is_an_error() -> None:
    module, _ = pair(3)
    x = torch.randn(B, 7, D_MODEL, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"mask \(1, 1, 7, 7\) is not \(B, 1, 1, 7\), that of padding"):
        module(x, mask=torch.ones(1, 1, 7, 7, dtype=torch.bool))

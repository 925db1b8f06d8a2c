"""Longformer and BigBird: full attention under a mask, and Hugging Face's Longformer."""

from __future__ import annotations

import re

import pytest
import sparse
import torch
import torch.nn.functional as F
from sparse import LongformerAttention, Pattern, SparseAttention
from torch import Tensor, nn
from torch.testing import assert_close

from transformer import DotProductAttention, Encoder, FeedForward, Layer, MultiHeadAttention, padding_mask

B, H, D = 3, 2, 5
PATTERNS = {
    "window": Pattern(block=7, window=4),
    "wide window": Pattern(block=3, window=10),
    "Longformer": Pattern(block=5, window=6, first=2),
    "both ends": Pattern(block=5, window=2, first=7, last=1),
    "random": Pattern(block=3, window=2, num_random=2),
    "BigBird": Pattern(block=3, window=9, whole_blocks=True, first=3, last=3, num_random=2),
    "one block": Pattern(block=64, window=6, first=1),
}
patterns = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def written_out(pattern: Pattern, length: int, seed: int = 1) -> Tensor:
    """The pattern pair by pair; its random blocks are those that were drawn."""
    drawn = [set(far) for far, _ in pattern.keys(length, seed)]

    def sees(i: int, j: int) -> bool:
        if min(i, j) < pattern.first or max(i, j) >= length - pattern.last or j in drawn[i // pattern.block]:
            return True
        if pattern.whole_blocks:
            return abs(i // pattern.block - j // pattern.block) <= pattern.window // 2 // pattern.block
        return abs(i - j) <= pattern.window // 2

    return torch.tensor([[sees(i, j) for j in range(length)] for i in range(length)])


@patterns
@pytest.mark.parametrize("length", [1, 4, 23, 31])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_full_attention_under_a_mask_in_value_and_gradient(pattern: Pattern, length: int, padded: bool) -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(B, H, length, size, dtype=torch.float64, requires_grad=True) for size in (D, D, 7))
    mask = written_out(pattern, length)
    lengths = torch.tensor([length, (length + 1) // 2, 1])
    padding = padding_mask((torch.arange(length) < lengths[:, None]).long()) if padded else None
    attention = SparseAttention(DotProductAttention(), pattern)
    ours = attention(q, k, v, padding)
    whole = DotProductAttention()(q, k, v, (mask if padding is None else mask & padding).expand(B, 1, length, length))
    assert_close(ours, whole)
    assert_close(attention.weights(q, k, padding) @ v, whole)
    upstream = torch.randn_like(ours)
    assert_close(*(torch.autograd.grad(y, (q, k, v), upstream) for y in (ours, whole)))


@patterns
def test_each_key_is_computed_once_and_visible_ones_are_those_of_the_mask(pattern: Pattern) -> None:
    for far, near in pattern.keys(31, seed=1):
        assert len({*far, *near}) == len(far) + len(near)
    assert torch.equal(SparseAttention(DotProductAttention(), pattern).visible(31), written_out(pattern, 31))


def test_random_blocks_are_whole_far_and_as_many_as_asked() -> None:
    pattern, length = PATTERNS["BigBird"], 30
    for block, (far, near) in enumerate(pattern.keys(length, seed=1)):
        drawn = {key // 3 for key in far} - {0, 9}
        assert {key for key in far if 3 <= key < 27} == {3 * each + i for each in drawn for i in range(3)}
        assert len(drawn) == 2 and all(abs(each - block) > 1 for each in drawn)
        assert not set(near) & set(far)
    seeds = [pattern.keys(length, seed) for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def reached(pattern: Pattern, num_layers: int, length: int, position: int) -> Tensor:
    """The positions on which an output depends."""
    torch.manual_seed(1)
    layers = (
        Layer(
            MultiHeadAttention(6, 2, attention=SparseAttention(DotProductAttention(), pattern)),
            FeedForward(6, 7),
            dropout=0.0,
        )
        for _ in range(num_layers)
    )
    x = torch.randn(1, length, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(Encoder(layers)(x)[0, position, 0], x)
    return gradient[0].abs().amax(-1) > 0


def test_a_window_reaches_half_its_width_per_layer_and_with_a_global_token_all_in_two() -> None:
    distance = (torch.arange(47) - 23).abs()
    assert torch.equal(reached(Pattern(5, 4), 3, 47, 23), distance <= 3 * 2)
    assert not reached(Pattern(5, 4, first=1), 1, 47, 23)[10]
    assert reached(Pattern(5, 4, first=1), 2, 47, 23).all()


@pytest.mark.parametrize("num_global", [0, 2])
def test_it_is_hugging_faces_longformer(num_global: int) -> None:
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    torch.manual_seed(3)
    sizes = {"hidden_size": 14, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 11}
    config = longformer.LongformerConfig(**sizes, attention_window=[6, 6], layer_norm_eps=1e-5)
    theirs = longformer.LongformerEncoder(config).eval()
    layers = [
        Layer(
            LongformerAttention(14, 2, window=6, num_global=num_global, bias=True),
            FeedForward(14, 11, activation=F.gelu),
            norm_eps=1e-5,
        )
        for _ in range(2)
    ]
    for ours, layer in zip(layers, theirs.layer, strict=True):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
        names = {"w_q": "query", "w_k": "key", "w_v": "value"}
        attention = ours.self_attention
        for name, other in names.items():
            getattr(attention, name).load_state_dict(getattr(layer.attention.self, other).state_dict())
            of_global = getattr(layer.attention.self, f"{other}_global")
            getattr(attention.of_global, name).load_state_dict(of_global.state_dict())
        attention.w_o.load_state_dict(layer.attention.output.dense.state_dict())
        ours.norm_1.load_state_dict(layer.attention.output.LayerNorm.state_dict())
        ours.feed_forward.w_1.load_state_dict(layer.intermediate.dense.state_dict())
        ours.feed_forward.w_2.load_state_dict(layer.output.dense.state_dict())
        ours.norm_2.load_state_dict(layer.output.LayerNorm.state_dict())
    x = torch.randn(3, 24, 14)
    lengths = torch.tensor([24, 13, 24])
    real = torch.arange(24) < lengths[:, None]
    roles = torch.where(real, 0.0, -10_000.0)
    roles[:, :num_global] = 10_000
    expected = theirs(x, attention_mask=roles).last_hidden_state
    actual = Encoder(layers).eval()(x, padding_mask(real.long()))
    assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


def test_pairs_grow_with_the_length_and_not_with_its_square() -> None:
    for pattern in (Pattern(8, 8, first=2), Pattern(8, 24, True, first=8, last=8, num_random=2)):
        attention = SparseAttention(DotProductAttention(), pattern)
        sizes = [attention.plan(length)[1].numel() for length in (256, 512, 1024)]
        assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


@pytest.mark.parametrize("shape", [(1, 1, 7, 7), (7, 7), (1, 2, 1, 7)])
def test_a_mask_that_is_not_that_of_padding_is_an_error(shape: tuple[int, ...]) -> None:
    module = MultiHeadAttention(6, 2, attention=SparseAttention(DotProductAttention(), Pattern(3, 2)))
    with pytest.raises(ValueError, match=re.escape(f"mask {shape} is not (B, 1, 1, 7), that of padding")):
        module(torch.randn(2, 7, 6), mask=torch.ones(shape, dtype=torch.bool))


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    sparse.main(["--updates", "2", "--items", "13", "--questions", "3"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:-2]]
    assert [name.split("(")[-1].strip(")") for name in names] == [
        "window", "window and random blocks", "Longformer", "BigBird", "full",
    ]  # fmt: skip
    shares = [int(line.split("|")[2].strip(" %")) for line in lines[2:-2]]
    assert shares[0] == min(shares) < max(shares[:-1]) < shares[-1] == 100
    assert re.match(r"[\d,]+ parameters; \d+ s on ", lines[-1])

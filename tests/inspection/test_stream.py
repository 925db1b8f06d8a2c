"""The final state is the sum of what was written into the residual stream."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.inspection.stacks import record_stacks
from transformer.inspection.stream import StreamRow, decompose, residual_stream
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import padding_mask
from transformer.model.layers import Layer
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]


@torch.no_grad()
def test_the_terms_add_up_to_the_final_state_of_every_model(any_model: Transformer, batch: Batch) -> None:
    for call in record_stacks(any_model, batch):
        found = decompose(call)
        assert_close(found.values.sum(0), call.layers[-1].output, rtol=0, atol=1e-12)
        assert found.error <= 1e-12
        assert len(found.terms) == len(found.values)
    assert residual_stream(any_model, [batch]).error <= 1e-12


@torch.no_grad()
def test_with_pre_norm_the_terms_are_the_embedding_and_what_sub_layers_return(make_model: Make, batch: Batch) -> None:
    model = make_model("pre")
    x, mask = model.source_positions(model.embedding(batch.src)), padding_mask(batch.src)
    expected = [x]
    for layer in model.encoder.layers:  # equation by equation
        expected.append(layer.self_attention(layer.norm_1(x), mask=mask))
        x = x + expected[-1]
        expected.append(layer.feed_forward(layer.norm_2(x)))
        x = x + expected[-1]
    call, _ = record_stacks(model, batch)
    found = decompose(call)
    assert_close(found.values, torch.stack(expected), rtol=0, atol=1e-12)
    assert_close(model.encoder.norm(found.final), model.encode(batch.src).memory, rtol=0, atol=1e-12)
    names = [(term.layer, term.name) for term in found.terms]
    assert names == [(0, "embedding"), *((i, x) for i in (1, 2, 3) for x in ("self_attention", "feed_forward"))]


@torch.no_grad()
def test_with_post_norm_each_term_is_rescaled_by_the_norms_behind_it(make_model: Make, batch: Batch) -> None:
    model = make_model(num_layers=1)
    (layer,) = model.encoder.layers
    x = model.source_positions(model.embedding(batch.src)).numpy()
    write = layer.self_attention(torch.from_numpy(x), mask=padding_mask(batch.src)).numpy()
    gains = [norm.weight.numpy() for norm in (layer.norm_1, layer.norm_2)]
    biases = [norm.bias.numpy() for norm in (layer.norm_1, layer.norm_2)]

    def rescaled(part: np.ndarray, of: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return gain * (part - part.mean(-1, keepdims=True)) / np.sqrt(of.var(-1, keepdims=True) + 1e-6)

    first = x + write
    middle = rescaled(first, first, gains[0]) + biases[0]
    last = layer.feed_forward(torch.from_numpy(middle)).numpy()
    parts = [rescaled(part, first, gains[0]) for part in (x, write)]
    expected = [rescaled(part, middle + last, gains[1]) for part in (*parts, last, 0 * middle + biases[0])]
    expected[-1] = expected[-1] + biases[1]
    call, _ = record_stacks(model, batch)
    found = decompose(call)
    assert_close(found.values, torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-12)
    assert [term.name for term in found.terms] == ["embedding", "self_attention", "feed_forward", "norm_biases"]


def test_shares_of_a_stack_add_up_to_1(any_model: Transformer, batch: Batch) -> None:
    rows = residual_stream(any_model, [batch]).rows
    for stack in ("encoder", "decoder"):
        assert sum(row.share for row in rows if row.stack == stack) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("variant", ["paper", "pre"])
def test_padding_and_batching_do_not_change_the_means(
    make_model: Make, batch: Batch, pairs: list[Batch], variant: str
) -> None:
    model = make_model(variant)
    together, apart = residual_stream(model, [batch]), residual_stream(model, pairs)
    assert together.is_pre_norm is apart.is_pre_norm is (variant == "pre")
    for a, b in zip(together.rows, apart.rows, strict=True):
        assert [*vars(a).values()] == pytest.approx([*vars(b).values()], abs=1e-12)


@torch.no_grad()
def test_sizes_and_cosines_are_those_of_the_writes(make_model: Make, pairs: list[Batch]) -> None:
    model = make_model()
    found: dict[str, Tensor] = {}
    layer = next(iter(model.decoder.layers))
    layer.register_forward_pre_hook(lambda _, inputs: found.update(x=inputs[0][0]))
    layer.self_attention.register_forward_hook(lambda _, __, output: found.update(write=output[0]))
    layer.norm_1.register_forward_hook(lambda _, __, output: found.update(after=output[0]))
    stream = residual_stream(model, pairs[:1])
    (row,) = (r for r in stream.rows if (r.stack, r.layer, r.name) == ("decoder", 1, "self_attention"))
    x, write, after = (found[name].numpy() for name in ("x", "write", "after"))
    assert row.write == pytest.approx(np.sqrt((write**2).mean()))
    assert row.stream == pytest.approx(np.sqrt((after**2).mean()))
    cosines = (x * write).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(write, axis=-1)
    assert row.cosine == pytest.approx(cosines.mean())
    assert [r for r in stream.rows if r.cosine is None] == [r for r in stream.rows if r.layer == 0]
    embedding = next(r for r in stream.rows if (r.stack, r.name) == ("decoder", "embedding"))
    assert embedding.write == embedding.stream == pytest.approx(np.sqrt((x**2).mean()))
    assert isinstance(row, StreamRow)


def test_a_layer_that_combines_its_writes_otherwise_is_an_error(make_model: Make, batch: Batch) -> None:
    class Halved(PreNormLayer):
        def forward(self, *inputs: Tensor) -> tuple[Tensor, object, object]:  # type: ignore[override]
            x, *cache = super().forward(*inputs)
            return (x / 2, *cache)  # type: ignore[return-value]

    model = make_model("pre")
    layers: list[Layer] = list(model.encoder.layers)
    layers[1].__class__ = Halved
    with pytest.raises(
        ValueError, match=r"^the writes of the encoder do not add up to its state: its layers \(Halved, Pre"
    ):
        residual_stream(model, [batch])
    assert isinstance(layers[1], nn.Module)


@torch.no_grad()
def test_norms_without_gains_or_biases_are_decomposed_and_other_norms_are_an_error(
    make_model: Make, batch: Batch
) -> None:
    model = make_model()
    first, second, third = model.encoder.layers
    first.norm_1, second.norm_2 = nn.LayerNorm(22, elementwise_affine=False), nn.LayerNorm(22, bias=False)
    model.double()
    assert residual_stream(model, [batch]).error <= 1e-12
    third.norm_1 = nn.RMSNorm(22).double()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^norm_1 is of class RMSNorm: only sums behind LayerNorm are decomposed$"):
        residual_stream(model, [batch])

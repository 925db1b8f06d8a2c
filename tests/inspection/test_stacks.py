"""What hooks record is what passes through the layers, in the model's own forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from transformer.data.batching import Batch
from transformer.inspection.stacks import record_decoding, record_stacks
from transformer.model.attention import causal_mask, padding_mask
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@torch.no_grad()
def test_states_are_those_of_the_layers_called_one_by_one(any_model: Transformer, batch: Batch) -> None:
    model = any_model
    mask = padding_mask(batch.src)
    x = model.source_positions(model.embedding(batch.src))
    y = model.target_positions(model.embedding(batch.tgt_in, is_target=True))
    expected, causal = [[x], [y]], causal_mask(batch.tgt_in.size(1))
    for layer in model.encoder.layers:
        expected[0].append(layer(expected[0][-1], mask)[0])
    memory = model.encoder.norm(expected[0][-1])
    for layer in model.decoder.layers:
        expected[1].append(layer(expected[1][-1], causal, None, memory, mask)[0])
    for call, states in zip(record_stacks(model, batch), expected, strict=True):
        assert_close(call.states, states, rtol=0, atol=1e-12)


@torch.no_grad()
def test_hidden_states_are_those_of_the_model_and_no_hook_stays(make_model: Make, batch: Batch) -> None:
    model = make_model("pre")
    hidden, encoder, decoder = record_decoding(model, batch)
    assert_close(hidden, model.decode(batch.tgt_in, model.encode(batch.src))[0], rtol=0, atol=0)
    assert_close(decoder.norm(decoder.states[-1]), hidden, rtol=0, atol=0)
    assert (encoder.name, decoder.name, num_hooks(model)) == ("encoder", "decoder", 0)
    assert [*decoder.layers[0].writes] == ["self_attention", "cross_attention", "feed_forward"]
    assert [*encoder.layers[0].norm_inputs] == ["norm_1", "norm_2"]


def test_the_hooks_are_removed_after_an_exception(make_model: Make, batch: Batch) -> None:
    model = make_model()
    with pytest.raises(IndexError):
        record_stacks(model, Batch(batch.src + 99, batch.tgt_in, batch.tgt_out, batch.target_positions))
    assert num_hooks(model) == 0


def test_layers_that_hooks_do_not_see_are_an_error(
    make_model: Make, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr(model.decoder.layers[1], "forward", lambda x, *_: (x, None, None))  # as a compiled one
    with pytest.raises(ValueError, match=r"^not every layer can be recorded: give the Transformer itself"):
        record_stacks(model, batch)

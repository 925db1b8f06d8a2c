"""Gradient norms are those of the loss of all batches, by parameter, layer and hidden state."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from transformer.data.batching import Batch
from transformer.inspection.examples import is_target
from transformer.inspection.gradients import gradient_norms
from transformer.inspection.stacks import record_stacks
from transformer.model.transformer import Transformer

Make = Callable[..., Transformer]


def test_norms_of_parameters_are_those_of_autograd(any_model: Transformer, batch: Batch) -> None:
    found = gradient_norms(any_model, [batch], label_smoothing=0.1)
    assert all(parameter.grad is None for parameter in any_model.parameters())
    rows = any_model(batch.src, batch.tgt_in)[is_target(batch)]
    loss = F.cross_entropy(rows, batch.tgt_out[is_target(batch)], label_smoothing=0.1)
    loss.backward()
    assert found.loss == pytest.approx(loss.item())
    expected = {name: 0.0 if x.grad is None else float(x.grad.norm()) for name, x in any_model.named_parameters()}
    assert found.parameters == pytest.approx(expected, abs=1e-12)
    assert found.total == pytest.approx(float(torch.nn.utils.clip_grad_norm_(any_model.parameters(), 1.0)))


def test_parts_of_layers_have_all_their_parameters(any_model: Transformer, batch: Batch) -> None:
    found = gradient_norms(any_model, [batch])
    assert [(row.stack, row.layer) for row in found.layers] == [
        (x, i) for x in ("encoder", "decoder") for i in range(4)
    ]
    for row in found.layers:
        names = [name for name in found.parameters if name.startswith(f"{row.stack}.layers.{row.layer - 1}.")]
        together = math.hypot(*(found.parameters[name] for name in names))
        assert math.hypot(*row.parts.values()) == pytest.approx(together)
        cross = {"cross_attention"} if row.stack == "decoder" else set()
        assert row.parts.keys() == ({"self_attention", "feed_forward", "norms"} | cross if row.layer else set())


def test_the_gradient_of_the_top_of_the_decoder_is_the_error_times_the_output_matrix(
    make_model: Make, batch: Batch
) -> None:
    model = make_model()
    rows = model(batch.src, batch.tgt_in)[is_target(batch)]
    wanted = F.one_hot(batch.tgt_out[is_target(batch)], 31) * 0.8 + 0.2 / 31
    expected = (rows.softmax(-1) - wanted) @ model.embedding.weight / batch.num_tokens
    found = gradient_norms(model, [batch], label_smoothing=0.2)
    assert found.layers[-1].state == pytest.approx(float(expected.detach().norm()))


@pytest.mark.parametrize(("stack", "depth"), [(0, 1), (1, 0)])
def test_the_gradient_of_a_state_predicts_how_the_loss_changes_with_it(
    make_model: Make, pairs: list[Batch], stack: int, depth: int
) -> None:
    model, batch = make_model("pre"), pairs[2]
    state = record_stacks(model, batch)[stack].states[depth].detach()
    layers = [model.encoder, model.decoder][stack].layers
    change = torch.zeros_like(state)

    def loss() -> float:
        shift = list(layers)[depth].register_forward_pre_hook(lambda _, inputs: (inputs[0] + change, *inputs[1:]))
        with shift, torch.no_grad():
            rows = model(batch.src, batch.tgt_in)[is_target(batch)]
        return float(F.cross_entropy(rows, batch.tgt_out[is_target(batch)], label_smoothing=0.1))

    square, step = 0.0, 1e-5
    for place in range(state.numel()):  # central differences
        change.view(-1)[place] = step
        above = loss()
        change.view(-1)[place] = -step
        square += ((above - loss()) / (2 * step)) ** 2
        change.view(-1)[place] = 0
    row = gradient_norms(model, [batch]).layers[4 * stack + depth]
    assert row.state == pytest.approx(math.sqrt(square), rel=1e-6)


def test_the_gradient_of_several_batches_is_that_of_one(make_model: Make, batch: Batch, pairs: list[Batch]) -> None:
    model = make_model()
    whole, split = gradient_norms(model, [batch]), gradient_norms(model, pairs)
    assert split.parameters == pytest.approx(whole.parameters)
    assert [row.state for row in split.layers] == pytest.approx([row.state for row in whole.layers])
    assert split.loss == pytest.approx(whole.loss)


def test_frozen_parameters_are_left_out_and_a_frozen_model_is_an_error(make_model: Make, batch: Batch) -> None:
    model = make_model()
    model.encoder.requires_grad_(False)
    model.embedding.requires_grad_(False)
    found = gradient_norms(model, [batch])
    assert all(name.startswith("decoder.") for name in found.parameters)
    assert {row.stack for row in found.layers} == {"decoder"}
    with pytest.raises(ValueError, match=r"^no parameter of the model requires a gradient: load it with prepack=False"):
        gradient_norms(model.requires_grad_(False), [batch])

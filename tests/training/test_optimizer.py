"""Float32 master weights of a bfloat16 model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config
from transformer.model.transformer import Transformer
from transformer.training import optimizer as optimizer_module
from transformer.training.loss import linear_cross_entropy
from transformer.training.optimizer import MasterWeights
from transformer.training.trainer import Trainer

V = 31


def make_model() -> Transformer:
    torch.manual_seed(3)
    return Transformer(V, d_model=26, num_layers=2, num_heads=2, d_ff=29, dropout=0.0)


def batch_loss(model: Transformer, seed: int = 5) -> Tensor:
    """Nats per token on a random batch."""
    torch.manual_seed(seed)
    src, tgt, gold = torch.randint(1, V, (7, 11)), torch.randint(1, V, (7, 5)), torch.randint(1, V, (35,))
    hidden, _ = model.decode(tgt, model.encode(src))
    return linear_cross_entropy(hidden.flatten(0, 1), model.embedding.output_weight, gold)[0] / gold.numel()


def test_in_float32_master_and_model_are_the_same() -> None:
    model = make_model()
    weights = MasterWeights(model, torch.float32)
    assert weights.model is weights.master is model
    batch_loss(model).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    weights.collect_gradients()
    weights.refresh()
    assert_close([parameter.grad for parameter in model.parameters()], before, rtol=0, atol=0)


def test_in_bfloat16_the_model_is_a_rounded_copy_with_the_same_tying() -> None:
    master = make_model()
    weights = MasterWeights(master, torch.bfloat16)
    assert weights.master is master
    assert list(weights.model.state_dict()) == list(master.state_dict())
    for name, parameter in master.named_parameters():
        assert parameter.dtype == torch.float32
        assert_close(weights.model.get_parameter(name), parameter.detach().bfloat16(), rtol=0, atol=0)
    assert weights.model(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 5, dtype=torch.int64)).dtype == (
        torch.bfloat16
    )


def test_gradients_accumulate_in_float32() -> None:
    master = make_model()
    weights = MasterWeights(master, torch.bfloat16)
    # 257 is no bfloat16 number: added in bfloat16, the second pass would be lost.
    for slope in (256.0, 1.0):
        sum(slope * parameter.sum() for parameter in weights.model.parameters()).backward()
        weights.collect_gradients()
        assert all(parameter.grad is None for parameter in weights.model.parameters())
    for parameter in master.parameters():
        assert_close(parameter.grad, torch.full_like(parameter, 257.0), rtol=0, atol=0)


def test_a_parameter_without_a_gradient_collects_none() -> None:
    master = make_model()
    weights = MasterWeights(master, torch.bfloat16)
    name = "encoder.layers.1.feed_forward.w_2.bias"
    weights.model.get_parameter(name).sum().backward()
    weights.collect_gradients()
    assert [n for n, parameter in master.named_parameters() if parameter.grad is not None] == [name]
    weights.collect_gradients()  # nothing new
    assert_close(master.get_parameter(name).grad, torch.ones(26), rtol=0, atol=0)


@pytest.mark.parametrize("numel", [1, 1009, 1 << 40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_the_same_to_the_bit_however_many_are_collected_at_a_time(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, numel: int
) -> None:
    monkeypatch.setattr(optimizer_module, "_COLLECTED_NUMEL", numel)
    weights = MasterWeights(make_model(), dtype)
    scale = 1.0 if weights.loss_scale is None else weights.loss_scale.scale.item()
    torch.manual_seed(7)
    expected: dict[int, Tensor] = {}
    for absent in (3, 5, 2):  # in each pass other parameters have no gradient, and some get their first one late
        for number, copied in enumerate(weights.model.parameters()):
            if number % absent == 1:
                continue
            copied.grad = torch.randn_like(copied)
            gradient = copied.grad.float() / scale
            expected[number] = expected[number] + gradient if number in expected else gradient
        weights.collect_gradients()
        assert all(copied.grad is None for copied in weights.model.parameters())
    found = {number: x.grad for number, x in enumerate(weights.master.parameters()) if x.grad is not None}
    assert_close(found, expected, rtol=0, atol=0)
    assert len(found) < len(list(weights.master.parameters()))


def test_refreshing_rounds_the_copy_only() -> None:
    master = make_model()
    weights = MasterWeights(master, torch.bfloat16)
    pointers = [parameter.data_ptr() for parameter in weights.model.parameters()]
    with torch.no_grad():
        for parameter in master.parameters():
            parameter.fill_(1 + 3 * 2.0**-9)  # between 1 and 1 + 2^-7, nearer to the latter
    weights.refresh()
    for parameter, copied in zip(master.parameters(), weights.model.parameters(), strict=True):
        assert_close(parameter.detach(), torch.full_like(parameter, 1 + 3 * 2.0**-9), rtol=0, atol=0)
        assert_close(copied.detach(), torch.full_like(copied, 1 + 2.0**-7), rtol=0, atol=0)
    assert [parameter.data_ptr() for parameter in weights.model.parameters()] == pointers


def test_updates_too_small_for_bfloat16_are_not_lost() -> None:
    master = make_model()
    weights = MasterWeights(master, torch.bfloat16)
    with torch.no_grad():
        master.embedding.weight.fill_(1.0)
    for _ in range(8):
        weights.refresh()
        with torch.no_grad():
            master.embedding.weight += 2.0**-10
    weights.refresh()
    copied = weights.model.embedding.weight.detach()
    assert_close(copied, torch.full_like(copied, 1 + 2.0**-7), rtol=0, atol=0)


def test_a_training_step_in_bfloat16_stays_within_a_few_roundings_of_one_in_float32() -> None:
    gradients, losses = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        master = make_model()
        weights = MasterWeights(master, dtype)
        optimizer = torch.optim.SGD(master.parameters(), lr=0.1)
        before = batch_loss(weights.model)
        for seed in (5, 7):  # an update of two batches
            (batch_loss(weights.model, seed) / 2).backward()
            weights.collect_gradients()
        gradients[dtype] = {name: parameter.grad.clone() for name, parameter in master.named_parameters()}
        optimizer.step()
        weights.refresh()
        after = batch_loss(weights.model)
        losses[dtype] = torch.stack([before.detach(), after.detach()])
        assert after < before
    # bfloat16 has 8 bits: each of some dozen roundings on the way is off by up to 2^-9 of its number.
    assert_close(losses[torch.bfloat16], losses[torch.float32], rtol=0.01, atol=0.0)
    # Gradients differ more, above all by the ReLUs near zero that change sides; torch.autocast is as far off.
    for name, exact in gradients[torch.float32].items():
        error = (gradients[torch.bfloat16][name] - exact).norm() / exact.norm()
        assert error < 0.2, name


def test_an_optimizer_whose_state_is_not_saved_is_refused(tiny_config: Config) -> None:
    made = Trainer.from_config(tiny_config)
    parameters = list(made.weights.master.parameters())
    parts = [{"params": parameters[:3]}, {"params": parameters[3:]}]
    others: list[tuple[torch.optim.Optimizer, str]] = [
        (torch.optim.SGD(parameters, 0.1), "^optimizer SGD: must be Adam or AdamW, with fused=True"),
        (torch.optim.Adam(parameters), "^optimizer Adam: must be"),
        (torch.optim.AdamW(parameters, fused=True, amsgrad=True), "^optimizer AdamW: must be"),
        (torch.optim.AdamW(parts, fused=True), "^optimizer AdamW: must be"),
        (torch.optim.AdamW(parameters[1:], fused=True), "^optimizer: must be of all parameters of the master"),
        (
            torch.optim.AdamW(parameters[::-1], fused=True),
            "^optimizer: must be of all parameters of the master",
        ),
    ]
    for optimizer, message in others:
        with pytest.raises(ValueError, match=message):
            Trainer(tiny_config, made.data, made.weights, optimizer, made.progress)
    Trainer(tiny_config, made.data, made.weights, torch.optim.Adam(parameters, fused=True), made.progress)

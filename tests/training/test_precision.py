"""Devices, number formats, and float32 master weights of a model that computes in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from transformer.errors import DeviceError, UserError
from transformer.model.transformer import Transformer
from transformer.training.loss import projected_loss
from transformer.training.precision import MasterWeights, resolve_device, resolve_dtype

V, CPU = 31, torch.device("cpu")


def make_model() -> Transformer:
    torch.manual_seed(3)
    return Transformer(V, d_model=26, num_layers=2, num_heads=2, d_ff=29, dropout=0.0)


def batch_loss(model: Transformer, seed: int = 5) -> Tensor:
    """Nats per token on a random batch."""
    torch.manual_seed(seed)
    src, tgt, gold = torch.randint(1, V, (7, 11)), torch.randint(1, V, (7, 5)), torch.randint(1, V, (35,))
    hidden, _ = model.decode(tgt, model.encode(src))
    return projected_loss(hidden.flatten(0, 1), model.embeddings.output_matrix, gold)[0] / gold.numel()


@pytest.mark.parametrize(("available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("available", [False, True])
def test_a_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("cpu") == CPU


def test_cuda_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_absent_cuda_is_an_error_that_says_what_to_use(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"device={name}: torch .* sees no CUDA device; use cpu or auto") as error:
        resolve_device(name)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_that_is_asked_for_is_taken_on_any_device(precision: str, dtype: torch.dtype) -> None:
    for device in (CPU, torch.device("cuda")):
        assert resolve_dtype(precision, device) == dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_takes_bfloat16_on_a_cpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_dtype("auto", CPU) == dtype


def test_auto_takes_float32_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_auto_takes_bfloat16_on_cuda_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert resolve_dtype("auto", torch.device("cuda")) == dtype


def test_in_float32_master_and_model_are_one_and_collecting_changes_nothing() -> None:
    model = make_model()
    weights = MasterWeights(model, torch.float32)
    assert weights.model is weights.master is model
    batch_loss(model).backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    weights.collect_gradients()
    weights.refresh()
    assert_close([parameter.grad for parameter in model.parameters()], before, rtol=0, atol=0)


def test_in_bfloat16_the_model_is_a_rounded_copy_tied_as_the_master_is() -> None:
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


def test_gradients_of_two_backward_passes_add_up_in_float32() -> None:
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


def test_refreshing_rounds_the_master_and_leaves_it_exact() -> None:
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
        master.embeddings.source_weight.fill_(1.0)
    for _ in range(8):
        weights.refresh()
        with torch.no_grad():
            master.embeddings.source_weight += 2.0**-10
    weights.refresh()
    copied = weights.model.embeddings.source_weight.detach()
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

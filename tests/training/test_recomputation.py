"""Gradient checkpointing: the same numbers from less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from transformer.config import Config, ModelConfig, load_config
from transformer.data.batching import Batch
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training.optimizer import MasterWeights
from transformer.training.recomputation import recompute_layers
from transformer.training.train_step import accumulate_gradients, batch_loss
from transformer.training.trainer import Trainer

VARIANTS: list[dict[str, Any]] = [
    {},
    {"dropout": 0.0},
    {"norm": "pre", "attention_dropout": 0.3, "activation_dropout": 0.2},
    {"positional": "t5", "num_kv_heads": 1, "attention_score": "general"},
    {"positional": "shaw", "attention_window": 3},
]
each_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def make_model(**options: Any) -> Transformer:
    torch.manual_seed(3)
    sizes = {"d_model": 22, "num_layers": 3, "num_heads": 3, "d_ff": 29, "d_k": 8, "d_v": 5, "dropout": 0.2}
    return build_model(31, ModelConfig(**sizes | options))


def make_batch(num_sentences: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(7)
    src, tgt = (torch.randint(4, 31, (num_sentences, length), generator=generator) for length in (7, 11))
    src[1, 4:] = tgt[2, 6:] = 0
    return Batch(src, tgt, tgt, (tgt.flatten() != 0).nonzero().flatten())


def gradients(model: Transformer, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Sums of losses, gradients by name, and the random numbers that come next."""
    weights = MasterWeights(copy.deepcopy(model), dtype)
    torch.manual_seed(11)
    loss, nll = accumulate_gradients(weights, [make_batch(), make_batch(3)], 0.1)
    found = {name: p.grad for name, p in weights.master.named_parameters() if p.grad is not None}
    assert found.keys() == dict(model.named_parameters()).keys()
    return torch.stack((loss, nll)), found, torch.rand(3)


@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_gradients_and_dropout_masks_are_the_same_to_the_bit(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    model = make_model(**options)
    sums, plain, next_numbers = gradients(model, dtype)
    recompute_layers(model)
    other_sums, found, other_numbers = gradients(model, dtype)
    assert torch.equal(other_sums, sums)
    assert torch.equal(other_numbers, next_numbers)
    for name, gradient in plain.items():
        assert torch.equal(found[name], gradient), name


def num_saved_bytes(run: Callable[[], object]) -> int:
    """Of all tensors that are kept for a backward pass."""
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(saved.values())


def test_less_memory_is_kept_for_the_backward_pass() -> None:
    model, batch = make_model(num_layers=5), make_batch(17)
    losses: list[object] = []  # keep the graphs alive, so that no storage is counted twice or not at all
    plain = num_saved_bytes(lambda: losses.append(batch_loss(model, batch, 0.1)))
    recompute_layers(model)
    found = num_saved_bytes(lambda: losses.append(batch_loss(model, batch, 0.1)))
    # The inputs of layers are kept by their functions, not as saved tensors: x, and the memory once.
    inputs = 5 * (batch.src.numel() + batch.tgt_in.numel()) * 22 * 4 + batch.src.numel() * 22 * 4
    assert found + inputs < plain / 4


def test_each_layer_computes_twice_in_training_and_once_otherwise() -> None:
    model, batch = make_model(), make_batch()
    calls: list[int] = []
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.feed_forward.register_forward_pre_hook(lambda *_: calls.append(1))
    recompute_layers(model)
    loss, _ = batch_loss(model, batch, 0.1)
    assert len(calls) == 6
    loss.backward()
    assert len(calls) == 12
    with torch.no_grad():
        batch_loss(model, batch, 0.1)
    assert len(calls) == 18
    batch_loss(model.eval(), batch, 0.1)[0].backward()
    assert len(calls) == 24


@pytest.mark.slow
def test_a_run_may_go_on_with_or_without_and_stays_the_same_to_the_bit(tiny_config: Config) -> None:
    def run(name: str, *parts: tuple[int, bool]) -> Path:
        path = Path(tiny_config.run_dir).with_name("changed.yaml")
        path.write_text(tiny_config.to_yaml())
        for max_steps, is_on in parts:
            changes = [f"run_dir={tiny_config.run_dir}-{name}", f"train.max_steps={max_steps}", "model.dropout=0.3"]
            Trainer.from_config(load_config(path, [*changes, f"train.gradient_checkpointing={is_on}".lower()])).fit()
        return Path(f"{tiny_config.run_dir}-{name}") / "checkpoints" / f"step-{parts[-1][0]:08d}"

    plain, mixed = run("plain", (5, False)), run("mixed", (2, True), (3, False), (5, True))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (plain / name).read_bytes() == (mixed / name).read_bytes()


def test_names_and_decoding_stay_as_they_are() -> None:
    model = make_model()
    names, text = list(model.state_dict()), repr(model)
    src = make_batch().src
    with torch.no_grad():
        plain = model.eval()(src, src)
        recompute_layers(model)
        assert torch.equal(model(src, src), plain)
        assert torch.equal(copy.deepcopy(model)(src, src), plain)
    assert (list(model.state_dict()), repr(model)) == (names, text)


def test_a_copy_computes_with_its_own_weights() -> None:
    model = make_model(dropout=0.0)
    recompute_layers(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    batch = make_batch()
    assert batch_loss(copied, batch, 0.1)[0] != batch_loss(model, batch, 0.1)[0]

"""Parts, hooks and devices that need padded batches; test_cuda_batch.py tries the options of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transformer.model import packed_attention
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Transformer
from transformer.training.packed.models import model_obstacle, obstacle
from transformer.training.recomputation import is_recomputed, recompute_layers


def make_model(**options: Any) -> Transformer:
    return Transformer(31, **{"d_model": 24, "num_layers": 2, "num_heads": 3, "d_ff": 17} | options)


class Encoding(Transformer):
    """Encodes in its own way."""

    def encode(self, src: Tensor) -> Any:
        return super().encode(src.flip(1))


class Convolution(nn.Linear):
    """Mixes neighbouring tokens, which in a pack may be of another sentence."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + x.roll(1, dims=1))


def last(model: Transformer) -> Layer:
    return list(model.decoder.layers)[-1]


def change_feed_forward(model: Transformer, activation: Callable[[Tensor], Tensor]) -> None:
    last(model).feed_forward = FeedForward(24, 17, activation=activation)


CHANGES: dict[str, tuple[Callable[[Transformer], object], str]] = {
    "linear": (
        lambda model: setattr(last(model).feed_forward, "w_1", Convolution(24, 17)),
        r"decoder\.layers\.1\.feed_forward\.w_1 is a Convolution, which takes padded batches only",
    ),
    "activation": (
        lambda model: change_feed_forward(model, lambda x: x.cumsum(1)),
        r"decoder\.layers\.1\.feed_forward has an activation that may take padded batches only",
    ),
    "hook": (
        lambda model: model.encoder.register_forward_hook(lambda *_: None),
        "encoder has a hook, which may expect a row for each sentence",
    ),
    "hook before": (
        lambda model: last(model).register_forward_pre_hook(lambda *_: None),
        r"decoder\.layers\.1 has a hook",
    ),
    "hook backward": (
        lambda model: last(model).register_full_backward_hook(lambda *_: None),
        r"decoder\.layers\.1 has a hook",
    ),
    "method": (
        lambda model: setattr(model, "logits", lambda hidden: hidden),
        "the model has methods of its own, which may take padded batches only",
    ),
    "parametrization": (
        lambda model: nn.utils.parametrizations.weight_norm(last(model).feed_forward.w_2),
        "w_2 is a ParametrizedLinear, which takes padded batches only",
    ),
    "no cross-attention": (
        lambda model: model.decoder.layers.append(next(iter(model.encoder.layers))),  # type: ignore[attr-defined]
        "a layer of the decoder has no cross-attention",
    ),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_may_need_a_row_for_each_sentence_is_named(name: str) -> None:
    model = make_model()
    assert model_obstacle(model) is None
    change, message = CHANGES[name]
    change(model)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(model_obstacle(model))


def test_a_subclass_may_do_anything() -> None:
    model = Encoding(31, d_model=24, num_layers=1, num_heads=3, d_ff=17)
    assert model_obstacle(model) == "the model is a Encoding, which takes padded batches only"


def test_hooks_on_parameters_and_recomputed_layers_are_no_obstacle() -> None:
    model = make_model()
    next(model.parameters()).register_hook(lambda gradient: gradient)
    assert not is_recomputed(model)
    recompute_layers(model)
    assert is_recomputed(model) and model_obstacle(model) is None


@pytest.mark.parametrize("is_recomputed_twice", [False, True])
@pytest.mark.parametrize(
    ("part", "method"), [("", "logits"), ("", "encode"), ("", "forward"), ("encoder.layers.1", "forward")]
)
def test_methods_of_a_models_own_are_an_obstacle_with_recomputed_layers_too(
    part: str, method: str, is_recomputed_twice: bool
) -> None:
    model = make_model()
    module = model.get_submodule(part)
    setattr(module, method, lambda *_: None)
    recompute_layers(model)
    if is_recomputed_twice:
        recompute_layers(model)
    assert model_obstacle(model) == f"{part or 'the model'} has methods of its own, which may take padded batches only"


def test_a_recomputed_copy_of_a_model_is_no_obstacle() -> None:
    model = make_model()
    recompute_layers(model)
    recompute_layers(model)
    assert model_obstacle(copy.deepcopy(model)) is None


class Card:
    """A CUDA device of this capability."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (8, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)


CUDA, BF16 = torch.device("cuda"), torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtype", "sizes", "capability", "message"),
    [
        ("cpu", BF16, {"d_v": 16}, (8, 0), "None"),
        ("mps", BF16, {}, (8, 0), "device=mps has no kernel"),
        ("cuda", torch.float32, {}, (8, 0), "flash attention computes in bf16 or fp16, not in float32"),
        ("cuda", torch.float16, {}, (7, 5), "flash attention needs a GPU of compute capability 8.0 or later"),
        ("cuda", BF16, {"d_v": 16}, (9, 0), "needs d_k = d_v, a multiple of 8 up to 192, not 8 and 16"),
        ("cuda", BF16, {"d_k": 7}, (9, 0), "not 7 and 7"),
        ("cuda", BF16, {"d_k": 200}, (9, 0), "not 200 and 200"),
        ("cuda", BF16, {"d_k": 192}, (8, 0), "None"),
        ("cuda", torch.float16, {}, (12, 0), "None"),
    ],
)
def test_flash_attention_says_what_it_cannot_compute(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    sizes: dict[str, int],
    capability: tuple[int, int],
    message: str,
) -> None:
    pytest.importorskip("torch.nn.attention.varlen")  # since torch 2.10
    Card(monkeypatch, capability)
    assert message in str(obstacle(make_model(**sizes), torch.device(device), dtype))


def test_without_varlen_attn_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch)
    monkeypatch.setattr(packed_attention, "flash_attention", lambda: None)
    message = f"torch {torch.__version__} has no varlen_attn; 2.10 and later have"
    assert packed_attention.packing_obstacle(CUDA, BF16, 8, 8) == message


def test_deterministic_algorithms_leave_out_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert "adds gradients in any order" in str(packed_attention.packing_obstacle(CUDA, BF16, 8, 8))

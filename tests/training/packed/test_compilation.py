"""The compiled graph of packed batches: one for all, with the numbers of eager ones; training goes on if it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_pairs import VOCAB_SIZE, random_pairs
from torch import Tensor
from torch._dynamo.utils import counters
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.data.batching import collate
from transformer.data.dataset import PairDataset
from transformer.model import packed_attention
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer
from transformer.training.optimizer import MasterWeights
from transformer.training.packed.compilation import CompiledStates
from transformer.training.packed.cuda_batch import Shape, collate_packed
from transformer.training.packed.packers import Packer, ShapePacker
from transformer.training.recomputation import recompute_layers
from transformer.training.train_step import accumulate_in_memory, batch_loss

pytestmark = pytest.mark.usefixtures("fresh_compiler")

NUM_PAIRS = 101
SHAPE = Shape(src=107, tgt=109, sentences=41, longest=16)


def make_model(**options: Any) -> Transformer:
    torch.manual_seed(3)
    sizes = {"d_model": 24, "num_layers": 1, "num_heads": 3, "d_ff": 17, "dropout": 0.0}
    return build_model(VOCAB_SIZE, ModelConfig(**sizes | options))


@pytest.fixture(scope="module")
def dataset() -> PairDataset:
    return random_pairs(NUM_PAIRS, longest=11)


def sums_and_gradients(model: Transformer, batch: Any) -> list[Tensor]:
    model.zero_grad()
    loss, nll = batch_loss(model, batch, 0.1)
    loss.backward()
    return [loss.detach(), nll, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"norm": "pre", "num_kv_heads": 1}, {"recomputed": True}], ids=str)
def test_20_batches_are_one_graph_with_the_numbers_of_eager_ones(dataset: PairDataset, options: dict[str, Any]) -> None:
    model = make_model(**{key: value for key, value in options.items() if key != "recomputed"}).double()
    if options.get("recomputed"):
        recompute_layers(model)
    names, states = list(model.state_dict()), CompiledStates(backend="aot_eager")
    for number in range(20):
        pairs = np.random.default_rng(number).permutation(NUM_PAIRS)[: 5 + number % 7]
        found = sums_and_gradients(model, collate_packed(dataset, pairs, SHAPE, states))
        expected = sums_and_gradients(model, collate_packed(dataset, pairs, SHAPE))
        assert_close(found, expected, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 0.99
            batch_loss(model.eval(), collate(dataset, pairs), 0.1)  # a validation
        model.train()
    assert counters["stats"]["unique_graphs"] == 1
    assert list(model.state_dict()) == names and states.is_on


@pytest.mark.slow
def test_dropout_is_inside_of_the_graph(dataset: PairDataset) -> None:
    model, states = make_model(dropout=0.3), CompiledStates(backend="aot_eager")
    batch = collate_packed(dataset, np.arange(7), SHAPE, states)
    losses = {batch_loss(model, batch, 0.1)[0].item() for _ in range(5)}
    assert len(losses) == 5 and counters["stats"]["unique_graphs"] == 1


def test_flash_attention_is_inside_of_the_graph(dataset: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch.nn.attention.varlen")  # since torch 2.10
    packed_attention.flash_attention()
    monkeypatch.setattr(packed_attention, "_fits_flash", lambda *_: True)
    found: list[str] = []

    def only_look(graph: torch.fx.GraphModule, _: object) -> Any:
        found.extend(str(node.target) for node in graph.graph.nodes)
        raise RuntimeError("seen")

    batch = collate_packed(dataset, np.arange(7), SHAPE, CompiledStates(backend=only_look))
    with pytest.raises(RuntimeError, match="seen"):
        batch.loss(make_model().bfloat16(), 0.1)
    assert sum("_varlen_attn" in target for target in found) == 3
    assert not any("scaled_dot_product" in target for target in found)


# A compiler that fails


def fails_at_once(*_: object) -> Any:
    raise OSError("no C compiler found\nset CC")


def fails_later(graph: torch.fx.GraphModule, _: object) -> Any:
    """A graph whose backward pass fails, as one that is compiled when it is first needed."""

    def fail(_: Tensor) -> None:
        raise AssertionError("no kernel for the backward pass")

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = graph(*inputs)
        outputs[0].register_hook(fail)
        return outputs

    return run


@pytest.fixture
def accumulated(dataset: PairDataset) -> Any:
    """Gradients of 29 pairs."""

    def run(model: Transformer, packer: Packer | None) -> list[Tensor]:
        weights, pairs = MasterWeights(model, torch.float32), [np.arange(29)]
        weights.zero_grad()
        num_tokens = int(dataset.tgt.lengths[:29].sum())
        accumulate_in_memory(weights, dataset, pairs, 0.1, num_tokens, lambda: None, packer=packer)
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    return run


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(fails_at_once, "no C compiler found"), (fails_later, "no kernel for the backward pass")],
)
def test_training_goes_on_uncompiled_with_the_same_gradients(
    accumulated: Any, backend: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tie="none")  # the output matrix has its gradient before the layers fail
    packer = ShapePacker(compiled=CompiledStates(backend=backend))
    found = accumulated(model, packer)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("torch.compile failed (") and reason in line
    assert line.endswith("); training goes on without it, slower")
    assert_close(found, accumulated(model, ShapePacker()), rtol=0, atol=0)
    assert_close(found, accumulated(model, None), rtol=1e-5, atol=1e-6)
    accumulated(model, packer)
    assert capsys.readouterr().err == ""


def test_errors_of_other_parts_are_raised_after_an_update_without_any(
    accumulated: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, packer = make_model(), ShapePacker(compiled=CompiledStates(backend="eager"))
    accumulated(model, packer)

    def fail(*_: object) -> None:
        raise AssertionError("of something else")

    monkeypatch.setattr(MasterWeights, "collect_gradients", fail)
    with pytest.raises(AssertionError, match="of something else"):
        accumulated(model, packer)
    assert capsys.readouterr().err == ""


def test_an_error_that_is_not_the_compilers_is_raised_in_the_end(
    accumulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("of something else")

    monkeypatch.setattr(MasterWeights, "collect_gradients", fail)
    with pytest.raises(AssertionError, match="of something else"):
        accumulated(make_model(), ShapePacker(compiled=CompiledStates(backend="eager")))


def test_a_lack_of_memory_does_not_end_compiling() -> None:
    states = CompiledStates(backend="eager")
    assert not states.gives_up(torch.OutOfMemoryError("CUDA out of memory"))
    assert states.is_on

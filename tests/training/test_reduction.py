"""Gradients that are exchanged in buckets, some of them before the last backward pass has ended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from random_pairs import VOCAB_SIZE, random_pairs
from torch import Tensor
from torch.testing import assert_close

from transformer.config import Config
from transformer.data.batching import collate
from transformer.data.dataset import PairDataset
from transformer.errors import TrainingError
from transformer.model.transformer import Transformer
from transformer.training import reduction, train_step
from transformer.training.distributed import DistributedContext
from transformer.training.freezing import freeze
from transformer.training.optimizer import MasterWeights
from transformer.training.reduction import GradientReducer
from transformer.training.train_step import accumulate_gradients, accumulate_in_memory
from transformer.training.trainer import Trainer

NUM_PAIRS, OTHERS = 13, 2


class Twins(DistributedContext):
    """The first of three ranks, whose gradients are all the same; counts the elements of each exchange."""

    def __init__(self) -> None:
        super().__init__(0, 1 + OTHERS)
        self.started: list[int]
        self.waited: list[int]
        object.__setattr__(self, "started", [])
        object.__setattr__(self, "waited", [])

    def start_sum(self, x: Tensor) -> Callable[[], None]:
        self.started.append(x.numel())

        def wait() -> None:
            self.waited.append(x.numel())
            x.mul_(1 + OTHERS)

        return wait


@pytest.fixture
def dataset() -> PairDataset:
    return random_pairs(NUM_PAIRS, longest=10, shortest=2)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "_BUCKET_NUMEL", 997)


def make_weights(dtype: torch.dtype = torch.float32, frozen: str = "encoder.layers.1") -> MasterWeights:
    torch.manual_seed(3)
    model = Transformer(VOCAB_SIZE, d_model=22, num_layers=2, num_heads=2, d_ff=29, dropout=0.0)
    return MasterWeights(freeze(model, [frozen]), dtype)


def accumulate(weights: MasterWeights, dataset: PairDataset, sizes: tuple[int, ...]) -> list[int]:
    """Gradients of pairs in batches of these sizes; returns how often batches were halved."""
    indices = np.split(np.arange(NUM_PAIRS), np.cumsum(sizes)[:-1])
    halved: list[int] = []
    accumulate_in_memory(weights, dataset, indices, 0.1, 97, lambda: halved.append(1))
    return halved


def gradients(weights: MasterWeights) -> dict[str, Tensor]:
    return {name: x.grad for name, x in weights.master.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(13,), (2, 3, 8)], ids=str)
def test_sums_are_those_of_whole_gradients_to_the_bit(
    dataset: PairDataset, dtype: torch.dtype, sizes: tuple[int, ...]
) -> None:
    plain, weights, context = make_weights(dtype), make_weights(dtype), Twins()
    reducer = GradientReducer(weights, context)
    for _ in range(2):
        for one in (plain, weights):
            one.zero_grad()
            accumulate(one, dataset, sizes)
        assert not context.waited
        reducer.all_reduce_gradients()
        expected = {name: gradient * (1 + OTHERS) for name, gradient in gradients(plain).items()}
        assert_close(gradients(weights), expected, rtol=0, atol=0)
        assert context.started == context.waited and len(context.started) > 5
        context.started.clear()
        context.waited.clear()
    assert not any(".1." in name for name in gradients(weights) if name.startswith("encoder")), "frozen"
    assert all(x.grad is None for x in weights.model.parameters()) or weights.model is weights.master


def test_exchanges_begin_while_the_last_backward_pass_goes_on_and_not_before(
    dataset: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, context = make_weights(torch.bfloat16), Twins()
    GradientReducer(weights, context)
    began: list[int] = []
    loss = train_step.batch_loss

    def spied(*arguments: object) -> tuple[Tensor, Tensor]:
        began.append(len(context.started))
        return loss(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train_step, "batch_loss", spied)
    copied = weights.model.encoder.layers[0].self_attention.w_q.weight
    copied.register_hook(lambda _: began.append(len(context.started)))
    accumulate(weights, dataset, (2, 3, 8))
    before_batches, in_the_last = [began[0], began[2], began[4]], began[5]
    assert before_batches == [0, 0, 0]
    assert 3 < in_the_last < len(context.started)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backward_pass_that_is_repeated_for_lack_of_memory_is_not_added_twice(
    dataset: PairDataset, dtype: torch.dtype
) -> None:
    plain, weights, context = make_weights(dtype), make_weights(dtype), Twins()
    reducer = GradientReducer(weights, context)
    accumulate(plain, dataset, (5, 8))
    copied, failures = weights.model.encoder.layers[0].self_attention.w_q.weight, [1]

    def fail(gradient: Tensor) -> Tensor:
        if context.started and failures:
            failures.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradient

    copied.register_hook(fail)
    assert accumulate(weights, dataset, (5, 8)) == [1]
    assert not failures
    reducer.all_reduce_gradients()
    assert context.started == context.waited
    expected = {name: gradient * (1 + OTHERS) for name, gradient in gradients(plain).items()}
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    assert_close(gradients(weights), expected, rtol=tolerance, atol=tolerance)


def test_memory_that_is_missing_for_an_exchange_leaves_it_out_until_the_repetition(
    dataset: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, weights, context = make_weights(), make_weights(), Twins()
    reducer = GradientReducer(weights, context)
    accumulate(plain, dataset, (13,))
    start, failures = reduction._Bucket.start, [1]

    def fail(self: reduction._Bucket, context: DistributedContext) -> None:
        if len(context.started) == 3 and failures:  # type: ignore[attr-defined]
            failures.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        start(self, context)

    monkeypatch.setattr(reduction._Bucket, "start", fail)
    assert accumulate(weights, dataset, (13,)) == [1]
    reducer.all_reduce_gradients()
    assert sum(context.started) == sum(gradient.numel() for gradient in gradients(plain).values())
    expected = {name: gradient * (1 + OTHERS) for name, gradient in gradients(plain).items()}
    assert_close(gradients(weights), expected, rtol=1e-6, atol=1e-6)


def test_a_rank_without_pairs_adds_zeros_in_the_same_exchanges(dataset: PairDataset) -> None:
    weights, idle, context, other = make_weights(), make_weights(), Twins(), Twins()
    for one, of_one in ((weights, context), (idle, other)):
        reducer = GradientReducer(one, of_one)
        accumulate_in_memory(one, dataset, [np.arange(NUM_PAIRS)] if one is weights else [], 0.1, 97, lambda: None)
        reducer.all_reduce_gradients()
    assert other.started == context.started
    assert gradients(idle).keys() == gradients(weights).keys()
    assert all(not gradient.any() for gradient in gradients(idle).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_update_sums_the_gradients_of_what_is_trained_in_it(dataset: PairDataset, dtype: torch.dtype) -> None:
    plain, weights, context = make_weights(dtype), make_weights(dtype), Twins()
    reducer = GradientReducer(weights, context)
    for frozen in ("encoder.layers.1", "decoder", "", "embedding", "encoder.layers.1"):
        for one in (plain, weights):
            one.zero_grad()
            for model in {one.master, one.model}:
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(not frozen or not name.startswith(frozen))
            accumulate(one, dataset, (5, 8))
        reducer.all_reduce_gradients()
        expected = {name: gradient * (1 + OTHERS) for name, gradient in gradients(plain).items()}
        assert_close(gradients(weights), expected, rtol=0, atol=0)
        assert not frozen or not any(name.startswith(frozen) for name in expected)


def gradients_of_two_calls(weights: MasterWeights, dataset: PairDataset) -> None:
    for indices in (np.arange(5), np.arange(5, NUM_PAIRS)):
        accumulate_gradients(weights, [collate(dataset, indices)], 0.1, 97)


def test_an_update_may_be_accumulated_by_several_calls(dataset: PairDataset) -> None:
    plain, weights, context = make_weights(), make_weights(), Twins()
    reducer = GradientReducer(weights, context)
    gradients_of_two_calls(plain, dataset)
    gradients_of_two_calls(weights, dataset)
    assert not context.started
    reducer.all_reduce_gradients()
    expected = {name: gradient * (1 + OTHERS) for name, gradient in gradients(plain).items()}
    assert_close(gradients(weights), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_after_the_last_of_an_update_are_refused(dataset: PairDataset, dtype: torch.dtype) -> None:
    weights = make_weights(dtype)
    reducer = GradientReducer(weights, Twins())
    for _ in range(2):
        accumulate(weights, dataset, (13,))
        for again in (accumulate, lambda one, pairs, _: gradients_of_two_calls(one, pairs)):
            with pytest.raises(RuntimeError, match=r"^gradients of this update are being summed over all processes al"):
                again(weights, dataset, (13,))
        reducer.all_reduce_gradients()
        weights.zero_grad()


def test_a_single_process_reduces_nothing(dataset: PairDataset) -> None:
    weights = make_weights()
    reducer = GradientReducer(weights, DistributedContext())
    reducer.all_reduce_gradients()
    assert gradients(weights) == {}
    accumulate(weights, dataset, (13,))
    before = {name: gradient.data_ptr() for name, gradient in gradients(weights).items()}
    reducer.all_reduce_gradients()
    assert {name: gradient.data_ptr() for name, gradient in gradients(weights).items()} == before
    assert all(not x._post_accumulate_grad_hooks for x in weights.model.parameters())  # type: ignore[attr-defined]


def test_an_update_that_fails_after_an_exchange_began_is_not_taken_back(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank may have added the gradients already."""
    made = Trainer.from_config(tiny_config)
    context = Twins()
    monkeypatch.setattr(Twins, "max", lambda _, *values: list(values))
    trainer = Trainer(tiny_config, made.data, made.weights, made.optimizer, made.progress, context=context)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer._reducer, "all_reduce_gradients", lambda: 1 // 0)
        trainer.update()
    assert context.started
    with pytest.raises(TrainingError, match="make a new Trainer"):
        trainer.update()

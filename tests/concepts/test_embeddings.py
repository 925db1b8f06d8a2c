"""The embedding matrix as a parameter (section 3.4): lookups, rows with a gradient, and the steps that Adam takes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig, TrainConfig
from transformer.model.alternatives.build import build_model
from transformer.model.embeddings import SharedEmbedding
from transformer.model.transformer import Transformer
from transformer.training.loss import output_loss
from transformer.training.optimizer import adam

V, D = 31, 14
SRC = torch.tensor([[5, 17, 5, 3, 0, 0], [11, 3, 2, 29, 5, 3]])
TGT, GOLD = torch.tensor([[2, 7, 19], [2, 13, 7]]), torch.tensor([[7, 19, 3], [13, 7, 3]])


def make_model(tie: str) -> Transformer:
    torch.manual_seed(3)
    sizes = {"d_model": D, "num_layers": 1, "num_heads": 2, "d_ff": 17}
    return build_model(V, ModelConfig(**sizes, tie=tie)).double().eval()


def nll_of(model: Transformer) -> Tensor:
    hidden, _ = model.decode(TGT, model.encode(SRC))
    return output_loss(model, hidden.flatten(0, 1), GOLD.flatten(), 0.0)[0]


def rows_with_gradient(weight: nn.Parameter) -> set[int]:
    return set(weight.grad.abs().amax(1).nonzero().flatten().tolist())


def test_a_lookup_is_the_product_with_one_hot_rows_in_value_and_gradient() -> None:
    embedding, upstream = SharedEmbedding(V, D).double(), torch.randn(2, 6, D, dtype=torch.float64)
    looked_up = embedding(SRC)
    product = F.one_hot(SRC, V).double() @ embedding.weight * math.sqrt(D)
    assert_close(looked_up, product)
    gradients = [torch.autograd.grad(y, embedding.weight, upstream)[0] for y in (looked_up, product)]
    assert_close(gradients[0], gradients[1])


def test_a_token_has_the_same_row_in_every_sentence_and_another_hidden_state_in_each() -> None:
    model = make_model("all")
    account, river = torch.tensor([[5, 17, 23]]), torch.tensor([[5, 11, 29]])
    assert torch.equal(model.embedding(account)[:, 0], model.embedding(river)[:, 0])
    memories = [model.encode(src).memory for src in (account, river)]
    assert (memories[0][:, 0] - memories[1][:, 0]).abs().max() > 1e-2


def test_a_source_matrix_gets_gradients_in_the_rows_that_were_read_and_a_tied_one_in_all() -> None:
    untied, tied = make_model("none"), make_model("all")
    for model in (untied, tied):
        nll_of(model).backward()
    assert rows_with_gradient(untied.embedding.weight) == {5, 17, 3, 11, 2, 29}  # not 0, which fills up
    assert rows_with_gradient(untied.embedding.target_weight) == {2, 7, 19, 13}
    assert rows_with_gradient(untied.embedding.projection_weight) == set(range(V))
    assert rows_with_gradient(tied.embedding.weight) == set(range(V))


def test_gradients_of_a_token_that_occurs_several_times_add_up() -> None:
    model = make_model("none")
    read: list[Tensor] = []
    model.source_positions.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    loss = nll_of(model)
    per_place = torch.autograd.grad(loss, read[0], retain_graph=True)[0].flatten(0, 1)  # (B·S, D)
    loss.backward()
    expected = torch.zeros(V, D, dtype=torch.float64).index_add(0, SRC.flatten(), per_place) * math.sqrt(D)
    assert_close(model.embedding.weight.grad, expected)
    places = [per_place[i] for i, token in enumerate(SRC.flatten().tolist()) if token == 5]
    assert len(places) == 3 and not torch.allclose(places[0], places[1])


def test_a_small_step_on_the_embeddings_alone_makes_the_reference_more_probable() -> None:
    model = make_model("all")
    before = nll_of(model)
    (gradient,) = torch.autograd.grad(before, model.embedding.weight)
    with torch.no_grad():
        model.embedding.weight -= 1e-4 * gradient
        after = nll_of(model)
    # To first order, by the step times the squared norm of the gradient.
    assert_close(before.detach() - after, 1e-4 * gradient.square().sum(), rtol=0.05, atol=0.0)


def updated(gradients: list[float], *, lr: float = 0.1, **settings: float) -> list[float]:
    """The weight, at first 1, after each update of the project's Adam with these gradients."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = adam([weight], TrainConfig(**settings))
    optimizer.param_groups[0]["lr"] = lr
    values = []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        values.append(weight.item())
    return values


def test_adam_moves_a_row_that_gets_no_gradient_by_its_momentum() -> None:
    first, second = updated([3.0, 0.0])
    assert first == pytest.approx(0.9)
    # Moments after the second update: 0.9 · 0.1 · g / (1 - 0.9²) and 0.98 · 0.02 · g² / (1 - 0.98²).
    step = 0.09 / 0.19 / math.sqrt(0.98 * 0.02 / (1 - 0.98**2))
    assert second == pytest.approx(first - 0.1 * step)


def test_weight_decay_shrinks_a_row_that_was_never_read() -> None:
    assert updated([0.0, 0.0]) == [1.0, 1.0]
    assert updated([0.0, 0.0], weight_decay=0.5) == pytest.approx([0.95, 0.95**2])


@pytest.mark.parametrize(
    ("beta1", "beta2", "gap", "gradient", "expected"),
    [
        (0.9, 0.98, 701, 7.0, 0.707),
        (0.9, 0.98, 701, 1e-3, 0.707),
        (0.5, 0.98, 701, 7.0, 3.536),
        (0.9, 0.999, 9001, 7.0, 3.162),
    ],
)
def test_adams_first_step_after_a_long_gap_has_one_size_whatever_the_gradient(
    beta1: float, beta2: float, gap: int, gradient: float, expected: float
) -> None:
    values = updated([gradient, *[0.0] * gap, gradient], adam_beta1=beta1, adam_beta2=beta2)
    step = (values[-2] - values[-1]) / 0.1
    assert step == pytest.approx((1 - beta1) / math.sqrt(1 - beta2), rel=1e-3)
    assert step == pytest.approx(expected, rel=1e-3)

"""Token embeddings and the output projection, in the three ways of sharing matrices."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from transformer.model.embeddings import SharedEmbeddings, Tying
from transformer.model.transformer import Transformer

V, D = 31, 13
TYINGS: tuple[Tying, ...] = ("all", "decoder", "none")


@pytest.fixture(params=TYINGS)
def embeddings(request: pytest.FixtureRequest) -> SharedEmbeddings:
    """Tied in each of the three ways."""
    torch.manual_seed(3)
    return SharedEmbeddings(V, D, tie=request.param)


def test_embeddings_are_rows_times_the_root_of_d_model() -> None:
    embeddings = SharedEmbeddings(5, 4)
    with torch.no_grad():
        embeddings.source_weight.copy_(torch.arange(20.0).view(5, 4))
    ids = torch.tensor([[2, 0, 2]])
    # √4 = 2.
    expected = torch.tensor([[[16.0, 18, 20, 22], [0, 2, 4, 6], [16, 18, 20, 22]]])
    assert_close(embeddings.source(ids), expected)
    assert_close(embeddings.target(ids), expected)


def test_logits_are_unscaled_products_with_the_rows() -> None:
    embeddings = SharedEmbeddings(3, 2)
    with torch.no_grad():
        embeddings.source_weight.copy_(torch.tensor([[1.0, 2], [3, 5], [-7, 11]]))
    assert_close(embeddings.logits(torch.tensor([[2.0, 1]])), torch.tensor([[4.0, 11, -3]]))


@pytest.mark.parametrize(
    ("tie", "names"),
    [
        ("all", ["source_weight"]),
        ("decoder", ["source_weight", "target_weight"]),
        ("none", ["source_weight", "target_weight", "output_weight"]),
    ],
)
def test_each_distinct_matrix_is_one_parameter(tie: Tying, names: list[str]) -> None:
    embeddings = SharedEmbeddings(V, D, tie=tie)
    assert [name for name, _ in embeddings.named_parameters()] == names
    assert list(embeddings.state_dict()) == names
    assert sum(p.numel() for p in embeddings.parameters()) == len(names) * V * D


@pytest.mark.parametrize(
    ("tie", "changed", "uses"),
    [
        ("all", "source_weight", "source target logits"),
        ("decoder", "source_weight", "source"),
        ("decoder", "target_weight", "target logits"),
        ("none", "source_weight", "source"),
        ("none", "target_weight", "target"),
        ("none", "output_weight", "logits"),
    ],
)
def test_a_matrix_serves_the_uses_that_share_it_and_no_other(tie: Tying, changed: str, uses: str) -> None:
    torch.manual_seed(3)
    embeddings = SharedEmbeddings(V, D, tie=tie)
    inputs = {
        "source": torch.randint(V, (2, 7)),
        "target": torch.randint(V, (2, 5)),
        "logits": torch.randn(2, 5, D),
    }
    before = {use: getattr(embeddings, use)(x) for use, x in inputs.items()}
    with torch.no_grad():
        getattr(embeddings, changed).mul_(3.0)
    for use, x in inputs.items():
        assert_close(getattr(embeddings, use)(x), before[use] * (3.0 if use in uses.split() else 1.0))


def test_the_output_matrix_is_that_of_the_logits(embeddings: SharedEmbeddings) -> None:
    hidden = torch.randn(2, 5, D)
    assert_close(embeddings.logits(hidden), hidden @ embeddings.output_matrix.T)


def test_the_gradient_of_a_tied_matrix_is_the_sum_over_its_uses() -> None:
    torch.manual_seed(3)
    tied, apart = SharedEmbeddings(V, D, tie="all").double(), SharedEmbeddings(V, D, tie="none").double()
    with torch.no_grad():
        for weight in apart.parameters():
            weight.copy_(tied.source_weight)
    src, tgt, gold = (torch.randint(V, (2, 7)) for _ in range(3))
    for embeddings in (tied, apart):
        hidden = (embeddings.source(src) * embeddings.target(tgt)).tanh()
        F.cross_entropy(embeddings.logits(hidden).flatten(0, 1), gold.flatten()).backward()
    gradients = [weight.grad for weight in apart.parameters()]
    assert len(gradients) == 3
    for gradient in gradients:
        assert gradient.abs().max() > 0
    assert_close(tied.source_weight.grad, sum(gradients))


@pytest.mark.parametrize("tie", TYINGS)
def test_embeddings_start_normal_with_variance_one_over_d_model(tie: Tying) -> None:
    torch.manual_seed(3)
    d_model = 101
    for weight in SharedEmbeddings(499, d_model, tie=tie).parameters():
        standard = weight.detach() * math.sqrt(d_model)
        # 50,399 numbers: the bounds are four standard deviations of each statistic.
        assert abs(standard.mean()) < 4 / math.sqrt(standard.numel())
        assert abs(standard.var() - 1) < 4 * math.sqrt(2 / standard.numel())
        assert abs((standard.abs() < 1).double().mean() - 0.6827) < 4 * math.sqrt(0.22 / standard.numel())


def test_matrices_that_are_not_shared_start_different() -> None:
    source, target, output = SharedEmbeddings(V, D, tie="none").parameters()
    for a, b in ((source, target), (target, output), (source, output)):
        assert (a != b).all()


@pytest.mark.parametrize("tie", TYINGS)
def test_the_first_logits_have_unit_variance_and_the_first_loss_is_that_of_knowing_nothing(tie: Tying) -> None:
    torch.manual_seed(3)
    vocab_size = 1009
    model = Transformer(vocab_size, d_model=202, num_layers=2, num_heads=2, d_ff=211, tie=tie).eval()
    src, tgt = (torch.randint(1, vocab_size, (13, 11)) for _ in range(2))
    gold = torch.randint(1, vocab_size, (13, 11))
    with torch.no_grad():
        logits = model(src, tgt)
        embedded = model.embeddings.source(src)
    assert_close(embedded.std().item(), 1.0, rtol=0.05, atol=0.0)
    assert_close(logits.std().item(), 1.0, rtol=0.1, atol=0.0)
    # For V logits that are N(0, 1), the mean of ln sum exp is ln V + 1/2.
    loss = F.cross_entropy(logits.flatten(0, 1), gold.flatten())
    assert_close(loss.item(), math.log(vocab_size) + 0.5, rtol=0.0, atol=0.3)


def test_an_unknown_tying_is_an_error() -> None:
    with pytest.raises(ValueError, match="tie='both' is not one of 'all', 'decoder', 'none'"):
        SharedEmbeddings(V, D, tie="both")

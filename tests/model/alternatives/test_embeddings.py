"""Embeddings that share less than the paper's, and learned positions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.embeddings import (
    BiasedDecoderTiedEmbedding,
    BiasedEmbedding,
    BiasedTransformer,
    BiasedUntiedEmbedding,
    DecoderTiedEmbedding,
    LearnedPositions,
    NoPositions,
    UntiedEmbedding,
)
from transformer.model.embeddings import SharedEmbedding, sinusoidal_positions

V, D = 31, 13
EMBEDDINGS = {"all": SharedEmbedding, "decoder": DecoderTiedEmbedding, "none": UntiedEmbedding}
USES = {
    "source": lambda embedding, x: embedding(x),
    "target": lambda embedding, x: embedding(x, is_target=True),
    "logits": lambda embedding, x: x @ embedding.output_weight.T,
}


@pytest.mark.parametrize("tie", ["decoder", "none"])
def test_embeddings_are_rows_times_the_root_of_d_model(tie: str) -> None:
    embedding = EMBEDDINGS[tie](5, 4)
    with torch.no_grad():
        embedding.weight.copy_(torch.arange(20.0).view(5, 4))
        embedding.target_weight.copy_(-torch.arange(20.0).view(5, 4))
    ids = torch.tensor([[2, 0, 2]])
    # √4 = 2.
    expected = torch.tensor([[[16.0, 18, 20, 22], [0, 2, 4, 6], [16, 18, 20, 22]]])
    assert_close(embedding(ids), expected)
    assert_close(embedding(ids, is_target=True), -expected)


@pytest.mark.parametrize(
    ("tie", "names"),
    [
        ("all", ["weight"]),
        ("decoder", ["weight", "target_weight"]),
        ("none", ["weight", "target_weight", "projection_weight"]),
    ],
)
def test_each_distinct_matrix_is_one_parameter(tie: str, names: list[str]) -> None:
    embedding = EMBEDDINGS[tie](V, D)
    assert [name for name, _ in embedding.named_parameters()] == names
    assert list(embedding.state_dict()) == names
    assert sum(p.numel() for p in embedding.parameters()) == len(names) * V * D


@pytest.mark.parametrize(
    ("tie", "changed", "uses"),
    [
        ("all", "weight", "source target logits"),
        ("decoder", "weight", "source"),
        ("decoder", "target_weight", "target logits"),
        ("none", "weight", "source"),
        ("none", "target_weight", "target"),
        ("none", "projection_weight", "logits"),
    ],
)
def test_a_matrix_serves_the_uses_that_share_it_and_no_other(tie: str, changed: str, uses: str) -> None:
    torch.manual_seed(3)
    embedding = EMBEDDINGS[tie](V, D)
    inputs = {
        "source": torch.randint(V, (2, 7)),
        "target": torch.randint(V, (2, 5)),
        "logits": torch.randn(2, 5, D),
    }
    before = {use: USES[use](embedding, x) for use, x in inputs.items()}
    with torch.no_grad():
        getattr(embedding, changed).mul_(3.0)
    for use, x in inputs.items():
        assert_close(USES[use](embedding, x), before[use] * (3.0 if use in uses.split() else 1.0))


@pytest.mark.parametrize(
    ("tie", "name"), [("all", "weight"), ("decoder", "target_weight"), ("none", "projection_weight")]
)
def test_the_logits_of_a_model_are_products_with_the_output_matrix(tie: str, name: str) -> None:
    model = build_model(V, ModelConfig(d_model=D, num_layers=1, num_heads=1, d_ff=29, tie=tie))
    hidden = torch.randn(2, 5, D)
    assert model.embedding.output_weight is getattr(model.embedding, name)
    assert_close(model.logits(hidden), torch.einsum("btd,vd->btv", hidden, getattr(model.embedding, name)))


def test_the_gradient_of_a_tied_matrix_is_the_sum_over_its_uses() -> None:
    torch.manual_seed(3)
    tied, apart = SharedEmbedding(V, D).double(), UntiedEmbedding(V, D).double()
    with torch.no_grad():
        for weight in apart.parameters():
            weight.copy_(tied.weight)
    src, tgt, gold = (torch.randint(V, (2, 7)) for _ in range(3))
    for embedding in (tied, apart):
        hidden = (embedding(src) * embedding(tgt, is_target=True)).tanh()
        F.cross_entropy(USES["logits"](embedding, hidden).flatten(0, 1), gold.flatten()).backward()
    gradients = [weight.grad for weight in apart.parameters()]
    assert len(gradients) == 3
    for gradient in gradients:
        assert gradient.abs().max() > 0
    assert_close(tied.weight.grad, sum(gradients))


@pytest.mark.parametrize("tie", EMBEDDINGS)
def test_embeddings_start_normal_with_variance_one_over_d_model(tie: str) -> None:
    torch.manual_seed(3)
    d_model = 101
    for weight in EMBEDDINGS[tie](499, d_model).parameters():
        standard = weight.detach() * math.sqrt(d_model)
        # 50,399 numbers: the bounds are four standard deviations of each statistic.
        assert abs(standard.mean()) < 4 / math.sqrt(standard.numel())
        assert abs(standard.var() - 1) < 4 * math.sqrt(2 / standard.numel())
        assert abs((standard.abs() < 1).double().mean() - 0.6827) < 4 * math.sqrt(0.22 / standard.numel())


def test_matrices_that_are_not_shared_start_different() -> None:
    source, target, output = UntiedEmbedding(V, D).parameters()
    for a, b in ((source, target), (target, output), (source, output)):
        assert (a != b).all()


@pytest.mark.parametrize("tie", ["decoder", "none"])
def test_the_source_may_have_a_vocabulary_of_its_own(tie: str) -> None:
    embedding = EMBEDDINGS[tie](V, D, source_vocab_size=53)
    shapes = [tuple(parameter.shape) for parameter in embedding.parameters()]
    assert shapes == [(53, D), (V, D), (V, D)][: len(shapes)]
    assert embedding(torch.tensor([[52]])).shape == (1, 1, D)
    assert embedding.output_weight.shape == (V, D)


@pytest.mark.parametrize("tie", EMBEDDINGS)
def test_the_first_logits_have_unit_variance_and_the_first_loss_is_that_of_a_guess(tie: str) -> None:
    torch.manual_seed(3)
    vocab_size = 1009
    model = build_model(vocab_size, ModelConfig(d_model=202, num_layers=2, num_heads=2, d_ff=211, tie=tie)).eval()
    src, tgt = (torch.randint(1, vocab_size, (13, 11)) for _ in range(2))
    gold = torch.randint(1, vocab_size, (13, 11))
    with torch.no_grad():
        logits = model(src, tgt)
        embedded = model.embedding(src)
    assert_close(embedded.std().item(), 1.0, rtol=0.05, atol=0.0)
    assert_close(logits.std().item(), 1.0, rtol=0.1, atol=0.0)
    # For V logits that are N(0, 1), the mean of ln sum exp is ln V + 1/2.
    loss = F.cross_entropy(logits.flatten(0, 1), gold.flatten())
    assert_close(loss.item(), math.log(vocab_size) + 0.5, rtol=0.0, atol=0.3)


# Learned positions


def test_learned_positions_add_a_row_per_position_from_the_start() -> None:
    torch.manual_seed(3)
    positions, x = LearnedPositions(13, 22), torch.randn(2, 5, 22)
    assert_close(positions(x), x + positions.table[:5])
    assert_close(positions(x, 8), x + positions.table[8:])


def test_a_learned_position_gets_the_sum_of_the_gradients_of_its_uses() -> None:
    positions = LearnedPositions(7, 3)
    upstream = torch.randn(2, 5, 3)
    positions(torch.zeros(2, 5, 3), 1).backward(upstream)
    expected = torch.zeros(7, 3)
    expected[1:6] = upstream.sum(0)
    assert_close(positions.table.grad, expected)


@pytest.mark.parametrize(("start", "length"), [(0, 14), (13, 1), (10, 4)])
def test_a_learned_position_past_the_last_is_an_error(start: int, length: int) -> None:
    positions = LearnedPositions(13, 22)
    with pytest.raises(ValueError, match="position 14 is past max_positions=13; raise it or use sinusoidal positions"):
        positions(torch.zeros(1, length, 22), start)


def test_learned_positions_start_with_the_root_mean_square_of_the_sinusoids() -> None:
    torch.manual_seed(3)
    # sin² + cos² = 1 per pair.
    sinusoids = sinusoidal_positions(307, 22).square().mean()
    assert_close(sinusoids, torch.tensor(0.5))
    learned = LearnedPositions(307, 22).table
    assert_close(learned.square().mean(), sinusoids, rtol=0.07, atol=0.0)  # 4 standard deviations of 6754 numbers
    assert learned.mean().abs() < 4 * math.sqrt(0.5 / learned.numel())


def make_ids(num_columns: int) -> Tensor:
    return torch.arange(1, num_columns + 1)[None]


def test_learned_positions_end_at_max_positions() -> None:
    config = ModelConfig(d_model=12, num_layers=1, num_heads=3, d_ff=5, positional="learned", max_positions=6)
    model = build_model(V, config)
    model(make_ids(6), make_ids(5))
    message = "position 7 is past max_positions=6"
    with pytest.raises(ValueError, match=message):
        model(make_ids(7), make_ids(5))
    _, state = model.decode(make_ids(5), model.encode(make_ids(6)))
    with pytest.raises(ValueError, match=message):
        model.decode(make_ids(2), state)


def test_source_and_target_have_learned_positions_of_their_own() -> None:
    config = ModelConfig(d_model=12, num_layers=1, num_heads=3, d_ff=5, positional="learned", max_positions=17)
    model = build_model(V, config)
    assert (model.source_positions.table != model.target_positions.table).all()


def test_without_positions_embeddings_stay_as_they_are() -> None:
    x = torch.randn(2, 5, D)
    assert NoPositions()(x, 3) is x
    assert list(NoPositions().state_dict()) == []


# The bias of the output.


@pytest.mark.parametrize("tie", EMBEDDINGS)
def test_the_logits_of_a_model_with_an_output_bias_are_products_and_the_bias(tie: str) -> None:
    model = build_model(V, ModelConfig(d_model=D, num_layers=1, num_heads=1, d_ff=29, tie=tie, output_bias=True))
    assert isinstance(model, BiasedTransformer)
    bias = model.embedding.output_bias
    assert bias.shape == (V,)
    assert not bias.any(), "which begin at 0"
    with torch.no_grad():
        bias.copy_(torch.arange(V))
    hidden = torch.randn(2, 5, D)
    assert_close(model.logits(hidden), hidden @ model.embedding.output_weight.T + torch.arange(V))


@pytest.mark.parametrize("tie", EMBEDDINGS)
def test_an_output_bias_changes_no_other_weight_or_use(tie: str) -> None:
    models = []
    for output_bias in (False, True):
        torch.manual_seed(3)
        options = {"d_model": D, "num_layers": 1, "num_heads": 1, "d_ff": 29, "tie": tie, "output_bias": output_bias}
        models.append(build_model(V, ModelConfig(**options)))
    plain, biased = models
    names = [name for name in biased.state_dict() if name not in plain.state_dict()]
    assert names == ["embedding.output_bias"]
    biased.load_state_dict({**plain.state_dict(), names[0]: torch.zeros(V)})
    src, tgt = torch.randint(1, V, (2, 7)), torch.randint(1, V, (2, 5))
    assert_close(biased.eval()(src, tgt), plain.eval()(src, tgt))


def test_biased_embeddings_are_reset_to_normal_matrices_and_no_bias() -> None:
    embedding = BiasedUntiedEmbedding(V, D)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.fill_(7.0)
    embedding.reset_parameters()
    *matrices, bias = (
        embedding.get_parameter(x) for x in ("weight", "target_weight", "projection_weight", "output_bias")
    )
    assert not bias.any()
    assert all(matrix.std() < 1 for matrix in matrices)
    assert BiasedDecoderTiedEmbedding(V, D, source_vocab_size=53).output_bias.shape == (V,)
    assert BiasedEmbedding(V, D).output_bias.shape == (V,)

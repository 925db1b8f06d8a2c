"""Static word vectors: what SGNS and GloVe factorise, GloVe's weighting, counts by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import embeddings
import pytest
import torch
import torch.nn.functional as F
from embeddings import (
    WINDOW,
    GloVe,
    SkipGram,
    cooccurrences,
    glove_weight,
    main,
    neighbours,
    noise_distribution,
    shifted_pmi,
    train_skip_gram,
)
from loop import fit
from torch import Tensor

from transformer import UserError

COUNTS = torch.randint(1, 30, (7, 7), generator=torch.Generator().manual_seed(1)).double()
COUNTS = COUNTS + COUNTS.T


def expected_loss(model: SkipGram, counts: Tensor, noise: Tensor, k: int) -> Tensor:
    """The mean of the loss over all pairs and all noise, by their probabilities."""
    products, p = model.products(), counts / counts.sum()
    return -(p * F.logsigmoid(products) + k * p.sum(1, keepdim=True) * noise * F.logsigmoid(-products)).sum()


@pytest.mark.parametrize(("k", "power"), [(1, 1.0), (5, 1.0), (3, 0.75)])
def test_sgns_factorises_shifted_pmi(k: int, power: float) -> None:
    """Where it has its minimum, w·c = log P(c | w) / P_n(c) - log k, if the vectors have enough dimensions."""
    torch.manual_seed(2)
    model, noise = SkipGram(7, 7).double(), noise_distribution(COUNTS, power)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=500, tolerance_grad=1e-12, tolerance_change=0)
    optimizer.step(lambda: (optimizer.zero_grad(), loss := expected_loss(model, COUNTS, noise, k), loss.backward())[1])
    torch.testing.assert_close(model.products(), shifted_pmi(COUNTS, noise, k), rtol=1e-4, atol=1e-4)


def test_with_the_words_own_frequencies_as_noise_the_target_is_pmi_less_log_k() -> None:
    p, target = COUNTS / COUNTS.sum(), shifted_pmi(COUNTS, noise_distribution(COUNTS, 1.0), 5)
    for w in range(7):
        for c in range(7):
            pmi = math.log(p[w, c] / (p[w].sum() * p[:, c].sum()))
            assert target[w, c].item() == pytest.approx(pmi - math.log(5))


def test_sampled_noise_has_the_expected_loss_on_average() -> None:
    torch.manual_seed(3)
    model, noise, n = SkipGram(7, 5), noise_distribution(COUNTS).float(), 100_003
    torch.nn.init.normal_(model.words.weight), torch.nn.init.normal_(model.contexts.weight)
    pairs = COUNTS.flatten().multinomial(n, replacement=True)
    sampled = model(pairs // 7, pairs % 7, noise.multinomial(3 * n, replacement=True).view(n, 3))
    assert sampled.item() == pytest.approx(expected_loss(model, COUNTS.float(), noise, 3).item(), rel=0.01)


def test_the_loss_of_one_pair_is_equation_4() -> None:
    model = SkipGram(5, 3)
    w, c = model.words.weight, model.contexts.weight
    expected = -math.log(1 / (1 + math.exp(-(w[1] @ c[2]).item())))
    expected -= sum(math.log(1 / (1 + math.exp((w[1] @ c[n]).item()))) for n in (4, 0))
    loss = model(torch.tensor([1]), torch.tensor([2]), torch.tensor([[4, 0]]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_training_by_sampling_comes_near_the_shifted_pmi() -> None:
    torch.manual_seed(4)
    model = SkipGram(7, 7)
    train_skip_gram(model, COUNTS.float(), 400, 256)
    target = shifted_pmi(COUNTS, noise_distribution(COUNTS), 5).float()
    pairs = torch.stack((model.products().detach().flatten(), target.flatten()))
    assert pairs.corrcoef()[0, 1] > 0.9


def test_noise_is_flatter_than_the_words_but_in_their_order() -> None:
    noise, frequencies = noise_distribution(COUNTS), noise_distribution(COUNTS, 1.0)
    torch.testing.assert_close(frequencies, COUNTS.sum(dim=1) / COUNTS.sum())
    assert noise.sum().item() == pytest.approx(1)
    assert torch.equal(noise.argsort(), frequencies.argsort())
    assert noise.max() / noise.min() == pytest.approx(((frequencies.max() / frequencies.min()) ** 0.75).item())


def test_gloves_weighting_is_the_papers() -> None:
    weights = glove_weight(torch.tensor([0.0, 1.0, 50.0, 100.0, 1e6]))
    assert weights.tolist() == pytest.approx([0, 100**-0.75, 2**-0.75, 1, 1])


def test_glove_fits_all_counts_exactly_if_it_has_a_dimension_for_each_word() -> None:
    torch.manual_seed(5)
    model, counts = GloVe(7, 7), COUNTS.float()
    first = model(counts).item()
    losses = fit(model, lambda _: model(counts), 600, lr=0.05)
    assert losses[-1] < 1e-6 * first
    torch.testing.assert_close(model.products(), counts.log(), rtol=0, atol=0.01)


def test_glove_does_not_see_pairs_that_never_met() -> None:
    torch.manual_seed(6)
    model, counts = GloVe(5, 3), COUNTS[:5, :5].float()
    counts[1, 3] = 0
    loss = model(counts)
    products = [
        (model.words.weight[i] @ model.contexts.weight[j] + model.word_bias[i] + model.context_bias[j], counts[i, j])
        for i in range(5)
        for j in range(5)
        if (i, j) != (1, 3)
    ]
    expected = sum(min(1.0, (x.item() / 100) ** 0.75) * (y.item() - math.log(x)) ** 2 for y, x in products) / 24
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_cooccurrences_are_counted_within_the_window_and_weighted_by_distance() -> None:
    counts = cooccurrences([[0, 1, 2, 0, 3, 4], [1, 0]], 5, lambda distance: 1 / distance)
    assert torch.equal(counts, counts.T)
    assert counts[0, 1].item() == pytest.approx(1 + 1 / 2 + 1)  # forwards in the first, backwards in it, in the second
    assert counts[0, 4].item() == pytest.approx(1 / 2)  # 5 words apart is out of the window
    assert counts[0, 0].item() == pytest.approx(2 / 3)


def test_the_nearest_word_is_that_of_the_smallest_angle() -> None:
    vectors = torch.tensor([[1.0, 0.0], [9.0, 1.0], [-1.0, 0.1], [0.1, 1.0]])
    assert neighbours(vectors).tolist() == [[1, 3, 2], [0, 3, 2], [3, 1, 0], [1, 0, 2]]


def test_a_tiny_run_prints_a_row_for_each_kind_of_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "3", "--sentences", "200"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["SGNS", "GloVe"]
    assert all(row[2].endswith(" of 24") and len(row[3].split(", ")) == 4 for row in rows[2:])


def test_one_sentence_is_not_of_both_topics() -> None:
    with pytest.raises(UserError, match="--sentences 1 is not of both topics"):
        main(["--sentences", "1"])


def test_pairs_of_sgns_count_as_often_as_windows_of_1_to_4_words_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """word2vec draws the size of each window: a distance d is within it with probability (W + 1 - d) / W."""
    weights: list[list[float]] = []

    def counted(sentences: list[list[int]], vocab_size: int, weight: Callable[[int], float]) -> Tensor:
        weights.append([weight(distance) for distance in range(1, WINDOW + 1)])
        return cooccurrences(sentences, vocab_size, weight)

    monkeypatch.setattr(embeddings, "cooccurrences", counted)
    main(["--updates", "1", "--sentences", "50"])
    sizes = range(1, WINDOW + 1)
    assert weights[0] == [sum(distance <= size for size in sizes) / WINDOW for distance in sizes]
    assert weights[1] == [1 / distance for distance in sizes], "GloVe"

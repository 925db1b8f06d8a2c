"""Cross-entropy, label smoothing (section 5.4) and Kullback-Leibler divergence: identities and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from transformer.model.transformer import Transformer
from transformer.training.loss import label_smoothed_cross_entropy, linear_cross_entropy

N, V, D = 7, 13, 5


def make_logits() -> tuple[Tensor, Tensor]:
    """Logits (N, V) and targets (N,)."""
    torch.manual_seed(3)
    return 2 * torch.randn(N, V, dtype=torch.float64), torch.randint(V, (N,))


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum()


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q), summed over rows, with 0 log 0 = 0."""
    return torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum()


# Cross-entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_loss_is_the_entropy_of_its_targets_and_their_divergence_from_the_model(smoothing: float) -> None:
    logits, target = make_logits()
    p = (1 - smoothing) * F.one_hot(target, V).double() + smoothing / V
    loss, nll = label_smoothed_cross_entropy(logits, target, smoothing)
    assert_close(loss, entropy(p) + kl(p, logits.softmax(-1)))
    if smoothing == 0:  # the entropy of one-hot targets is 0
        assert_close(loss, nll)
        assert_close(nll, -logits.softmax(-1)[torch.arange(N), target].log().sum())


@pytest.mark.parametrize("smoothing", [0.1, 0.7])
def test_label_smoothing_adds_a_divergence_from_the_uniform_distribution(smoothing: float) -> None:
    hidden, target = torch.randn(N, D, dtype=torch.float64), torch.randint(V, (N,))
    weight = torch.randn(V, D, dtype=torch.float64)
    uniform = torch.full((N, V), 1 / V, dtype=torch.float64)
    divergence = kl(uniform, (hidden @ weight.T).softmax(-1))
    loss, nll = linear_cross_entropy(hidden, weight, target, smoothing)
    assert_close(loss, (1 - smoothing) * nll + smoothing * (divergence + N * math.log(V)))


def test_the_best_smoothed_loss_leaves_a_likelihood_below_1() -> None:
    # A model that fits smoothed targets gives the reference 1 - ε + ε/V: its perplexity is above 1 on purpose.
    smoothing, target = 0.1, torch.tensor([4])
    logits = torch.zeros(1, V, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=101, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss, _ = label_smoothed_cross_entropy(logits, target, smoothing)
        loss.backward()
        return loss

    optimizer.step(closure)
    best = 1 - smoothing + smoothing / V
    assert logits.softmax(-1)[0, 4].item() == pytest.approx(best, abs=1e-6)
    assert label_smoothed_cross_entropy(logits, target, smoothing)[1].item() == pytest.approx(-math.log(best), abs=1e-6)


def test_the_gradient_is_prediction_minus_target_so_it_stays_where_squared_errors_lose_theirs() -> None:
    # A confident mistake: almost all probability is on token 0 and the target is token 1.
    logits = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1])
    loss, _ = label_smoothed_cross_entropy(logits, target, 0.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_close(gradient, logits.softmax(-1).detach() - F.one_hot(target, 3))
    assert gradient[0, 1].item() == pytest.approx(-1)
    squared = (logits.softmax(-1) - F.one_hot(target, 3)).square().sum()
    assert torch.autograd.grad(squared, logits)[0].abs().max() < 1e-7


def test_cross_entropy_and_squared_errors_of_probabilities_are_smallest_at_the_same_distribution() -> None:
    p = torch.randn(V, generator=torch.Generator().manual_seed(3), dtype=torch.float64).softmax(0)
    target = torch.eye(V, dtype=torch.float64)  # each outcome, as often as p says
    for loss in (lambda q: -(p * q.log()).sum(), lambda q: (p * (q - target).square().sum(1)).sum()):
        best = loss(p)
        (gradient,) = torch.autograd.grad(loss((logits := p.log().requires_grad_()).softmax(0)), logits)
        assert gradient.abs().max() < 1e-12
        for seed in range(23):
            noise = torch.randn(V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            assert loss((p.log() + noise / 5).softmax(0)) > best


def test_a_lower_loss_may_go_with_a_lower_accuracy() -> None:
    # Of two tokens, the first model is just right twice and far off once; the second is just wrong twice.
    probable = torch.tensor([[0.51, 0.51, 0.001], [0.49, 0.49, 0.9]], dtype=torch.float64)  # of the reference
    logits = torch.stack((probable, 1 - probable), dim=-1).log()  # (2, 3, 2)
    target = torch.zeros(3, dtype=torch.int64)
    losses = [label_smoothed_cross_entropy(rows, target, 0.0)[0].item() for rows in logits]
    accuracies = (logits.argmax(-1) == 0).double().mean(-1).tolist()
    assert losses[1] < losses[0] and accuracies[1] < accuracies[0]


def test_a_uniform_guess_has_the_vocabulary_as_its_perplexity() -> None:
    loss, _ = label_smoothed_cross_entropy(torch.zeros(N, V), torch.arange(N), 0.0)
    assert math.exp(loss / N) == pytest.approx(V)


def test_the_loss_of_a_sentence_is_the_sum_over_tokens_each_given_those_before_it() -> None:
    torch.manual_seed(3)
    model = Transformer(V, D * 2, 2, 2, 17, dropout=0.0).double().eval()
    src, ids = torch.tensor([[5, 7, 2]]), torch.tensor([[2, 11, 4, 9, 3]])
    expected, _ = label_smoothed_cross_entropy(model(src, ids[:, :-1])[0], ids[0, 1:], 0.0)
    state, log_p = model.encode(src), []
    for t in range(4):
        hidden, state = model.decode(ids[:, t : t + 1], state)
        log_p.append(model.logits(hidden)[0, 0].log_softmax(-1)[ids[0, t + 1]])
    assert_close(-torch.stack(log_p).sum(), expected)
    # Predictions are not independent: another token at the start changes the probability of the same one at the end.
    other = model(src, torch.tensor([[2, 6, 4, 9]]))[0, 3].log_softmax(-1)[3]
    assert (other - log_p[3]).abs() > 1e-3


# Kullback-Leibler divergence


def test_a_reference_of_probability_zero_costs_infinity_and_logits_are_never_that_sure() -> None:
    target = torch.tensor([1])
    for logit, expected in ((-math.inf, math.inf), (-1e4, 1e4)):
        logits = torch.tensor([[0.0, logit]])
        assert logits.softmax(-1)[0, 1] == 0  # -1e4 is rounded to it
        _, nll = label_smoothed_cross_entropy(logits, target, 0.0)
        assert nll.item() == pytest.approx(expected)
        # Where the target is 0, so is the term, whatever the model gives.
        assert label_smoothed_cross_entropy(logits, 1 - target, 0.0)[1] == 0


def test_without_common_support_the_symmetric_divergence_is_ln_2() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.25, 0.75])
    assert kl(p, q) == kl(q, p) == math.inf
    assert_close((kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2, torch.tensor(math.log(2)))

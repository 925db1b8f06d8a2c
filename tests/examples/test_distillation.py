"""Distillation: facts of the KL divergence, both losses, and the policy that is optimal beside a reference."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import distillation
import pytest
import torch
import torch.nn.functional as F
from distillation import (
    ascended_policy,
    batch,
    batch_logits,
    best_policy,
    kl_divergence,
    main,
    soft_targets,
    train,
    translate,
    word_distillation,
)
from torch import Tensor

from transformer import BOS_ID, EOS_ID, PAD_ID, Transformer, UserError, label_smoothed_cross_entropy

VOCAB_SIZE = 11


def logits(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(*(shape or (5, VOCAB_SIZE)), generator=torch.Generator().manual_seed(seed)).double()


def log_p(seed: int) -> Tensor:
    return logits(seed).log_softmax(dim=-1)


def model(seed: int = 1, num_layers: int = 1) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(VOCAB_SIZE, d_model=8, num_layers=num_layers, num_heads=2, d_ff=12, dropout=0.0)


def test_kl_is_the_sum_over_the_vocabulary_as_in_torch() -> None:
    p, q = log_p(1), log_p(2)
    by_hand = [
        sum(math.exp(a) * (a - b) for a, b in zip(*row, strict=True))
        for row in zip(p.tolist(), q.tolist(), strict=True)
    ]
    assert kl_divergence(p, q).tolist() == pytest.approx(by_hand)
    torch.testing.assert_close(kl_divergence(p, q), F.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1))


def test_kl_is_positive_zero_for_equals_only_and_not_symmetric() -> None:
    p, q = log_p(1), log_p(2)
    assert (kl_divergence(p, q) > 0).all()
    assert kl_divergence(p, p).tolist() == [0] * 5
    assert not torch.isclose(kl_divergence(p, q), kl_divergence(q, p)).any()


def test_where_p_is_0_so_is_the_term_and_where_q_is_0_kl_is_infinite() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.25])
    assert kl_divergence(p.log(), q.log()).item() == pytest.approx(0.5 * math.log(2))
    assert kl_divergence(q.log(), p.log()).item() == math.inf


def test_cross_entropy_is_entropy_and_kl() -> None:
    p, q = log_p(1), log_p(2)
    entropy = torch.distributions.Categorical(logits=p).entropy()
    cross_entropy = F.cross_entropy(q, p.exp(), reduction="none")
    torch.testing.assert_close(cross_entropy, entropy + kl_divergence(p, q))


def test_kl_from_a_one_hot_target_is_the_nll() -> None:
    q, target = log_p(2), torch.tensor([3, 1, 4, 1, 5])
    one_hot = F.one_hot(target, VOCAB_SIZE).double().log()
    torch.testing.assert_close(kl_divergence(one_hot, q), F.nll_loss(q, target, reduction="none"))


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_label_smoothing_is_nll_with_kl_from_the_uniform_distribution_and_a_constant(smoothing: float) -> None:
    z, target = logits(3), torch.tensor([2, 7, 1, 8, 2])
    loss, nll = label_smoothed_cross_entropy(z, target, smoothing)
    uniform = torch.full_like(z, -math.log(VOCAB_SIZE))
    kl = kl_divergence(uniform, z.log_softmax(dim=-1)).sum() + 5 * math.log(VOCAB_SIZE)
    torch.testing.assert_close(loss, (1 - smoothing) * nll + smoothing * kl)


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (0.3, 2.0), (1.0, 7.0), (0.0, 3.0)])
def test_word_level_distillation_is_the_weighted_sum(weight: float, temperature: float) -> None:
    student, teacher, target = logits(4), logits(5), torch.tensor([2, 7, 1, 8, 2])
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    kl = (p * (p / q).log()).sum() / 5
    expected = (1 - weight) * F.cross_entropy(student, target) + weight * temperature**2 * kl
    torch.testing.assert_close(word_distillation(student, teacher, target, weight, temperature), expected)


def test_a_student_that_equals_its_teacher_has_neither_soft_loss_nor_gradient() -> None:
    student, target = logits(4).requires_grad_(), torch.zeros(5, dtype=torch.int64)
    loss = word_distillation(student, student.detach().clone(), target, 1.0, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None and student.grad.abs().max() < 1e-12


def gradient(temperature: float) -> Tensor:
    student = logits(4).requires_grad_()
    word_distillation(student, logits(5), torch.zeros(5, dtype=torch.int64), 1.0, temperature).backward()
    assert student.grad is not None
    return student.grad * 5


def test_the_gradient_of_the_soft_loss_keeps_its_size_over_temperatures() -> None:
    norms = [gradient(temperature).norm().item() for temperature in (1.0, 2.0, 4.0, 8.0)]
    assert max(norms) / min(norms) < 3  # without T² it would fall 64-fold


def test_at_high_temperatures_distillation_matches_logits() -> None:
    """(z_s - z_t) / V for logits of mean zero (Hinton et al., equation 4), T² times."""
    difference = logits(4) - logits(5)
    expected = (difference - difference.mean(dim=-1, keepdim=True)) / VOCAB_SIZE
    torch.testing.assert_close(gradient(1e5), expected, rtol=1e-3, atol=1e-4)


def objective(policy: Tensor, reference: Tensor, rewards: Tensor, beta: float) -> float:
    return ((policy.exp() * rewards).sum() - beta * kl_divergence(policy, reference)).item()


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_no_policy_is_better_than_the_closed_form_and_gradient_ascent_arrives_there(beta: float) -> None:
    reference, rewards = logits(6, 5).log_softmax(0).float(), logits(7, 5).float()
    best = best_policy(reference, rewards, beta)
    torch.testing.assert_close(best.exp(), F.normalize(reference.exp() * (rewards / beta).exp(), p=1, dim=0))
    value = objective(best, reference, rewards, beta)
    assert value == pytest.approx(beta * (reference + rewards / beta).logsumexp(0).item(), rel=1e-4)
    others = [logits(seed, 5).log_softmax(0).float() for seed in range(8, 31)]
    assert value > max(objective(other, reference, rewards, beta) for other in [*others, reference])
    climbed = ascended_policy(reference, rewards, beta, 500)
    torch.testing.assert_close(climbed.exp(), best.exp(), rtol=0, atol=2e-3)


def test_the_reference_is_left_as_it_is() -> None:
    reference = torch.tensor([0.2, 0.8]).log()
    ascended_policy(reference, torch.tensor([1.0, 0.0]), 1.0, 3)
    assert torch.equal(reference, torch.tensor([0.2, 0.8]).log())


def test_a_weak_leash_takes_the_best_reward_and_a_strong_one_stays_at_the_reference() -> None:
    reference, rewards = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.0, 1.0, 2.0])
    assert best_policy(reference, rewards, 0.01).exp()[2] > 0.999
    torch.testing.assert_close(best_policy(reference, rewards, 1e4).exp(), reference.exp(), rtol=0, atol=1e-3)


def test_logits_of_a_batch_are_those_of_its_words_and_ends_in_any_company() -> None:
    pairs = [([4, 5, 6], [7, 8]), ([9], [10, 4, 5, 6])]
    source, target = batch(pairs)
    assert source.tolist() == [[4, 5, 6, EOS_ID], [9, EOS_ID, PAD_ID, PAD_ID]]
    assert target[0].tolist() == [BOS_ID, 7, 8, EOS_ID, PAD_ID, PAD_ID]
    z, words = batch_logits(model(), source, target)
    assert words.tolist() == [7, 8, EOS_ID, 10, 4, 5, 6, EOS_ID]
    alone = [batch_logits(model(), *batch([pair]))[0] for pair in pairs]
    torch.testing.assert_close(z, torch.cat(alone))


def test_translations_of_beam_1_take_the_most_probable_word_of_the_whole_forward_pass() -> None:
    trained, source = model(2).eval(), [[4, 5], [6, 7, 8, 9, 10]]
    train(trained, [(ids, ids[::-1]) for ids in source], 40, 2)
    for ids, output in zip(source, translate(trained, source, beam=1), strict=True):
        target = [BOS_ID]
        while target[-1] != EOS_ID and len(target) <= 40:
            z = trained(torch.tensor([[*ids, EOS_ID]]), torch.tensor([target]))
            target.append(int(z[0, -1].argmax()))
        assert output == [i for i in target[1:] if i != EOS_ID]


def test_a_student_learns_more_of_its_teacher_with_its_guidance() -> None:
    teacher, draw = model(3, num_layers=2).eval(), torch.Generator().manual_seed(9)
    pairs = [
        ([*source], [*target]) for source, target in torch.randint(4, VOCAB_SIZE, (64, 2, 5), generator=draw).tolist()
    ]
    divergences = []
    for guide in (None, (soft_targets(teacher, pairs), 1.0)):
        student = model(4)
        train(student, pairs, 60, 16, guide)
        with torch.no_grad():
            p, q = (batch_logits(m, *batch(pairs))[0].log_softmax(dim=-1) for m in (teacher, student))
        divergences.append(kl_divergence(p, q).mean().item())
    assert divergences[1] < 0.8 * divergences[0]


def test_kept_logits_of_the_teacher_are_those_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = model(3, num_layers=2).eval(), model(4).eval()
    pairs = [([4 + i % 7, 5 + i % 3], [4 + (3 * i) % 7] * (1 + i % 5)) for i in range(13)]
    losses: list[Callable[[int], Tensor]] = []
    monkeypatch.setattr(distillation, "fit", lambda _, loss, *__, **___: losses.append(loss))
    train(student, pairs, 2, 7, (soft_targets(teacher, pairs), 2.0))
    chosen = batch(random.Random(2).sample(pairs, 7))
    (expected, target), (taught, _) = batch_logits(student, *chosen), batch_logits(teacher, *chosen)
    torch.testing.assert_close(losses[0](0), word_distillation(expected, taught, target, 0.5, 2.0))


def test_a_tiny_run_prints_a_row_for_each_model_and_each_beta(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "2", "--batch-size", "4", "--pairs", "100", "--student-pairs", "7", "--test-pairs", "5"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    names = ["references", *(f"word-level, T = {t}" for t in (1, 2, 4)), "sequence-level"]
    assert [row[0] for row in rows[2:8]] == ["teacher", *(f"student, {name}" for name in names)]
    assert [row[0] for row in rows[10:]] == ["0.1", "1", "10"]
    assert max(float(row[3]) for row in rows[10:]) < 1e-3


def test_a_batch_of_more_than_the_pairs_of_a_student_is_an_error() -> None:
    with pytest.raises(UserError, match="--batch-size 7 is more than pairs"):
        main(["--batch-size", "7", "--student-pairs", "5"])

"""WaveNet: its receptive field to the sample, causality, a naive convolution, and μ-law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from wavenet import LEVELS, MU, NOISE, Block, WaveNet, expand, main, mu_law, noise_loss, sinusoids


def small(dilations: list[int], seed: int = 1) -> WaveNet:
    torch.manual_seed(seed)
    return WaveNet(dilations, channels=5, skip_channels=7).double()


def reached(model: WaveNet, length: int) -> list[int]:
    """How many samples before the next one the inputs are, 1 for the latest, that move the last logits."""
    levels = torch.randint(LEVELS, (1, length), generator=torch.Generator().manual_seed(2))
    x = model.embedding(levels).detach().requires_grad_()
    hook = model.embedding.register_forward_hook(lambda *_: x)
    logits = model(levels)[0, -1]
    hook.remove()
    (gradient,) = torch.autograd.grad((logits * torch.linspace(-1, 1, LEVELS)).sum(), x)
    return [length - i for i in range(length) if gradient[0, i].abs().max() > 0][::-1]


@pytest.mark.parametrize("dilations", [[1, 2, 4, 8], [1, 1, 1], [1, 2, 4, 1, 2, 4], [1, 2, 4, 8, 16, 32]])
def test_the_receptive_field_is_exactly_one_more_than_all_dilations(dilations: list[int]) -> None:
    model = small(dilations)
    assert model.receptive_field == 1 + sum(dilations)
    assert reached(model, model.receptive_field + 7) == list(range(1, model.receptive_field + 1))


def test_the_papers_block_of_dilations_reaches_1024_samples() -> None:
    assert WaveNet([2**i for i in range(10)], channels=2, skip_channels=2).receptive_field == 1024


def test_no_logit_depends_on_a_later_sample() -> None:
    model, levels = small([1, 2, 4]), torch.randint(LEVELS, (3, 17), generator=torch.Generator().manual_seed(3))
    changed = levels.clone()
    changed[:, 11:] = (changed[:, 11:] + 97) % LEVELS
    before, after = model(levels), model(changed)
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.isclose(before[:, 11], after[:, 11]).all(dim=-1).any()


def test_parameters_do_not_depend_on_dilations() -> None:
    assert len({sum(p.numel() for p in small(dilations).parameters()) for dilations in ([1] * 4, [1, 2, 4, 8])}) == 1


def naive_block(block: Block, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equation 2 written out for one sequence (T, C), sample by sample."""
    channels, dilation = x.shape[1], block.dilation
    w, b = (y.detach().numpy() for y in block.filter_and_gate.parameters())
    v, c = (y.detach().numpy() for y in block.residual_and_skip.parameters())
    stream, skips = [], []
    for t in range(len(x)):
        past = x[t - dilation] if t >= dilation else np.zeros(channels)
        y = w[:, :channels] @ past + w[:, channels:] @ x[t] + b
        z = np.tanh(y[:channels]) / (1 + np.exp(-y[channels:]))
        stream.append(x[t] + v[:channels] @ z + c[:channels])
        skips.append(v[channels:] @ z + c[channels:])
    return np.stack(stream), np.stack(skips)


def test_a_stack_equals_naive_convolutions_sample_by_sample() -> None:
    model, levels = small([1, 3, 2]), torch.randint(LEVELS, (1, 13), generator=torch.Generator().manual_seed(4))
    x, total = model.embedding.weight.detach().numpy()[levels[0]], np.zeros((13, 7))
    for block in model.blocks:
        x, skip = naive_block(block, x)
        total = total + skip
    (w_1, b_1), (w_2, b_2) = ([y.detach().numpy() for y in model.output[i].parameters()] for i in (1, 3))
    expected = np.maximum(np.maximum(total, 0) @ w_1.T + b_1, 0) @ w_2.T + b_2
    np.testing.assert_allclose(model(levels)[0].detach().numpy(), expected, rtol=1e-10)


def test_a_block_is_a_dilated_convolution_of_torch_between_its_gate_and_its_input() -> None:
    torch.manual_seed(5)
    block, x = Block(3, 2, dilation=4).double(), torch.randn(2, 11, 3, dtype=torch.float64)
    convolution = nn.Conv1d(3, 6, 2, dilation=4).double()
    weight = block.filter_and_gate.weight
    convolution.load_state_dict({"weight": weight.view(6, 2, 3).mT, "bias": block.filter_and_gate.bias})
    y = convolution(F.pad(x.mT, (4, 0))).mT  # (B, T, 2C)
    residual = block.residual_and_skip(y[..., :3].tanh() * y[..., 3:].sigmoid())
    torch.testing.assert_close(torch.cat(block(x), dim=-1), residual + F.pad(x, (0, 2)))


def test_generation_from_queues_gives_the_logits_of_the_whole_past() -> None:
    model, levels = small([1, 2, 4, 1]), torch.randint(LEVELS, (2, 19), generator=torch.Generator().manual_seed(6))
    queues = model.queues(2)
    steps = [model(levels[:, t : t + 1], queues) for t in range(19)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(levels))
    assert [len(queue) for queue in queues] == [1, 2, 4, 1]


def test_mu_law_is_the_papers_formula_and_loses_least_near_zero() -> None:
    x = torch.linspace(-1, 1, 2003, dtype=torch.float64)
    expected = [math.copysign(math.log(1 + 255 * abs(y)) / math.log(256), y) for y in x.tolist()]
    levels = mu_law(x)
    assert (levels - (torch.tensor(expected, dtype=torch.float64) + 1) / 2 * 255).abs().max() <= 0.5 + 1e-9
    error = (expand(levels) - x).abs()
    assert error.max() < 0.022 and error[x.abs() <= 0.05].max() < 0.0011
    assert torch.equal(mu_law(expand(torch.arange(LEVELS))), torch.arange(LEVELS))
    assert mu_law(torch.tensor([-1.7, 1.7])).tolist() == [0, MU]  # clipped


@pytest.mark.parametrize("sample", [0.5, -0.07, 0.0])
def test_the_loss_of_known_sinusoids_is_the_entropy_of_the_levels_of_their_noise(sample: float) -> None:
    clean = torch.full((1, 200_003), sample)
    levels = mu_law(clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7)))
    frequencies = levels.flatten().bincount() / levels.numel()
    entropy = -torch.xlogy(frequencies, frequencies).sum().item()
    assert noise_loss(clean, levels).item() == pytest.approx(entropy, abs=0.003)


def test_levels_at_either_end_have_all_that_is_beyond_them() -> None:
    clean, ends = torch.tensor([[3.0, -3.0]]), torch.tensor([[MU, 0]])
    assert noise_loss(clean, ends).item() == pytest.approx(0, abs=1e-12)


def test_sinusoids_stay_within_the_levels_and_differ_by_the_noise_alone() -> None:
    clean, noisy = sinusoids(31, 1009, torch.Generator().manual_seed(8))
    assert clean.shape == noisy.shape == (31, 1009) and clean.abs().max() < 0.75
    assert (noisy - clean).std().item() == pytest.approx(NOISE, rel=0.02)


def test_a_tiny_run_prints_a_row_for_each_stack_and_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--updates", "2", "--batch-size", "2", "--length", "64"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[2:]] == ["9", "31", "256", "–"]
    losses: list[float] = [float(row[2].strip(" |")) for row in rows[2:]]
    assert min(losses[:3]) > losses[3] > 0 and max(losses) < 6

"""Scaling laws: N = 12 n d², causality, one pass over the data, and fits that recover constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from report import count_parameters
from scaling import (
    CONTEXT,
    Array,
    LanguageModel,
    approximate_size,
    bootstrap,
    estimates,
    fit_law,
    frontier,
    held_out_loss,
    main,
    predicted,
    sequences,
    slope,
)
from transformers import GPT2Config, GPT2LMHeadModel

from transformer import UserError

N = np.repeat([1536.0, 6144.0, 24576.0, 98304.0], 4)
D = np.tile(2.0 ** np.array([16, 17, 18, 19]), 4)


@pytest.mark.parametrize(("d_model", "num_layers"), [(64, 2), (64, 7), (128, 3), (512, 1)])
def test_n_is_counted_within_two_percent_and_exact_for_matrices(d_model: int, num_layers: int) -> None:
    decoder = LanguageModel(1, d_model, num_layers).decoder
    n = approximate_size(num_layers, d_model)
    assert sum(p.numel() for p in decoder.parameters() if p.dim() == 2) == n
    assert n < count_parameters(decoder) < 1.02 * n


def test_n_is_that_of_gpt_2_within_two_percent() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=128, n_head=2, vocab_size=7, n_positions=5))
    blocks = sum(p.numel() for p in model.transformer.h.parameters())
    assert blocks == pytest.approx(approximate_size(3, 128), rel=0.02)


def test_gpt_3_has_174_billion_and_the_identity_does_not_name_its_depth() -> None:
    assert approximate_size(96, 12288) == pytest.approx(173.9e9, rel=1e-3)
    assert approximate_size(24, 24576) == approximate_size(96, 12288)  # a quarter of the depth, twice the size


def test_probabilities_of_all_texts_of_a_length_sum_to_one() -> None:
    """The chain rule holds only if no position sees the token that it predicts, or one behind it."""
    torch.manual_seed(1)
    model = LanguageModel(3, 16).double()
    texts = torch.cartesian_prod(*[torch.arange(3)] * 5)
    texts = texts[texts[:, 0] == 2]
    with torch.no_grad():
        probabilities = torch.stack([(-4 * model.loss(text[None])).exp() for text in texts])
    assert len(texts) == 81 and probabilities.sum().item() == pytest.approx(1)
    assert probabilities.std() > 0.3 * probabilities.mean()


def test_positions_tell_the_order_of_the_past() -> None:
    """Without them, one layer would see the tokens before the last one as a set."""
    torch.manual_seed(2)
    model, ids = LanguageModel(23, 16, num_layers=1).double(), torch.randint(23, (1, 12))
    last = []  # the NLL of the last token
    for past in (ids[:, :10], ids[:, :10].flip(1)):
        text = torch.cat((past, ids[:, 10:]), dim=1)
        last.append(11 * model.loss(text) - 10 * model.loss(text[:, :11]))
    assert (last[0] - last[1]).abs() > 1e-6


def test_sequences_have_each_target_once() -> None:
    tokens = torch.arange(3 * CONTEXT + 11)
    cut = sequences(tokens)
    assert cut.shape == (3, CONTEXT + 1)
    assert cut[:, 1:].flatten().tolist() == list(range(1, 3 * CONTEXT + 1))
    assert torch.equal(cut[:, :-1] + 1, cut[:, 1:])


@pytest.mark.parametrize(
    "law", [(1.2, 30.0, 0.4, 900.0, 0.5), (0.0, 5.0, 0.08, 20.0, 0.1), (2.0, 900.0, 1.0, 5e5, 1.2)]
)
def test_the_fit_recovers_the_constants_of_losses_that_follow_the_law(law: tuple[float, ...]) -> None:
    found = fit_law(N, D, predicted(np.array(law), N, D))
    np.testing.assert_allclose(found, law, rtol=1e-3, atol=1e-3)


def test_no_constant_is_negative_even_where_that_would_fit_better() -> None:
    loss = predicted(np.array([-0.5, 5.0, 0.1, 9.0, 0.1]), N, D)
    found = fit_law(N, D, loss)
    assert (found >= 0).all() and np.abs(predicted(found, N, D) - loss).max() < 0.1


def noisy(scale: float, seed: int = 3) -> Array:
    noise = np.random.default_rng(seed).normal(size=16)
    return predicted(np.array([1.2, 30, 0.4, 900, 0.5]), N, D) + scale * noise


def test_the_fit_is_the_best_of_its_neighbours() -> None:
    loss = noisy(0.05)
    law = fit_law(N, D, loss)
    error = ((predicted(law, N, D) - loss) ** 2).sum()
    for i, factor in [(i, factor) for i in range(5) for factor in (0.97, 1.03)]:
        other = law.copy()
        other[i] *= factor
        assert ((predicted(other, N, D) - loss) ** 2).sum() > error or law[i] == 0


def test_intervals_grow_with_the_noise_and_vanish_without() -> None:
    widths = []
    for scale in (0.0, 0.01, 0.05):
        loss = noisy(scale)
        low, high = np.percentile(bootstrap(N, D, loss, 15, 1), (5, 95), axis=0)
        widths.append((high - low)[3:])  # of the slopes
    assert widths[0].max() < 1e-6 < widths[1].min()
    assert (widths[1] < widths[2]).all()


def test_the_slope_of_a_power_law_is_its_exponent_and_a_constant_bends_it() -> None:
    x = 2.0 ** np.arange(10, 17)
    assert slope(x, 7 * x**-0.3) == pytest.approx(0.3)
    assert slope(x, 1 + 7 * x**-0.3) < 0.3


def test_the_frontier_has_the_runs_that_none_of_less_computation_beats() -> None:
    c, loss = np.array([1.0, 2.0, 2.0, 4.0, 8.0]), np.array([5.0, 4.0, 4.5, 4.2, 3.0])
    assert frontier(c, loss).tolist() == [True, True, False, False, True]


def test_slopes_are_of_the_runs_with_most_data_of_the_largest_model_and_of_the_frontier() -> None:
    loss = noisy(0.0)
    found = estimates(N, D, loss)
    np.testing.assert_allclose(found[:3], [1.2, 0.4, 0.5], rtol=1e-3)
    assert found[3] == pytest.approx(slope(N[3::4], loss[3::4])) and found[4] == pytest.approx(slope(D[12:], loss[12:]))
    best = frontier(6 * N * D, loss)
    assert found[5] == pytest.approx(slope((N * D)[best], loss[best]))


def test_more_data_lower_the_loss() -> None:
    text = torch.arange(40 * CONTEXT) % 17  # its next token is a function of the last one
    few, more = (
        held_out_loss(8, 17, text[:length], text[: 5 * CONTEXT], 1) for length in (8 * CONTEXT + 1, 40 * CONTEXT)
    )
    assert more < few


def test_a_tiny_run_prints_sizes_losses_and_fits(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--log2-tokens", "10", "--amounts", "3", "--resamples", "2"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[0][3:] == ["L at D = 256", "L at D = 512", "L at D = 1,024"]
    assert [row[:2] for row in rows[2:6]] == [["8", "1,536"], ["16", "6,144"], ["32", "24,576"], ["64", "98,304"]]
    names = ["E (nats)", "α of N", "β of D", "slope of L(N)", "slope of L(D)", "slope of L(C)"]
    assert [row[0] for row in rows[8:]] == [*names, "largest residual (nats)"]


@pytest.mark.parametrize("argv", [["--amounts", "2"], ["--amounts", "1"], ["--log2-tokens", "7", "--amounts", "3"]])
def test_amounts_that_settle_no_law_are_an_error(argv: list[str]) -> None:
    """E, B and β are three constants, and a sequence has 64 tokens."""
    with pytest.raises(UserError, match="no law of"):
        main(argv)

"""The shared embedding matrix, and sinusoids against sines and cosines of single angles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from transformer.model import kernels
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions, sinusoidal_positions
from transformer.model.transformer import Transformer

V, D = 31, 13


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """Each test computes its own tables of sinusoids."""
    kernels._table.cache_clear()
    yield
    kernels._table.cache_clear()


# The shared matrix


def test_embeddings_are_rows_times_the_root_of_d_model() -> None:
    embedding = SharedEmbedding(5, 4)
    with torch.no_grad():
        embedding.weight.copy_(torch.arange(20.0).view(5, 4))
    ids = torch.tensor([[2, 0, 2]])
    # √4 = 2.
    expected = torch.tensor([[[16.0, 18, 20, 22], [0, 2, 4, 6], [16, 18, 20, 22]]])
    assert_close(embedding(ids), expected)
    assert_close(embedding(ids, is_target=True), expected)


def test_logits_are_unscaled_products_with_the_rows() -> None:
    model = Transformer(3, 2, num_layers=0)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.tensor([[1.0, 2], [3, 5], [-7, 11]]))
    assert_close(model.logits(torch.tensor([[2.0, 1]])), torch.tensor([[4.0, 11, -3]]))


def test_for_a_device_without_float64_sinusoids_are_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sinusoidal_positions(7, D)
    monkeypatch.setattr(Tensor, "to", lambda x, device, dtype: x.type(dtype) if str(device) == "mps" else None)
    for device in ("mps", torch.device("mps")):
        assert torch.equal(sinusoidal_positions(7, D, device), expected)


def test_the_shared_matrix_is_one_parameter() -> None:
    embedding = SharedEmbedding(V, D)
    assert [name for name, _ in embedding.named_parameters()] == ["weight"] == list(embedding.state_dict())
    assert sum(p.numel() for p in embedding.parameters()) == V * D
    assert embedding.output_weight is embedding.weight


def test_the_shared_matrix_serves_source_target_and_logits() -> None:
    torch.manual_seed(3)
    model = Transformer(V, D, num_layers=0)
    src, tgt, hidden = torch.randint(V, (2, 7)), torch.randint(V, (2, 5)), torch.randn(2, 5, D)

    def uses() -> tuple[Tensor, ...]:
        return model.embedding(src), model.embedding(tgt, is_target=True), model.logits(hidden)

    before = uses()
    with torch.no_grad():
        model.embedding.weight.mul_(3.0)
    assert_close(uses(), tuple(3.0 * y for y in before))


def test_the_shared_matrix_starts_normal_with_variance_one_over_d_model() -> None:
    torch.manual_seed(3)
    d_model = 101
    standard = SharedEmbedding(499, d_model).weight.detach() * math.sqrt(d_model)
    # 50,399 numbers: the bounds are four standard deviations of each statistic.
    assert abs(standard.mean()) < 4 / math.sqrt(standard.numel())
    assert abs(standard.var() - 1) < 4 * math.sqrt(2 / standard.numel())
    assert abs((standard.abs() < 1).double().mean() - 0.6827) < 4 * math.sqrt(0.22 / standard.numel())


def test_the_first_logits_have_unit_variance_and_the_first_loss_is_that_of_a_guess() -> None:
    torch.manual_seed(3)
    vocab_size = 1009
    model = Transformer(vocab_size, d_model=202, num_layers=2, num_heads=2, d_ff=211).eval()
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


# Sinusoids


def as_printed(position: int, d_model: int) -> Tensor:
    """The formula of section 3.5 for one position, number by number, in float64."""
    angle = [position / 10000 ** (2 * (dimension // 2) / d_model) for dimension in range(d_model)]
    return torch.tensor(
        [math.cos(a) if dimension % 2 else math.sin(a) for dimension, a in enumerate(angle)], dtype=torch.float64
    )


def test_sines_and_cosines_alternate_with_the_values_of_a_pocket_calculator() -> None:
    # d_model = 4: angles pos and pos / 100.
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [0.8414710, 0.5403023, 0.0099998, 0.9999500],
        [0.9092974, -0.4161468, 0.0199987, 0.9998000],
    ]
    assert_close(sinusoidal_positions(3, 4), torch.tensor(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize("d_model", [1, 2, 7, 15, 22, 512])
def test_every_value_is_that_of_the_formula(d_model: int) -> None:
    table = sinusoidal_positions(13, d_model)
    assert table.dtype == torch.float32
    assert_close(table, torch.stack([as_printed(position, d_model) for position in range(13)]).float())


def test_an_odd_d_model_ends_with_a_sine() -> None:
    last = [math.sin(position / 10000 ** (4 / 5)) for position in range(7)]
    assert_close(sinusoidal_positions(7, 5)[:, 4], torch.tensor(last))


def test_position_ten_thousand_is_as_exact_as_float32_can_be() -> None:
    d_model = 62
    table = sinusoidal_positions(10_008, d_model)
    for position in (4999, 9973, 10_000, 10_007):
        # Half a unit in the last place of numbers below 1; a float32 angle of 10,000 would be off by 5e-4.
        assert_close(table[position].double(), as_printed(position, d_model), rtol=0, atol=2.0**-25 + 1e-11)


def test_a_shift_of_positions_is_a_rotation_that_does_not_depend_on_the_position() -> None:
    # Section 3.5: PE(pos + k) is a linear function of PE(pos).
    table, shift, d_model = sinusoidal_positions(101, 22).double(), 7, 22
    sine, cosine = table[:-shift, 0::2], table[:-shift, 1::2]
    angle = shift / 10000 ** (torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    assert_close(table[shift:, 0::2], sine * angle.cos() + cosine * angle.sin(), rtol=0, atol=1e-6)
    assert_close(table[shift:, 1::2], cosine * angle.cos() - sine * angle.sin(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("d_model", "longest"), [(512, 9646.6), (1024, 9821.7)])
def test_wavelengths_are_a_geometric_progression_from_2_pi(d_model: int, longest: float) -> None:
    # Section 3.5 says "to 10000 · 2π", which its own formula reaches only in the limit.
    _, first = sinusoidal_positions(2, d_model, dtype=torch.float64)
    wavelength = 2 * math.pi / torch.atan2(first[0::2], first[1::2])
    assert wavelength[0].item() == pytest.approx(2 * math.pi)
    assert_close(wavelength[1:] / wavelength[:-1], torch.full((d_model // 2 - 1,), 10000 ** (2 / d_model)).double())
    assert wavelength[-1].item() == pytest.approx(longest * 2 * math.pi, rel=1e-5)
    assert longest == pytest.approx(10000 ** (1 - 2 / d_model), rel=1e-5)


def test_sinusoids_are_made_on_the_requested_device() -> None:
    assert sinusoidal_positions(7, 5, device="meta").device.type == "meta"
    x = torch.empty(2, 7, 22, device="meta")
    assert SinusoidalPositions(22)(x).device.type == "meta"


def test_positions_are_added_and_the_same_for_every_sentence() -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 7, 22)
    expected = x + torch.stack([as_printed(position, 22) for position in range(7)]).float()
    assert_close(SinusoidalPositions(22)(x), expected)


def test_start_is_the_first_position() -> None:
    torch.manual_seed(3)
    x, positions = torch.randn(2, 13, 22), SinusoidalPositions(22)
    whole = positions(x)
    for start in (0, 1, 5, 12):
        assert torch.equal(positions(x[:, start:], start), whole[:, start:])
        assert torch.equal(positions.rows(start, 13, x), sinusoidal_positions(13, 22)[start:])


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize(("start", "length"), [(0, 257), (0, 1009), (251, 7), (5003, 1), (255, 1), (256, 1), (3, 0)])
def test_positions_are_exact_beyond_the_first_table(
    start: int, length: int, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    positions = SinusoidalPositions(15)
    positions(torch.zeros(1, 1, 15))  # the first table
    y = positions(torch.zeros(1, length, 15), start)
    assert torch.equal(y[0], sinusoidal_positions(start + length, 15)[start:])


def test_tables_double_so_that_long_inputs_do_not_compute_one_at_each_step() -> None:
    positions = SinusoidalPositions(3)
    for start in range(1031):
        positions(torch.zeros(1, 1, 3), start)
    assert kernels._table.cache_info().misses <= 4


@pytest.mark.parametrize("start", [0, 300])
def test_positions_take_the_dtype_of_the_embeddings(start: int) -> None:
    positions = SinusoidalPositions(22)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        y = positions(torch.zeros(1, 1, 22, dtype=dtype), start)
        assert y.dtype == dtype
        # Sinusoids are rounded to float32 at least.
        assert_close(y[0, 0], as_printed(start, 22).float().to(dtype))


def test_a_table_computed_in_inference_mode_can_be_used_in_training() -> None:
    positions = SinusoidalPositions(22)
    with torch.inference_mode():
        positions(torch.zeros(1, 307, 22))
    x, table = torch.randn(1, 307, 22, requires_grad=True), sinusoidal_positions(307, 22)
    # Of a product, unlike of a sum, autograd keeps the table, and refuses a tensor of inference mode.
    (positions(x) * positions.rows(0, 307, x)).sum().backward()
    assert_close(x.grad[0], table)


def test_a_fake_tensor_neither_stays_in_the_cache_nor_meets_a_real_one() -> None:
    # FakeTensorMode is how shapes and memory are estimated without computing anything.
    positions, x = SinusoidalPositions(22), torch.zeros(1, 7, 22)
    for _ in range(2):
        with FakeTensorMode():
            assert positions(torch.zeros(1, 7, 22)).shape == x.shape
        assert torch.equal(positions(x)[0], sinusoidal_positions(7, 22))


def test_a_table_computed_within_a_function_transform_can_be_used_outside() -> None:
    positions, x = SinusoidalPositions(22), torch.randn(3, 7, 22)
    expected = x + sinusoidal_positions(7, 22)
    for transform in (
        lambda: torch.func.vmap(lambda y: positions(y[None])[0])(x),
        lambda: torch.func.jvp(positions, (x,), (x,))[0],
        lambda: torch.func.vjp(positions, x)[0],
    ):
        kernels._table.cache_clear()
        assert torch.equal(transform(), expected)
        assert torch.equal(positions(x), expected)


def test_sinusoids_are_neither_learned_nor_saved() -> None:
    positions = SinusoidalPositions(22)
    assert list(positions.parameters()) == []
    assert list(positions.buffers()) == []
    assert positions.state_dict() == {}


def test_sinusoids_set_no_limit_to_the_length() -> None:
    assert Transformer(V, D, num_layers=0).max_length is None
    assert SinusoidalPositions(D)(torch.zeros(1, 1, D), start=100_003).isfinite().all()

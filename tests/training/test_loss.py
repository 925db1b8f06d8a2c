"""Label-smoothed cross-entropy and its blockwise form, against hand-computed numbers, torch and autograd."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from transformer.training import loss as loss_module
from transformer.training.loss import label_smoothed_loss, projected_loss

N, D, V = 13, 7, 31
# Rows of 31 logits per block: one, some that do not divide 13, exactly 13, and more than there are.
BLOCK_NUMELS = (1, V, 2 * V, 5 * V + 3, N * V, 1 << 21)


@pytest.fixture(params=BLOCK_NUMELS)
def block_numel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many logits a block may have."""
    monkeypatch.setitem(loss_module._BLOCK_NUMEL, "cpu", request.param)
    return request.param


def make_inputs(dtype: torch.dtype = torch.float32, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (N, D), output matrix (V, D), both wanting gradients, and targets (N,) with repetitions."""
    torch.manual_seed(seed)
    hidden, matrix = torch.randn(N, D, dtype=dtype), torch.randn(V, D, dtype=dtype)
    target = torch.randint(V, (N,))
    target[3] = target[5] = 0
    return hidden.requires_grad_(), matrix.requires_grad_(), target


def test_a_vocabulary_of_three_gives_the_numbers_worked_out_by_hand() -> None:
    # Probabilities 1/8, 2/8, 5/8 and 1/2, 1/4, 1/4; targets 2 and 0; smoothing 0.3, so 0.1 for each token.
    logits = torch.tensor([[1.0, 2.0, 5.0], [2.0, 1.0, 1.0]]).log() + torch.tensor([[7.0], [-11.0]])
    loss, nll = label_smoothed_loss(logits, torch.tensor([2, 0]), 0.3)
    ln = math.log
    expected_nll = ln(8 / 5) + ln(2)
    expected_loss = (0.1 * ln(8) + 0.1 * ln(4) + 0.8 * ln(8 / 5)) + (0.8 * ln(2) + 0.1 * ln(4) + 0.1 * ln(4))
    assert_close(nll, torch.tensor(expected_nll))
    assert_close(loss, torch.tensor(expected_loss))


def test_the_blockwise_loss_gives_the_numbers_worked_out_by_hand() -> None:
    # Logits are the rows of the matrix at a one-hot hidden vector: ln 1, ln 2, ln 5.
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0], [5.0, 1.0]]).log().requires_grad_()
    hidden = torch.eye(2, requires_grad=True)
    loss, nll = projected_loss(hidden, matrix, torch.tensor([2, 0]), 0.3)
    ln = math.log
    assert_close(nll, torch.tensor(ln(8 / 5) + ln(2)))
    assert_close(loss, torch.tensor(0.1 * ln(8) + 0.1 * ln(4) + 0.8 * ln(8 / 5) + 0.8 * ln(2) + 0.2 * ln(4)))
    loss.backward()
    # softmax - (0.8 at the target, 0.1 elsewhere), a column per token.
    expected = torch.tensor([[1 / 8 - 0.1, 2 / 4 - 0.8], [2 / 8 - 0.1, 1 / 4 - 0.1], [5 / 8 - 0.8, 1 / 4 - 0.1]])
    assert_close(matrix.grad, expected)
    assert_close(hidden.grad, expected.T @ matrix.detach())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_loss_and_its_gradient_are_those_of_torch(smoothing: float) -> None:
    torch.manual_seed(3)
    logits, target = torch.randn(N, V, requires_grad=True), torch.randint(V, (N,))
    loss, nll = label_smoothed_loss(logits, target, smoothing)
    expected = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    assert_close(loss, expected)
    assert_close(nll, F.cross_entropy(logits, target, reduction="sum"))
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_smoothing_is_a_tenth_by_default() -> None:
    hidden, matrix, target = make_inputs()
    logits = hidden @ matrix.T
    assert_close(label_smoothed_loss(logits, target), label_smoothed_loss(logits, target, 0.1), rtol=0, atol=0)
    assert_close(projected_loss(hidden, matrix, target), projected_loss(hidden, matrix, target, 0.1), rtol=0, atol=0)


def test_the_best_smoothed_loss_is_the_entropy_of_the_smoothed_targets() -> None:
    smoothing = 0.1
    q = torch.full((1, V), smoothing / V)
    q[0, 5] += 1 - smoothing
    entropy = -(q * q.log()).sum()
    target = torch.tensor([5])
    assert_close(label_smoothed_loss(q.log(), target, smoothing)[0], entropy)
    torch.manual_seed(3)
    for _ in range(7):
        assert label_smoothed_loss(q.log() + 0.1 * torch.randn(1, V), target, smoothing)[0] > entropy


def test_losses_are_sums_over_tokens() -> None:
    hidden, matrix, target = make_inputs()
    for function in (label_smoothed_loss, lambda h, t: projected_loss(h, matrix, t)):
        x = hidden @ matrix.T if function is label_smoothed_loss else hidden
        parts = [function(x[i : i + 1], target[i : i + 1]) for i in range(N)]
        loss, nll = function(x, target)
        assert_close(loss, sum(part[0] for part in parts))
        assert_close(nll, sum(part[1] for part in parts))


@pytest.mark.usefixtures("block_numel")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_blocks_of_any_size_give_the_loss_and_gradients_of_the_whole_matrix(smoothing: float) -> None:
    hidden, matrix, target = make_inputs()
    loss, nll = projected_loss(hidden, matrix, target, smoothing)
    expected_loss, expected_nll = label_smoothed_loss(hidden @ matrix.T, target, smoothing)
    assert_close(loss, expected_loss)
    assert_close(nll, expected_nll)
    gradients = torch.autograd.grad(loss, (hidden, matrix))
    assert_close(gradients, torch.autograd.grad(expected_loss, (hidden, matrix)))


@pytest.mark.usefixtures("block_numel")
def test_gradients_are_those_of_finite_differences() -> None:
    # In float64; the softmax inside is float32, so a step of 1/64 balances its rounding and the curvature.
    hidden, matrix, target = make_inputs(torch.float64)
    loss, _ = projected_loss(hidden, matrix, target, 0.1)
    gradients = torch.autograd.grad(loss, (hidden, matrix))
    step = 1 / 64
    for x, gradient in zip((hidden, matrix), gradients, strict=True):
        for index in [(0, 0), (3, 2), (N - 1, D - 1)]:
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    x[index] += sign * step
                    values.append(projected_loss(hidden, matrix, target, 0.1)[0].double())
                    x[index] -= sign * step
            difference = (values[0] - values[1]) / (2 * step)
            assert_close(gradient[index], difference, rtol=2e-3, atol=2e-3)


def test_in_float64_it_equals_an_exact_gradient_up_to_the_float32_softmax() -> None:
    hidden, matrix, target = make_inputs(torch.float64)
    loss, _ = projected_loss(hidden, matrix, target, 0.1)
    expected = F.cross_entropy(hidden @ matrix.T, target, label_smoothing=0.1, reduction="sum")
    assert_close(loss.double(), expected, rtol=1e-6, atol=0.0)
    actual, exact = (torch.autograd.grad(y, (hidden, matrix)) for y in (loss, expected))
    assert_close(actual, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("block_numel")
def test_in_bfloat16_it_stays_within_the_rounding_of_bfloat16() -> None:
    hidden, matrix, target = make_inputs(torch.bfloat16)
    loss, nll = projected_loss(hidden, matrix, target, 0.1)
    assert loss.dtype == nll.dtype == torch.float32
    loss.backward()
    assert hidden.grad.dtype == matrix.grad.dtype == torch.bfloat16
    hidden_32, matrix_32 = (x.detach().float().requires_grad_() for x in (hidden, matrix))
    expected_loss, expected_nll = label_smoothed_loss(hidden_32 @ matrix_32.T, target, 0.1)
    expected_loss.backward()
    # A product of up to ±8 is rounded by up to 2^-6 per logit.
    assert_close(loss, expected_loss.detach(), rtol=5e-3, atol=0.0)
    assert_close(nll, expected_nll.detach(), rtol=5e-3, atol=0.0)
    for actual, exact in ((hidden.grad, hidden_32.grad), (matrix.grad, matrix_32.grad)):
        assert_close(actual.float(), exact, rtol=2**-6, atol=2**-6 * exact.abs().max().item())


def test_in_bfloat16_the_softmax_and_the_sums_are_float32() -> None:
    # Small whole numbers: their products are exact in bfloat16, so the loss has only float32's rounding.
    torch.manual_seed(3)
    hidden, matrix = (torch.randint(-2, 3, shape).bfloat16() for shape in ((N, D), (V, D)))
    target = torch.randint(V, (N,))
    expected = label_smoothed_loss(hidden.float() @ matrix.float().T, target)
    assert_close(projected_loss(hidden, matrix, target), expected)
    assert_close(label_smoothed_loss(hidden @ matrix.T, target), expected)


@pytest.mark.parametrize("which", [0, 1])
def test_one_input_may_want_a_gradient_alone(which: int) -> None:
    *inputs, target = make_inputs()
    inputs[1 - which].requires_grad_(False)
    loss, _ = projected_loss(*inputs, target)
    expected, _ = label_smoothed_loss(inputs[0] @ inputs[1].T, target)
    assert_close(torch.autograd.grad(loss, inputs[which]), torch.autograd.grad(expected, inputs[which]))
    assert inputs[1 - which].grad is None


def test_gradients_scale_with_what_the_loss_is_used_for() -> None:
    hidden, matrix, target = make_inputs()
    gradients = torch.autograd.grad(projected_loss(hidden, matrix, target)[0], (hidden, matrix))
    scaled = torch.autograd.grad((projected_loss(hidden, matrix, target)[0] / 7) ** 2, (hidden, matrix))
    factor = 2 * projected_loss(hidden, matrix, target)[0].item() / 49
    assert_close(scaled, tuple(factor * gradient for gradient in gradients))


def test_without_smoothing_the_loss_is_the_negative_log_likelihood() -> None:
    hidden, matrix, target = make_inputs()
    for loss, nll in (
        projected_loss(hidden, matrix, target, 0.0),
        label_smoothed_loss(hidden @ matrix.T, target, 0.0),
    ):
        assert_close(loss, nll)


def test_the_negative_log_likelihood_of_the_blockwise_loss_has_no_gradient() -> None:
    hidden, matrix, target = make_inputs()
    loss, nll = projected_loss(hidden, matrix, target)
    assert loss.requires_grad
    assert not nll.requires_grad


class CountedProducts(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        # Inference mode does not take `matmul` apart into `mm`.
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.matmul)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_values_are_the_same(mode: type) -> None:
    hidden, matrix, target = make_inputs()
    expected = projected_loss(hidden, matrix, target)
    with mode():
        loss, nll = projected_loss(hidden, matrix, target)
    assert not loss.requires_grad
    assert_close((loss, nll), tuple(x.detach() for x in expected), rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_logits_are_computed(mode: type) -> None:
    # Validation runs under no_grad on parameters that want gradients: it must not pay for them.
    hidden, matrix, target = make_inputs()
    with mode(), CountedProducts() as products:
        projected_loss(hidden, matrix, target)
    assert products.count == 1


def test_inputs_that_want_no_gradient_cost_none() -> None:
    hidden, matrix, target = make_inputs()
    with CountedProducts() as products:
        loss, _ = projected_loss(hidden.detach(), matrix.detach(), target)
    assert products.count == 1
    assert not loss.requires_grad


def test_no_tokens_give_a_loss_and_gradients_of_zero() -> None:
    hidden, matrix, target = make_inputs()
    loss, nll = projected_loss(hidden[:0], matrix, target[:0])
    assert_close((loss.detach(), nll), (torch.tensor(0.0), torch.tensor(0.0)))
    assert_close(torch.autograd.grad(loss, matrix), (torch.zeros(V, D),))


def test_logits_may_be_huge() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    loss, nll = label_smoothed_loss(logits, torch.tensor([1]), 0.0)
    assert_close((loss, nll), (torch.tensor(1e4), torch.tensor(1e4)))
    hidden, matrix = torch.tensor([[1e4]]), torch.tensor([[1.0], [0.0], [-1.0]])
    assert_close(projected_loss(hidden, matrix, torch.tensor([1]), 0.0), (torch.tensor(1e4), torch.tensor(1e4)))


def test_hidden_vectors_need_not_be_contiguous() -> None:
    hidden, matrix, target = make_inputs()
    transposed = hidden.detach().T.contiguous().T.requires_grad_()
    expected = torch.autograd.grad(projected_loss(hidden, matrix, target)[0], (hidden, matrix))
    actual = torch.autograd.grad(projected_loss(transposed, matrix, target)[0], (transposed, matrix))
    assert_close(actual, expected)

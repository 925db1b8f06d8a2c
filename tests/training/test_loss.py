"""Label-smoothed cross-entropy and its form in blocks against hand-computed numbers, torch and autograd."""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.training import loss as loss_module
from transformer.training.loss import label_smoothed_cross_entropy, linear_cross_entropy, output_loss

Loss = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]

N, D, V = 13, 7, 31
# Tokens per block: one, some that do not divide 13, exactly 13, and more than there are.
BLOCK_ROWS = (1, 2, 5, N, 101)


@pytest.fixture(params=BLOCK_ROWS)
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of tokens per block, and a softmax of three rows at a time."""

    def blocks_of_rows(hidden: Tensor, weight: Tensor, needs_grad: bool) -> list[slice]:  # noqa: ARG001
        return [slice(start, start + request.param) for start in range(0, len(hidden), request.param)]

    monkeypatch.setattr(loss_module, "_blocks_of_rows", blocks_of_rows)
    monkeypatch.setattr(loss_module, "_SOFTMAX_NUMEL", 3 * V + 1)
    monkeypatch.setattr(loss_module, "_WIDENED_ROWS", 7)
    return request.param


def make_inputs(dtype: torch.dtype = torch.float32, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (N, D), output weight (V, D), both requiring gradients, and targets (N,) with repetitions."""
    torch.manual_seed(seed)
    hidden, matrix = torch.randn(N, D, dtype=dtype), torch.randn(V, D, dtype=dtype)
    target = torch.randint(V, (N,))
    target[3] = target[5] = 0
    return hidden.requires_grad_(), matrix.requires_grad_(), target


def test_a_vocabulary_of_three_gives_the_numbers_worked_out_by_hand() -> None:
    # Probabilities 1/8, 2/8, 5/8 and 1/2, 1/4, 1/4; targets 2 and 0; smoothing 0.3, so 0.1 for each token.
    logits = torch.tensor([[1.0, 2.0, 5.0], [2.0, 1.0, 1.0]]).log() + torch.tensor([[7.0], [-11.0]])
    loss, nll = label_smoothed_cross_entropy(logits, torch.tensor([2, 0]), 0.3)
    ln = math.log
    expected_nll = ln(8 / 5) + ln(2)
    expected_loss = (0.1 * ln(8) + 0.1 * ln(4) + 0.8 * ln(8 / 5)) + (0.8 * ln(2) + 0.1 * ln(4) + 0.1 * ln(4))
    assert_close(nll, torch.tensor(expected_nll))
    assert_close(loss, torch.tensor(expected_loss))


def test_the_loss_in_blocks_gives_the_numbers_worked_out_by_hand() -> None:
    # Logits are the rows of the matrix at a one-hot hidden vector: ln 1, ln 2, ln 5.
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0], [5.0, 1.0]]).log().requires_grad_()
    hidden = torch.eye(2, requires_grad=True)
    loss, nll = linear_cross_entropy(hidden, matrix, torch.tensor([2, 0]), 0.3)
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
    loss, nll = label_smoothed_cross_entropy(logits, target, smoothing)
    expected = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    assert_close(loss, expected)
    assert_close(nll, F.cross_entropy(logits, target, reduction="sum"))
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_smoothing_is_a_tenth_by_default() -> None:
    hidden, matrix, target = make_inputs()
    logits = hidden @ matrix.T
    assert_close(
        label_smoothed_cross_entropy(logits, target), label_smoothed_cross_entropy(logits, target, 0.1), rtol=0, atol=0
    )
    assert_close(
        linear_cross_entropy(hidden, matrix, target), linear_cross_entropy(hidden, matrix, target, 0.1), rtol=0, atol=0
    )


def test_the_best_smoothed_loss_is_the_entropy_of_the_smoothed_targets() -> None:
    smoothing = 0.1
    q = torch.full((1, V), smoothing / V)
    q[0, 5] += 1 - smoothing
    entropy = -(q * q.log()).sum()
    target = torch.tensor([5])
    assert_close(label_smoothed_cross_entropy(q.log(), target, smoothing)[0], entropy)
    torch.manual_seed(3)
    for _ in range(7):
        assert label_smoothed_cross_entropy(q.log() + 0.1 * torch.randn(1, V), target, smoothing)[0] > entropy


def test_losses_are_sums_over_tokens() -> None:
    hidden, matrix, target = make_inputs()
    for function in (label_smoothed_cross_entropy, lambda h, t: linear_cross_entropy(h, matrix, t)):
        x = hidden @ matrix.T if function is label_smoothed_cross_entropy else hidden
        parts = [function(x[i : i + 1], target[i : i + 1]) for i in range(N)]
        loss, nll = function(x, target)
        assert_close(loss, sum(part[0] for part in parts))
        assert_close(nll, sum(part[1] for part in parts))


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_blocks_of_any_size_give_the_loss_and_gradients_of_the_full_logits(
    smoothing: float, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, matrix, target = make_inputs(dtype)
    loss, nll = linear_cross_entropy(hidden, matrix, target, smoothing)
    expected_loss, expected_nll = label_smoothed_cross_entropy(hidden @ matrix.T, target, smoothing)
    assert_close((loss, nll), (expected_loss, expected_nll), rtol=tolerance, atol=0)
    gradients = torch.autograd.grad(loss, (hidden, matrix))
    assert_close(gradients, torch.autograd.grad(expected_loss, (hidden, matrix)), rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("smoothing", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_gradients_are_those_of_finite_differences(smoothing: float) -> None:
    hidden, weight, target = make_inputs(torch.float64)
    assert gradcheck(lambda h, w: linear_cross_entropy(h, w, target, smoothing)[0], (hidden, weight))
    logits = (hidden @ weight.T).detach().requires_grad_()
    assert gradcheck(lambda x: label_smoothed_cross_entropy(x, target, smoothing), logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_float64_inputs_are_computed_in_float64(smoothing: float) -> None:
    hidden, weight, target = make_inputs(torch.float64)
    logits = hidden @ weight.T
    expected = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    exact = torch.autograd.grad(expected, (hidden, weight), retain_graph=True)
    losses = (
        linear_cross_entropy(hidden, weight, target, smoothing),
        label_smoothed_cross_entropy(logits, target, smoothing),
    )
    for loss, nll in losses:
        assert loss.dtype == nll.dtype == torch.float64
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, (hidden, weight), retain_graph=True), exact)


# Wrong arguments must not give a wrong number silently.


@pytest.mark.parametrize(
    "function", [label_smoothed_cross_entropy, lambda x, t, e: linear_cross_entropy(x, x.new_ones(3, x.size(-1)), t, e)]
)
@pytest.mark.parametrize(
    ("shape", "target_shape"), [((5, V, 3), (5, 3)), ((5, V), (3,)), ((5, V), (5, 1)), ((V,), ())], ids=str
)
def test_other_shapes_are_refused(function: Loss, shape: tuple[int, ...], target_shape: tuple[int, ...]) -> None:
    """F.cross_entropy takes (B, V, T); here that would be summed over the wrong dimension."""
    target = torch.zeros(target_shape, dtype=torch.int64)
    expected = f"expected two dimensions and one target per row, got shapes {shape} and {target_shape}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        function(torch.randn(shape), target, 0.1)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan])
def test_label_smoothing_is_a_probability_below_one(smoothing: float) -> None:
    hidden, weight, target = make_inputs()
    with pytest.raises(ValueError, match=rf"label_smoothing={smoothing} must be in \[0, 1\)"):
        label_smoothed_cross_entropy(hidden @ weight.T, target, smoothing)
    with pytest.raises(ValueError, match=rf"label_smoothing={smoothing} must be in \[0, 1\)"):
        linear_cross_entropy(hidden, weight, target, smoothing)


@pytest.mark.parametrize("bad", [-100, -1, V])
def test_targets_outside_the_vocabulary_are_errors(bad: int) -> None:
    """-100 is what F.cross_entropy ignores by default: in the uniform part it would still count."""
    hidden, weight, target = make_inputs()
    target[5] = bad
    with pytest.raises(IndexError, match=f"Target {bad} is out of bounds"):
        label_smoothed_cross_entropy(hidden @ weight.T, target)
    with pytest.raises(RuntimeError, match=f"index {bad} is out of bounds"):
        linear_cross_entropy(hidden, weight, target)


# Beside torch's own tools.


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_factors_are_cast_as_by_a_linear_layer(dtype: torch.dtype) -> None:
    hidden, weight, target = make_inputs()
    hidden = hidden.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, nll = linear_cross_entropy(hidden, weight, target)
    expected, expected_nll = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), target)
    assert_close((loss, nll), (expected, expected_nll), rtol=0, atol=0)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert [gradient.dtype for gradient in gradients] == [dtype, torch.float32]
    assert_close(gradients, torch.autograd.grad(expected, (hidden, weight)), rtol=0, atol=0)


def test_autocast_leaves_float64_alone() -> None:
    hidden, weight, target = make_inputs(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, target)
    assert_close(loss, linear_cross_entropy(hidden, weight, target)[0], rtol=0, atol=0)


@pytest.mark.usefixtures("block_rows")
def test_torch_func_differentiates_it() -> None:
    hidden, weight, target = make_inputs()
    expected = torch.autograd.grad(linear_cross_entropy(hidden, weight, target)[0], (hidden, weight))
    inputs = (hidden.detach(), weight.detach())
    actual = torch.func.grad(lambda h, w: linear_cross_entropy(h, w, target)[0], argnums=(0, 1))(*inputs)
    assert_close(actual, expected, rtol=0, atol=0)
    loss, pull_back, nll = torch.func.vjp(lambda h, w: linear_cross_entropy(h, w, target), *inputs, has_aux=True)
    assert_close((loss, nll), linear_cross_entropy(*inputs, target), rtol=0, atol=0)
    assert_close(pull_back(torch.tensor(1.0)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize("differentiated", [0, 1])
def test_a_gradient_penalty_is_an_error_not_a_silent_zero(wanted: int, differentiated: int) -> None:
    *inputs, target = make_inputs()
    first = torch.autograd.grad(linear_cross_entropy(*inputs, target)[0], inputs, create_graph=True)
    assert_close(first, torch.autograd.grad(linear_cross_entropy(*inputs, target)[0], inputs), rtol=0, atol=0)
    with pytest.raises(
        RuntimeError, match=r"^linear_cross_entropy is differentiable once; .* use label_smoothed_cross"
    ):
        torch.autograd.grad(first[differentiated].square().sum(), inputs[wanted])
    with pytest.raises(RuntimeError, match="differentiable once"):
        (linear_cross_entropy(*inputs, target)[0] + first[differentiated].square().sum()).backward()


def test_torch_func_does_not_differentiate_it_twice() -> None:
    hidden, weight, target = (x.detach() for x in make_inputs())
    gradient = torch.func.grad(lambda h: linear_cross_entropy(h, weight, target)[0])
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.func.grad(lambda h: gradient(h).square().sum())(hidden)


def test_float16_gradients_survive_the_default_loss_scale_if_the_loss_is_a_mean() -> None:
    hidden, weight, target = make_inputs()
    hidden, weight = (x.detach().half().requires_grad_() for x in (hidden, weight))
    for divisor, survives in ((1, False), (1000 * N, True)):
        loss, _ = linear_cross_entropy(hidden, weight, target)
        gradients = torch.autograd.grad(loss / divisor * 65536, (hidden, weight))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients) == survives


@pytest.mark.usefixtures("block_rows")
def test_in_bfloat16_it_stays_within_the_rounding_of_bfloat16() -> None:
    hidden, matrix, target = make_inputs(torch.bfloat16)
    loss, nll = linear_cross_entropy(hidden, matrix, target, 0.1)
    assert loss.dtype == nll.dtype == torch.float32
    loss.backward()
    assert hidden.grad.dtype == matrix.grad.dtype == torch.bfloat16
    hidden_32, matrix_32 = (x.detach().float().requires_grad_() for x in (hidden, matrix))
    expected_loss, expected_nll = label_smoothed_cross_entropy(hidden_32 @ matrix_32.T, target, 0.1)
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
    expected = label_smoothed_cross_entropy(hidden.float() @ matrix.float().T, target)
    assert_close(linear_cross_entropy(hidden, matrix, target), expected)
    assert_close(label_smoothed_cross_entropy(hidden @ matrix.T, target), expected)


@pytest.mark.parametrize("which", [0, 1])
def test_either_input_may_require_a_gradient_alone(which: int) -> None:
    *inputs, target = make_inputs()
    inputs[1 - which].requires_grad_(False)
    loss, _ = linear_cross_entropy(*inputs, target)
    expected, _ = label_smoothed_cross_entropy(inputs[0] @ inputs[1].T, target)
    assert_close(torch.autograd.grad(loss, inputs[which]), torch.autograd.grad(expected, inputs[which]))
    assert inputs[1 - which].grad is None


def test_gradients_follow_the_chain_rule() -> None:
    hidden, matrix, target = make_inputs()
    gradients = torch.autograd.grad(linear_cross_entropy(hidden, matrix, target)[0], (hidden, matrix))
    scaled = torch.autograd.grad((linear_cross_entropy(hidden, matrix, target)[0] / 7) ** 2, (hidden, matrix))
    factor = 2 * linear_cross_entropy(hidden, matrix, target)[0].item() / 49
    assert_close(scaled, tuple(factor * gradient for gradient in gradients))


def test_without_smoothing_the_loss_is_the_negative_log_likelihood() -> None:
    hidden, matrix, target = make_inputs()
    for loss, nll in (
        linear_cross_entropy(hidden, matrix, target, 0.0),
        label_smoothed_cross_entropy(hidden @ matrix.T, target, 0.0),
    ):
        assert_close(loss, nll)


def test_the_negative_log_likelihood_of_the_loss_in_blocks_has_no_gradient() -> None:
    hidden, matrix, target = make_inputs()
    loss, nll = linear_cross_entropy(hidden, matrix, target)
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
    expected = linear_cross_entropy(hidden, matrix, target)
    with mode():
        loss, nll = linear_cross_entropy(hidden, matrix, target)
    assert not loss.requires_grad
    assert_close((loss, nll), tuple(x.detach() for x in expected), rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_logits_are_computed(mode: type) -> None:
    # Validation runs under no_grad on parameters that require gradients: they must not be computed.
    hidden, matrix, target = make_inputs()
    with mode(), CountedProducts() as products:
        linear_cross_entropy(hidden, matrix, target)
    assert products.count == 1


def test_inputs_without_requires_grad_cost_no_gradients() -> None:
    hidden, matrix, target = make_inputs()
    with CountedProducts() as products:
        loss, _ = linear_cross_entropy(hidden.detach(), matrix.detach(), target)
    assert products.count == 1
    assert not loss.requires_grad


def test_no_tokens_give_a_loss_and_gradients_of_zero() -> None:
    hidden, matrix, target = make_inputs()
    loss, nll = linear_cross_entropy(hidden[:0], matrix, target[:0])
    assert_close((loss.detach(), nll), (torch.tensor(0.0), torch.tensor(0.0)))
    assert_close(torch.autograd.grad(loss, matrix), (torch.zeros(V, D),))


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    loss, nll = label_smoothed_cross_entropy(logits, torch.tensor([1]), 0.0)
    assert_close((loss, nll), (torch.tensor(1e4), torch.tensor(1e4)))
    hidden, matrix = torch.tensor([[1e4]]), torch.tensor([[1.0], [0.0], [-1.0]])
    assert_close(linear_cross_entropy(hidden, matrix, torch.tensor([1]), 0.0), (torch.tensor(1e4), torch.tensor(1e4)))


def test_hidden_vectors_need_not_be_contiguous() -> None:
    hidden, matrix, target = make_inputs()
    transposed = hidden.detach().T.contiguous().T.requires_grad_()
    expected = torch.autograd.grad(linear_cross_entropy(hidden, matrix, target)[0], (hidden, matrix))
    actual = torch.autograd.grad(linear_cross_entropy(transposed, matrix, target)[0], (transposed, matrix))
    assert_close(actual, expected)


# Blocks, and the kernels of other devices.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("num_tokens", [0, 1, 1021, 25_013])
@pytest.mark.parametrize(("vocab_size", "d_model"), [(11, 7), (8009, 127), (37_003, 512), (50_000_017, 8)])
def test_blocks_hold_every_token_once_and_fit_into_memory(
    dtype: torch.dtype, needs_grad: bool, num_tokens: int, vocab_size: int, d_model: int
) -> None:
    hidden, weight = (torch.empty((), dtype=dtype).expand(rows, d_model) for rows in (num_tokens, vocab_size))
    blocks = loss_module._blocks_of_rows(hidden, weight, needs_grad)
    assert [i for block in blocks for i in range(num_tokens)[block]] == list(range(num_tokens))
    assert len(blocks) >= 1
    logits = max(len(range(num_tokens)[block]) for block in blocks) * vocab_size * dtype.itemsize
    if logits > vocab_size * dtype.itemsize:  # a single token always has to fit
        sums = 4 * weight.numel() if needs_grad else 0
        product = dtype.itemsize * weight.numel() if needs_grad and len(blocks) > 1 else 0
        assert logits + (sums if len(blocks) > 1 else 0) <= (26 << 20) + sums + product


def written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "_is_eager_cpu", lambda _: False)


class KernelInPlace:
    """Computes as `loss_triton`, on logits whose rows begin at multiples of 8 numbers."""

    @staticmethod
    def softmax_gradient_(logits: Tensor, target: Tensor, smoothing: float, needs_grad: bool) -> Tensor:
        assert logits.stride() == (-(-V // 8) * 8, 1)
        lse = logits.float().logsumexp(dim=-1)
        if needs_grad:
            smoothed = F.one_hot(target, V) * (1 - smoothing) + smoothing / V
            logits.copy_(logits.softmax(dim=-1, dtype=torch.float32) - smoothed)
        return lse


def with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "_triton_loss", lambda _: KernelInPlace)


def with_wide_products(monkeypatch: pytest.MonkeyPatch) -> None:
    mm = torch.mm

    def wide_mm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None, **options: Tensor) -> Tensor:
        return mm(a, b, **options) if out_dtype is None else mm(a.to(out_dtype), b.to(out_dtype))

    monkeypatch.setattr(loss_module, "_has_wide_products", lambda _: True)
    monkeypatch.setattr(torch, "mm", wide_mm)


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("use", [written_out, with_triton, with_wide_products])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_gpu_computes_is_what_a_cpu_does(
    use: Callable[[pytest.MonkeyPatch], None], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, matrix, target = make_inputs(dtype)
    expected, expected_nll = linear_cross_entropy(hidden, matrix, target)
    use(monkeypatch)
    loss, nll = linear_cross_entropy(hidden, matrix, target)
    assert_close((loss, nll), (expected, expected_nll))
    gradients = torch.autograd.grad(loss, (hidden, matrix))
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    exact = torch.autograd.grad(expected, (hidden, matrix))
    assert_close(gradients, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("fault", [None, RuntimeError("Failed to find C compiler\nand more"), "wrong"])
def test_triton_is_used_if_it_computes_what_torch_does(
    fault: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def softmax_gradient_(logits: Tensor, target: Tensor, smoothing: float, needs_grad: bool) -> Tensor:
        if isinstance(fault, Exception):
            raise fault
        lse, gradient = loss_module._softmax_gradient(logits.clone(), target, smoothing, needs_grad)
        logits.copy_(gradient)
        return lse if fault is None else lse + 0.01

    module = types.ModuleType("transformer.training.loss_triton")
    module.softmax_gradient_ = softmax_gradient_  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("transformer.training.loss_triton", module, raising=False)
    found = loss_module._checked_triton_loss.__wrapped__(torch.device("cpu"), torch.bfloat16)
    assert found is (module if fault is None else None)
    warning = capsys.readouterr().err
    assert warning.startswith(
        "" if fault is None else "warning: the loss is computed without Triton, which is slower: "
    )
    assert len(warning.splitlines()) == (fault is not None)


def test_without_triton_the_loss_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "transformer.training.loss_triton", raising=False)
    assert loss_module._checked_triton_loss.__wrapped__(torch.device("cpu"), torch.float32) is None
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("use", [lambda _: None, written_out, with_triton])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_not_finite_reach_loss_and_gradients(
    use: Callable[[pytest.MonkeyPatch], None], value: float, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard against such updates looks at the gradients."""
    use(monkeypatch)
    *inputs, target = make_inputs()
    with torch.no_grad():
        inputs[which][4, 2] = value
    loss, nll = linear_cross_entropy(*inputs, target)
    assert not loss.isfinite()
    assert not nll.isfinite()
    assert not any(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(loss, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [N, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_one_graph_with_and_without_gradients(
    rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "_blocks_of_rows", lambda *_: [slice(i, i + rows) for i in range(0, N, rows)])
    torch._dynamo.reset()
    compiled = torch.compile(lambda *inputs: linear_cross_entropy(*inputs), fullgraph=True, backend="aot_eager")
    *inputs, target = make_inputs(dtype)
    (loss, nll), (expected, expected_nll) = (f(*inputs, target) for f in (compiled, linear_cross_entropy))
    assert_close((loss, nll), (expected, expected_nll))
    assert_close(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs))
    with torch.no_grad():
        assert_close(compiled(*inputs, target), (expected.detach(), expected_nll))


# The bias of the output.


def make_bias(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(V, dtype=dtype, generator=torch.Generator().manual_seed(7)).requires_grad_()


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_with_a_bias_blocks_give_the_loss_and_gradients_of_the_full_logits(
    smoothing: float, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, matrix, target = make_inputs(dtype)
    bias = make_bias(dtype)
    loss, nll = linear_cross_entropy(hidden, matrix, target, smoothing, bias)
    logits = hidden @ matrix.T + bias
    expected_loss, expected_nll = label_smoothed_cross_entropy(logits, target, smoothing)
    assert_close((loss, nll), (expected_loss, expected_nll), rtol=tolerance, atol=0)
    inputs = hidden, matrix, bias
    expected = torch.autograd.grad(expected_loss, inputs)
    assert_close(torch.autograd.grad(loss, inputs), expected, rtol=tolerance, atol=tolerance)


def test_a_bias_alone_may_be_trained_or_frozen() -> None:
    hidden, matrix, target = make_inputs(torch.float64)
    bias = make_bias(torch.float64)
    whole = torch.autograd.grad(linear_cross_entropy(hidden, matrix, target, bias=bias)[0], (hidden, matrix, bias))
    (alone,) = torch.autograd.grad(linear_cross_entropy(hidden.detach(), matrix.detach(), target, bias=bias)[0], bias)
    assert_close(alone, whole[2])
    frozen = torch.autograd.grad(linear_cross_entropy(hidden, matrix, target, bias=bias.detach())[0], (hidden, matrix))
    assert_close(frozen, whole[:2])
    assert gradcheck(lambda b: linear_cross_entropy(hidden.detach(), matrix.detach(), target, bias=b)[0], bias)


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("use", [written_out, with_triton, with_wide_products])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_a_bias_a_gpu_computes_what_a_cpu_does(
    use: Callable[[pytest.MonkeyPatch], None], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, matrix, target = make_inputs(dtype)
    bias = make_bias(dtype)
    expected, expected_nll = linear_cross_entropy(hidden, matrix, target, bias=bias)
    use(monkeypatch)
    loss, nll = linear_cross_entropy(hidden, matrix, target, bias=bias)
    assert_close((loss, nll), (expected, expected_nll))
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    inputs = hidden, matrix, bias
    exact = torch.autograd.grad(expected, inputs)
    assert_close(torch.autograd.grad(loss, inputs), exact, rtol=tolerance, atol=tolerance)


def test_the_loss_of_a_model_has_the_bias_that_its_logits_have() -> None:
    torch.manual_seed(3)
    for output_bias in (False, True):
        options = {"d_model": 12, "num_layers": 1, "num_heads": 2, "d_ff": 13, "output_bias": output_bias}
        model = build_model(V, ModelConfig(**options)).double()
        if output_bias:
            model.embedding.output_bias.data.normal_()
        hidden, target = torch.randn(N, 12, dtype=torch.float64), torch.randint(V, (N,))
        expected = label_smoothed_cross_entropy(model.logits(hidden), target, 0.1)
        assert_close(output_loss(model, hidden, target, 0.1), expected)

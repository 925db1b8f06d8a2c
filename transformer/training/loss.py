"""Label-smoothed cross-entropy (section 5.4) and plain negative log-likelihood (NLL).

Dimension key: N target tokens, D model size, V vocabulary. Losses are in nats, summed over tokens: the caller divides
by the tokens of the whole update. They are computed in float32, or in float64 for float64 inputs.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.errors import warn
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.model.transformer import Transformer

# Memory for the logits of a block of tokens. Those of a paper-sized batch, 25k x 37k, would take 3.7 GB in float32.
# Small blocks are slow, because each is added to the whole (V, D) gradient.
_BLOCK_BYTES = {"cpu": 26 << 20, "cuda": 1 << 30}
_OTHER_BLOCK_BYTES = 128 << 20
# On a CPU, the softmax of so many logits is computed at once, 2 MB in float32: they stay in its cache between passes.
_SOFTMAX_NUMEL = 1 << 19
# Rows of the (V, D) matrices that are widened to float32 at once. torch widens a whole operand before it adds it, which
# takes several times as long for a large vocabulary.
_WIDENED_ROWS = 2048


def label_smoothed_cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float = 0.1) -> tuple[Tensor, Tensor]:
    """Cross-entropy against (1 - ε) one-hot + ε/V uniform (Szegedy et al.; section 5.4).

    Args:
        logits: (N, V).
        target: (N,) int64 in [0, V), without padding: select the non-pad positions first.
        label_smoothing: ε_ls, in [0, 1).

    Returns:
        The smoothed loss and the NLL, both summed over the N tokens, in nats.
    """
    _check_arguments(logits, target, label_smoothing)
    log_p = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    # By default, -100 would be ignored here, but not in the uniform part; now it is out of bounds: IndexError.
    nll = F.nll_loss(log_p, target, reduction="sum", ignore_index=-1 << 63)
    uniform = -log_p.mean(dim=-1).sum()
    return (1 - label_smoothing) * nll + label_smoothing * uniform, nll


def linear_cross_entropy(
    hidden: Tensor,
    output_weight: Tensor,
    target: Tensor,
    label_smoothing: float = 0.1,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`label_smoothed_cross_entropy(hidden @ output_weight.T + bias, target)` without storing all logits.

    The loss is differentiable once (a second time: RuntimeError; `torch.func.grad` works, `vmap` does not), the NLL is
    not. Under autocast, hidden and weight are cast to its dtype. Gradients keep the dtypes of the inputs: with float16
    and a GradScaler, whose scale starts at 65536, they overflow unless the loss is divided by its tokens before it is
    scaled.

    Args:
        hidden: (N, D), at non-pad target positions.
        output_weight: (V, D).
        target, label_smoothing: as for `label_smoothed_cross_entropy`, which returns the same.
        bias: (V,), if any.
    """
    _check_arguments(hidden, target, label_smoothing)
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:  # as autocast: never float64
        dtype = torch.get_autocast_dtype(device)
        hidden, output_weight = hidden.to(dtype), output_weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    # autograd.Function runs with grad mode off: skip the gradients under no_grad, and those of frozen weights.
    inputs = hidden, output_weight, bias
    needs_grad = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in inputs]
    compute = _LinearCrossEntropy.apply if any(needs_grad) else _LinearCrossEntropy.forward
    loss, nll, *_ = compute(*inputs, target, label_smoothing, *needs_grad)
    return loss, nll


def output_loss(model: Transformer, hidden: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """`linear_cross_entropy` by the output projection of a model whose `logits` are those of its class."""
    bias = model.embedding.output_bias if isinstance(model, BiasedTransformer) else None
    return linear_cross_entropy(hidden, model.embedding.output_weight, target, label_smoothing, bias)


def _check_arguments(rows: Tensor, target: Tensor, label_smoothing: float) -> None:
    if rows.dim() != 2 or target.shape != rows.shape[:1]:
        raise ValueError(
            f"expected two dimensions and one target per row, got shapes {tuple(rows.shape)} and {tuple(target.shape)}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be in [0, 1)")


class _LinearCrossEntropy(torch.autograd.Function):
    """Fused linear + cross-entropy, in blocks of tokens; gradients are computed in forward."""

    @staticmethod
    def forward(
        hidden: Tensor,
        output_weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        label_smoothing: float,
        *needs_grad: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        num_tokens, vocab_size = hidden.size(0), output_weight.size(0)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        lse, target_logits = (torch.empty(num_tokens, dtype=dtype, device=hidden.device) for _ in range(2))
        grad_hidden = torch.empty_like(hidden) if needs_grad[0] else None
        grad_weight: Tensor | None = None
        grad_bias = output_weight.new_zeros(vocab_size, dtype=dtype) if needs_grad[2] else None
        blocks = _blocks_of_rows(hidden, output_weight, any(needs_grad))
        for rows in blocks:
            logits = _project(hidden[rows], output_weight, bias)  # (n, V)
            target_logits[rows] = logits.gather(1, target[rows, None]).squeeze(1).to(dtype)
            lse[rows], grad = _softmax_gradient(logits, target[rows], label_smoothing, any(needs_grad))
            if grad_hidden is not None:
                torch.mm(grad, output_weight, out=grad_hidden[rows])
            if grad_bias is not None:
                grad_bias += _column_sums(grad, dtype)
            if needs_grad[1] and len(blocks) == 1:
                grad_weight = grad.T @ hidden  # rounded once
            elif needs_grad[1]:
                grad_weight = torch.zeros_like(output_weight, dtype=dtype) if grad_weight is None else grad_weight
                _add_product(grad_weight, grad, hidden[rows])
            del logits, grad  # before the next block
        nll = (lse - target_logits).sum()
        # The sum of logits over vocabulary and tokens is a product of sums: it needs no logits.
        sum_hidden, sum_weight = (_column_sums(x, dtype) for x in (hidden, output_weight))  # (D,)
        mean_logits = (sum_hidden * sum_weight).sum() / vocab_size
        if bias is not None:
            mean_logits = mean_logits + num_tokens * bias.to(dtype).mean()
        loss = (1 - label_smoothing) * nll + label_smoothing * (lse.sum() - mean_logits)
        grad_weight = None if grad_weight is None else grad_weight.to(output_weight.dtype)
        return loss, nll, grad_hidden, grad_weight, None if grad_bias is None else grad_bias.to(output_weight.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _, nll, *gradients = output
        ctx.save_for_backward(*gradients, *inputs[:3])
        ctx.mark_non_differentiable(nll, *(x for x in gradients if x is not None))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (*gradients, hidden, output_weight, bias), scale = ctx.saved_tensors, grad_outputs[0]
        # The scale stays in float32, which costs no time: a factor without dimensions does not widen the product.
        gradients = [None if grad is None else grad * scale for grad in gradients]
        # As `create_graph=True` and `torch.func.grad` have it; a compiler refuses second derivatives itself.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gradients = [x if x is None else _NotTwice.apply(x, hidden, output_weight, bias) for x in gradients]
        return *gradients, None, None, None, None, None


class _NotTwice(torch.autograd.Function):
    """A gradient as it is, whose own gradient would be a silent zero and is an error instead."""

    @staticmethod
    def forward(gradient: Tensor, *inputs: Tensor | None) -> Tensor:  # noqa: ARG004
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        raise RuntimeError(
            "linear_cross_entropy is differentiable once; for second derivatives, as of a gradient penalty, use"
            " label_smoothed_cross_entropy(hidden @ output_weight.T, target)"
        )


def _blocks_of_rows(hidden: Tensor, output_weight: Tensor, needs_grad: bool) -> list[slice]:
    """Blocks of tokens, about equally many, whose logits fit into memory; one block if there are no tokens."""
    num_tokens, (vocab_size, d_model) = hidden.size(0), output_weight.shape
    wide = torch.promote_types(hidden.dtype, torch.float32).itemsize
    is_in_place = _is_eager_cpu(hidden) or _triton_loss(hidden) is not None
    bytes_per_row = vocab_size * (hidden.element_size() + (0 if is_in_place else wide))
    memory = _BLOCK_BYTES.get(hidden.device.type, _OTHER_BLOCK_BYTES)
    if needs_grad:
        # A single block needs no float32 sum of the weight's gradients, so it has the memory of that for its logits.
        if num_tokens * bytes_per_row <= memory + vocab_size * d_model * wide:
            return [slice(0, num_tokens)]
        memory += output_weight.numel() * output_weight.element_size()
    num_blocks = max(1, -(-num_tokens // max(1, memory // bytes_per_row)))
    num_rows = max(1, -(-num_tokens // num_blocks))
    return [slice(start, start + num_rows) for start in range(0, max(1, num_tokens), num_rows)]


def _project(hidden: Tensor, output_weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits (n, V). For Triton, rows begin at multiples of 16 bytes, which it then reads at once."""
    if _triton_loss(hidden) is None:
        return hidden @ output_weight.T if bias is None else torch.addmm(bias, hidden, output_weight.T)
    vocab_size = output_weight.size(0)
    logits = hidden.new_empty(hidden.size(0), -(-vocab_size // 8) * 8)[:, :vocab_size]
    if bias is None:
        return torch.mm(hidden, output_weight.T, out=logits)
    return torch.addmm(bias, hidden, output_weight.T, out=logits)


def _softmax_gradient(
    logits: Tensor, target: Tensor, label_smoothing: float, needs_grad: bool
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row (n,), and d loss / d logits (n, V), possibly in place of the logits.

    Both are computed in float32 at least. Without `needs_grad`, the second is anything.
    """
    if (triton_loss := _triton_loss(logits)) is not None:
        return triton_loss.softmax_gradient_(logits, target, label_smoothing, needs_grad), logits
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if not _is_eager_cpu(logits):
        p = logits.softmax(dim=-1, dtype=dtype)
        lse = _log_sum_exp(logits.amax(dim=-1), p)
        return lse, _subtract_target_(p, target, label_smoothing).to(logits.dtype) if needs_grad else logits
    lse = torch.empty(len(logits), dtype=dtype)
    num_rows = max(1, _SOFTMAX_NUMEL // logits.size(1))
    buffer = None if logits.dtype == dtype else torch.empty(min(num_rows, len(logits)), logits.size(1), dtype=dtype)
    for start in range(0, len(logits), num_rows):
        rows = slice(start, start + num_rows)
        part = logits[rows]
        p = part if buffer is None else buffer[: len(part)].copy_(part)
        highest = p.amax(dim=-1)
        torch.softmax(p, dim=-1, out=p)
        lse[rows] = _log_sum_exp(highest, p)
        if needs_grad:
            _subtract_target_(p, target[rows], label_smoothing)
            if p is not part:
                part.copy_(p)
    return lse, logits


def _log_sum_exp(highest: Tensor, p: Tensor) -> Tensor:
    """Without a second pass of exponentials: p = exp(logit - lse), most precisely at the highest logit."""
    return highest - p.amax(dim=-1).log()


def _subtract_target_(p: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """p - ((1 - ε) one-hot + ε/V), in place."""
    index = target[:, None]
    p.sub_(label_smoothing / p.size(1))
    return p.scatter_add_(1, index, p.new_full(index.shape, label_smoothing - 1))


def _column_sums(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x (n, D) summed over n, (D,)."""
    if not _is_eager_cpu(x) or x.dtype == dtype:
        return x.sum(dim=0, dtype=dtype)
    return torch.stack([rows.sum(dim=0, dtype=dtype) for rows in x.split(_WIDENED_ROWS)]).sum(dim=0)


def _add_product(grad_weight: Tensor, grad_logits: Tensor, hidden: Tensor) -> None:
    """grad_weight (V, D) += grad_logits (n, V)ᵀ hidden (n, D), where the sums may be wider than the factors."""
    if grad_weight.dtype == hidden.dtype:
        grad_weight.addmm_(grad_logits.T, hidden)
    elif _has_wide_products(hidden):
        grad_weight += torch.mm(grad_logits.T, hidden, out_dtype=grad_weight.dtype)
    else:
        for sums, columns in zip(
            grad_weight.split(_WIDENED_ROWS), grad_logits.split(_WIDENED_ROWS, dim=1), strict=True
        ):
            sums += columns.T @ hidden


def _is_eager_cpu(x: Tensor) -> bool:
    return x.is_cpu and not torch.compiler.is_compiling()


def _is_eager_cuda(x: Tensor) -> bool:
    return x.is_cuda and type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()


def _has_wide_products(x: Tensor) -> bool:
    """Whether the device multiplies float16 and bfloat16 without rounding the product to them."""
    return _is_eager_cuda(x) and torch.version.cuda is not None and torch.cuda.get_device_capability(x.device) >= (8, 0)


def _triton_loss(x: Tensor) -> Any:
    """The module `loss_triton` if it can compute with x, else None."""
    if not _is_eager_cuda(x) or x.dtype == torch.float64:
        return None
    return _checked_triton_loss(x.device, x.dtype)


@cache
def _checked_triton_loss(device: torch.device, dtype: torch.dtype) -> Any:
    """`loss_triton` if its kernel is compiled and computes what torch does, on a few logits; else None."""
    try:
        from transformer.training import loss_triton
    except ImportError:  # Triton is not for every system
        return None
    logits = torch.linspace(-9, 9, 3 * 1031).view(3, -1).to(device, dtype)
    target = torch.tensor([0, 1030, 515], device=device)
    p = logits.softmax(dim=-1, dtype=torch.float32)
    expected = _log_sum_exp(logits.amax(dim=-1), p), _subtract_target_(p, target, 0.1).to(dtype)
    try:
        lse = loss_triton.softmax_gradient_(logits, target, 0.1, needs_grad=True)
        torch.testing.assert_close((lse, logits), expected)
    except Exception as error:
        # Such as: no C compiler, which Triton calls; or a release of Triton that computes something else.
        summary = str(error).strip().partition("\n")[0]
        warn(f"the loss is computed without Triton, which is slower: {summary}")
        return None
    return loss_triton

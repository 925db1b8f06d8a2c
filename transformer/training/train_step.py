"""Gradient accumulation and the non-finite guard (sections 5.1, 5.4).

Dimension key: B sentences, T target length, N non-pad target tokens, D model size.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transformer.data.batching import Batch, collate
from transformer.data.dataset import Ints, PairDataset
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.model.transformer import Transformer
from transformer.training.data import Update, halve_batches
from transformer.training.device import empty_cache, is_out_of_memory, return_freed_memory
from transformer.training.loss import label_smoothed_cross_entropy, output_loss
from transformer.training.loss_scale import LossScale
from transformer.training.optimizer import MasterWeights
from transformer.training.packed.cpu_batch import GroupedBatch
from transformer.training.packed.cuda_batch import PackedBatch
from transformer.training.packed.packers import Packer

# Devices with a fused Adam that takes `found_inf` and does not look at it (FusedAdamWKernelImpl.mm in torch).
_IGNORE_FOUND_INF = {"mps"}
AnyBatch = Batch | PackedBatch | GroupedBatch
# `with timer("forward"):` encloses one phase of an update: data, forward, backward or optimizer.
Timer = Callable[[str], AbstractContextManager[object]]


def no_timer(phase: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """The default `Timer`: measures nothing."""
    return nullcontext()


def batch_loss(model: Transformer, batch: AnyBatch, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Smoothed loss and NLL, summed over non-pad target tokens, in nats.

    A model with `logits` of its own is trained by them; all of a batch are then in memory.
    """
    if not isinstance(batch, Batch):
        return batch.loss(model, label_smoothing)
    hidden, _ = model.decode(batch.tgt_in, model.encode(batch.src))  # (B, T, D)
    # Padded positions are neither projected nor counted.
    hidden = hidden.flatten(0, 1).index_select(0, batch.target_positions)  # (N, D)
    target = batch.tgt_out.flatten().index_select(0, batch.target_positions)  # (N,)
    if getattr(model.logits, "__func__", None) not in (Transformer.logits, BiasedTransformer.logits):
        return label_smoothed_cross_entropy(model.logits(hidden), target, label_smoothing)
    return output_loss(model, hidden, target, label_smoothing)


def accumulate_gradients(
    weights: MasterWeights,
    batches: Sequence[AnyBatch],
    label_smoothing: float,
    num_tokens: int | None = None,
    timer: Timer = no_timer,
    *,
    is_last: bool = False,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradients of one update on the master weights.

    They are divided by the target tokens of all batches, so the split into batches affects memory use only. Give
    `num_tokens`, of the whole update, if `batches` are a rank's shard, possibly empty. If the call `is_last` of the
    update, `GradientReducer` begins while the last batch is computed. Returns sums of loss and NLL.
    """
    if num_tokens is None:
        num_tokens = sum(batch.num_tokens for batch in batches)
    device = weights.model.embedding.output_weight.device
    total_loss, total_nll = (torch.zeros((), dtype=torch.float32, device=device) for _ in range(2))
    for number, batch in enumerate(batches, start=1):
        with timer("forward"):
            loss, nll = batch_loss(weights.model, batch, label_smoothing)
        with timer("backward"):
            weights.backward(loss / num_tokens, is_last=is_last and number == len(batches))
        total_loss += loss.detach()
        total_nll += nll
    return total_loss, total_nll


def accumulate_in_memory(
    weights: MasterWeights,
    dataset: PairDataset,
    indices: list[Ints],
    label_smoothing: float,
    num_tokens: int,
    report_halving: Callable[[], None],
    timer: Timer = no_timer,
    packer: Packer | None = None,
) -> tuple[Sequence[AnyBatch], Tensor, Tensor]:
    """The last `accumulate_gradients` of an update, with batches of pair indices, halved until they fit into memory.

    Gradients are sums over pairs, so halving does not change them but for rounding. Also returns the batches, which the
    `packer` makes where it can. MemoryError if a single pair does not fit.
    """
    device = weights.model.embedding.output_weight.device
    if packer is not None and not packer.takes(weights.model):
        packer = None
    if packer is not None:
        indices = packer.split(dataset, indices)
    collated = partial(collate if packer is None else packer.collate, dataset)
    while True:
        try:
            with timer("data"):
                batches = [collated(batch).to(device) for batch in indices]
            return batches, *accumulate_gradients(weights, batches, label_smoothing, num_tokens, timer, is_last=True)
        except Exception as error:
            is_uncompiled_now = packer is not None and packer.gives_up_compiling(error)
            if not is_uncompiled_now and not is_out_of_memory(error):
                raise
            reason = str(error)
        # Outside the except clause, where the traceback no longer keeps the attempt's tensors alive.
        weights.zero_grad()
        if is_uncompiled_now:
            continue
        empty_cache(device)
        return_freed_memory()
        halves = halve_batches(indices) if packer is None else packer.halve(dataset, indices)
        if len(halves) == len(indices):  # the longest pair takes as much by itself
            raise MemoryError(reason)
        report_halving()
        indices = halves


class NonfiniteGuard:
    """Skips updates with non-finite gradients, without synchronizing with a CUDA device.

    With a loss scale, which it adapts, those that overflow are no faults.
    """

    def __init__(self, loss_scale: LossScale | None = None) -> None:
        self._loss_scale = loss_scale
        self._unread: list[tuple[Update, Tensor]] = []

    def step(
        self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], update: Update, clip_norm: float | None = None
    ) -> Tensor:
        """Clip the gradients and step if they are finite; returns whether, a bool tensor ()."""
        norm = torch.nn.utils.get_total_norm([x.grad for x in parameters if x.grad is not None])
        is_finite = norm.isfinite()
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        if norm.device.type not in _IGNORE_FOUND_INF:
            # As GradScaler does: the fused optimizer then skips its step on the device. The host reads later whether.
            optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
            optimizer.step()
        elif is_finite:
            optimizer.step()
        is_overflow = self._loss_scale.update(is_finite) if self._loss_scale else False
        self._unread.append((update, is_finite | is_overflow))
        return is_finite

    def skipped_updates(self) -> list[Update]:
        """The updates skipped since the last call for another reason than overflow. Synchronizes with the device."""
        unread, self._unread = self._unread, []
        if not unread:
            return []
        fine: list[bool] = torch.stack([is_fine for _, is_fine in unread]).tolist()
        return [update for (update, _), is_fine in zip(unread, fine, strict=True) if not is_fine]

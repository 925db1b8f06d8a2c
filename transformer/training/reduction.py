"""Gradients summed over all ranks, in buckets, while the last backward pass of an update computes others.

DistributedDataParallel does so too, but it reduces the gradients that autograd computed (in bfloat16: rounded, of the
wrong model), averages over ranks although the loss is divided by tokens, and waits for the backward pass of a rank that
may have no batch. Here, sums are of the float32 gradients of the master weights, and ranks without a batch add zeros.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from transformer.training.distributed import DistributedContext
from transformer.training.optimizer import MasterWeights, Pair, parts_of

# Elements per reduction: enough to use a network well, and few enough that several pass while others are computed.
_BUCKET_NUMEL = 1 << 22


class GradientReducer:
    """Sums each gradient of the master weights over all ranks, once per update.

    All ranks have the same buckets and start them in the same order, from the last parameters on, which the backward
    pass reaches first. Parameters may be frozen and unfrozen between updates, by all ranks alike.
    """

    def __init__(
        self, weights: MasterWeights, context: DistributedContext, on_start: Callable[[], None] = lambda: None
    ) -> None:
        """Follow the backward passes of these weights; `on_start()` is called when an exchange begins."""
        self._weights, self._context, self._on_start = weights, context, on_start
        self._trained: list[Pair] = []
        self._buckets: list[_Bucket] = []
        self._hooks: list[RemovableHandle] = []
        self._num_started, self._is_last, self._is_over = 0, False, False
        if context.size > 1:
            weights.last_backward = self._last_backward

    @torch.no_grad()
    def all_reduce_gradients(self) -> None:
        """Finish the sums; a missing gradient of a trained parameter counts as zeros. WorkerError."""
        self._prepare()
        for bucket in self._buckets[self._num_started :]:
            self._start(bucket)
        for bucket in self._buckets:
            bucket.finish()
        self._num_started, self._is_over = 0, False

    def _prepare(self) -> None:
        """Make buckets of the parameters that are trained now, unless exchanges of this update have begun."""
        if self._context.size == 1 or self._num_started:
            return
        pairs = zip(self._weights.master.parameters(), self._weights.model.parameters(), strict=True)
        trained = [pair for pair in pairs if pair[1].requires_grad]  # as a single process: what gets gradients
        if [id(computing) for _, computing in trained] == [id(computing) for _, computing in self._trained]:
            return
        for hook in self._hooks:
            hook.remove()
        self._trained, self._buckets = trained, [_Bucket(part) for part in parts_of(trained[::-1], _BUCKET_NUMEL)]
        self._hooks = [
            computing.register_post_accumulate_grad_hook(functools.partial(self._on_gradient, bucket))
            for bucket in self._buckets
            for _, computing in bucket.pairs
        ]

    @contextlib.contextmanager
    def _last_backward(self) -> Iterator[None]:
        """Enclose the last backward pass of an update, or a repetition of it that needs less memory."""
        self._prepare()
        for bucket in self._buckets:
            bucket.num_missing = len(bucket.pairs)
        self._is_last = True
        try:
            yield
        finally:
            self._is_last = False
        self._is_over = self._num_started > 0

    def _on_gradient(self, bucket: _Bucket, _: Tensor) -> None:
        """A gradient of a bucket is complete, if this is the last backward pass. RuntimeError after that."""
        if self._is_over:
            raise RuntimeError(
                "gradients of this update are being summed over all processes already: only its last backward pass may "
                "be `is_last`, and none may follow before `all_reduce_gradients`"
            )
        bucket.num_missing -= self._is_last
        while self._is_last and self._num_started < len(self._buckets):
            if self._buckets[self._num_started].num_missing:
                break
            self._start(self._buckets[self._num_started])

    def _start(self, bucket: _Bucket) -> None:
        self._on_start()
        self._weights.collect_gradients(bucket.pairs)
        bucket.start(self._context)
        self._num_started += 1  # not if memory was missing: the backward pass is then repeated


class _Bucket:
    """Parameters whose gradients are one tensor while they are exchanged."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs
        self.num_missing = len(pairs)
        self._sum: Tensor | None = None
        self._wait: Callable[[], None] = lambda: None

    def start(self, context: DistributedContext) -> None:
        """Begin to sum what the master weights have."""
        weights = [weight for weight, _ in self.pairs]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        self._sum = torch.cat([gradient.flatten() for gradient in gradients])
        for weight in weights:
            weight.grad = None
        self._wait = context.start_sum(self._sum)

    def finish(self) -> None:
        """Give the master weights the sums. Those of a repeated backward pass are in the first one's already."""
        self._wait()
        assert self._sum is not None
        parts = self._sum.split([weight.numel() for weight, _ in self.pairs])
        for (weight, _), part in zip(self.pairs, parts, strict=True):
            weight.grad = part.view_as(weight)
        self._sum = None

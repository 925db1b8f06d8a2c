"""How updates are split into packed batches, on CUDA and on a CPU, by `train.packed` and `train.compile`."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

import numpy as np

from transformer.config import TrainConfig
from transformer.data.batching import sort_by_length
from transformer.data.dataset import Ints, PairDataset
from transformer.errors import ConfigError
from transformer.model.transformer import Transformer
from transformer.training.data import halve_batches
from transformer.training.packed.compilation import CompiledStates
from transformer.training.packed.cpu_batch import GroupedBatch, collate_grouped
from transformer.training.packed.cuda_batch import PackedBatch, Shape, collate_packed
from transformer.training.packed.models import obstacle

# `train.max_tokens` by default. On CUDA the paper's update of 25,000 target tokens is one batch if its source has at
# most 1.3 times as many; on a CPU 4,096 target tokens are one, with at most an eighth more source tokens.
_MAX_TOKENS_CUDA, _MAX_TOKENS_CPU = 1 << 15, 4608
# A shape has 1/32 more room than the update that needs it: the source tokens of 25,000 random target tokens vary by
# less, so that it rarely grows.
_ROOM = 32
_MULTIPLE = 64  # of the tokens per side, for products in whole tiles; also the shortest `longest`
# Estimated: if compiling takes a minute and saves 10 ms per update of the base model, it pays after 6,000.
_COMPILE_FROM_UPDATES = 10_000


class Packer(ABC):
    """Splits updates into packed batches: `ShapePacker` for CUDA, `GroupPacker` for a CPU.

    Attributes:
        max_tokens: of a batch and side, without padding; a longer pair is a batch of its own.
    """

    def __init__(self, max_tokens: int, *, is_forced: bool) -> None:
        if not max_tokens >= 1:  # NaN too
            raise ValueError(f"max_tokens={max_tokens} must be at least 1")
        self.max_tokens = max_tokens
        self._is_forced = is_forced

    def takes(self, model: Transformer) -> bool:
        """Whether a model can train on packed batches now; a hook may have been added since the last update.

        ConfigError if it cannot, but `train.packed` is true.
        """
        reason = _obstacle(model)
        if reason is not None and self._is_forced:
            raise ConfigError(f"train.packed=true: {reason}; use auto or false")
        return reason is None

    def described(self, model: Transformer) -> str:
        """A line for the user: how batches are made, and why they are padded if they are."""
        reason = _obstacle(model)
        return "batches: packed" if reason is None else f"batches: padded, as {reason}"

    def split(self, dataset: PairDataset, indices: list[Ints]) -> list[Ints]:
        """Split the pairs of an update, however they are split now, into as few batches as `max_tokens` allows."""
        pairs = np.concatenate([np.zeros(0, np.int64), *indices])
        return self._split(dataset, pairs) if len(pairs) else []

    @abstractmethod
    def _split(self, dataset: PairDataset, pairs: Ints) -> list[Ints]: ...

    @abstractmethod
    def collate(self, dataset: PairDataset, indices: Ints) -> PackedBatch | GroupedBatch:
        """One of the batches of the update that was split last."""

    def halve(self, dataset: PairDataset, indices: list[Ints]) -> list[Ints]:  # noqa: ARG002
        """Halve the batches of this update alone: the next is what it would be in a run that is resumed before it."""
        return halve_batches(indices)

    def gives_up_compiling(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether to try an update again without the compiler, which may be the reason of an error; says so."""
        return False


class ShapePacker(Packer):
    """Splits updates into batches of one shape, which grows to what updates need; perhaps compiled.

    Attributes:
        max_tokens: as of every packer.
        shape: of the next batches; None before the first.
    """

    def __init__(
        self, max_tokens: int | None = None, *, is_forced: bool = False, compiled: CompiledStates | None = None
    ) -> None:
        super().__init__(_MAX_TOKENS_CUDA if max_tokens is None else max_tokens, is_forced=is_forced)
        self.shape: Shape | None = None
        self._compiled = compiled

    def described(self, model: Transformer) -> str:
        is_compiled = self._compiled is not None and self._compiled.is_on and _obstacle(model) is None
        return f"{super().described(model)}{', compiled in the first update' if is_compiled else ''}"

    def split(self, dataset: PairDataset, indices: list[Ints]) -> list[Ints]:
        if self._compiled is not None:
            self._compiled.confirm()
        return super().split(dataset, indices)

    def _split(self, dataset: PairDataset, pairs: Ints) -> list[Ints]:
        lengths = np.stack([side.lengths[pairs].astype(np.int64) for side in (dataset.src, dataset.tgt)])
        # Dealt out in order of length, batches have about as many tokens and sentences each.
        order, turn = np.argsort(lengths.sum(axis=0), kind="stable"), np.arange(len(pairs))
        limit = max(self.max_tokens, int(lengths.max()))
        for number in itertools.count(-(-int(lengths.sum(axis=1).max()) // limit)):
            dealt = np.minimum(turn % (2 * number), 2 * number - 1 - turn % (2 * number))  # 0, 1, ..., 1, 0, 0, 1, ...
            parts = [np.sort(order[dealt == part]) for part in range(number)]
            src, tgt = (max(int(side[part].sum()) for part in parts) for side in lengths)
            if max(src, tgt) <= limit:
                break
        self._make_room(src, tgt, max(map(len, parts)), int(lengths.max()))
        return [pairs[part] for part in parts]

    def _make_room(self, src: int, tgt: int, sentences: int, longest: int) -> None:
        """Grow the shape if it does not hold a batch of these numbers."""
        before = self.shape or Shape(0, 0, 0, _MULTIPLE)
        if before.holds(src, tgt, sentences, longest):
            return
        longest = max(before.longest, 1 << (longest - 1).bit_length())  # a power of 2, which rarely grows
        sizes = [-(-(size + size // _ROOM + _MULTIPLE) // _MULTIPLE) * _MULTIPLE for size in (src, tgt)]
        src, tgt = (max(size, other) for size, other in zip(sizes, before[:2], strict=True))
        shape = Shape(src, tgt, 0, longest)
        most = sentences + sentences // (_ROOM // 4) + shape.num_padding
        self.shape = shape._replace(sentences=max(before.sentences, most))

    def collate(self, dataset: PairDataset, indices: Ints) -> PackedBatch:
        """As of every packer; ValueError before the first update was split."""
        if self.shape is None:
            raise ValueError("an update is split before its batches are collated")
        return collate_packed(dataset, indices, self.shape, self._compiled)

    def halve(self, dataset: PairDataset, indices: list[Ints]) -> list[Ints]:
        """Split into batches of half the tokens, as all later updates will be: they need as much memory."""
        sizes = (int(side.lengths[batch].sum()) for batch in indices for side in (dataset.src, dataset.tgt))
        most = max(sizes, default=0)
        self.max_tokens, self.shape = max(1, most // 2), None
        return self.split(dataset, indices)

    def gives_up_compiling(self, error: BaseException) -> bool:
        return self._compiled is not None and self._compiled.gives_up(error)


class GroupPacker(Packer):
    """Splits updates into batches of pairs of neighbouring lengths, for groups with little padding."""

    def __init__(self, max_tokens: int | None = None, *, is_forced: bool = False) -> None:
        super().__init__(_MAX_TOKENS_CPU if max_tokens is None else max_tokens, is_forced=is_forced)

    def _split(self, dataset: PairDataset, pairs: Ints) -> list[Ints]:
        src, tgt = dataset.src.lengths, dataset.tgt.lengths
        pairs = sort_by_length(pairs, src, tgt)
        longer = np.maximum(src[pairs], tgt[pairs]).astype(np.int64)
        ends = longer.cumsum()
        limit = max(self.max_tokens, int(longer.max()))
        for number in itertools.count(-(-int(ends[-1]) // limit)):
            cuts = np.searchsorted(ends, np.arange(1, number) * ends[-1] / number)
            if all(part.sum() <= limit for part in np.split(longer, cuts)):
                break
        return [part for part in np.split(pairs, cuts) if len(part)]

    def collate(self, dataset: PairDataset, indices: Ints) -> GroupedBatch:
        return collate_grouped(dataset, indices)


def _obstacle(model: Transformer) -> str | None:
    weight = model.embedding.output_weight
    return obstacle(model, weight.device, weight.dtype)


def packer_of(settings: TrainConfig, model: Transformer, num_updates: int) -> Packer | None:
    """The packer of a run by `train.packed` and `train.compile`; None if all batches are padded.

    `num_updates` are to come. ConfigError if one of the keys is true and cannot be.
    """
    device = model.embedding.output_weight.device.type
    is_forced = settings.packed is True
    if settings.compile is True:
        reason = "train.packed=false" if settings.packed is False else _obstacle(model)
        if reason is not None or device == "cpu":
            raise ConfigError(
                "train.compile=true: only packed batches on CUDA, which have one shape, are compiled, and "
                f"{reason or 'device=cpu'}; use auto or false"
            )
    if settings.packed is False or (settings.packed == "auto" and device not in ("cpu", "cuda")):
        return None
    packer: Packer
    if device == "cpu":
        packer = GroupPacker(settings.max_tokens, is_forced=is_forced)
    else:
        compiles = settings.compile is True or (settings.compile == "auto" and num_updates >= _COMPILE_FROM_UPDATES)
        compiled = CompiledStates() if compiles else None
        packer = ShapePacker(settings.max_tokens, is_forced=is_forced, compiled=compiled)
    packer.takes(model)
    return packer

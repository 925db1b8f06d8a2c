"""Updates as packed batches of one shape, and whether a compiler takes part."""

from __future__ import annotations

import itertools

import numpy as np

from transformer.config import TrainConfig
from transformer.data.dataset import Ints, PairDataset
from transformer.errors import ConfigError
from transformer.model.transformer import Transformer
from transformer.training.compilation import CompiledStates
from transformer.training.grouped import GroupPacker
from transformer.training.packable import obstacle, takes_packed
from transformer.training.packed import PackedBatch, Shape, collate_packed

# `train.max_tokens` by default: the paper's update of 25,000 target tokens is one batch if its source has at most 1.3
# times as many.
_MAX_TOKENS = 1 << 15
# A shape has 1/32 more room than the update that needs it: the source tokens of 25,000 random target tokens vary by
# about 1 %.
_ROOM = 32
_MULTIPLE = 64  # of the tokens per side, for products in whole tiles; also the shortest `longest`
# Estimated: a minute to compile, and 10 ms saved per update of the base model.
_COMPILE_FROM_UPDATES = 10_000


class Packer:
    """Splits updates into packed batches of one shape, which grows to what updates need.

    Attributes:
        max_tokens: of a batch and side, without padding; a longer pair is a batch of its own.
        shape: of the next batches; None before the first.
    """

    def __init__(
        self, max_tokens: int | None = None, *, is_forced: bool = False, compiled: CompiledStates | None = None
    ):
        self.max_tokens = max_tokens or _MAX_TOKENS
        self.shape: Shape | None = None
        self._is_forced, self._compiled = is_forced, compiled

    def takes(self, model: Transformer) -> bool:
        """Whether a model can train on packed batches now; a hook may have been added since the last update.

        ConfigError if it cannot, but `train.packed` is true.
        """
        return takes_packed(_obstacle(model), is_forced=self._is_forced)

    def described(self, model: Transformer) -> str:
        """A line for the user: how batches are made, and why they are padded if they are."""
        reason = _obstacle(model)
        if reason is not None:
            return f"batches: padded, as {reason}"
        is_compiled = self._compiled is not None and self._compiled.is_on
        return f"batches: packed{', compiled in the first update' if is_compiled else ''}"

    def split(self, dataset: PairDataset, indices: list[Ints]) -> list[Ints]:
        """Split the pairs of an update, however they are split now, into as few batches as `max_tokens` allows."""
        if self._compiled is not None:
            self._compiled.confirm()
        pairs = np.concatenate([np.zeros(0, np.int64), *indices])
        if not len(pairs):
            return []
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
        """One of the batches of the update that was split last. ValueError before the first."""
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
        """Whether to try an update again without the compiler, which may be the reason of an error; says so."""
        return self._compiled is not None and self._compiled.gives_up(error)


def _obstacle(model: Transformer) -> str | None:
    weight = model.embedding.output_weight
    return obstacle(model, weight.device, weight.dtype)


def packer_of(settings: TrainConfig, model: Transformer, num_updates: int) -> Packer | GroupPacker | None:
    """The packer of a run by `train.packed` and `train.compile`; None if all batches are padded.

    `num_updates` are to come. ConfigError if one of the keys is true and cannot be.
    """
    device = model.embedding.output_weight.device.type
    if settings.compile is True:
        reason = "train.packed=false" if settings.packed is False else _obstacle(model)
        if reason is not None or device == "cpu":
            raise ConfigError(
                "train.compile=true: only packed batches on CUDA, which have one shape, are compiled, and "
                f"{reason or 'device=cpu'}; use auto or false"
            )
    if settings.packed is False or (settings.packed == "auto" and device not in ("cpu", "cuda")):
        return None
    if device == "cpu":
        groups = GroupPacker(settings.max_tokens, is_forced=settings.packed is True)
        groups.takes(model)
        return groups
    compiles = settings.compile is True or (settings.compile == "auto" and num_updates >= _COMPILE_FROM_UPDATES)
    packer = Packer(
        settings.max_tokens, is_forced=settings.packed is True, compiled=CompiledStates() if compiles else None
    )
    packer.takes(model)
    return packer

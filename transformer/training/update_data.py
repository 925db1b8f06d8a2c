"""The pairs of one update: as in the corpus, or with segmentations of their own."""

import numpy as np

from transformer.config import Config
from transformer.data.batching import shard_update
from transformer.data.dataset import Ints, PairDataset
from transformer.training.data import BatchSampler, RunData, Update
from transformer.training.distributed import DistributedContext


def update_data(
    data: RunData, update: Update, batches: BatchSampler, config: Config, context: DistributedContext
) -> tuple[PairDataset, list[Ints], int]:
    """Pairs, batches of indices of this rank, and target tokens of all ranks.

    Updates and shards are planned by the lengths of the corpus. Sampled segmentations are longer, so a batch of them is
    split where it would exceed `train.max_tokens`, which changes memory use and nothing else.
    """
    if data.sampler is None:
        num_tokens = sum(int(data.train.tgt.lengths[batch].sum()) for batch in update.batches)
        return data.train, batches.shard(update), num_tokens
    positions = batches.positions(update)
    mine = np.concatenate([np.zeros(0, np.int64), *positions])
    pairs = np.concatenate(update.batches)[mine]
    repeats = np.concatenate(update.repeats)[mine] if update.repeats else np.zeros_like(pairs)
    sampled = data.sampler.sample(data.train, pairs, config.seed, update.epoch, repeats)
    ends = np.cumsum([len(batch) for batch in positions])
    planned = (np.arange(end - len(batch), end) for end, batch in zip(ends, positions, strict=True))
    lengths = sampled.src.lengths, sampled.tgt.lengths
    parts = (
        shard_update([batch], *lengths, max_tokens=config.train.padded_tokens, rank=0, size=1) for batch in planned
    )
    num_tokens = sum(context.all_gather(int(sampled.tgt.lengths.sum())))
    return sampled, [part for parts_of_batch in parts for part in parts_of_batch], num_tokens

"""The data of a run: corpora, tokenizer, encoded pairs and batches."""

import functools
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transformer.config import DataConfig
from transformer.data.batching import group_into_updates, shard_update
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import Ints, PairDataset, corpus_tokenizer, encode_corpus, in_words
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError
from transformer.files import write_atomic
from transformer.progress import Stage, no_stage
from transformer.training.distributed import DistributedContext
from transformer.training.signals import ctrl_c_ends_at_once
from transformer.training.training_state import Progress
from transformer.training.validation_sets import ValidationSet, load_validation_sets


@dataclass(frozen=True)
class RunData:
    """Tokenizer, encoded training and validation pairs, and validation text."""

    tokenizer: Tokenizer
    train: PairDataset
    validation: PairDataset
    validation_text: Corpus
    others: Mapping[str, ValidationSet] = field(default_factory=dict)  # validated too, by name

    @property
    def fingerprints(self) -> dict[str, str]:
        """Content hashes by name."""
        return {
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
            "tokenizer": hashlib.sha256(self.tokenizer.model).hexdigest(),
            **{f"validation/{name}": other.pairs.fingerprint for name, other in self.others.items()},
        }

    def counts(self) -> list[str]:
        """Lines on kept and dropped pairs, and on the vocabulary's fit."""
        others = ((f"validation {name}", other.pairs) for name, other in self.others.items())
        texts = (("training", self.train), ("validation", self.validation), *others)
        lines = [f"{name} pairs: {len(pairs):,} (dropped: {in_words(pairs.dropped)})" for name, pairs in texts]
        unknown = (
            f"{pairs.num_unknown:,} of {len(pairs.src.ids) + len(pairs.tgt.ids) - 2 * len(pairs):,} in the {name} text"
            for name, pairs in texts
        )
        lines += [f"unknown pieces: {', '.join(unknown)}", f"normalization: {self.tokenizer.normalization}"]
        num_characters, size = self.tokenizer.num_characters(), len(self.tokenizer)
        if num_characters > size / 2:
            lines.append(
                f"warning: {num_characters:,} of {size:,} pieces are single characters: raise data.vocab_size, or "
                "lower data.character_coverage with data.byte_fallback=true"
            )
        return lines


def load_data(data: DataConfig, tokenizer_path: Path, context: DistributedContext, stage: Stage = no_stage) -> RunData:
    """Load and encode the data of a run; train its tokenizer if absent. DataError."""
    stage = stage if context.is_main else no_stage
    with context.main_process_first():
        train, validation = (load_split(data, split) for split in (data.train_split, data.validation_split))
    if train.fingerprint == validation.fingerprint:
        raise DataError(
            f"data.corpus={data.corpus}: training and validation have the same content ({train.name} and "
            f"{validation.name}); is {{split}} missing?"
        )

    def make_tokenizer() -> bytes:
        if not tokenizer_path.is_file():
            with ctrl_c_ends_at_once():
                settings = data.tokenizer_settings
                tokenizer = corpus_tokenizer(train, data.vocab_size, data.cache_dir, stage, **settings)
            write_atomic(tokenizer_path, tokenizer.model)
        return Tokenizer.load(tokenizer_path).model

    tokenizer = Tokenizer(context.broadcast_from_main(make_tokenizer))
    with context.main_process_first():
        encoded, validation_encoded = (
            encode_corpus(
                corpus, tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=max_ratio, stage=stage
            )
            for corpus, max_ratio in ((train, data.max_ratio), (validation, None))
        )
    # Each rank samples the same updates from the lengths of its sentences.
    lengths = tuple(zlib.crc32(side.lengths.tobytes()) for side in (encoded.src, encoded.tgt))
    if len(set(context.all_gather(lengths))) > 1:
        raise DataError(f"data.corpus={data.corpus}: differs between machines")
    others = load_validation_sets(data, tokenizer, context, stage)
    return RunData(tokenizer, encoded, validation_encoded, validation, others)


@dataclass(frozen=True)
class Update:
    """One optimizer update: its step, its position in the data and its batches of pair indices."""

    step: int
    epoch: int
    number: int
    batches: list[Ints]

    def __str__(self) -> str:
        indices = [int(i) for batch in self.batches for i in batch]
        more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        return f"step {self.step} (update {self.number} of epoch {self.epoch}: pairs {str(indices[:8])[1:-1]}{more})"


class BatchSampler:
    """Samples the batches of each update, epoch after epoch."""

    def __init__(
        self, dataset: PairDataset, max_tokens: int, tokens_per_update: int, seed: int, context: DistributedContext
    ) -> None:
        self._lengths = dataset.src.lengths, dataset.tgt.lengths
        self._max_tokens, self._context = max_tokens, context
        self._plan = functools.partial(
            group_into_updates, *self._lengths, max_tokens=max_tokens, tokens_per_update=tokens_per_update, seed=seed
        )
        self._epoch = -1
        self._updates: list[list[Ints]] = []

    def next(self, progress: Progress) -> Update:
        """The next update, of all ranks; advances the position in the data."""
        if self._epoch != progress.epoch:
            self._start_epoch(progress.epoch)
        if progress.update >= len(self._updates):
            progress.epoch, progress.update = progress.epoch + 1, 0
            self._start_epoch(progress.epoch)
        progress.update += 1
        return Update(progress.step + 1, progress.epoch, progress.update, self._updates[progress.update - 1])

    def num_tokens(self, progress: Progress) -> tuple[int, int]:
        """Source and target tokens, </s> included, before a position in the data."""
        if self._epoch != progress.epoch:
            self._start_epoch(progress.epoch)
        batches = [batch for update in self._updates[: progress.update] for batch in update]
        pairs = np.concatenate([np.zeros(0, np.int64), *batches])
        src, tgt = (progress.epoch * int(side.sum()) + int(side[pairs].sum()) for side in self._lengths)
        return src - progress.skipped_src_tokens, tgt - progress.skipped_tgt_tokens

    def skip_epoch(self, progress: Progress) -> None:
        """Move to the beginning of the next epoch, unless the position is one; the rest counts as skipped."""
        if progress.update == 0:
            return
        before = self.num_tokens(progress)
        progress.epoch, progress.update = progress.epoch + 1, 0
        src, tgt = (after - seen for after, seen in zip(self.num_tokens(progress), before, strict=True))
        progress.skipped_src_tokens += src
        progress.skipped_tgt_tokens += tgt

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._updates = epoch, self._plan(epoch=epoch)

    def shard(self, update: Update) -> list[Ints]:
        """The batches of this rank."""
        rank, size, max_tokens = self._context.rank, self._context.size, self._max_tokens
        if size == 1:
            return update.batches
        return shard_update(update.batches, *self._lengths, max_tokens=max_tokens, rank=rank, size=size)


def halve_batches(batches: list[Ints]) -> list[Ints]:
    """The same pairs in batches of half the size."""
    return [half for batch in batches for half in np.array_split(batch, 2) if len(half)]

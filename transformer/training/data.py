"""The data of a run: corpora, tokenizer, encoded pairs and batches."""

import functools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transformer.config import DataConfig, TrainConfig
from transformer.data.batching import draw_updates, group_into_updates, shard_update
from transformer.data.corpus import load_split
from transformer.data.dataset import Ints, PairDataset, encode_corpus, in_words
from transformer.data.duplicates import Overlap, overlap
from transformer.data.mixture import Mixture, TrainingCorpus, joined, mixed, training_corpora
from transformer.data.pairs import Corpus
from transformer.data.run_tokenizer import run_tokenizer, tokenizer_lines
from transformer.data.subword_sampling import PairSampler, pair_sampler
from transformer.data.tags import num_tag_pieces, tagged
from transformer.data.tokenizer import Tokenizer
from transformer.data.vocabulary_tokenizer import read_tokenizer
from transformer.errors import DataError
from transformer.progress import Stage, no_stage
from transformer.training.distributed import DistributedContext
from transformer.training.signals import ctrl_c_ends_at_once
from transformer.training.tag_warnings import tag_warnings
from transformer.training.training_state import Progress
from transformer.training.validation_sets import ValidationSet, load_validation_sets

_MANY_SHARED = 0.01  # part of the validation pairs in the training text from which there is a warning


@dataclass(frozen=True)
class RunData:
    """Tokenizer, encoded training and validation pairs, and validation text."""

    tokenizer: Tokenizer
    train: Mixture
    validation: PairDataset
    validation_text: Corpus
    overlap: Overlap  # of the validation with the training text
    others: Mapping[str, ValidationSet] = field(default_factory=dict)  # validated too, by name
    sampler: PairSampler | None = None  # splits training pairs anew in each epoch
    tokenizer_lines: tuple[str, ...] = ()  # on the tokenizer, for the user
    tag: str | None = None  # before validation sources, and what is translated
    target_tags: Sequence[str] = ()  # of which a multilingual model needs one

    @property
    def tagged_validation_text(self) -> Corpus:
        """The validation text as the model reads it."""
        tags = {part.tag for part in self.train.parts} | {self.tag}
        return tagged(self.validation_text, self.tag, sorted(tag for tag in tags if tag is not None))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Content hashes by name."""
        return {
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
            "tokenizer": self.tokenizer.digest,
            **{f"validation/{name}": other.pairs.fingerprint for name, other in self.others.items()},
        }

    def counts(self) -> list[str]:
        """Lines on kept and dropped pairs, and on the vocabulary's fit."""
        others = ((f"validation {name}", other.pairs) for name, other in self.others.items())
        texts = (("training", self.train), ("validation", self.validation), *others)
        lines = [f"{name} pairs: {len(pairs):,} (dropped: {in_words(pairs.dropped)})" for name, pairs in texts]
        lines += self._parts()
        unknown = (f"{pairs.num_unknown:,} of {_num_pieces(pairs):,} in the {name} text" for name, pairs in texts)
        lines += [f"unknown pieces: {', '.join(unknown)}", *self.tokenizer_lines]
        lines.append(f"validation text in the training text: {self.overlap}")
        return [*lines, *self.warnings()]

    def warnings(self) -> list[str]:
        """Lines on what is likely to be a mistake."""
        lines = tag_warnings(self.tokenizer, self.train, self.validation.src, self.tag, self.target_tags)
        if self.overlap.pairs > _MANY_SHARED * self.overlap.total:
            lines.append(
                f"warning: {self.overlap.pairs / self.overlap.total:.1%} of the validation pairs are in the training "
                "text: their score tells little about other text"
            )
        return lines

    def _parts(self) -> list[str]:
        """A line for each of several corpora: kept and dropped pairs, weight, share of an epoch's target tokens."""
        parts = self.train.parts
        if len(parts) == 1 and parts[0].weight == 1.0 and parts[0].tag is None:
            return []
        lines = []
        for part, share in zip(parts, self.train.shares(), strict=True):
            weight = "" if part.weight == 1.0 else f", weight {part.weight:g}"
            tag = "" if part.tag is None else f", tag {part.tag}"
            numbers = f"{len(part.pairs):,} pairs, {share:.1%} of an epoch{weight}{tag}"
            lines.append(f"  {part.name}: {numbers} (dropped: {in_words(part.dropped)})")
        return [*lines, f"  validation: {self.validation_text.name}"]


def _num_pieces(pairs: PairDataset) -> int:
    """Pieces of both sides, without </s>."""
    return int(pairs.src.lengths.sum()) + int(pairs.tgt.lengths.sum()) - 2 * len(pairs)


def load_data(data: DataConfig, tokenizer_path: Path, context: DistributedContext, stage: Stage = no_stage) -> RunData:
    """Load and encode the data of a run; train its tokenizer if absent. DataError."""
    stage = stage if context.is_main else no_stage
    with context.main_process_first():
        corpora, validation = training_corpora(data), load_split(data, data.validation_split)
    _check_apart(data, corpora, validation)
    train = joined(corpora, data.tags)

    def models() -> tuple[bytes, bytes]:
        with ctrl_c_ends_at_once():
            tokenizer = run_tokenizer(tokenizer_path.parent, train, data, stage)
        return tokenizer.model, tokenizer.source.model

    model, source_model = context.broadcast_from_main(models)
    tokenizer = read_tokenizer(model)
    if data.separate_vocabularies:
        tokenizer.source = read_tokenizer(source_model)
    sampler = pair_sampler(data, tokenizer)
    with context.main_process_first():
        *parts, validation_encoded = (
            encode_corpus(
                corpus, tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=max_ratio, stage=stage
            )
            for corpus, max_ratio in (
                *((tagged(one.corpus, one.tag, data.tags), data.max_ratio) for one in corpora),
                (tagged(validation, data.tag, data.tags), None),
            )
        )
    encoded = mixed(corpora, parts, deduplicate=data.deduplicate)
    # Each rank samples the same updates from the lengths of its sentences.
    lengths = tuple(zlib.crc32(side.lengths.tobytes()) for side in (encoded.src, encoded.tgt))
    if len(set(context.all_gather(lengths))) > 1:
        raise DataError(f"data.corpus={data.corpus}: differs between machines")
    shared = context.broadcast_from_main(lambda: _overlap(encoded, validation_encoded, data, tokenizer))
    others = load_validation_sets(data, tokenizer, context, stage)
    lines = tuple(tokenizer_lines(data, tokenizer))
    tags = data.tag, data.target_tags
    return RunData(tokenizer, encoded, validation_encoded, validation, shared, others, sampler, lines, *tags)


def _check_apart(data: DataConfig, corpora: Sequence[TrainingCorpus], validation: Corpus) -> None:
    """DataError if a training corpus and the validation data have the same content."""
    for index, one in enumerate(corpora):
        if one.whole == validation.fingerprint:
            key = f"data.corpora[{index}]" if data.corpora else f"data.corpus={data.corpus}"
            raise DataError(
                f"{key}: training and validation have the same content ({one.corpus.name} and {validation.name}); is "
                "{split} missing? data.hold_out=[validation, test] takes both out of the training data"
            )


def _overlap(train: Mixture, validation: PairDataset, data: DataConfig, tokenizer: Tokenizer) -> Overlap:
    """Without tags: the text counts."""
    parts = [(part.pairs, num_tag_pieces(tokenizer, part.tag)) for part in train.parts if len(part.pairs)]
    return overlap(parts, (validation, num_tag_pieces(tokenizer, data.tag)), Path(data.cache_dir))


@dataclass(frozen=True)
class Update:
    """One optimizer update: its step, its position in the data and its batches of pair indices."""

    step: int
    epoch: int
    number: int
    batches: list[Ints]
    repeats: Sequence[Ints] = ()  # per batch, how often the epoch visits each pair before; empty: never

    def __str__(self) -> str:
        indices = [int(i) for batch in self.batches for i in batch]
        more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
        return f"step {self.step} (update {self.number} of epoch {self.epoch}: pairs {str(indices[:8])[1:-1]}{more})"


class BatchSampler:
    """Samples the batches of each update, epoch after epoch."""

    def __init__(self, dataset: PairDataset, settings: TrainConfig, seed: int, context: DistributedContext) -> None:
        self._lengths = dataset.src.lengths, dataset.tgt.lengths
        self._max_tokens, self._context = settings.padded_tokens, context
        self._is_mixed = settings.batching == "mixed"
        self._visits = dataset.visits(seed) if isinstance(dataset, Mixture) else None
        self._plan = functools.partial(plan_updates, settings=settings, seed=seed)
        self._epoch = -1
        self._updates: list[list[Ints]] = []
        self._repeats: list[list[Ints]] = []

    def next(self, progress: Progress) -> Update:
        """The next update, of all ranks; advances the position in the data."""
        if self._epoch != progress.epoch:
            self._start_epoch(progress.epoch)
        if progress.update >= len(self._updates):
            progress.epoch, progress.update = progress.epoch + 1, 0
            self._start_epoch(progress.epoch)
        progress.update += 1
        batches, *repeats = (of[progress.update - 1] for of in (self._updates, self._repeats) if of)
        return Update(progress.step + 1, progress.epoch, progress.update, batches, *repeats)

    def num_tokens(self, progress: Progress) -> tuple[int, int]:
        """Source and target tokens, </s> included, before a position in the data."""
        if self._epoch != progress.epoch:
            self._start_epoch(progress.epoch)
        batches = [batch for update in self._updates[: progress.update] for batch in update]
        pairs = np.concatenate([np.zeros(0, np.int64), *batches])
        src, tgt = (self._before_epoch(progress.epoch, side) + int(side[pairs].sum()) for side in self._lengths)
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

    def _before_epoch(self, epoch: int, lengths: Ints) -> int:
        return epoch * int(lengths.sum()) if self._visits is None else self._visits.before_epoch(epoch, lengths)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = -1  # of no epoch, where an exception leaves this
        if self._visits is None:
            self._updates = self._plan(*self._lengths, epoch=epoch)
        else:
            visited = self._visits.of_epoch(epoch)
            updates = self._plan(*(side[visited] for side in self._lengths), epoch=epoch)
            self._updates = [[visited[batch] for batch in update] for update in updates]
            repeats = num_earlier(visited)
            self._repeats = [[repeats[batch] for batch in update] for update in updates] if repeats.any() else []
        self._epoch = epoch

    def shard(self, update: Update) -> list[Ints]:
        """The batches of this rank."""
        if self._context.size == 1 and not self._is_mixed:
            return update.batches
        pairs = np.concatenate(update.batches)
        return [pairs[positions] for positions in self.positions(update)]

    def positions(self, update: Update) -> list[Ints]:
        """Likewise, as positions in the batches of all ranks, one after the other."""
        rank, size, max_tokens = self._context.rank, self._context.size, self._max_tokens
        pairs, ends = np.concatenate(update.batches), np.cumsum([len(batch) for batch in update.batches])
        batches: list[Ints] = np.split(np.arange(len(pairs)), ends[:-1])
        if size == 1 and not self._is_mixed:
            return batches
        lengths = (side[pairs] for side in self._lengths)
        return shard_update(batches, *lengths, max_tokens=max_tokens, rank=rank, size=size)


def plan_updates(
    src_lengths: Ints, tgt_lengths: Ints, *, settings: TrainConfig, seed: int, epoch: int
) -> list[list[Ints]]:
    """The updates of an epoch by `train.batching`, each with its batches; a mixed one is split later."""
    if settings.batching == "mixed":
        return draw_updates(tgt_lengths, tokens_per_update=settings.tokens_per_update, seed=seed, epoch=epoch)
    max_tokens, tokens_per_update = settings.padded_tokens, settings.tokens_per_update
    return group_into_updates(
        src_lengths, tgt_lengths, max_tokens=max_tokens, tokens_per_update=tokens_per_update, seed=seed, epoch=epoch
    )


def num_earlier(values: Ints) -> Ints:
    """How often each value occurs before."""
    order = np.argsort(values, kind="stable")
    _, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.repeat(starts, counts)
    return found


def halve_batches(batches: list[Ints]) -> list[Ints]:
    """The same pairs in batches of half the size."""
    return [half for batch in batches for half in np.array_split(batch, 2) if len(half)]

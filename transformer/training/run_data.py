"""The data of a run: both corpora, the tokenizer that the run learns, and all pairs as ids."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config, DataConfig
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import PairDataset, corpus_tokenizer, encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError
from transformer.files import write_whole
from transformer.training.distributed import World


@dataclass(frozen=True)
class RunData:
    """What a run learns from, and the text and the ids that it is validated on."""

    tokenizer: Tokenizer
    train: PairDataset
    validation: PairDataset
    validation_text: Corpus

    @property
    def fingerprints(self) -> dict[str, str]:
        """What changes when the data do."""
        return {
            "train": self.train.fingerprint,
            "validation": self.validation.fingerprint,
            "tokenizer": hashlib.sha256(self.tokenizer.model).hexdigest(),
        }

    def counts(self) -> list[str]:
        """How many pairs there are and how many were dropped, for people to read."""
        lines = []
        for name, dataset in (("training", self.train), ("validation", self.validation)):
            dropped = ", ".join(f"{reason} {count}" for reason, count in dataset.dropped.items())
            lines.append(f"{name} pairs: {len(dataset):,} (dropped: {dropped})")
        return lines


def load_data(config: Config, world: World) -> RunData:
    """Read, or make, the data of a run whose directory exists; one process of a machine after the other.

    DataError if the corpus cannot be read, is empty, has one file for both splits, or is not the same everywhere.
    """
    data = config.data
    with world.in_turn():
        train, validation = (load_split(data, split) for split in (data.train_split, data.validation_split))
    if train.name == validation.name:
        raise DataError(f"data.corpus={data.corpus}: training and validation are the same file; is {{split}} missing?")
    path = Path(config.run_dir) / "tokenizer.model"
    tokenizer = Tokenizer(world.from_main(lambda: _tokenizer(path, train, data).model))
    with world.in_turn():
        encoded, validation_encoded = (
            encode_corpus(corpus, tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=max_ratio)
            for corpus, max_ratio in ((train, data.max_ratio), (validation, None))
        )
    # From the lengths of its sentences each process plans the same updates.
    lengths = tuple(zlib.crc32(side.lengths.tobytes()) for side in (encoded.src, encoded.tgt))
    if len(set(world.gather(lengths))) > 1:
        raise DataError(f"data.corpus={data.corpus}: is not the same on all machines")
    return RunData(tokenizer, encoded, validation_encoded, validation)


def _tokenizer(path: Path, corpus: Corpus, data: DataConfig) -> Tokenizer:
    """The run's tokenizer, learned from both sides of the corpus if the run has none yet."""
    if not path.is_file():
        write_whole(path, corpus_tokenizer(corpus, data.vocab_size, data.cache_dir).model)
    return Tokenizer.load(path)

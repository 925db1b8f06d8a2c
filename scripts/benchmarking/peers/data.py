"""A corpus as token ids in plain files, for every peer.

Files of a directory: `train.src`, `train.tgt`, `test.src`, `test.tgt` have a sentence per line, as ids between blanks,
`</s>` left out. An id is a word of digits, so that no toolkit can split or normalise it, and the unknown piece is
`<unk>`. `words.txt` has the ids that are no special ones, one per line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from transformer.config import Config
from transformer.data.corpus import load_split
from transformer.data.dataset import PairDataset, Side, corpus_tokenizer, encode_corpus
from transformer.data.pairs import digest_of
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import ConfigError
from transformer.files import write_atomic

UNKNOWN = "<unk>"
NUM_SPECIAL = 4  # padding, unknown, <s> and </s> in our order
# Keys of `data` that these files follow, and that change no training data.
_FOLLOWED = {
    *("corpus", "subset", "revision", "src_lang", "tgt_lang", "train_split", "validation_split", "test_split"),
    *("builtin_size", "tokenizer_type", "vocab_size", "normalization", "character_coverage", "byte_fallback"),
    *("user_symbols", "max_length", "max_ratio", "cache_dir", "bleu_tokenizer"),
}
_FORMAT = 1


def prepare(config: Config, cache: Path, *, sentences: int) -> Path:
    """Write the files, unless they are there; returns their directory.

    Training pairs are those that training would use; test sentences the first that are not blank.

    Args:
        config: its section `data` counts.
        cache: directory that has one for each corpus.
        sentences: number of test sentences.

    Raises:
        ConfigError: the test split has fewer sentences, or a key changes the data of training only.
        DataError: the corpus is missing or damaged.
    """
    data = config.data
    for each in dataclasses.fields(data):
        if each.name not in _FOLLOWED and (value := getattr(data, each.name)) != each.default:
            raise ConfigError(f"data.{each.name}={value}: the other toolkits would train on other data")
    corpus, test = load_split(data, data.train_split), load_split(data, data.test_split)
    tokenizer = corpus_tokenizer(corpus, data.vocab_size, data.cache_dir, **data.tokenizer_settings)
    pairs = encode_corpus(corpus, tokenizer, data.cache_dir, max_length=data.max_length, max_ratio=data.max_ratio)
    directory = cache / "data" / digest_of(_FORMAT, pairs.fingerprint, test.fingerprint, sentences)
    if (directory / "meta.json").is_file():
        return directory
    chosen = list(itertools.islice((pair for pair in test if pair[0].strip()), sentences))
    if len(chosen) < sentences:
        raise ConfigError(f"--sentences {sentences}: the split {data.test_split} of {test.name} has {len(chosen)}")
    directory.mkdir(parents=True, exist_ok=True)
    _write_all(directory, pairs, tokenizer, chosen)
    return directory


def _write_all(directory: Path, pairs: PairDataset, tokenizer: Tokenizer, test: Sequence[tuple[str, str]]) -> None:
    _write(directory / "train.src", _sentences(pairs.src))
    _write(directory / "train.tgt", _sentences(pairs.tgt))
    sources, targets = zip(*test, strict=True)
    _write(directory / "test.src", tokenizer.encode(sources))
    _write(directory / "test.tgt", tokenizer.encode(targets))
    words = "".join(f"{number}\n" for number in range(NUM_SPECIAL, len(tokenizer)))
    write_atomic(directory / "words.txt", words.encode())
    meta = {"pairs": len(pairs), "sentences": len(test), "vocab_size": len(tokenizer)}
    write_atomic(directory / "meta.json", json.dumps(meta).encode())


def line_of(ids: Iterable[int]) -> str:
    """A sentence as a line."""
    return " ".join(UNKNOWN if number == UNK_ID else str(number) for number in ids)


def _sentences(side: Side) -> Iterable[list[int]]:
    """All sentences of a side, without </s>."""
    for start, length in zip(side.starts, side.lengths, strict=True):
        yield np.asarray(side.ids[start : start + length - 1]).tolist()


def _write(path: Path, sentences: Iterable[Sequence[int]]) -> None:
    write_atomic(path, "".join(f"{line_of(ids)}\n" for ids in sentences).encode())

"""Validation sets besides the one that decides what is the best: `data.also_validate`."""

from __future__ import annotations

from dataclasses import dataclass

from transformer.config import DataConfig
from transformer.data.corpus import Corpus, load_split
from transformer.data.dataset import PairDataset, encode_corpus
from transformer.data.tags import tagged
from transformer.data.tokenizer import Tokenizer
from transformer.progress import Stage
from transformer.sections.validation_set import name_and_corpus
from transformer.training.distributed import DistributedContext


@dataclass(frozen=True)
class ValidationSet:
    """Encoded pairs, and their text."""

    pairs: PairDataset
    text: Corpus


def load_validation_sets(
    data: DataConfig, tokenizer: Tokenizer, context: DistributedContext, stage: Stage
) -> dict[str, ValidationSet]:
    """The sets of `data.also_validate` by name. DataError as of `load_split` and `encode_corpus`."""
    sets = {}
    for entry in data.also_validate:
        name, corpus = name_and_corpus(entry)
        of = data if corpus is None else data.with_corpus(corpus)
        with context.main_process_first():
            text = load_split(of, name if corpus is None else data.validation_split)
            with_tags = tagged(text, data.tag, data.tags)
            pairs = encode_corpus(with_tags, tokenizer, data.cache_dir, max_length=data.max_length, stage=stage)
        sets[name] = ValidationSet(pairs, text)
    return sets

"""The section `data`."""

from typing import Any

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.errors import ConfigError
from transformer.sections.types import (
    STRICT,
    BleuTokenizer,
    BoundedCount,
    Coverage,
    Length,
    NonEmptyPath,
    NormalizationRule,
    PathText,
    PlainName,
    Ratio,
    Text,
    ValidationSetText,
    VocabSize,
)
from transformer.sections.validation_set import name_and_corpus


@one_line_errors("data.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Corpus, tokenizer and filtering of sentence pairs (section 5.1)."""

    corpus: NonEmptyPath = "wmt/wmt14"  # hub id, pattern of local files with {split} and {lang}, builtin or treebank
    subset: Text | None = "de-en"  # the hub's name for a part of the corpus; new_words: builtin with other words
    revision: Text | None = None  # commit, tag or branch of the hub's repository; null: the newest commit
    src_lang: PlainName = "en"  # source language: {lang} in file names, a column of tables
    tgt_lang: PlainName = "de"  # target language
    train_split: PlainName = "train"  # {split} of the training data
    validation_split: PlainName = "validation"  # {split} of the validation data; also finds valid, val and dev
    # further sets to validate and log: splits of the corpus, or NAME=CORPUS; they decide nothing
    also_validate: tuple[ValidationSetText, ...] = ()
    test_split: PlainName = "test"  # {split} that is scored by default
    # how BLEU splits words; auto: by tgt_lang, as zh for Chinese, char for Thai, else 13a; none: text is tokenised
    bleu_tokenizer: BleuTokenizer = "auto"
    builtin_size: BoundedCount = 30000  # training pairs of the builtin corpus or treebank
    vocab_size: VocabSize = 37000  # pieces of the joint SentencePiece BPE model of both languages
    # changes to all text before it is split; minimal: tabs and the like become spaces; others: SentencePiece's rules
    normalization: NormalizationRule = "minimal"
    character_coverage: Coverage = 1.0  # part of the training text whose characters become pieces
    byte_fallback: bool = False  # spell other characters in 256 byte pieces, instead of as unknown
    max_length: Length = 256  # pieces per side, </s> included; longer pairs are dropped and counted
    max_ratio: Ratio | None = None  # drop training pairs whose lengths differ by more than this factor
    cache_dir: PathText = "runs/.cache"  # encoded corpora, keyed by content; can be shared and deleted

    def __post_init__(self) -> None:
        names = [name_and_corpus(entry)[0] for entry in self.also_validate]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"data.also_validate has two sets with the name {name}: write another as NAME=CORPUS")
        if self.validation_split in self.also_validate:
            raise ConfigError(
                f"data.also_validate names {self.validation_split}, which data.validation_split validates already"
            )

    @property
    def tokenizer_settings(self) -> dict[str, Any]:
        """How `Tokenizer.train` makes the tokenizer, apart from its size."""
        names = ("normalization", "character_coverage", "byte_fallback")
        return {name: getattr(self, name) for name in names}

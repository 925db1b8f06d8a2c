"""The section `data`."""

import dataclasses
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from transformer.config_errors import one_line_errors
from transformer.errors import ConfigError
from transformer.sections.types import (
    STRICT,
    BleuTokenizer,
    BoundedCount,
    Coverage,
    Filter,
    Fraction,
    HeldOut,
    Length,
    NonEmptyPath,
    NormalizationRule,
    PathText,
    PlainName,
    Ratio,
    Tag,
    Temperature,
    Text,
    TokenizerType,
    ValidationSetText,
    VocabSize,
    Weight,
)
from transformer.sections.validation_set import name_and_corpus


@one_line_errors("data.corpora[].")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorpusEntry:
    """One of several training corpora: `path` as `data.corpus`, or two files, `src` and `tgt`."""

    path: NonEmptyPath | None = None  # hub id, pattern of local files, builtin: the forms of data.corpus
    src: NonEmptyPath | None = None  # instead of path: a file with a source sentence per line
    tgt: NonEmptyPath | None = None  # the file with their translations
    weight: Weight = 1.0  # visits of each pair per epoch; 0.5: half of the pairs in one epoch, the others in the next
    tag: Tag | None = None  # a piece before each source sentence: one word in angle brackets
    split: PlainName | None = None  # {split}; null: data.train_split
    subset: Text | None = None  # as data.subset
    revision: Text | None = None  # as data.revision
    src_lang: PlainName | None = None  # null: data.src_lang
    tgt_lang: PlainName | None = None  # null: data.tgt_lang

    def __post_init__(self) -> None:
        has_files = (self.src is not None, self.tgt is not None)
        if any(has_files) if self.path is not None else not all(has_files):
            raise ConfigError(
                f"data.corpora[]: path={self.path}, src={self.src}, tgt={self.tgt}: give a path, or both src and tgt"
            )
        for key in ("split", "subset", "revision", "src_lang", "tgt_lang") if self.path is None else ():
            if (value := getattr(self, key)) is not None:
                raise ConfigError(f"data.corpora[]: {key}={value} is for a path, and not used by src and tgt")

    @property
    def name(self) -> str:
        """For messages: the path, or both files."""
        return f"{self.src} and {self.tgt}" if self.path is None else self.path


@one_line_errors("data.")
@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Corpus, tokenizer and filtering of sentence pairs (section 5.1)."""

    # hub id, pattern of local files with {split} and {lang}, builtin, treebank; none: data.corpora and data.hold_out
    corpus: NonEmptyPath = "wmt/wmt14"
    # training corpora instead of the training split of data.corpus; each is a path or the keys below
    corpora: tuple[CorpusEntry, ...] = ()
    # piece before the source sentences of data.corpus, and before those to translate: one word in angle brackets
    tag: Tag | None = None
    # pieces of which one begins every source, as >>deu<< in the multilingual models of OPUS-MT; see --target-language
    target_tags: tuple[Tag, ...] = ()
    hold_out: tuple[HeldOut, ...] = ()  # splits taken out of the (first) training corpus, by a hash of the source
    validation_size: BoundedCount | None = None  # pairs of each; null: a hundredth, at least 100 if there are, to 2,000
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
    # a SentencePiece model, or a run or checkpoint with one, instead of training a tokenizer; {lang}: a model per side
    tokenizer: NonEmptyPath | None = None
    tokenizer_type: TokenizerType = "bpe"  # byte-pair encoding, or a unigram language model (Kudo 2018)
    vocab_size: VocabSize = 37000  # pieces of the joint SentencePiece model of both languages, or of each
    separate_vocabularies: bool = False  # a tokenizer and an embedding per side; needs model.tie=decoder or none
    source_vocab_size: VocabSize | None = None  # of the source, if the vocabularies are separate; null: vocab_size
    user_symbols: tuple[Text, ...] = ()  # pieces that are never split, wherever they stand, such as <2de>
    # changes to all text before it is split; minimal: tabs and the like become spaces; others: SentencePiece's rules
    normalization: NormalizationRule = "minimal"
    character_coverage: Coverage = 1.0  # part of the training text whose characters become pieces
    byte_fallback: bool = False  # spell other characters in 256 byte pieces, instead of as unknown
    subword_dropout: Fraction = 0.0  # BPE dropout (Provilkov et al. 2020) of the training data; 0.1 is usual
    # sample segmentations of a unigram model in proportion to P^alpha (Kudo 2018); 0.2 is usual; null: do not
    subword_alpha: Temperature | None = None
    subword_sides: Literal["both", "source", "target"] = "both"  # where segmentations are sampled
    max_length: Length = 256  # pieces per side, </s> included; longer pairs are dropped and counted
    max_ratio: Ratio | None = None  # drop training pairs whose lengths differ by more than this factor
    filters: tuple[Filter, ...] = ()  # training pairs to drop: docs/DATA.md has an example of each
    deduplicate: bool = False  # drop training pairs that repeat an earlier one
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
        if self.validation_size is not None and not self.hold_out:
            raise ConfigError(
                f"data.validation_size={self.validation_size} needs data.hold_out: [validation], or [validation, test]"
            )
        if self.hold_out and self.corpora and self.corpora[0].tag != self.tag:
            raise ConfigError(
                f"data.tag={self.tag} must be data.corpora[0].tag={self.corpora[0].tag}, since data.hold_out takes "
                "pairs out of that corpus"
            )
        if self.corpus == "none" and not (self.corpora and len({*self.hold_out}) == 2):
            raise ConfigError("data.corpus=none needs data.corpora, and data.hold_out: [validation, test]")
        self._check_tokenizer()

    def _check_tokenizer(self) -> None:
        """ConfigError for keys of the tokenizer that do not go together."""
        if self.source_vocab_size is not None and not self.separate_vocabularies:
            raise ConfigError(
                f"data.source_vocab_size={self.source_vocab_size} needs data.separate_vocabularies=true; the size of a "
                "joint vocabulary is data.vocab_size"
            )
        if self.subword_dropout and self.subword_alpha is not None:
            raise ConfigError(
                f"data.subword_dropout={self.subword_dropout} is for BPE, data.subword_alpha={self.subword_alpha} for "
                "unigram models: set one of them"
            )
        if self.tokenizer is None and self.tokenizer_type == "unigram" and self.subword_dropout:
            raise ConfigError(
                f"data.subword_dropout={self.subword_dropout} is for BPE; for data.tokenizer_type=unigram set "
                "data.subword_alpha"
            )
        if self.tokenizer is None and self.tokenizer_type == "bpe" and self.subword_alpha is not None:
            raise ConfigError(
                f"data.subword_alpha={self.subword_alpha} is for data.tokenizer_type=unigram; for bpe set "
                "data.subword_dropout"
            )

    def entries_as_given(self) -> tuple[dict[str, Any], ...]:
        """The entries of `corpora`, without the keys that have their default."""
        fields = dataclasses.fields(CorpusEntry)
        return tuple(
            {field.name: value for field in fields if (value := getattr(entry, field.name)) != field.default}
            for entry in self.corpora
        )

    def with_corpus(self, corpus: str) -> "DataConfig":
        """The section for another corpus, without what is of `corpus` and of the training data alone."""
        of_this: dict[str, Any] = {"subset": None, "revision": None, "hold_out": (), "validation_size": None}
        return dataclasses.replace(self, corpus=corpus, corpora=(), **of_this)

    @property
    def tags(self) -> list[str]:
        """The pieces that may stand before a source sentence."""
        given = (self.tag, *(entry.tag for entry in self.corpora), *self.target_tags)
        return sorted({tag for tag in given if tag is not None})

    @property
    def tokenizer_settings(self) -> dict[str, Any]:
        """How `Tokenizer.train` makes the tokenizer, apart from its size."""
        names = ("normalization", "character_coverage", "byte_fallback")
        settings = {name: getattr(self, name) for name in names}
        # The cache knows the tokenizers of earlier versions by the settings above.
        if self.tokenizer_type != "bpe":
            settings["tokenizer_type"] = self.tokenizer_type
        return settings | ({"user_symbols": list(self.user_symbols)} if self.user_symbols else {})

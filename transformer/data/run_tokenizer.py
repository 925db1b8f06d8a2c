"""The tokenizer of a run: its own, that of `data.tokenizer`, or one trained on its corpus."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from transformer.config import DataConfig
from transformer.data.dataset import corpus_tokenizer
from transformer.data.given_tokenizer import given_tokenizer, tokenizer_files
from transformer.data.normalization import MARK
from transformer.data.pairs import Corpus
from transformer.data.tokenizer import SOURCE_FILE, TARGET_FILE, Tokenizer
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import DataError
from transformer.files import write_atomic
from transformer.progress import Stage, no_stage

# Trains a tokenizer of so many pieces on these sides (0 the source, 1 the target) of a corpus.
_Train = Callable[[int, Sequence[int]], Tokenizer]


def run_tokenizer(run: Path, corpus: Corpus, data: DataConfig, stage: Stage = no_stage) -> Tokenizer:
    """The tokenizer in a run directory, which is made if it is absent; `stage` shows the work.

    DataError if it is damaged or cannot be made, and if `data.tokenizer` has changed since: the run has a copy, and
    goes on if the original is gone.
    """
    if not (run / TARGET_FILE).is_file():
        tokenizer = make_tokenizer(corpus, data, stage)
        if data.separate_vocabularies:  # first: without the other, both are made again
            write_atomic(run / SOURCE_FILE, tokenizer.source.model)
        write_atomic(run / TARGET_FILE, tokenizer.model)
    tokenizer = load_tokenizer(run, is_separate=data.separate_vocabularies)
    if data.tokenizer is not None and _exists(data) and _given(data).digest != tokenizer.digest:
        raise DataError(
            f"data.tokenizer={data.tokenizer} is another tokenizer than {run / TARGET_FILE}, with which the run began; "
            "restore it or choose another run_dir"
        )
    for tag in data.tags:
        if [piece for piece in _unmarked(tokenizer.source, tag) if piece] != [tag]:
            raise DataError(
                f"the tokenizer splits the tag {tag!r}: tags need a tokenizer that is trained with them, or has them "
                "among its user-defined symbols; to begin with train.init_from, choose a tag of its tokenizer, or give "
                "data.tokenizer another one, of whose pieces the known ones keep their weights"
            )
    return tokenizer


def make_tokenizer(corpus: Corpus, data: DataConfig, stage: Stage = no_stage) -> Tokenizer:
    """That of `data.tokenizer`, or one trained on a corpus or loaded from the cache. DataError."""
    if data.tokenizer is not None:
        return _with_symbols(_given(data), data)
    settings = data.tokenizer_settings

    def train(vocab_size: int, sides: Sequence[int]) -> Tokenizer:
        return corpus_tokenizer(corpus, vocab_size, data.cache_dir, stage, sides=sides, **settings)

    return _trained(train, data)


def trial_tokenizer(corpus: Corpus, data: DataConfig, max_vocab_size: int | None) -> Tokenizer:
    """As `make_tokenizer`, of at most so many pieces, without a cache. DataError."""
    if data.tokenizer is not None:
        return make_tokenizer(corpus, data)

    def train(vocab_size: int, sides: Sequence[int]) -> Tokenizer:
        sentences = itertools.chain.from_iterable([pair[side] for side in sides] for pair in corpus)
        size = vocab_size if max_vocab_size is None else min(vocab_size, max_vocab_size)
        return Tokenizer.train(sentences, size, corpus.symbols(), **data.tokenizer_settings)

    return _trained(train, data)


def tokenizer_lines(data: DataConfig, tokenizer: Tokenizer) -> list[str]:
    """Lines on a run's tokenizer, for the user; a warning if its vocabulary does not fit the corpus."""
    lines = [f"normalization: {tokenizer.normalization}"]
    if data.tokenizer is not None:
        lines.append(
            f"tokenizer: {data.tokenizer}, {tokenizer.type}; data.vocab_size and the other keys of training one do "
            "not apply"
        )
    if tokenizer.is_separate:
        lines.append(f"vocabularies: {len(tokenizer.source):,} pieces of the source, {len(tokenizer):,} of the target")
    if data.subword_dropout or data.subword_alpha is not None:
        sampling = f"alpha {data.subword_alpha}" if data.subword_alpha else f"BPE dropout {data.subword_dropout}"
        lines.append(f"subword regularisation: {sampling}, {data.subword_sides}")
    sides = {"data.vocab_size": tokenizer}
    if tokenizer.is_separate:
        sides["data.source_vocab_size"] = tokenizer.source
    for name, side in sides.items():
        num_characters, size = side.num_characters(), len(side)
        if num_characters > size / 2 and data.tokenizer is None:
            lines.append(
                f"warning: {num_characters:,} of {size:,} pieces are single characters: raise {name}, or lower "
                "data.character_coverage with data.byte_fallback=true"
            )
    return lines


def _trained(train: _Train, data: DataConfig) -> Tokenizer:
    if not data.separate_vocabularies:
        return train(data.vocab_size, (0, 1))
    tokenizer = train(data.vocab_size, (1,))
    tokenizer.source = train(data.source_vocab_size or data.vocab_size, (0,))
    return tokenizer


def _given(data: DataConfig) -> Tokenizer:
    langs = (data.src_lang, data.tgt_lang)
    try:
        return given_tokenizer(str(data.tokenizer), langs, is_separate=data.separate_vocabularies)
    except DataError as error:
        raise DataError(f"data.tokenizer={error}") from None


def _exists(data: DataConfig) -> bool:
    try:
        return any(path.exists() for path in tokenizer_files(str(data.tokenizer), (data.src_lang, data.tgt_lang)))
    except DataError:
        return False


def _with_symbols(tokenizer: Tokenizer, data: DataConfig) -> Tokenizer:
    """A tokenizer from elsewhere; DataError unless it keeps all `data.user_symbols` in one piece."""
    for symbol in data.user_symbols:
        for side in (tokenizer.source, tokenizer):
            if not all(symbol in _unmarked(side, text) for text in (symbol, f"a{symbol}b")):
                raise DataError(
                    f"data.user_symbols: the tokenizer of data.tokenizer={data.tokenizer} splits {symbol!r}; its "
                    "pieces cannot be changed: leave the symbol out, or train a tokenizer with it"
                )
    return tokenizer


def _unmarked(tokenizer: Tokenizer, text: str) -> list[str]:
    (ids,) = tokenizer.encode([text])
    return [piece.replace(MARK, "") for piece in tokenizer.pieces(ids)]

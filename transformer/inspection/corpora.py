"""What is in the data of a run: lengths, ratios, what is dropped with examples, repeated and shared text."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from transformer.config import Config, DataConfig
from transformer.data.corpus import in_chunks, load_split
from transformer.data.dataset import Ints, PairDataset, Side, encode_corpus
from transformer.data.duplicates import Overlap, first_pairs, first_sources, overlap
from transformer.data.filters import FILTERS, reason_to_drop
from transformer.data.mixture import training_corpora
from transformer.data.pairs import Corpus
from transformer.data.tags import num_tag_pieces, tagged
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError
from transformer.progress import Stage, no_stage
from transformer.training.data import RunData, load_data
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.initialization import copy_tokenizer

_PERCENTILES = (1, 50, 90, 99, 100)
_PAIRS_PER_CHUNK, _CHARACTERS_PER_CHUNK = 10_000, 1 << 21

_SEEN = {"empty", "too_long", "ratio", *FILTERS}  # reasons to drop a pair that are in the text itself

Example = tuple[str, str]


@dataclass(frozen=True)
class CorpusStatistics:
    """Numbers of one corpus; lengths are in pieces without </s>, ratios target to source, both by percentile."""

    name: str
    pairs: int
    dropped: dict[str, int]
    examples: dict[str, list[Example]]
    repeated_pairs: int
    repeated_sources: int
    src_pieces: int
    tgt_pieces: int
    src_lengths: dict[int, int]
    tgt_lengths: dict[int, int]
    ratios: dict[int, float]
    weight: float = 1.0
    tag: str | None = None
    share: float | None = None  # of an epoch's target tokens


@dataclass(frozen=True)
class DataReport:
    """The data of a run: its training corpora and what of the held-out text they share."""

    vocab_size: int
    train: list[CorpusStatistics]
    validation: CorpusStatistics
    test: CorpusStatistics | None  # None if it cannot be read
    overlaps: dict[str, Overlap] = field(default_factory=dict)
    source_vocab_size: int | None = None  # of a vocabulary of its own
    test_error: str | None = None  # the reason why there is no test text
    warnings: list[str] = field(default_factory=list)  # those of training

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def report_data(config: Config, num_examples: int = 3, stage: Stage = no_stage) -> DataReport:
    """Describe the data of a configuration, as training would encode them.

    The run is not touched.

    With the tokenizer of the run, if there is one, or that with which training would begin. Training finds what was
    encoded in the cache. UserError as of training.
    """
    data = dataclasses.replace(config.data, deduplicate=False)
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(config.run_dir) / "tokenizer.model"
        if not own.is_file():
            own = Path(temporary) / own.name
            copy_tokenizer(config, own.parent)
        found = load_data(data, own, SINGLE_PROCESS, stage)
    train = _training(config.data, found, num_examples)
    validation = _statistics(found.validation_text.name, found.validation, {}, None)
    overlaps, sizes = {"validation": found.overlap}, found.tokenizer.sizes
    try:
        test_text = load_split(data, data.test_split)
        text = tagged(test_text, data.tag, data.tags)
        test = encode_corpus(text, found.tokenizer, data.cache_dir, max_length=data.max_length, stage=stage)
    except DataError as error:
        return DataReport(sizes[0], train, validation, None, overlaps, sizes[1], str(error), found.warnings())
    parts = [(part.pairs, num_tag_pieces(found.tokenizer, part.tag)) for part in found.train.parts]
    overlaps["test"] = overlap(parts, (test, num_tag_pieces(found.tokenizer, data.tag)))
    tested = _statistics(test_text.name, test, {}, None)
    return DataReport(sizes[0], train, validation, tested, overlaps, sizes[1], warnings=found.warnings())


def _training(data: DataConfig, found: RunData, num_examples: int) -> list[CorpusStatistics]:
    parts = found.train.parts
    is_first = first_pairs([part.pairs for part in parts])
    unfiltered = training_corpora(dataclasses.replace(data, filters=()))
    shares = found.train.shares(is_first if data.deduplicate else None)
    statistics = []
    for part, flags, one, share in zip(parts, is_first, unfiltered, shares, strict=True):
        repeated = np.flatnonzero(~flags)
        dropped = part.pairs.dropped | ({"repeated": len(repeated)} if data.deduplicate else {})
        text = tagged(one.corpus, one.tag, data.tags)
        examples = dropped_examples(text, data, found.tokenizer, part.pairs.dropped, num_examples)
        if data.deduplicate and len(repeated):
            examples["repeated"] = _decoded(part.pairs, found.tokenizer, repeated[:num_examples])
        counted = _statistics(part.name, part.pairs, examples, flags)
        statistics.append(dataclasses.replace(counted, dropped=dropped, weight=part.weight, tag=part.tag, share=share))
    return statistics


def dropped_examples(
    corpus: Corpus, data: DataConfig, tokenizer: Tokenizer, dropped: dict[str, int], number: int
) -> dict[str, list[Example]]:
    """The first pairs that are dropped for each reason; reads no further than it needs to.

    Args:
        corpus: before the filters.
        dropped: how many are, by reason.
        number: of examples.
    """
    wanted = {reason: min(number, count) for reason, count in dropped.items() if count}
    found: dict[str, list[Example]] = {}
    for reason, pair in _reasons(corpus, data, tokenizer) if number else ():
        examples = found.setdefault(reason, [])
        if len(examples) < number:
            examples.append(pair)
        if all(len(found.get(reason, ())) >= needed for reason, needed in wanted.items() if reason in _SEEN):
            break
    return found


def _reasons(corpus: Corpus, data: DataConfig, tokenizer: Tokenizer) -> Iterator[tuple[str, Example]]:
    """Each pair that is dropped, with the reason, as `filtered` and `encode_corpus` give it."""
    chunks = in_chunks(corpus, _PAIRS_PER_CHUNK, _CHARACTERS_PER_CHUNK, lambda pair: len(pair[0]) + len(pair[1]))
    for chunk in chunks:
        sources = tokenizer.source.encode([source for source, _ in chunk])
        targets = tokenizer.encode([target for _, target in chunk])
        for pair, src, tgt in zip(chunk, sources, targets, strict=True):
            shorter, longer = sorted((len(src), len(tgt)))
            if reason := reason_to_drop(*pair, data.filters):
                yield reason, pair
            elif not shorter:
                yield "empty", pair
            elif longer + 1 > data.max_length:
                yield "too_long", pair
            elif data.max_ratio is not None and longer > data.max_ratio * shorter:
                yield "ratio", pair


def _statistics(name: str, pairs: PairDataset, examples: dict[str, list[Example]], is_first: Any) -> CorpusStatistics:
    if is_first is None:
        (is_first,) = first_pairs([pairs])
    src, tgt = (side.lengths.astype(np.int64) - 1 for side in (pairs.src, pairs.tgt))
    ratios = np.percentile(tgt / src, _PERCENTILES, method="nearest")
    return CorpusStatistics(
        name=name,
        pairs=len(pairs),
        dropped=pairs.dropped,
        examples=examples,
        repeated_pairs=int((~is_first).sum()),
        repeated_sources=int((~first_sources(pairs)).sum()),
        src_pieces=int(src.sum()),
        tgt_pieces=int(tgt.sum()),
        src_lengths=_percentiles(src),
        tgt_lengths=_percentiles(tgt),
        ratios={percent: round(float(ratio), 3) for percent, ratio in zip(_PERCENTILES, ratios, strict=True)},
    )


def _percentiles(lengths: Ints) -> dict[int, int]:
    found = np.percentile(lengths, _PERCENTILES, method="nearest")
    return {percent: int(length) for percent, length in zip(_PERCENTILES, found, strict=True)}


def _decoded(pairs: PairDataset, tokenizer: Tokenizer, indices: Ints) -> list[Example]:
    def texts(side: Side, decoder: Tokenizer) -> list[str]:
        spans = [(int(side.starts[i]), int(side.lengths[i])) for i in indices]
        return decoder.decode([side.ids[np.arange(start, start + length)].tolist() for start, length in spans])

    return list(zip(texts(pairs.src, tokenizer.source), texts(pairs.tgt, tokenizer), strict=True))


def as_text(report: DataReport) -> str:
    """The report in lines for people."""
    lines = [f"vocabulary: {report.vocab_size:,} pieces"]
    if report.source_vocab_size is not None:
        sizes = f"{report.source_vocab_size:,} pieces of the source, {report.vocab_size:,} of the target"
        lines = [f"vocabularies: {sizes}"]
    held_out = [("validation", report.validation), *([("test", report.test)] if report.test else [])]
    no_test = [] if report.test_error is None else ["", f"test: none ({report.test_error})"]
    for kind, corpus in [*(("training", corpus) for corpus in report.train), *held_out]:
        lines += ["", f"{kind}: {corpus.name}", *_corpus_lines(corpus)]
    lines += [*no_test, ""]
    lines += [f"{split} text in the training text: {shared}" for split, shared in report.overlaps.items()]
    return "\n".join([*lines, *report.warnings])


def _corpus_lines(corpus: CorpusStatistics) -> list[str]:
    num_repeated = corpus.dropped.get("repeated", 0)
    kept, total = corpus.pairs - num_repeated, corpus.pairs - num_repeated + sum(corpus.dropped.values())
    pieces = f"{corpus.src_pieces:,} source and {corpus.tgt_pieces:,} target pieces"
    lines = [f"  {kept:,} of {total:,} pairs kept; {pieces}{' with repeated ones' * bool(num_repeated)}"]
    if corpus.share is not None and (corpus.weight != 1.0 or corpus.tag is not None or corpus.share < 1.0):
        tag = "" if corpus.tag is None else f", tag {corpus.tag}"
        lines.append(f"  {corpus.share:.1%} of an epoch, weight {corpus.weight:g}{tag}")
    heads = " ".join(f"{_percent(percent):>8}" for percent in _PERCENTILES)
    lines.append(f"  {'':<16}{heads}")
    for name, values in (("source length", corpus.src_lengths), ("target length", corpus.tgt_lengths)):
        lines.append(f"  {name:<16}{' '.join(f'{value:>8,}' for value in values.values())}")
    lines.append(f"  {'target / source':<16}{' '.join(f'{value:>8.2f}' for value in corpus.ratios.values())}")
    lines.append(f"  repeated: {corpus.repeated_pairs:,} pairs, {corpus.repeated_sources:,} sources")
    for reason, number in corpus.dropped.items():
        lines.append(f"  dropped as {reason}: {number:,}")
        lines += [f"    {_short(source)} ||| {_short(target)}" for source, target in corpus.examples.get(reason, ())]
    return lines


def _percent(percent: int) -> str:
    return {50: "median", 100: "longest"}.get(percent, f"{percent} %")


def _short(text: str, size: int = 100) -> str:
    """On one line, without unprintable characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: size + 1])
    return shown if len(text) <= size else f"{shown[:size]} ..."

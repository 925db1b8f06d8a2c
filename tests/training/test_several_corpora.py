"""Training on several corpora: what is read, how often, what is said, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors.torch import load_file

from transformer.config import Config, CorpusEntry, DataConfig, TrainConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.inference.validation_bleu import ValidationBleu, greedy_scores
from transformer.model.transformer import Transformer
from transformer.training.data import BatchSampler, RunData, load_data
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext
from transformer.training.trainer import Trainer
from transformer.training.training_state import Progress

Pairs = list[tuple[str, str]]


def write(directory: Path, name: str, pairs: Pairs) -> str:
    """Two aligned files; returns their pattern."""
    directory.mkdir(exist_ok=True)
    for i, lang in enumerate(("en", "de")):
        (directory / f"{name}.{lang}").write_text("".join(f"{pair[i]}\n" for pair in pairs), encoding="utf-8")
    return f"{directory}/{name}.{{lang}}"


TRAIN = list(builtin_pairs("train", 397))
A, B = TRAIN[:97], TRAIN[97:397]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """A small corpus twice per epoch, and a larger one of which half is visited."""
    write(tmp_path, "validation", list(builtin_pairs("validation", 53)))
    write(tmp_path, "train", A)
    return DataConfig(
        corpus=f"{tmp_path}/{{split}}.{{lang}}",
        corpora=(
            CorpusEntry(path=write(tmp_path, "a", A), weight=2.0),
            CorpusEntry(src=f"{tmp_path}/b.en", tgt=write(tmp_path, "b", B).replace("{lang}", "de"), weight=0.5),
        ),
        vocab_size=307,
        cache_dir=str(tmp_path / "cache"),
    )


def load(data: DataConfig, **changes: Any) -> RunData:
    data = dataclasses.replace(data, **changes)
    path = Path(data.cache_dir).parent / "tokenizer.model"
    path.unlink(missing_ok=True)
    return load_data(data, path, SINGLE_PROCESS)


def texts(found: RunData) -> Pairs:
    """The training pairs, decoded."""

    def side(name: str) -> list[str]:
        one = getattr(found.train, name)
        places = zip(one.starts, one.lengths, strict=True)
        return found.tokenizer.decode([one.ids[start + np.arange(length)].tolist() for start, length in places])

    return list(zip(side("src"), side("tgt"), strict=True))


def test_the_pairs_are_those_of_the_corpora_in_order_and_the_summary_says_their_shares(data: DataConfig) -> None:
    found = load(data)
    assert texts(found) == [*A, *B]
    lines = found.counts()
    assert lines[0] == "training pairs: 397 (dropped: empty 0, too_long 0, ratio 0)"
    sums = [2.0 * int(found.train.tgt.lengths[:97].sum()), 0.5 * int(found.train.tgt.lengths[97:].sum())]
    shares = [f"{one / sum(sums):.1%}" for one in sums]
    entry_b = data.corpora[1]
    assert lines[2:4] == [
        f"  {Path(data.corpora[0].path or '').parent}/a.en and {Path(entry_b.src or '').parent}/a.de: 97 pairs, "
        f"{shares[0]} of an epoch, weight 2 (dropped: empty 0, too_long 0, ratio 0)",
        f"  {entry_b.name}: 300 pairs, {shares[1]} of an epoch, weight 0.5 (dropped: empty 0, too_long 0, ratio 0)",
    ]


def test_each_corpus_has_an_entry_of_its_own_in_the_cache(data: DataConfig) -> None:
    """So that adding a corpus to others encodes nothing again, but for a new tokenizer."""
    found = load(data)
    entries = {path.name for path in Path(data.cache_dir).iterdir() if path.is_dir()}
    assert len(entries) == 3
    third = write(Path(data.cache_dir).parent, "c", A[:29])
    tokenizer = Path(data.cache_dir).parent / "kept.model"
    tokenizer.write_bytes(found.tokenizer.model)
    more = load_data(
        dataclasses.replace(data, corpora=(*data.corpora, CorpusEntry(path=third))), tokenizer, SINGLE_PROCESS
    )
    assert len(more.train) == 397 + 29
    assert len({path.name for path in Path(data.cache_dir).iterdir() if path.is_dir()} - entries) == 1


def test_one_corpus_given_either_way_is_the_same_to_the_bit(data: DataConfig) -> None:
    plain = load(data, corpora=())
    entry = load(data, corpora=(CorpusEntry(path=data.corpus),))
    assert entry.fingerprints == plain.fingerprints
    assert type(plain.train.src.ids) is np.memmap
    directly = encode_corpus(
        load(data, corpora=()).validation_text, plain.tokenizer, data.cache_dir, max_length=data.max_length
    )
    assert directly.fingerprint == plain.validation.fingerprint
    assert len(plain.counts()) == 5


def sampler(found: RunData, context: DistributedContext = SINGLE_PROCESS) -> BatchSampler:
    return BatchSampler(found.train, TrainConfig(max_tokens=211, tokens_per_update=509), 7, context)


def epochs(found: RunData, number: int) -> list[Counter[int]]:
    """Visits of each pair in each epoch."""
    one, progress, counts = sampler(found), Progress(), [Counter[int]() for _ in range(number)]
    while (update := one.next(progress)).epoch < number:
        counts[update.epoch].update(int(i) for batch in update.batches for i in batch)
    return counts


def test_each_epoch_visits_pairs_as_their_weights_say(data: DataConfig) -> None:
    found = epochs(load(data), 4)
    for counts in found:
        assert [counts[i] for i in range(97)] == [2] * 97
        assert sum(counts[i] for i in range(97, 397)) == 150
    for first, second in itertools.pairwise(found[::1]):
        if found.index(first) % 2 == 0:
            assert [first[i] + second[i] for i in range(97, 397)] == [1] * 300


@pytest.mark.parametrize("number", [0, 1, 5, 23, 60])
def test_position_and_tokens_are_exact_at_any_update(data: DataConfig, number: int) -> None:
    found = load(data)
    one, progress, done = sampler(found), Progress(), []
    for _ in range(number):
        done += [int(i) for batch in one.next(progress).batches for i in batch]
        progress.step += 1
    lengths = found.train.src.lengths, found.train.tgt.lengths
    assert sampler(found).num_tokens(progress) == tuple(int(side[done].sum()) for side in lengths)
    resumed = dataclasses.replace(progress)
    assert [str(one.next(progress)) for _ in range(7)] == [str(sampler(found).next(resumed)) for _ in range(7)]


@pytest.mark.parametrize("size", [2, 3])
def test_the_ranks_share_the_visits_of_each_update(data: DataConfig, size: int) -> None:
    found = load(data)
    whole, progress = sampler(found), Progress()
    ranks = [(sampler(found, DistributedContext(rank, size)), Progress()) for rank in range(size)]
    for _ in range(13):
        expected = Counter(int(i) for batch in whole.next(progress).batches for i in batch)
        shards = [one.shard(one.next(own)) for one, own in ranks]
        assert Counter(int(i) for shard in shards for batch in shard for i in batch) == expected


@pytest.fixture
def config(tiny_config: Config, data: DataConfig) -> Config:
    return dataclasses.replace(tiny_config, data=dataclasses.replace(data, tag="<x>"))


def last_weights(run: Path) -> dict[str, Any]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "model.safetensors")


def test_a_stopped_run_on_weighted_and_tagged_corpora_ends_as_one_that_never_stopped(
    config: Config, tmp_path: Path
) -> None:
    entries = (*config.data.corpora, CorpusEntry(path=write(tmp_path, "c", A[:41]), tag="<bt>", weight=1.5))
    settings = dataclasses.replace(config.train, tokens_per_update=2003, save_steps=3)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, corpora=entries), train=settings)
    whole = Trainer.from_config(dataclasses.replace(config, run_dir=str(tmp_path / "whole")))
    whole.fit()
    assert whole.progress.epoch > 0
    for stop in (2, 5, 9, 11):
        part = Trainer.from_config(config)
        part.fit(lambda stop=stop, part=part: "stop" if part.progress.step == stop else None)
    expected = last_weights(whole.run)
    assert all((weight == expected[name]).all() for name, weight in last_weights(part.run).items())
    assert part.num_tokens() == whole.num_tokens()


def test_corpora_may_move_but_not_change(config: Config, tmp_path: Path) -> None:
    Trainer.from_config(dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=3))).fit()
    moved = (
        CorpusEntry(
            src=f"{tmp_path}/there/a.en", tgt=write(tmp_path / "there", "a", A).replace("{lang}", "de"), weight=2.0
        ),
        CorpusEntry(path=write(tmp_path / "there", "b", B), weight=0.5),
    )

    def with_corpora(*corpora: CorpusEntry) -> Config:
        return dataclasses.replace(config, data=dataclasses.replace(config.data, corpora=corpora))

    trainer = Trainer.from_config(with_corpora(*moved))
    assert trainer.progress.step == 3
    assert load_config(trainer.run / "config.yaml").data.corpora == moved
    del trainer
    heavier = dataclasses.replace(moved[1], weight=0.7)
    with pytest.raises(
        ConfigError, match=r"belongs to another configuration \(data\.corpora: .*weight: 0\.5.*weight: 0\.7"
    ):
        Trainer.from_config(with_corpora(moved[0], heavier))
    tagged = dataclasses.replace(moved[1], tag="<bt>")
    with pytest.raises(ConfigError, match=r"belongs to another configuration \(data\.corpora: "):
        Trainer.from_config(with_corpora(moved[0], tagged))
    with pytest.raises(CheckpointError, match=r"the run has other train data \(data\.corpora: "):
        Trainer.from_config(with_corpora(moved[0], dataclasses.replace(moved[1], path=write(tmp_path, "d", B[1:]))))


def test_tags_stand_before_sources_of_training_and_validation_but_not_in_the_validation_text(
    data: DataConfig, tmp_path: Path
) -> None:
    entries = (
        CorpusEntry(path=write(tmp_path, "a", [*A, ("", "x")])),
        CorpusEntry(path=write(tmp_path, "b", B), tag="<bt>"),
    )
    found = load(data, corpora=entries, tag="<2de>")
    ((bt,), (de,)) = found.tokenizer.encode(["<bt>", "<2de>"])
    src = found.train.src
    assert (src.ids[src.starts[97:]] == bt).all()
    assert not (src.ids[src.starts[:97]] == bt).any()
    assert found.train.dropped["empty"] == 1
    validation = found.validation.src
    assert (validation.ids[validation.starts] == de).all()
    assert next(iter(found.validation_text))[0].startswith(next(iter(builtin_pairs("validation", 1)))[0])
    assert ", tag <bt> (dropped" in found.counts()[3]
    assert not any("read as tags" in line for line in found.counts())


def test_words_of_the_text_that_are_read_as_tags_are_said(data: DataConfig, tmp_path: Path) -> None:
    pairs = [*B, ("see <bt> here", "siehe <bt>"), ("<bt> begins", "beginnt")]
    found = load(data, corpora=(CorpusEntry(path=write(tmp_path, "b", pairs), tag="<bt>"),))
    assert "warning: the training text itself has words that are read as tags: <bt> 2 times" in found.counts()


@pytest.mark.parametrize("has_mark", [True, False])
def test_shared_text_is_seen_with_a_tag_of_any_number_of_pieces(
    data: DataConfig, tmp_path: Path, has_mark: bool
) -> None:
    """SentencePiece by itself puts the mark of a space before the tag, or before the text after it."""
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=(side for pair in TRAIN for side in pair),
        model_prefix=str(tmp_path / "given"),
        model_type="bpe",
        vocab_size=211,
        user_defined_symbols=["<bt>"],
        add_dummy_prefix=has_mark,
        minloglevel=2,
    )
    pairs = [*builtin_pairs("validation", 53), *A, ("see <bt> here", "siehe")]
    entry = CorpusEntry(path=write(tmp_path, "b", pairs), tag="<bt>")
    given = {"tokenizer": str(tmp_path / "given.model"), "corpora": (entry,)}
    for tag, is_seen in ((None, has_mark), ("<bt>", True)):
        found = load(data, tag=tag, **given)
        assert (found.overlap.pairs, found.overlap.total) == (53 * is_seen, 53)
        lines = found.counts()
        assert any("text has other pieces after a tag than alone" in line for line in lines) != is_seen
        assert "warning: the training text itself has words that are read as tags: <bt> 1 times" in lines


def test_a_line_with_the_tag_of_another_corpus_hides_no_word_of_the_text(data: DataConfig, tmp_path: Path) -> None:
    entries = (
        CorpusEntry(path=write(tmp_path, "a", [("<bt> of the other", "anders")] * 3 + A), tag="<x>"),
        CorpusEntry(path=write(tmp_path, "b", [*B, ("an <x> here", "<x>")]), tag="<bt>"),
    )
    lines = load(data, corpora=entries, tag="<x>").counts()
    assert lines[-1].endswith("has words that are read as tags: <bt> 3 times, <x> 2 times")


@pytest.mark.parametrize(
    ("tag", "of_corpora", "there"),
    [
        ("<q>", (None, "<bt>"), "<bt>, none"),
        (None, ("<2fr>", "<2fr>"), "<2fr>"),
        ("<q>", ("<q>", None), None),
        (None, ("<bt>", None), None),
        ("<own>", (None, None), None),
        (None, (None, None), None),
    ],
)
def test_a_tag_at_translation_that_no_training_source_has_is_said(
    data: DataConfig, tmp_path: Path, tag: str | None, of_corpora: tuple[str | None, ...], there: str | None
) -> None:
    path = write(tmp_path, "own", [*A, ("<own> is a tag in the text", "auch")])
    found = load(data, corpora=tuple(CorpusEntry(path=path, tag=one) for one in of_corpora), tag=tag)
    expected = (
        f"warning: data.tag={tag or 'null'} is the tag of validation sources and of text to translate, but training "
        f"sources have {there}"
    )
    assert [line for line in found.counts() if "data.tag" in line] == ([] if there is None else [expected])


def test_filters_and_duplicates_are_counted_and_leave_validation_alone(data: DataConfig, tmp_path: Path) -> None:
    junk = [("same", "same"), ("a &amp; b", "x y z"), ("", "leer")]
    write(tmp_path, "validation", [*builtin_pairs("validation", 53), *junk[:2], A[0], A[0]])
    entries = (
        CorpusEntry(path=write(tmp_path, "a", [*A, *junk])),
        CorpusEntry(path=write(tmp_path, "b", [*B, *A[:7], *B[:5]])),
    )
    found = load(data, corpora=entries, filters=("copies", "markup"), deduplicate=True)
    assert texts(found) == [*A, *B]
    assert found.train.dropped == {"empty": 1, "too_long": 0, "ratio": 0, "copies": 1, "markup": 1, "repeated": 12}
    assert len(found.train) + sum(found.train.dropped.values()) == 97 + 3 + 300 + 12
    assert len(found.validation) == 57
    assert str(found.overlap) == "2 of 57 as pairs, 2 by their sources"
    assert found.counts()[-1].startswith("warning: 3.5% of the validation pairs are in the training text")
    again = load(data, corpora=entries, filters=("copies", "markup"), deduplicate=True)
    assert again.train.dropped == found.train.dropped, "from the cache too"
    assert again.fingerprints == found.fingerprints


def test_validation_data_among_the_corpora_are_refused_even_if_filtered(data: DataConfig, tmp_path: Path) -> None:
    entries = (*data.corpora, CorpusEntry(path=f"{tmp_path}/validation.{{lang}}"))
    for filters in ((), ("copies",)):
        with pytest.raises(DataError, match=r"data\.corpora\[2\]: training and validation have the same content"):
            load(data, corpora=entries, filters=filters)


def test_held_out_pairs_are_in_no_training_corpus(data: DataConfig, tmp_path: Path) -> None:
    entries = (CorpusEntry(path=write(tmp_path, "a", A)), CorpusEntry(path=write(tmp_path, "b", [*B, *A])))
    found = load(data, corpus="none", corpora=entries, hold_out=("validation", "test"), validation_size=11)
    assert len(found.validation) == 11
    assert found.train.dropped["held_out"] == 44
    assert len(found.train) == 97 + 397 - 44
    assert (found.overlap.pairs, found.overlap.sources) == (0, 0)
    only = load(data, corpora=(), hold_out=("test",), validation_size=11)
    assert (len(only.train), len(only.validation)) == (86, 53)


def test_an_entry_that_cannot_be_read_is_named(data: DataConfig, tmp_path: Path) -> None:
    entries = (data.corpora[0], CorpusEntry(path=f"{tmp_path}/absent.{{lang}}"))
    with pytest.raises(DataError, match=r"^data\.corpora\[1\]\.path=.*absent\.\{lang\}: no such file: .*absent\.en"):
        load(data, corpora=entries)
    with pytest.raises(DataError, match=r"absent\.en: cannot be read: No such file"):
        load(data, corpora=(CorpusEntry(src=f"{tmp_path}/absent.en", tgt=f"{tmp_path}/a.de"),))


def test_entries_have_languages_of_their_own(data: DataConfig, tmp_path: Path) -> None:
    write(tmp_path, "a", A)
    (tmp_path / "a.xx").write_text((tmp_path / "a.de").read_text())
    path = f"{tmp_path}/a.{{lang}}"
    found = load(
        data, corpora=(CorpusEntry(path=path, tgt_lang="xx"), CorpusEntry(path=path, src_lang="xx", tgt_lang="en"))
    )
    assert texts(found) == [*A, *((target, source) for source, target in A)]


def test_a_scorer_gets_sources_as_the_model_reads_them(data: DataConfig, tmp_path: Path, tiny_config: Config) -> None:
    other = write(tmp_path, "other", [("<bt> A dog.", "Ein Hund."), ("", "x"), (" A dog.", "Ein Hund.")])
    entries = CorpusEntry(path=write(tmp_path, "a", A)), CorpusEntry(path=write(tmp_path, "b", B), tag="<bt>")
    data = dataclasses.replace(data, corpora=entries, tag="<2de>", also_validate=(f"other={other}",))
    train = dataclasses.replace(tiny_config.train, validation_bleu=True, max_steps=3, validate_steps=3)
    config = dataclasses.replace(tiny_config, data=data, train=train)
    found: list[Sequence[str]] = []

    def scorer(
        model: Transformer, tokenizer: Tokenizer, sources: Sequence[str], references: Sequence[str]
    ) -> dict[str, float]:
        found.append(sources)
        ours = greedy_scores(model, tokenizer, sources, references)
        assert ours == ValidationBleu("13a", tag="<2de>", tags=data.tags)(model, tokenizer, sources, references)
        if not any(source.startswith("<bt>") for source in sources):
            assert ours == greedy_scores(model, tokenizer, sources, references, tag="<2de>")
        untagged = [source.removeprefix("<2de> ") for source in sources]
        assert ours == greedy_scores(model, tokenizer, untagged, references, tag="<2de>", tags=data.tags)
        return ours

    trainer = Trainer.from_config(config, scorer)
    trainer.fit()
    own, others = found
    assert list(own) == [f"<2de> {source}" for source, _ in builtin_pairs("validation", 53)]
    assert list(others) == ["<bt> A dog.", "", "<2de>  A dog."]
    pairs = trainer.data.validation.src
    encoded = trainer.data.tokenizer.encode(list(own))
    assert [ids[:-1].tolist() for ids in np.split(pairs.ids, pairs.starts[1:])] == encoded

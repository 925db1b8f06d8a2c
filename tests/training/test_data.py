"""The updates that are sampled from the data of a run."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pairs import random_pairs

from transformer.config import DataConfig, TrainConfig
from transformer.data import corpus as corpus_module
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus, CorpusReader
from transformer.data.dataset import PairDataset
from transformer.errors import DataError
from transformer.training.data import BatchSampler, RunData, Update, halve_batches, load_data, num_earlier
from transformer.training.distributed import SINGLE_PROCESS, DistributedContext
from transformer.training.training_state import Progress

JUNK = "".join(chr(0x4E00 + i) for i in range(700))


def write_corpus(directory: Path, *, junk: str = "") -> DataConfig:
    """2,000 pairs for training, one of them followed by junk, and 50 for validation."""
    for split, pairs in (
        ("train", list(builtin_pairs("train", 2000))),
        ("val", [("a man", "ein Mann"), ("Ж", "ein Ж")]),
    ):
        for i, lang in enumerate(("en", "de")):
            lines = [pair[i] for pair in pairs]
            lines[1] += junk if split == "train" else ""
            (directory / f"{split}.{lang}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return DataConfig(corpus=f"{directory}/{{split}}.{{lang}}", vocab_size=800, cache_dir=str(directory / "cache"))


def load(data: DataConfig, **changes: Any) -> RunData:
    data = dataclasses.replace(data, **changes)
    run = Path(data.cache_dir).parent / f"{changes}".replace("/", " ")
    run.mkdir(exist_ok=True)
    return load_data(data, run / "tokenizer.model", SINGLE_PROCESS)


def test_a_line_of_junk_that_takes_the_vocabulary_is_seen_and_cured(tmp_path: Path) -> None:
    """700 distinct characters in one of 2,000 lines."""
    data = write_corpus(tmp_path, junk=JUNK)
    taken = load(data)
    num_characters = taken.tokenizer.num_characters()
    assert num_characters > 700
    assert taken.counts()[-2] == (
        f"warning: {num_characters} of 800 pieces are single characters: raise data.vocab_size, or "
        "lower data.character_coverage with data.byte_fallback=true"
    )
    sentence = ["Two dogs are playing in the park."]
    length = len(taken.tokenizer.encode(sentence)[0])
    for mend in ({"vocab_size": 1600}, {"character_coverage": 0.99, "byte_fallback": True}):
        cured = load(data, **mend)
        assert not any(line.startswith("warning") for line in cured.counts())
        assert len(cured.tokenizer.encode(sentence)[0]) < length
        assert cured.train.num_unknown == 0
    assert cured.tokenizer.num_characters() < 100
    assert cured.tokenizer.decode(cured.tokenizer.encode([JUNK])) == [JUNK]


def test_characters_below_the_coverage_are_unknown_and_counted_without_bytes(tmp_path: Path) -> None:
    data = write_corpus(tmp_path, junk=JUNK)
    found = load(data, character_coverage=0.99, vocab_size=500)
    assert found.train.num_unknown > 0
    assert f"unknown pieces: {found.train.num_unknown:,} of " in found.counts()[2]


def test_unknown_pieces_of_the_validation_text_are_counted(tmp_path: Path) -> None:
    lines = load(write_corpus(tmp_path)).counts()
    assert ", 2 of " in lines[2]
    assert lines[2].endswith(" in the validation text")
    assert lines[3:] == [
        "normalization: minimal",
        "validation text in the training text: 0 of 2 as pairs, 0 by their sources",
    ]


def write_lines(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        for lang in ("en", "de"):
            (directory / f"{name}.{lang}").write_text("".join(f"{lang} {text} {i}\n" for i in range(13)))


def test_training_on_a_copy_of_the_validation_text_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path, {"train": "a b c", "val": "a b c", "test": "d e f"})
    data = DataConfig(corpus=f"{tmp_path}/{{split}}.{{lang}}", vocab_size=23, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(
        DataError, match=r"have the same content \(.*train\.en and .*val\.en and .*\); is \{split\} mis"
    ):
        load(data)
    assert len(load(data, validation_split="test").validation) == 13


@pytest.mark.parametrize("is_named", [True, False])
def test_one_file_for_both_splits_of_a_repository_is_refused(tmp_path: Path, is_named: bool) -> None:
    (tmp_path / "one.csv").write_text("en,de\n" + "".join(f"a b {i},c d {i}\n" for i in range(31)))
    validation = "one.csv" if is_named else "other.csv"
    if not is_named:
        (tmp_path / "other.csv").write_bytes((tmp_path / "one.csv").read_bytes())
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- data_files:\n  - {split: train, path: one.csv}\n"
        f"  - {{split: validation, path: {validation}}}\n---\n"
    )
    data = DataConfig(corpus=str(tmp_path), subset=None, vocab_size=23, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="training and validation have the same content"):
        load(data)
    parts = {"train_split": "train[:50%]", "validation_split": "train[50%:]"}
    found = load(data, **parts)
    assert (len(found.train), len(found.validation)) == (16, 15)


def test_a_reader_is_judged_by_its_fingerprints_not_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(is_by_split: bool) -> CorpusReader:
        def read(_: DataConfig, split: str) -> Corpus:
            return Corpus("mine", split if is_by_split else "one", lambda: iter([("a b", f"c {split}")] * 7))

        return read

    monkeypatch.setattr(corpus_module, "_READERS", {"apart": reader(True), "equal": reader(False)})
    data = DataConfig(corpus="apart", vocab_size=19, cache_dir=str(tmp_path / "cache"))
    assert len(load(data).validation) == 7
    with pytest.raises(DataError, match=r"data\.corpus=equal: training and validation have the same content"):
        load(data, corpus="equal")


def test_a_rule_that_would_break_the_brackets_of_trees_is_refused(tmp_path: Path) -> None:
    data = DataConfig(corpus="treebank", builtin_size=97, vocab_size=211, cache_dir=str(tmp_path / "cache"))
    for rule in ("nfkc_cf", "nmt_nfkc_cf"):
        message = rf"^the symbol '\(.*' must stay one word, but data\.normalization={rule} makes it \['\("
        with pytest.raises(DataError, match=message):
            load(data, normalization=rule)
    assert "▁(NP" in load(data, normalization="nmt_nfkc").tokenizer.pieces(range(211))


UPDATE = Update(3, 0, 2, [torch.arange(5).numpy(), torch.arange(5, 11).numpy()])


def test_an_update_is_shown_as_step_position_and_pairs() -> None:
    assert str(UPDATE) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4, 5, 6, 7 and 3 more)"
    assert str(Update(3, 0, 2, UPDATE.batches[:1])) == "step 3 (update 2 of epoch 0: pairs 0, 1, 2, 3, 4)"


def test_halving_keeps_all_pairs_in_order() -> None:
    batches = [torch.arange(7).numpy(), torch.tensor([11]).numpy()]
    assert [half.tolist() for half in halve_batches(batches)] == [[0, 1, 2, 3], [4, 5, 6], [11]]


@pytest.fixture
def dataset() -> PairDataset:
    return random_pairs(101, longest=10)


@pytest.fixture(params=["mixed", "bucketed"])
def settings(request: pytest.FixtureRequest) -> TrainConfig:
    return TrainConfig(max_tokens=37, tokens_per_update=97, batching=request.param)


def take(dataset: PairDataset, settings: TrainConfig, progress: Progress, number: int) -> list[Update]:
    """The next updates."""
    sampler = BatchSampler(dataset, settings, 7, SINGLE_PROCESS)
    updates = []
    for _ in range(number):
        updates.append(sampler.next(progress))
        progress.step += 1
    return updates


def pairs(updates: list[Update]) -> list[int]:
    return [int(i) for update in updates for batch in update.batches for i in batch]


@pytest.mark.parametrize("number", [0, 1, 7, 30])
def test_the_tokens_of_a_run_are_those_of_its_updates(dataset: PairDataset, settings: TrainConfig, number: int) -> None:
    progress = Progress()
    done = pairs(take(dataset, settings, progress, number))
    sampler = BatchSampler(dataset, settings, 7, SINGLE_PROCESS)
    assert sampler.num_tokens(progress) == tuple(sum(side.lengths[done]) for side in (dataset.src, dataset.tgt))


def test_each_epoch_contains_every_pair_once_in_another_order(dataset: PairDataset, settings: TrainConfig) -> None:
    updates = take(dataset, settings, Progress(), 20)
    first, second = ([update for update in updates if update.epoch == epoch] for epoch in (0, 1))
    assert updates[len(first) + len(second)].epoch == 2
    assert sorted(pairs(first)) == sorted(pairs(second)) == list(range(101))
    assert pairs(first) != pairs(second)
    assert [update.step for update in updates] == list(range(1, 21))
    assert [update.number for update in first] == list(range(1, len(first) + 1))


def test_sampling_resumes_at_any_position(dataset: PairDataset, settings: TrainConfig) -> None:
    expected = take(dataset, settings, Progress(), 20)
    for stop in range(20):
        progress = Progress()
        take(dataset, settings, progress, stop)
        assert [str(update) for update in take(dataset, settings, progress, 20 - stop)] == list(
            map(str, expected[stop:])
        )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_ranks_share_the_pairs_of_an_update(dataset: PairDataset, settings: TrainConfig, size: int) -> None:
    shards, updates = [], []
    for rank in range(size):
        sampler = BatchSampler(dataset, settings, 7, DistributedContext(rank, size))
        updates.append(sampler.next(Progress()))
        shards.append([int(i) for batch in sampler.shard(updates[-1]) for i in batch])
    assert sorted(itertools.chain(*shards)) == sorted(pairs(updates[:1]))
    assert all(shards)


def test_earlier_occurrences_are_counted() -> None:
    assert num_earlier(np.array([5, 3, 5, 5, 3, 7])).tolist() == [0, 0, 1, 2, 1, 0]
    assert num_earlier(np.zeros(0, np.int64)).tolist() == []

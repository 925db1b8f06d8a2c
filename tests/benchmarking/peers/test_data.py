"""The files of the peers have the pairs of training, as ids that no toolkit can split otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarking.peers.data import line_of, prepare
from benchmarking.peers.programs.loop import read_ids

from transformer.config import Config, load_config
from transformer.data.corpus import load_split
from transformer.data.dataset import corpus_tokenizer, encode_corpus
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import ConfigError

BENCHMARK = Path(__file__).parents[3] / "configs" / "benchmark_small.yaml"
LINES = ["A man.", "Two dogs run.", "A cat\u00a0sleeps.", "", "Three men are here."]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for split in ("train", "validation", "test"):
        for lang, lines in (("en", LINES), ("de", [line.swapcase() for line in LINES])):
            (tmp_path / f"{split}.{lang}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    corpus = f"data.corpus={tmp_path}/{{split}}.{{lang}}"
    return load_config(BENCHMARK, [corpus, "data.vocab_size=61", f"data.cache_dir={tmp_path}/cache"])


def tokenizer_of(config: Config) -> Tokenizer:
    corpus = load_split(config.data, "train")
    return corpus_tokenizer(corpus, 61, config.data.cache_dir, **config.data.tokenizer_settings)


def test_files_have_the_ids_of_training(config: Config, tmp_path: Path) -> None:
    directory = prepare(config, tmp_path / "peers", sentences=3)
    pairs = encode_corpus(load_split(config.data, "train"), tokenizer_of(config), config.data.cache_dir)
    for name, side in (("train.src", pairs.src), ("train.tgt", pairs.tgt)):
        expected = [
            side.ids[start : start + length].tolist() for start, length in zip(side.starts, side.lengths, strict=True)
        ]
        assert len(expected) == 4  # the blank pair is dropped
        assert read_ids(str(directory), name) == expected


def test_the_first_sentences_that_are_not_blank_are_translated(config: Config, tmp_path: Path) -> None:
    directory = prepare(config, tmp_path / "peers", sentences=4)
    texts = [line for line in LINES if line]
    assert read_ids(str(directory), "test.src") == [[*ids, EOS_ID] for ids in tokenizer_of(config).encode(texts)]


def test_the_vocabulary_has_all_ids_but_the_special_ones(config: Config, tmp_path: Path) -> None:
    words = (prepare(config, tmp_path / "peers", sentences=1) / "words.txt").read_text().splitlines()
    assert words == [str(number) for number in range(4, 61)]


def test_files_are_written_once_and_anew_for_another_number_of_sentences(config: Config, tmp_path: Path) -> None:
    directory = prepare(config, tmp_path / "peers", sentences=2)
    (directory / "train.src").write_text("kept\n")
    assert prepare(config, tmp_path / "peers", sentences=2) == directory
    assert (directory / "train.src").read_text() == "kept\n"
    assert prepare(config, tmp_path / "peers", sentences=3) != directory


def test_too_few_sentences_are_an_error_before_anything_is_written(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--sentences 5: the split test of .* has 4$"):
        prepare(config, tmp_path / "peers", sentences=5)
    assert not (tmp_path / "peers").exists()


@pytest.mark.parametrize(
    "word", ["tag=<2de>", "subword_dropout=0.1", "deduplicate=true", "filters=[markup]", "corpora=[builtin]"]
)
def test_what_changes_the_data_of_training_only_is_refused(tmp_path: Path, word: str) -> None:
    changed = load_config(BENCHMARK, [f"data.{word}"])
    with pytest.raises(ConfigError, match=rf"^data\.{word.split('=')[0]}=.*: the other toolkits would train on other"):
        prepare(changed, tmp_path, sentences=1)


def test_an_unknown_piece_is_a_word_that_toolkits_know() -> None:
    assert line_of([7, 1, 53]) == "7 <unk> 53"

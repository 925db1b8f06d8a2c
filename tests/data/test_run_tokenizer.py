"""The tokenizer of a run: trained, given, kept, compared with its origin on resumption."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from transformer.config import DataConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus
from transformer.data.run_tokenizer import make_tokenizer, run_tokenizer, tokenizer_lines, trial_tokenizer
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError

PAIRS = list(builtin_pairs("train", 211))
CORPUS = Corpus("pairs", "pairs 211", lambda: iter(PAIRS))
SENTENCES = [side for pair in PAIRS for side in pair]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    return DataConfig(corpus="pairs", vocab_size=211, cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def given(data: DataConfig, tmp_path: Path) -> DataConfig:
    """With a tokenizer from elsewhere."""
    (tmp_path / "given.model").write_bytes(Tokenizer.train(SENTENCES, 307, tokenizer_type="unigram").model)
    return dataclasses.replace(data, tokenizer=str(tmp_path / "given.model"))


def test_a_joint_tokenizer_is_trained_on_both_sides(data: DataConfig) -> None:
    found = make_tokenizer(CORPUS, data)
    assert found.model == Tokenizer.train(SENTENCES, 211).model
    assert found.source is found


def test_separate_tokenizers_are_trained_each_on_its_side(data: DataConfig) -> None:
    found = make_tokenizer(CORPUS, dataclasses.replace(data, separate_vocabularies=True, source_vocab_size=199))
    assert found.source.model == Tokenizer.train([source for source, _ in PAIRS], 199).model
    assert found.model == Tokenizer.train([target for _, target in PAIRS], 211).model
    assert found.sizes == (211, 199)
    same = make_tokenizer(CORPUS, dataclasses.replace(data, separate_vocabularies=True))
    assert same.sizes == (211, 211)
    assert same.model != same.source.model


def test_types_and_symbols_do_not_share_an_entry_of_the_cache(data: DataConfig) -> None:
    others = ({}, {"tokenizer_type": "unigram"}, {"user_symbols": ("<2de>",)}, {"user_symbols": ("<2fr>",)})
    models = [make_tokenizer(CORPUS, dataclasses.replace(data, **other)).model for other in others * 2]  # type: ignore[arg-type]
    assert models[:4] == models[4:]
    assert len({*models}) == 4


def test_the_run_keeps_a_copy_and_goes_on_without_the_original(given: DataConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first = run_tokenizer(run, CORPUS, given)
    assert len(first) == 307
    assert run_tokenizer(run, CORPUS, given).digest == first.digest
    Path(str(given.tokenizer)).unlink()
    assert run_tokenizer(run, CORPUS, given).digest == first.digest
    assert (run / "tokenizer.model").read_bytes() == first.model


def test_the_key_is_named_for_a_file_that_cannot_be_taken(data: DataConfig) -> None:
    for given, fault in (("absent.model", "cannot be read"), (__file__, "not a SentencePiece model")):
        with pytest.raises(DataError, match=rf"^data\.tokenizer={re.escape(given)}: {fault}: "):
            make_tokenizer(CORPUS, dataclasses.replace(data, tokenizer=given))


def test_an_original_that_has_changed_is_refused(given: DataConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    run_tokenizer(run, CORPUS, given)
    Path(str(given.tokenizer)).write_bytes(Tokenizer.train(SENTENCES, 293).model)
    message = (
        r"given\.model is another tokenizer than .*/run/tokenizer\.model, with which the run began; restore it or "
    )
    with pytest.raises(DataError, match=message):
        run_tokenizer(run, CORPUS, given)


def test_a_run_whose_first_start_was_killed_between_its_tokenizers_makes_both(data: DataConfig, tmp_path: Path) -> None:
    separate = dataclasses.replace(data, separate_vocabularies=True)
    expected = make_tokenizer(CORPUS, separate)
    (tmp_path / "source_tokenizer.model").write_bytes(b"of the killed start")
    assert run_tokenizer(tmp_path, CORPUS, separate).digest == expected.digest
    (tmp_path / "source_tokenizer.model").unlink()
    with pytest.raises(DataError, match=r"source_tokenizer\.model: cannot be read: No such file or directory$"):
        run_tokenizer(tmp_path, CORPUS, separate)


def test_a_given_tokenizer_must_keep_the_users_symbols_in_one_piece(given: DataConfig, tmp_path: Path) -> None:
    wanted = dataclasses.replace(given, user_symbols=("<2de>",))
    with pytest.raises(
        DataError, match=r"^data\.user_symbols: the tokenizer of data\.tokenizer=.* splits '<2de>'; its "
    ):
        make_tokenizer(CORPUS, wanted)
    (tmp_path / "given.model").write_bytes(Tokenizer.train(SENTENCES, 307, user_symbols=["<2de>"]).model)
    assert len(make_tokenizer(CORPUS, wanted)) == 307


def test_a_trial_takes_the_given_tokenizer_or_trains_a_smaller_one(data: DataConfig, given: DataConfig) -> None:
    assert len(trial_tokenizer(CORPUS, given, 100)) == 307
    assert trial_tokenizer(CORPUS, data, 199).sizes == (199, None)
    assert trial_tokenizer(CORPUS, data, None).model == make_tokenizer(CORPUS, data).model
    separate = dataclasses.replace(data, separate_vocabularies=True, source_vocab_size=193)
    assert trial_tokenizer(CORPUS, separate, 199).sizes == (199, 193)


def test_the_summary_says_what_the_tokenizer_is(data: DataConfig, given: DataConfig) -> None:
    assert tokenizer_lines(data, make_tokenizer(CORPUS, data)) == ["normalization: minimal"]
    separate = dataclasses.replace(data, separate_vocabularies=True, source_vocab_size=199, subword_dropout=0.1)
    assert tokenizer_lines(separate, make_tokenizer(CORPUS, separate)) == [
        "normalization: minimal",
        "vocabularies: 199 pieces of the source, 211 of the target",
        "subword regularisation: BPE dropout 0.1, both",
    ]
    sampled = dataclasses.replace(given, subword_alpha=0.2, subword_sides="source")
    assert tokenizer_lines(sampled, make_tokenizer(CORPUS, sampled)) == [
        "normalization: minimal",
        f"tokenizer: {given.tokenizer}, unigram; data.vocab_size and the other keys of training one do not apply",
        "subword regularisation: alpha 0.2, source",
    ]


def test_a_vocabulary_of_characters_is_warned_of_by_its_key(data: DataConfig) -> None:
    separate = dataclasses.replace(data, separate_vocabularies=True, vocab_size=61, source_vocab_size=53)
    lines = tokenizer_lines(separate, make_tokenizer(CORPUS, separate))
    keys = [line.split("raise ")[1].split(",")[0] for line in lines if line.startswith("warning: ")]
    assert keys == ["data.vocab_size", "data.source_vocab_size"]

"""The measurement of the bottleneck: its pairs, its sizes, its table and its file."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import string
from pathlib import Path

import pytest
import source_lengths
import torch
from long_sources import POOL, SHORTEST, ExactScorer, batches, captions, joined, letters_task, reversed_letters
from report import count_parameters
from rnnsearch import RNNenc, RNNsearch
from torch import nn

from transformer import BOS_ID, EOS_ID, PAD_ID, SearchConfig, Tokenizer, Transformer, Translator, UserError, beam_search

TINY = ["--updates", "2", "--batch", "3", "--d-model", "16", "--layers", "1", "--heads", "2", "--tests", "19"]
NAMES = ["RNNenc", "RNNsearch", "Transformer"]


def write_captions(directory: Path, split: str, pairs: list[tuple[str, str]], suffix: str = ".gz") -> str:
    for lang, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
        data = "".join(f"{line}\n" for line in lines).encode()
        (directory / f"{split}.{lang}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return str(directory / f"{{split}}.{{lang}}{suffix}")


def rows_of(printed: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]


def test_letters_are_reversed_and_of_all_lengths() -> None:
    pairs = list(itertools.islice(reversed_letters(11, 1), 307))
    assert all(source.split() == target.split()[::-1] for source, target in pairs)
    assert {len(source.split()) for source, _ in pairs} == {*range(SHORTEST, 12)}
    assert {letter for source, _ in pairs for letter in source.split()} == {*string.ascii_lowercase}
    assert pairs == list(itertools.islice(reversed_letters(11, 1), 307))
    assert pairs[:7] != list(itertools.islice(reversed_letters(11, 2), 7))


def test_each_letter_is_one_piece() -> None:
    tokenizer = letters_task(5, 1, 1).tokenizer
    ids = tokenizer.encode([" ".join(string.ascii_lowercase)])[0]
    assert len({*ids}) == 26 and tokenizer.decode([ids]) == [" ".join(string.ascii_lowercase)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_captions_are_the_lines_of_both_files_and_are_joined_in_one_order(tmp_path: Path, suffix: str) -> None:
    pairs = [(f"dog {i}", f"Hund {i}") for i in range(7)]
    found = captions(write_captions(tmp_path, "train", pairs, suffix), "train")
    assert found == pairs
    several = list(itertools.islice(joined(found, 3, 1), 101))
    assert all(source.replace("dog", "Hund") == target for source, target in several)
    assert {len(source.split()) for source, _ in several} == {2, 4, 6}
    assert all(len({*source.split()}) == 1 + len(source.split()) // 2 for source, _ in several), "no caption twice"


def test_batches_have_every_pair_once_and_little_padding() -> None:
    tokenizer, size = letters_task(17, 1, 1).tokenizer, 5
    stream = batches(reversed_letters(17, 1), tokenizer, size)
    expected = sorted(itertools.islice(reversed_letters(17, 1), POOL * size))
    found, num_padding = [], 0
    for src, tgt in itertools.islice(stream, POOL):
        assert src.shape == (size, tgt.size(1) - 1), "both end with </s>, and the target begins with <s>"
        assert (tgt[:, 0] == BOS_ID).all() and ((src == EOS_ID).sum(dim=1) == 1).all()
        assert ((src == PAD_ID) == (tgt[:, 1:] == PAD_ID)).all()
        found += zip(tokenizer.decode(src.tolist()), tokenizer.decode(tgt.tolist()), strict=True)
        num_padding += int((src == PAD_ID).sum())
    assert sorted(found) == expected
    assert num_padding < POOL * size / 2


def test_the_loss_is_the_mean_over_real_tokens() -> None:
    torch.manual_seed(1)
    model = RNNsearch(13, 5, 3)
    src, tgt = torch.tensor([[7, 8, EOS_ID], [9, EOS_ID, PAD_ID]]), torch.tensor([[BOS_ID, 5, 6, 3], [BOS_ID, 4, 3, 0]])
    log_probs = []
    for one, ids in zip(src, ([BOS_ID, 5, 6, EOS_ID], [BOS_ID, 4, EOS_ID]), strict=True):
        state = model.encode(one[one != PAD_ID][None])
        hidden, _ = model.decode(torch.tensor([ids[:-1]]), state)
        log_probs += [row[i] for row, i in zip(model.logits(hidden[0]).log_softmax(dim=-1), ids[1:], strict=True)]
    torch.testing.assert_close(source_lengths.loss(model, src, tgt, 0.0), -torch.stack(log_probs).mean())


def test_the_largest_model_within_a_limit_is_found() -> None:
    def make(n: int) -> nn.Module:
        return nn.Linear(n, n, bias=False)

    for limit in (144, 145, 255):  # 12 and 16 squared
        assert count_parameters(source_lengths.largest(make, limit)) == 144
    assert count_parameters(source_lengths.largest(make, 256)) == 256


def test_the_default_models_are_nearly_of_one_size() -> None:
    models = source_lengths.systems_of_one_size(57, source_lengths.parse([]))
    assert [*models] == NAMES
    assert [type(model) for model in models.values()] == [RNNenc, RNNsearch, Transformer]
    counts = [count_parameters(model) for model in models.values()]
    assert max(counts) == counts[-1] and min(counts) > 0.9 * max(counts)


@pytest.mark.parametrize("kind", [RNNenc, RNNsearch])
def test_our_translator_takes_the_recurrent_models(kind: type[RNNsearch]) -> None:
    """Its translations are those of a beam search over each source alone."""
    torch.manual_seed(1)
    tokenizer = letters_task(5, 1, 1).tokenizer
    model = kind(len(tokenizer), 11, 7).eval()
    texts = ["b c d", "x", "k l m n o p q"]
    found = Translator(model, tokenizer, SearchConfig(beam=3, max_length_offset=5)).translate(texts)  # type: ignore[arg-type]

    def decode(tokens: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        hidden, state = model.decode(tokens[:, None], state)  # type: ignore[arg-type]
        return model.logits(hidden[:, 0]), state

    for text, translation in zip(texts, found, strict=True):
        ids = [*tokenizer.encode([text])[0], EOS_ID]
        with torch.no_grad():
            state = model.encode(torch.tensor([ids]))
        ((best,),) = beam_search(decode, state, [len(ids) + 4], beam=3, bos_id=BOS_ID, eos_id=EOS_ID)
        assert tokenizer.decode([best.ids]) == [translation]


def test_an_output_is_right_if_every_word_is() -> None:
    scores = ExactScorer("none").score(["a b c d", "a b c", "d c b a", "b a"], [["a b c d", "a b c d", "d c b a", "a"]])
    assert scores["exact"].score == 50
    assert 50 < scores["bleu"].score < 100


def test_letters_are_measured_by_length(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source_lengths.main([*TINY, "--longest", "8", "--json", str(tmp_path / "kept.json")])
    printed = capsys.readouterr().out
    header, _, *rows = rows_of(printed)
    assert header[:2] == ["source words", "sentences"]
    assert header[2:] == [f"{metric}, {name}" for metric in ("BLEU", "all words right (%)") for name in NAMES]
    assert [row[0] for row in rows] == ["1-4", "5-8", "9-12", "13-16"]
    assert sum(int(row[1]) for row in rows) == 19
    assert printed.splitlines()[-1].count(" parameters; ") == 1
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [*kept["systems"]] == NAMES and kept["unit"] == "source words" and kept["longest_in_training"] == 8
    for number, buckets in enumerate(kept["systems"].values()):
        assert [f"{bucket['scores']['bleu']['score']:.1f}" for bucket in buckets] == [row[2 + number] for row in rows]


def test_captions_are_measured_by_length(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pairs = [(f"a dog number {i} runs in the park", f"ein Hund Nummer {i} läuft im Park") for i in range(31)]
    pattern = write_captions(tmp_path, "train", pairs)
    write_captions(tmp_path, "test_2016_flickr", pairs[:11])
    kept = tmp_path / "kept.json"
    source_lengths.main([*TINY, "--data", pattern, "--joined", "3", "--vocab-size", "60", "--json", str(kept)])
    assert json.loads(kept.read_text())["longest_in_training"] is None  # tests are as long
    header, _, *rows = rows_of(capsys.readouterr().out)
    assert header == ["source words", "sentences", *(f"BLEU, {name}" for name in NAMES)]
    assert [row[0] for row in rows] == ["1-10", "11-20", "21-30"]


def test_pieces_of_captions_are_those_of_both_languages(tmp_path: Path) -> None:
    pattern = write_captions(tmp_path, "train", [("dogs", "Hunde")] * 3)
    write_captions(tmp_path, "test_2016_flickr", [("dogs", "Hunde")])
    tokenizer: Tokenizer = source_lengths.captions_task(pattern, 1, 22, 1, 1).tokenizer
    assert [len(ids) for ids in tokenizer.encode(["dogs", "Hunde"])] == [1, 1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tests_are_other_letters_than_training_has(seed: int) -> None:
    task = letters_task(20, 101, seed)
    trained = {source for source, _ in itertools.islice(task.train(), 1009)}
    assert not trained & {source for source in task.sources if len(source.split()) > 5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.en", "names one file for all"),
        ("{split}.txt", "names one file for all"),
        ("train.{lang}", "names one file for all"),
        ("{splt}.{lang}", "has other fields than {split} and {lang}: 'splt'"),
        ("{split}.{lang", "has other fields than"),
    ],
)
def test_a_pattern_of_one_file_for_both_sides_or_splits_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    write_captions(tmp_path, "train", [("dogs", "Hunde")])
    with pytest.raises(UserError, match=re.escape(message)):
        captions(f"{tmp_path}/{name}", "train")


def test_a_line_ends_with_a_line_feed_alone(tmp_path: Path) -> None:
    pattern = write_captions(tmp_path, "train", [("a\u2028b\x0cc", "d"), ("e", "f\x85g\r")], "")
    assert captions(pattern, "train") == [("a\u2028b\x0cc", "d"), ("e", "f\x85g")]


def test_sides_of_different_length_are_an_error(tmp_path: Path) -> None:
    pattern = write_captions(tmp_path, "train", [("a", "b")] * 5, "")
    (tmp_path / "train.de").write_text("b\n" * 7)
    with pytest.raises(UserError, match=r"train.en has 5 lines and .*train.de has 7"):
        captions(pattern, "train")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--d-model", "15"], "--d-model 15 is not a multiple of --heads 4"),
        (["--dropout", "1"], "--dropout 1.0 is not from 0"),
        (["--label-smoothing", "-0.1"], "--label-smoothing -0.1 is not from 0"),
    ],
)
def test_options_that_do_not_fit_together_are_an_error(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        source_lengths.main(argv)


def test_more_captions_to_join_than_there_are_are_an_error(tmp_path: Path) -> None:
    pattern = write_captions(tmp_path, "train", [("dogs", "Hunde")] * 3)
    with pytest.raises(UserError, match="--joined 4 is more than the 3 captions"):
        source_lengths.captions_task(pattern, 4, 22, 1, 1)


def test_fewer_letters_than_bleu_counts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        source_lengths.parse(["--longest", "3"])
    assert "3 is less than 4" in capsys.readouterr().err

"""The description of a corpus: what would be dropped, with examples, as training counts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transformer.cli import run
from transformer.commands import data
from transformer.config import load_config
from transformer.data import written_splits
from transformer.data.builtin import builtin_pairs
from transformer.inspection.corpora import report_data
from transformer.training.data import load_data
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.initialization import inherit
from transformer.training.trainer import Trainer

PAIRS = list(builtin_pairs("train", 397))
JUNK = [
    ("same here", "same here"),
    ("Ã¤rger", "Ärger"),
    ("1 cat", "2 Katzen"),
    ("", "leer"),
    ("a", "b " * 99),
    PAIRS[0],
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for split, pairs in (
        ("train", [*PAIRS, *JUNK, *JUNK]),
        ("validation", [*builtin_pairs("validation", 53), PAIRS[3]]),
    ):
        for i, lang in enumerate(("en", "de")):
            (tmp_path / f"{split}.{lang}").write_text("".join(f"{pair[i]}\n" for pair in pairs), encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"run_dir: {tmp_path}/run\n"
        f"data: {{corpus: '{tmp_path}/{{split}}.{{lang}}', vocab_size: 307, max_length: 97, deduplicate: true,\n"
        f"       filters: [copies, encoding, numbers], cache_dir: {tmp_path}/cache}}\n"
    )
    return path


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(lambda: data.main(list(arguments)))
    return ended.value.code, *capfd.readouterr()


def test_what_is_dropped_is_counted_as_in_training_and_shown(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capfd, str(config), "--json")
    assert status == 0, err
    report = json.loads(out)
    (train,) = report["train"]
    trained = load_data(load_config(config).data, tmp_path / "tokenizer.model", SINGLE_PROCESS).train
    assert train["dropped"] == trained.dropped
    assert train["dropped"] == {
        "empty": 2, "too_long": 2, "ratio": 0, "copies": 2, "encoding": 2, "numbers": 2, "repeated": 2,
    }  # fmt: skip
    shown = {reason: [tuple(pair) for pair in pairs] for reason, pairs in train["examples"].items()}
    assert shown == {
        "copies": [JUNK[0]] * 2,
        "encoding": [JUNK[1]] * 2,
        "numbers": [JUNK[2]] * 2,
        "empty": [JUNK[3]] * 2,
        "too_long": [JUNK[4]] * 2,
        "repeated": [PAIRS[0]] * 2,
    }
    assert report["overlaps"] == {"validation": {"pairs": 1, "sources": 1, "total": 54}}
    assert report["test"] is None
    assert not (tmp_path / "run").exists(), "the run is not touched"


def test_a_run_that_begins_with_trained_weights_is_described_with_their_tokenizer(
    config: Path, trained_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"train.init_from={trained_run}"
    config.write_text(config.read_text().replace("vocab_size: 307, max_length: 97, ", ""))
    status, out, err = call(capfd, str(config), "--json", source)
    assert status == 0, err
    report = json.loads(out)
    assert not (tmp_path / "run").exists()
    trained = Trainer.from_config(load_config(config, [source], complete=inherit)).data
    assert report["vocab_size"] == len(trained.tokenizer) == 307
    assert report["validation"]["src_pieces"] == trained.validation.src.lengths.sum() - len(trained.validation)


def test_two_vocabularies_are_named(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = ("data.separate_vocabularies=true", "data.source_vocab_size=211", "model.tie=decoder")
    status, out, err = call(capfd, str(config), "data.tokenizer_type=unigram", *keys)
    assert status == 0, err
    assert out.startswith("vocabularies: 211 pieces of the source, 307 of the target\n")


def test_lengths_and_ratios_are_those_of_the_pieces(config: Path) -> None:
    plain = load_config(config, ["data.deduplicate=false", "data.filters=[]"])
    found = load_data(plain.data, config.parent / "t.model", SINGLE_PROCESS)
    report = report_data(plain, 0)
    (train,) = report.train
    assert train.examples == {}
    assert train.repeated_pairs == 3 + 2
    pieces = [found.tokenizer.encode([source])[0] for source, _ in builtin_pairs("validation", 53)]
    pieces.append(found.tokenizer.encode([PAIRS[3][0]])[0])
    assert report.validation.src_pieces == sum(map(len, pieces))
    assert report.validation.src_lengths[100] == max(map(len, pieces))
    assert report.validation.src_lengths[1] == sorted(map(len, pieces))[1]


def test_the_report_is_readable_and_examples_are_on_one_line(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capfd, str(config), "--examples", "1")
    assert status == 0, err
    lines = out.splitlines()
    assert "  397 of 409 pairs kept; " in out
    assert lines.count("    Ã¤rger ||| Ärger") == 1
    assert "validation text in the training text: 1 of 54 as pairs, 1 by their sources" in lines
    assert max(len(line) for line in lines if not line.startswith("test: none (")) < 230


def test_several_corpora_and_two_files_are_described(
    config: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    corpora = "data.corpora=[{path: 'train.{lang}', weight: 0.5, tag: <bt>}, {src: validation.en, tgt: validation.de}]"
    status, out, err = call(capfd, str(config), corpora, "data.hold_out=[validation, test]", "data.tag=<bt>")
    assert status == 0, err
    assert " of an epoch, weight 0.5, tag <bt>\n" in out
    assert "\ntest text in the training text: 0 of " in out
    status, out, err = call(capfd, "--src", "train.en", "--tgt", "train.de", "data.vocab_size=307")
    assert status == 0, err
    assert "  dropped as held_out: " in out


def test_mistakes_are_one_line(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ((str(config), "--examples", "-1"), "--examples -1 must be at least 0"),
        ((str(config), "--batch-size", "3"), "unknown argument --batch-size"),
        ((), "give a CONFIG"),
        ((str(config), "data.corpus=absent.{lang}"), "no such file"),
    ):
        status, _, err = call(capfd, *arguments)
        assert (status, message in err, err.count("\n")) == (2, True, 1), err


def test_shares_are_those_of_training_without_repeated_pairs(config: Path) -> None:
    train = f"'{config.parent}/train.{{lang}}'"
    pairs = [*builtin_pairs("test", 41), PAIRS[5]]
    (config.parent / "more.tsv").write_text("en\tde\n" + "".join(f"{source}\t{target}\n" for source, target in pairs))
    loaded = load_config(config, [f"data.corpora=[{train}, {train}, {config.parent}/more.tsv]"])
    found = load_data(loaded.data, config.parent / "t.model", SINGLE_PROCESS)
    shares = [corpus.share for corpus in report_data(loaded, 0).train]
    assert shares == found.train.shares()
    assert shares[1] == 0


def test_a_test_text_that_cannot_be_read_is_said(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (config.parent / "test.en").write_text("one\ntwo\n")
    (config.parent / "test.de").write_text("eins\n")
    status, out, err = call(capfd, str(config))
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("test: none (")]
    assert "test.de" in line
    assert json.loads(call(capfd, str(config), "--json")[1])["test_error"] == line[len("test: none (") : -1]


def test_the_warnings_of_training_are_given(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpora = f"data.corpora=[{{path: '{config.parent}/train.{{lang}}', tag: <bt>}}]"
    status, out, err = call(capfd, str(config), corpora)
    assert status == 0, err
    assert "\nwarning: data.tag=null is the tag of validation sources and of text to translate, but training " in out


def test_written_splits_are_those_of_training(config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chosen = [str(config), "data.hold_out=[validation, test]", "data.validation_size=11"]
    status, out, err = call(capfd, *chosen, "--write", str(tmp_path / "new" / "splits"), "--json")
    assert (status, err) == (0, "")
    numbers = json.loads(out)
    assert {name.name for name in (tmp_path / "new").iterdir()} == {"splits"}
    here = load_data(load_config(config, chosen[1:]).data, tmp_path / "a.model", SINGLE_PROCESS)
    corpus = f"data.corpus={tmp_path}/new/splits/{{split}}.{{lang}}"
    # With the filters, which find nothing to drop.
    there = load_data(load_config(config, [corpus]).data, tmp_path / "a.model", SINGLE_PROCESS)
    assert there.validation.src.ids.tolist() == here.validation.src.ids.tolist()
    assert there.train.src.ids.tolist() == here.train.src.ids.tolist()
    assert there.train.tgt.ids.tolist() == here.train.tgt.ids.tolist()
    assert not there.train.dropped.keys() & {"copies", "encoding", "numbers", "held_out"}
    lines = {split: (tmp_path / f"new/splits/{split}.de").read_text().count("\n") for split in numbers}
    assert lines == numbers == {"train": numbers["train"], "validation": 11, "test": 11}


def test_written_texts_are_one_line_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"en": f"A\r\n{i}\u2028b", "de": f"Ein\n{i}"} for i in range(41)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    arguments = (f"data.corpus={tmp_path}/rows.jsonl", "data.hold_out=[validation, test]", "data.validation_size=3")
    status, out, err = call(capfd, "small", *arguments, "--write", str(tmp_path / "splits"))
    assert (status, err) == (0, "")
    assert out.endswith(f"train on them with: data.corpus='{tmp_path}/splits/{{split}}.{{lang}}'\n")
    texts = [(tmp_path / "splits" / f"train.{lang}").read_bytes().decode().split("\n")[:-1] for lang in ("en", "de")]
    assert [len(lines) for lines in texts] == [35, 35]
    assert all(tgt == f"Ein {src.split()[1]}" for src, tgt in zip(*texts, strict=True)), texts


def test_splits_are_written_to_a_new_directory_only_and_whole(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, config):
        assert call(capfd, str(config), "--write", str(place)) == (
            2, "", f"error: --write {place}: exists; give the name of a new directory\n",
        )  # fmt: skip
    corpora = f"data.corpora=[{{path: '{tmp_path}/train.{{lang}}'}}, {{path: '{tmp_path}/validation.{{lang}}'}}]"
    status, _, err = call(capfd, str(config), corpora, "--write", str(tmp_path / "new"))
    assert (status, err.count("\n")) == (2, 1)
    assert "data.corpora has 2" in err
    status, _, err = call(capfd, str(config), "--write", str(tmp_path / "two"))
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("warning: no test pairs are written: ")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written_splits, "_write", full)
    assert call(capfd, str(config), "--write", str(tmp_path / "new"))[0] == 2
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]

"""`evaluate --also`: other test sets beside the one that is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from transformer.cli import run
from transformer.commands import evaluate
from transformer.commands.also import other_sets
from transformer.config import Config, DataConfig
from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus of eleven pairs in its test split, and one in another."""
    directory = tmp_path_factory.mktemp("also")
    for split, size in (("test", 11), ("dev", 1)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs("test", size, seed=1), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return f"{directory}/{{split}}.{{lang}}"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(lambda: evaluate.main([*map(str, arguments), "--beam", "1", "--device", "cpu"]))
    return (ended.value.code, *capsys.readouterr())


def test_both_sets_are_scored_as_each_alone(
    trained_run: Path, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    status, out, _ = call(capsys, trained_run, "--json", "--also", other, "--output", output)
    assert status in (0, None)
    report = json.loads(out)
    assert len(output.read_text().splitlines()) == report["sentences"] == 53
    (also,) = report.pop("also")
    alone = json.loads(call(capsys, trained_run, "--json")[1])
    source, reference = (other.replace("{split}", "test").replace("{lang}", lang) for lang in ("en", "de"))
    files = json.loads(call(capsys, trained_run, "--json", "--src", source, "--ref", reference)[1])
    for here, there in ((report, alone), (also, files)):
        for clock in ("seconds", "sentences_per_s"):
            del here[clock], there[clock]
        assert here == there


def test_the_last_line_is_the_score_of_the_set_that_is_asked_for(
    trained_run: Path, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run stands for its corpus, wherever its checkpoints are."""
    config = Config(data=DataConfig(corpus=other, subset=None))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    _, out, _ = call(capsys, trained_run, "--also", tmp_path / "run", other, "--split", "test")
    lines = out.splitlines()
    heads = [line for line in lines if " sentences, beam 1" in line]
    assert [head.partition(": ")[2].split()[0] for head in heads] == ["11", "11", "53"]
    assert lines[-1].startswith("BLEU = ") and sum("version:" in line for line in lines) == 6


def test_notes_on_the_sources_name_their_set(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lang in ("en", "de"):
        (tmp_path / f"test.{lang}").write_text("A man.\nздесь\n")
    corpus = f"{tmp_path}/{{split}}.{{lang}}"
    _, out, err = call(capsys, trained_run, "--also", corpus)
    (texts,) = other_sets([corpus], None, DataConfig(src_lang="en", tgt_lang="de"))
    assert f"\n{texts.name}: 1 line without a known word is copied: 2\n" in f"\n{err}"
    assert f" on {texts.name}: 2 sentences" in out


def test_a_split_is_that_of_all_sets(other: str) -> None:
    assert [len(texts) for texts in other_sets([other, other], "dev", DataConfig())] == [1, 1]


def test_another_corpus_is_read_where_pairs_of_the_runs_own_are_held_out(other: str, tmp_path: Path) -> None:
    held_out = DataConfig(corpus="builtin", subset=None, hold_out=("validation", "test"), cache_dir=str(tmp_path))
    (found,) = other_sets([other], None, held_out)
    assert found.sources == [source for source, _ in builtin_pairs("test", 11, seed=1)]


def test_the_builtin_corpus_is_named_as_in_a_configuration() -> None:
    (texts,) = other_sets(["builtin"], None, DataConfig(corpus="x", revision="y"))
    assert (texts.name, len(texts)) == ("builtin test", 1000)


def test_a_run_of_another_language_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(Config(data=DataConfig(tgt_lang="nl")).to_yaml())
    with pytest.raises(ConfigError, match=r"is a run from 'en' into 'nl', but the one that is scored translates 'en'"):
        other_sets([str(tmp_path)], None, DataConfig())


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: -1")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/config.yaml: seed=-1 must be at least 0"):
        other_sets([str(tmp_path)], None, DataConfig())


def test_a_corpus_that_is_absent_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        other_sets([f"{tmp_path}/nowhere/{{split}}.{{lang}}"], None, DataConfig())
    for lang in ("en", "de"):
        (tmp_path / f"test.{lang}").touch()
    with pytest.raises(DataError, match=r"^--also .*: there is nothing to score: .* is empty$"):
        other_sets([f"{tmp_path}/{{split}}.{{lang}}"], None, DataConfig())


def test_the_output_does_not_replace_the_other_corpus(other: str, tmp_path: Path) -> None:
    shutil.copytree(Path(other).parent, tmp_path / "copy")
    pattern: Any = f"{tmp_path}/copy/{{split}}.{{lang}}"
    with pytest.raises(ConfigError, match=r"dev\.de"):
        other_sets([pattern], None, DataConfig(), [tmp_path / "new", tmp_path / "copy" / "dev.de"])


@pytest.mark.parametrize("option", ["--output", "--plot", "--html"])
def test_no_output_replaces_the_other_corpus(trained_run: Path, other: str, tmp_path: Path, option: str) -> None:
    shutil.copytree(Path(other).parent, tmp_path / "copy")
    page = tmp_path / "copy" / "dev.html"
    page.write_text("text\n")
    options = ["--by-length"] * (option == "--plot")
    pattern = f"{tmp_path}/copy/{{split}}.{{lang}}"
    with pytest.raises(ConfigError, match=r"dev\.html"):
        evaluate.main([str(trained_run), "--also", pattern, option, str(page), *options])


def test_a_given_translation_is_of_one_set(trained_run: Path, other: str, tmp_path: Path) -> None:
    (tmp_path / "hyp").write_text("x\n")
    with pytest.raises(ConfigError, match="--also is of a translation by RUN; with --hyp nothing is translated"):
        evaluate.main([str(trained_run), "--hyp", str(tmp_path / "hyp"), "--also", other])

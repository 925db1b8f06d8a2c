"""transformer inspect from the command line: sections, texts, JSON, figures, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from transformer.cli import run
from transformer.commands import inspect
from transformer.config import load_config
from transformer.inspection.section_tables import TABLES
from transformer.inspection.sections import CHEAP
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, save_checkpoint

Call = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run the command in this process; returns its status, stdout and stderr."""

    def start(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(lambda: inspect.main([*map(str, arguments)]))
        return ended.value.code, *capfd.readouterr()

    return start


@pytest.fixture
def senses(tmp_path: Path) -> list[Path]:
    """Two files of sentences with the word "eating"."""
    paths = [tmp_path / "animals.en", tmp_path / "people.en"]
    for path, subjects in zip(paths, ("dog cat cow", "man boy girl"), strict=True):
        lines = (f"The {x} is eating {y}.\n" for x in subjects.split() for y in ("an egg", "a cake"))
        path.write_text("".join(lines))
    return paths


def test_the_cheap_sections_are_printed_on_the_test_split(trained_run: Path, tiny_corpus: str, call: Call) -> None:
    status, out, err = call(trained_run, "--sentences", 5, "--device", "cpu")
    assert status == 0
    first, *parts = out.split("\n## ")
    assert first.startswith(f"{trained_run}/best/step-0") and first.endswith(": 5 sentences\n")
    assert tiny_corpus.format(split="test", lang="en").partition("/test")[0] in first
    assert [part.partition("\n")[0] for part in parts] == [*CHEAP]
    assert err.startswith("checkpoint: ") and err.count("\n") == 1


def test_json_has_what_the_tables_are_made_of(trained_run: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "x.en").write_text("A man is sleeping.\nTwo dogs are eating.\n")
    (tmp_path / "x.de").write_text("Ein Mann schläft.\nZwei Hunde fressen.\n")
    given = (
        trained_run,
        "gradients",
        "heads",
        "--src",
        tmp_path / "x.en",
        "--ref",
        tmp_path / "x.de",
        "--device",
        "cpu",
    )
    status, out, _ = call(*given, "--json")
    found = json.loads(out)
    assert [*found] == ["checkpoint", "corpus", "sentences", "left_out", "gradients", "heads"]
    assert (status, found["sentences"], found["left_out"]) == (0, 2, 0)
    printed = call(*given)[1]
    assert printed.partition("\n")[2] == "".join(f"\n## {x}\n\n{TABLES[x](found[x])}" for x in ("gradients", "heads"))


def test_pairs_that_are_not_looked_at_are_listed(trained_run: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "x.en").write_text("\n" * 4 + "A man is sleeping.\nA dog.\n")
    (tmp_path / "x.de").write_text("\n" * 4 + "Ein Mann schläft.\nEin Hund.\n")
    texts = ("--src", tmp_path / "x.en", "--ref", tmp_path / "x.de", "--device", "cpu")
    status, out, err = call(trained_run, "jacobians", "lens", "--json", *texts)
    found = json.loads(out)
    assert (status, found["sentences"], found["left_out"], found["jacobians"]["sentences"]) == (0, 6, 4, 2)
    assert found["lens"]["example"]["source"] == "A man is sleeping."
    expected = "warning: 4 pairs are not looked at, with an empty side or beyond the limit: 1, 2, 3, 4\n"
    assert err.endswith(expected)


def test_figures_are_written_into_a_directory(trained_run: Path, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "figures"
    assert call(trained_run, "spectra", "components", "--out", out, "--theme", "dark")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["components.svg", "spectra.svg"]
    assert call(trained_run, "spectra", "--out", out, "--format", "png")[0] == 0
    assert (out / "spectra.png").read_bytes().startswith(b"\x89PNG")
    status, _, err = call(trained_run, "spectra", "--out", trained_run / "best")
    assert (status, err.count("\n")) == (2, 1)
    assert "belongs to the run there" in err


def test_a_probe_reads_a_file_per_sense_or_one_of_both(
    trained_run: Path, tmp_path: Path, senses: list[Path], call: Call
) -> None:
    status, out, _ = call(trained_run, "--probe", "eating", "--senses", *senses)
    assert status == 0
    assert out.startswith("\n## probe\n\neating: 6 × animals, 6 × people; always the more frequent: 0.500\n")
    both = tmp_path / "both.tsv"
    both.write_text("".join(f"{path.stem}\t{line}\n" for path in senses for line in path.read_text().splitlines()))
    assert call(trained_run, "probe", "--probe", "eating", "--senses", both)[1] == out
    same_names = [tmp_path / "a" / "x.en", tmp_path / "b" / "x.en"]
    for path, source in zip(same_names, senses, strict=True):
        path.parent.mkdir()
        path.write_text(source.read_text())
    assert (
        f"6 × {same_names[0]}, 6 × {same_names[1]}"
        in call(trained_run, "--probe", "eating", "--senses", *same_names)[1]
    )


def test_an_ablation_says_what_it_was_measured_on(babbler: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "x.en").write_text("A man is sleeping.\nA dog.\n")
    (tmp_path / "x.de").write_text("Ein Mann schläft.\nEin Hund.\n")
    texts = ("--src", tmp_path / "x.en", "--ref", tmp_path / "x.de", "--device", "cpu")
    status, out, err = call(babbler, "--ablate", "--sentences", 1, *texts)
    assert status == 0
    assert "Of the whole model: BLEU 0.00 ± 0.00 (95 %; 1 sentences, beam 1)" in out
    assert out.count("attention |") == 12
    assert call(babbler, "ablation", "--ablate", "--sentences", 1, *texts)[1] == out
    assert err.startswith("checkpoint: ")


@pytest.mark.parametrize("alternative", [{"norm": "pre", "positional": "rotary"}, {"tie": "none", "num_kv_heads": 1}])
def test_alternatives_are_inspected_as_well(
    babbler: Path, tiny_corpus: str, tmp_path: Path, call: Call, alternative: dict[str, object]
) -> None:
    _, tokenizer, _ = load_checkpoint(babbler)
    sizes = {"d_model": 22, "d_k": 6, "num_layers": 2, "num_heads": 2, "d_ff": 13}
    chosen = [f"model.{name}={value}" for name, value in {**sizes, **alternative}.items()]
    config = load_config("small", [*chosen, f"data.corpus={tiny_corpus}"])
    save_checkpoint(tmp_path / "other", config, tokenizer, build_model(len(tokenizer), config.model).state_dict())
    sections = ("lens", "stream", "gradients", "components", "heads")
    status, out, _ = call(tmp_path / "other", *sections, "--sentences", 3, "--device", "cpu")
    assert status == 0
    assert ("Pre-norm: " in out) is ("norm" in alternative)
    assert ("No vectors stand for positions" in out) is ("norm" in alternative)
    assert ("embedding (output)" in out) is ("tie" in alternative)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "'nonsense' is not one of the sections lens, stream, gradients"),
        (["lens", "--split", "test", "--src", "a", "--ref", "b"], "--split and --src exclude each other"),
        (["lens", "--src", "a"], "--src and --ref go together"),
        (["probe"], "the section probe needs --probe WORD and --senses FILE ..."),
        (["--probe", "eating"], "the section probe needs --probe WORD and --senses FILE ..."),
        (["--senses", "a"], "--senses is of a probe: give --probe WORD"),
        (["spectra", "--src", "a", "--ref", "b"], "--src chooses sentence pairs, which no section reads of spectra"),
        (["spectra", "--sentences", "7"], "--sentences chooses sentence pairs, which no section reads of spectra"),
        (["lens", "--beam", "4"], "--beam is of the section ablation: give --ablate"),
        (["--theme", "dark"], "--theme is of figures: give --out DIR"),
        (["--format", "png"], "--format is of figures: give --out DIR"),
        (["--sentences", "0"], "--sentences 0 must be at least 1"),
        (["--ablate", "--beam", "-1"], "--beam -1 must be at least 1"),
        (["--probe", "eating", "--senses", "{tmp}/one.en"], "{tmp}/one.en, line 1: give a sense, a tabulator and a"),
        (["--src", "{tmp}/empty", "--ref", "{tmp}/empty"], "{tmp}/empty and {tmp}/empty: there is nothing to look at"),
        (["--tag", "<2de>", "--target-language", "de"], "--tag and --target-language exclude each other"),
    ],
)
def test_wrong_arguments_are_one_line(
    trained_run: Path, tmp_path: Path, call: Call, arguments: list[str], message: str
) -> None:
    (tmp_path / "one.en").write_text("A dog is eating.\n")
    (tmp_path / "empty").touch()
    status, out, err = call(trained_run, *(x.format(tmp=tmp_path) for x in arguments))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: {message.format(tmp=tmp_path)}")


def test_a_run_that_is_not_there_is_an_error(trained_run: Path, call: Call) -> None:
    status, out, err = call(trained_run / "nowhere", "spectra")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "nowhere" in err

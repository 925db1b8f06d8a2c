"""Training on two files and nothing else."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from transformer.cli import run
from transformer.commands import evaluate, train, translate
from transformer.config import CorpusEntry, load_config
from transformer.data.builtin import builtin_pairs

Call = Callable[..., tuple[object, str, str]]
SMALL = (
    "data.vocab_size=307",
    "model.d_model=22",
    "model.num_layers=1",
    "model.num_heads=2",
    "model.d_ff=29",
    "train.tokens_per_update=509",
    "train.max_tokens=509",
    "train.max_steps=2",
    "train.device=cpu",
)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command in a directory with my.en, my.de and their compressed copies."""
    monkeypatch.chdir(tmp_path)
    for i, lang in enumerate(("en", "de")):
        text = "".join(f"{pair[i]}\n" for pair in builtin_pairs("train", 997)).encode()
        Path(f"my.{lang}").write_bytes(text)
        Path(f"packed.{lang}.gz").write_bytes(gzip.compress(text))
        Path(f"{lang}.txt").write_bytes(text)

    def call(main: Callable[[list[str]], int], *arguments: str) -> tuple[object, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: main(list(arguments)))
        return ended.value.code, *capfd.readouterr()

    return call


def test_two_files_are_trained_on_with_pairs_held_out_and_scored(call: Call) -> None:
    status, out, err = call(train.main, "--src", "packed.en.gz", "--tgt", "packed.de.gz", *SMALL)
    assert status == 0, err
    config = load_config("runs/packed/config.yaml", saved=True)
    assert config.data.corpora == (CorpusEntry(src="packed.en.gz", tgt="packed.de.gz"),)
    assert (config.data.corpus, config.data.src_lang, config.data.tgt_lang) == ("none", "en", "de")
    assert (config.data.hold_out, config.train.patience) == (("validation", "test"), 10)
    assert "\nvalidation text in the training text: 0 of " in out
    (held_out,) = re.findall(r"ratio 0, held_out (\d+)\)", out)
    (validation,) = re.findall(r"\nvalidation pairs: (\d+) \(", out)
    assert 100 < int(held_out) <= 200, "about a tenth of 997 pairs for each of two splits, at most 100"
    assert 50 < int(validation) <= 100
    assert " evaluate runs/packed\n" in out + "\n"
    status, out, err = call(evaluate.main, "runs/packed", "--beam", "1")
    assert status == 0, err
    assert "test pairs held out of packed.en.gz and packed.de.gz" in out
    status, out, err = call(evaluate.main, "runs/packed", "--beam", "1", "--split", "validation")
    assert (status, "validation pairs held out of" in out) == (0, True)
    status, _, err = call(evaluate.main, "runs/packed", "--beam", "1", "--split", "train")
    assert (status, err.startswith("error: data.corpus=none has no split 'train', only validation, test")) == (2, True)
    status, _, err = call(translate.main, "runs/packed", "my.en", "--output", "packed.de.gz")
    assert (status, "is the same file as the input" in err or "belongs to the corpus" in err) == (2, True)


def test_the_size_and_every_key_can_be_given_and_a_configuration_keeps_its_name(call: Call) -> None:
    options = ("--src", "my.en", "--tgt", "my.de", "--validation-size", "23")
    status, out, err = call(train.main, "quickstart", *options, *SMALL, "train.validate_steps=2")
    assert status == 0, err
    assert "\nvalidation pairs: 23 (" in out
    assert ", held_out 46)" in out
    assert load_config("runs/quickstart/config.yaml", saved=True).train.patience is None
    status, out, err = call(
        train.main, *options, *SMALL, "data.hold_out=validation", "run_dir=mine", "data.corpus=my.{lang}"
    )
    assert status == 0, err
    assert ", held_out 23)" in out
    assert Path("mine").is_dir()


def test_a_single_file_pattern_offers_to_hold_pairs_out(call: Call) -> None:
    status, _, err = call(train.main, "small", "data.corpus=my.{lang}", *SMALL)
    assert status == 2
    assert "is {split} missing? data.hold_out=[validation, test] takes both out of the training data" in err
    status, out, err = call(train.main, "small", "data.corpus=my.{lang}", "data.hold_out=[validation, test]", *SMALL)
    assert status == 0, err
    assert "held_out" in out
    status, out, err = call(train.main, "small", "data.corpus=my.{lang}", "--validation-size", "7", *SMALL, "run_dir=b")
    assert (status, "\nvalidation pairs: 7 (" in out) == (0, True)


def test_the_size_keeps_the_splits_that_a_configuration_holds_out_or_has(call: Call) -> None:
    for i, lang in enumerate(("en", "de")):
        Path(f"dev.{lang}").write_text("".join(f"{pair[i]}\n" for pair in builtin_pairs("test", 31)))
    corpus = ("small", "data.corpus={split}.{lang}", "data.train_split=my", "--validation-size", "7", *SMALL)
    status, _, err = call(train.main, *corpus)
    assert (status, err.startswith("error: --validation-size 7 holds validation and test pairs out")) == (2, True)
    assert "data.corpus={split}.{lang} has splits of its own: leave it out, or set data.hold_out" in err
    for split, number in (("validation", 7), ("test", 31)):
        status, out, err = call(train.main, *corpus, f"data.hold_out={split}", f"run_dir=runs/{split}")
        assert status == 0, err
        assert f"\nvalidation pairs: {number} (" in out
        assert ", held_out 7)" in out


def test_languages_that_the_names_do_not_tell_must_be_given(call: Call) -> None:
    status, _, err = call(train.main, "--src", "en.txt", "--tgt", "de.txt", *SMALL)
    assert status == 2
    assert (
        "the names en.txt and de.txt do not end in two languages, as my.en and my.de do: give data.src_lang=CODE" in err
    )
    status, _, err = call(
        train.main, "--src", "en.txt", "--tgt", "de.txt", "data.src_lang=en", "data.tgt_lang=de", *SMALL
    )
    assert status == 0, err
    assert load_config("runs/en/config.yaml", saved=True).data.tgt_lang == "de"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a CONFIG, such as quickstart, or two files: --src FILE --tgt FILE"),
        (("train.max_steps=3",), "give a CONFIG"),
        (("--src", "my.en"), "--src and --tgt go together"),
        (("small", "--tgt", "my.de"), "--src and --tgt go together"),
        (("--src", "my.en", "--tgt", "absent.de"), "absent.de: cannot be read: No such file"),
        (("--src", "my.en", "--tgt", "my.de", "--validation-size", "0"), "data.validation_size=0 must be at least 1"),
        (
            ("--src", "my.en", "--tgt", "my.de", "--validation-size", "400"),
            "too few distinct sources (997) to hold out 400",
        ),
        (("--src", "my.en", "--tgt", "my.en"), "do not end in two languages"),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: tuple[str, ...], message: str) -> None:
    status, _, err = call(train.main, *arguments)
    assert (status, message in err) == (2, True), err
    assert err.count("\n") == 1

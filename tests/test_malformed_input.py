"""Malformed input gives a result or a one-line error.

Each fault that the fuzzer found has a regression test; hypothesis looks for more with the fuzzer's mutators.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import random
import shutil
import sys
from pathlib import Path

import mutators
import numpy as np
import pytest
import value_mutators
from ablation.runs import read_results
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import cli
from transformer.config import Config, load_config
from transformer.data.corpus import Corpus, decode_lines, read_lines
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, UserError
from transformer.inference.translator import Translator
from transformer.parsing.trees import leaves, restore
from transformer.training.metrics import read_metrics

randoms = st.integers(0, 2**64).map(random.Random)


# Invariants.


@settings(max_examples=20, deadline=None)
@given(randoms)
def test_a_configuration_survives_a_round_trip_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    path = tmp_path_factory.mktemp("config") / "a.yaml"
    path.write_bytes(value_mutators.config_file(rng, (path.name, "absent.yaml")))
    try:
        config = load_config(path, [value_mutators.override(rng) for _ in range(rng.randrange(2))])
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2100
    else:
        path.write_text(config.to_yaml(), encoding="utf-8")
        assert load_config(path, saved=True) == config


@settings(max_examples=30, deadline=None)
@given(randoms)
def test_there_are_as_many_lines_as_line_feeds(rng: random.Random) -> None:
    data = mutators.text_file(rng)
    try:
        lines = list(decode_lines(io.BytesIO(data), "input"))
    except DataError:
        return
    assert len(lines) == data.count(b"\n") + (data[-1:] not in (b"", b"\n"))


@settings(max_examples=30, deadline=None)
@given(randoms)
def test_any_model_output_is_repaired_to_a_tree_over_its_sentence(rng: random.Random) -> None:
    sentence = mutators.text(rng).split()
    assert [leaf.word for leaf in leaves(restore(mutators.tree(rng), sentence))] == sentence


@pytest.fixture(scope="module")
def translator(trained_run: Path) -> Translator:
    return Translator.load(trained_run, device="cpu", precision="fp32")


@settings(max_examples=5, deadline=None)
@given(randoms)
def test_each_line_is_translated_as_if_it_were_alone(translator: Translator, rng: random.Random) -> None:
    texts = [mutators.text(rng)[:100] for _ in range(5)]
    together = translator.translate_nbest(texts, nbest=1, beam=2, max_length_offset=5)
    for text, (found,) in zip(texts, together, strict=True):
        ((alone,),) = translator.translate_nbest([text], nbest=1, beam=2, max_length_offset=5)
        # Rounding may decide ties between hypotheses differently.
        assert found.text == alone.text or math.isclose(found.score, alone.score, abs_tol=1e-4)
        assert "\n" not in found.text


# Regression tests for faults found by fuzzing.


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("[" * 5000, "nested too deeply"),
        ("a: &a [x]\nb: &b [*a, *a]", "anchors, aliases and tags are not supported"),
        ("model: &a {<<: *a}", "anchors, aliases and tags are not supported"),
        ("seed: !!int ''", "anchors, aliases and tags are not supported"),
        ("seed: !!bool x", "anchors, aliases and tags are not supported"),
        ("seed: 1" + "0" * 4000, "a number of more than 64 bits"),
        ("seed: 0x" + "f" * 5000, "is not a decimal number"),
        ("train: {lr_factor: 9223372036854775808}", "a number of more than 64 bits"),
        ("train: {lr_factor: " + ":".join(["59"] * 300) + ".5}", "not YAML"),
        ("x" * 100_001, "not a configuration: more than 100000 characters"),
        ('base: "a\\0b"', "base=.* must be text without control characters"),
        ('run_dir: "\\ud800"', "run_dir=.* must be text without control characters"),
        ("run_dir: ''", "run_dir must not be empty"),
        ("data: {corpus: ''}", r"data\.corpus must not be empty"),
        ("base: /dev/zero", "which is the base of .*: not a regular file"),
        ("base: 3", "base must be the name of a YAML file, got 3"),
        ("model: {num_layers: 1001}", r"model\.num_layers=1001 must be at most 1000"),
        ("model: {d_ff: 1048577}", r"model\.d_ff=1048577 must be at most 1048576"),
        ("train: {num_threads: 1025}", r"train\.num_threads=1025 must be at most 1024"),
        ("search: {beam: 1001}", r"search\.beam=1001 must be at most 1000"),
        ("search: {alpha: 10.5}", r"search\.alpha=10\.5 must be at most 10"),
        ("search: {max_length_offset: 10001}", r"search\.max_length_offset=10001 must be at most 10000"),
    ],
)
def test_configurations_beyond_the_limits_are_refused(tmp_path: Path, content: str, pattern: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ConfigError, match=pattern):
        load_config(tmp_path / "a.yaml")


def test_chains_of_bases_are_limited(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\n")
    (tmp_path / "30.yaml").write_text("seed: 7\n")
    assert load_config(tmp_path / "21.yaml").seed == 7
    with pytest.raises(ConfigError, match=r"0\.yaml is based on .*: remove one `base:`"):
        load_config(tmp_path / "0.yaml")


def test_an_error_can_name_a_file_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stderr", stream)
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\n"))

    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda: path.open().close())
    stream.flush()
    assert stream.buffer.getvalue().decode() == f"error: {tmp_path}/\\udcff\\n: No such file or directory\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_are_limited_in_length(tmp_path: Path, suffix: str) -> None:
    data = b"one\n" + bytes((1 << 22) + 1)
    path = tmp_path / f"text{suffix}"
    path.write_bytes(gzip.compress(data, 1) if suffix else data)
    with pytest.raises(DataError, match=r"line 2: longer than 4194304 bytes: is it text\?$"):
        list(read_lines(path))


def test_repairing_deep_trees_takes_linear_time() -> None:
    depth = 20_000  # searching all open brackets for each closing one took minutes
    sequence = " ".join([*(f"(X{i}" for i in range(depth)), "XX", *(f")X{i}" for i in reversed(range(depth)))])
    assert [leaf.word for leaf in leaves(restore(sequence, ["word"]))] == ["word"]


RECORD = {"kind": "train", "step": 3, "loss": 0.5}


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"3",
        b"[]",
        b"{}",
        b"[" * 9000,
        b'{"kind": 1, "step": 1}',
        b'{"kind": "train", "step": 1, "nll": "x"}',
        b'{"kind": "train", "step": 1, "nll": 9e999999999999999999}'[:-1],
        b'{"kind": "train", "step": ' + b"9" * 30 + b"}",
    ],
)
def test_malformed_lines_of_the_metrics_are_skipped(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(line + b"\n" + json.dumps(RECORD).encode() + b"\n")
    assert read_metrics(tmp_path) == [RECORD]


@pytest.mark.parametrize("value", ["x", None, True, -1, 10**400, float("nan"), float("inf"), "\x1b[2J"])
@pytest.mark.parametrize("key", ["nll", "steps", "row", "config"])
def test_a_score_of_an_unexpected_type_is_an_error(tmp_path: Path, key: str, value: object) -> None:
    result: dict[str, object] = {
        "row": "base", "seed": 1, "steps": 7, "parameters": 9, "minutes": 1.5, "nll": 1.5, "bleu": 2.5,
        "signature": "s", "tokenize": "13a", "config": Config().flat(),
    }  # fmt: skip
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "score.json").write_text(json.dumps(result))
    assert len(read_results(tmp_path)) == 1
    if (key, value) == ("row", "x"):
        return
    (tmp_path / "a" / "score.json").write_text(json.dumps(result | {key: value}))
    with pytest.raises(CheckpointError, match=r"score\.json: not a result of this version"):
        read_results(tmp_path)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["one two three four"] * 3, 23)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("meta.json", b"[]"),
        ("meta.json", b'{"num_pairs": 2, "dropped": {}, "num_unknown": 0, "dtype": "object"}'),
        ("meta.json", b'{"num_pairs": "2", "dropped": {}, "num_unknown": 0, "dtype": "uint16"}'),
        ("meta.json", b'{"num_pairs": 2, "dropped": {}, "num_unknown": null, "dtype": "uint16"}'),
        ("meta.json", b'{"num_pairs": 2, "dropped": {}, "dtype": "uint16"}'),
        ("meta.json", b"\xff"),
        ("src.lengths.npy", b"no array"),
        ("src.lengths.npy", b"\x93NUMPY\x01\x00\x04\x00{'a\n"),
        ("tgt.lengths.npy", np.lib.format.magic(1, 0) + b"\x00\x00"),
        ("src.ids", b""),
        ("tgt.ids", None),
    ],
)
def test_a_damaged_cache_is_named(tmp_path: Path, tokenizer: Tokenizer, name: str, content: bytes | None) -> None:
    corpus = Corpus("pairs", "pairs", lambda: iter([("one", "two"), ("three", "four")]))
    assert len(encode_corpus(corpus, tokenizer, tmp_path)) == 2
    (path,) = tmp_path.glob(f"*/{name}")
    path.write_bytes(b"\xff" * path.stat().st_size if content is None else content)
    with pytest.raises(DataError, match=r"damaged \(.*\); delete it: it will be rebuilt$"):
        encode_corpus(corpus, tokenizer, tmp_path)


def test_a_model_that_does_not_match_its_weights_is_not_built(trained_run: Path, tmp_path: Path) -> None:
    last = max((trained_run / "checkpoints").iterdir())
    shutil.copytree(last, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS"))
    path = tmp_path / "model" / "config.yaml"
    path.write_text(path.read_text().replace("d_ff: 29", "d_ff: 1048576").replace("d_k: 7", "d_k: 1048576"))
    with pytest.raises(CheckpointError, match="vocabulary or model size differs"):
        Translator.load(tmp_path / "model")

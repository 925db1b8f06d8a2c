"""One Marian model by three engines: each form of it translates alike, and the rows are those of the measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarking import marian, marian_engines
from benchmarking.marian import PRECISIONS, Speed, Task, benchmark_marian, in_process
from benchmarking.marian_models import NUM_PIECES, SIZES, make_tokenizer, write_models
from benchmarking.peers.peer import PeerError
from drawing import kept_results

from transformer.config import ModelConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import UNK_ID

TINY = ModelConfig(
    **{"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29, "activation": "swish", "norm_eps": 1e-5},
    attention_bias=True,
    output_bias=True,
)
LENGTH = 13


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("marian")
    write_models(directory, model=TINY, num_pieces=1511)
    return directory


def test_the_sizes_are_those_of_opus_mt() -> None:
    assert (SIZES.d_model, SIZES.num_heads, SIZES.d_ff, SIZES.num_layers) == (512, 8, 2048, 6)
    assert NUM_PIECES == 58_101 + 1


def test_the_vocabulary_has_the_given_size_and_knows_the_lines() -> None:
    tokenizer = make_tokenizer(1511)
    lines = [source for source, _ in builtin_pairs("test", 97)]
    ids = tokenizer.encode(lines)
    assert len(tokenizer) == 1511
    assert not [line for line, x in zip(lines, ids, strict=True) if UNK_ID in x]
    assert tokenizer.decode(ids) == lines


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beam", [1, 2])
def test_each_engine_makes_outputs_of_the_length_and_greedily_the_same(models: Path, beam: int) -> None:
    for package in ("transformers", "ctranslate2"):
        pytest.importorskip(package)
    lines, found = [source for source, _ in builtin_pairs("test", 3)], {}
    for engine in PRECISIONS:
        task = SimpleNamespace(directory=str(models / engine), precision="fp32", beam=beam, threads=1, length=LENGTH)
        found[engine], number = marian_engines.ENGINES[engine](task)(lines)
        assert number in (3 * LENGTH, 3 * (LENGTH - 1))
    if beam == 1:  # but for the last token, which may be </s> for some
        texts = {engine: [text[:9] for text in texts] for engine, texts in found.items()}
        assert texts["transformers"] == texts["ctranslate2"] == texts["this"]


def test_a_process_prints_its_time_and_the_length_of_outputs(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    marian.write_lines(tmp_path / "lines", 5)
    batches: list[int] = []

    def load(task: SimpleNamespace) -> Any:
        assert task.threads == 1

        def translate(texts: list[str]) -> tuple[list[str], int]:
            batches.append(len(texts))
            return texts, len(texts) * LENGTH

        return translate

    monkeypatch.setitem(marian_engines.ENGINES, "this", load)
    task = {"engine": "this", "directory": str(models), "lines": str(tmp_path / "lines"), "batch": 2, "threads": 1}
    monkeypatch.setattr(sys, "argv", ["marian_engines", json.dumps(task)])
    marian_engines.main()
    found = json.loads(capsys.readouterr().out)
    assert batches == [2, 2, 2, 1], "after a warm-up"
    assert found["tokens_per_sentence"] == LENGTH
    assert found["seconds"] > 0


def test_the_longest_lines_come_first(tmp_path: Path) -> None:
    marian.write_lines(tmp_path / "lines", 23)
    lengths = list(map(len, (tmp_path / "lines").read_text().splitlines()))
    assert (len(lengths), lengths) == (23, sorted(lengths, reverse=True))


OPTIONS: dict[str, Any] = {"beams": [4, 1], "rounds": 3, "sentences": 5, "batch": 2, "length": LENGTH, "threads": 1}


def test_engines_are_measured_in_turn_and_rows_have_the_median(tmp_path: Path) -> None:
    measured: list[tuple[str, str, int]] = []
    speeds = iter(range(1, 1000))

    def measure(task: Task, sentences: int) -> Speed:
        measured.append((task.engine, task.precision, task.beam))
        assert (sentences, task.directory) == (5, str(tmp_path / task.engine))
        if task.engine == "ctranslate2" and task.precision == "int8":
            raise PeerError("no such thing")
        return Speed(next(speeds), 0.5)

    lines: list[str] = []
    report = benchmark_marian(tmp_path, **OPTIONS, log=lines.append, measure=measure)
    one_round = [(engine, precision, 4) for engine, found in PRECISIONS.items() for precision in found]
    assert measured[:6] == one_round
    assert len(measured) == 12 + 2 * 10, "what failed is not tried again"
    rows = report["rows"]
    assert [(row["engine"], row["precision"], row["beam"]) for row in rows[:5]] == one_round[:5]
    assert [rows[0][name] for name in ("median", "lowest", "highest")] == [11, 1, 21]
    assert report["left_out"] == [{"of": f"ctranslate2 int8 beam {beam}", "reason": "no such thing"} for beam in (4, 1)]
    assert lines[0] == "round 1 of 3: this bf16 beam 4: 1 sentences/s"
    assert lines[5] == "ctranslate2 int8 beam 4: left out: no such thing"


@pytest.mark.parametrize(("tokens", "is_right"), [(LENGTH, True), (LENGTH - 1, True), (LENGTH - 2, False)])
def test_outputs_of_another_length_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, is_right: bool
) -> None:
    output = json.dumps({"seconds": 0.25, "cpu_seconds": 0.2, "tokens_per_sentence": tokens})
    monkeypatch.setattr(marian, "run", lambda *_, **__: SimpleNamespace(output=output, peak_memory_gib=0.5))
    task = Task("this", str(tmp_path), str(tmp_path / "lines"), "fp32", beam=1, threads=1, batch=2, length=LENGTH)
    if is_right:
        assert in_process(task, 5) == Speed(20, 0.5)
    else:
        with pytest.raises(PeerError, match=r"^its outputs have 11 tokens, not 13$"):
            in_process(task, 5)


def test_the_table_compares_with_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(engine: str, precision: str, median: float) -> dict[str, Any]:
        ends = {"median": median, "lowest": median, "highest": median, "peak_memory_gib": 1.26}
        return {"engine": engine, "title": f"{engine} 1.0", "precision": precision, "beam": 4, **ends}

    kept = {"date": "2026-03-04", "commit": "abc1234", "torch": "2.13.0", "processor": {"name": "Chip"}, "cpus": 2}
    kept |= {"rounds": 3, "rows": [row("this", "bf16", 9), row("transformers", "fp32", 3), row("other", "int8", 12)]}
    (tmp_path / "marian.json").write_text(json.dumps(kept))
    monkeypatch.setattr(kept_results, "RESULTS", tmp_path)
    assert kept_results.marian().splitlines()[-5:] == [
        "| | beam | sentences/s | against Hugging Face | peak memory, GiB |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| this 1.0, bfloat16 | 4 | 9.0 | 3.00 times | 1.3 |",
        "| transformers 1.0, float32 | 4 | 3.0 | | 1.3 |",
        "| other 1.0, int8 | 4 | 12.0 | 4.00 times | 1.3 |",
    ]

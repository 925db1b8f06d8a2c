"""Tables and sentences from kept figures that are known."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarking.peers.table import decoding, decoding_ratios, figure, machine, times, training, training_ratios
from drawing import kept_results

from transformer.config import load_config


def row(what: str, size: str, peer: str, precision: str, values: tuple[float, float, float], **other: Any) -> Any:
    median, lowest, highest = values
    ends = {"median": median, "lowest": lowest, "highest": highest, "peak_memory_gib": 1.26}
    return {"what": what, "size": size, "beam": None, "peer": peer, "title": f"{peer} 1.0", "precision": precision} | (
        ends | other
    )


KEPT: dict[str, Any] = {
    "date": "2026-03-04",
    "commit": "abc1234",
    "torch": "2.13.0",
    "processor": {"name": "Chip", "family": "7", "model": "5", "instructions": "avx2"},
    "cpus": 2,
    "rounds": 3,
    "rows": [
        row("train", "small", "this", "bf16", (4000, 3000, 4400), title="this"),
        row("train", "small", "this", "fp32", (2000, 2000, 2000), title="this"),
        row("train", "small", "plain", "bf16", (2500, 2500, 2500)),
        row("train", "small", "fairseq", "fp32", (1600, 1100, 2000)),
        row("train", "small", "marian", "bf16", (2000, 1500, 2000)),
        row("train", "base", "this", "bf16", (99.96, 90.04, 110), title="this"),
        row("decode", "small", "this", "bf16", (300, 300, 300), beam=1, title="this"),
        row("decode", "small", "this", "fp32", (150, 150, 150), beam=1, title="this"),
        row("decode", "small", "this", "int8", (240, 240, 240), beam=1, title="this"),
        row("decode", "small", "fairseq", "fp32", (75, 75, 75), beam=1),
        row("decode", "small", "ctranslate2", "fp32", (200, 200, 200), beam=1),
        row("decode", "small", "ctranslate2", "int8", (480, 480, 480), beam=1),
        row("decode", "small", "this", "bf16", (30, 30, 30), beam=4, title="this"),
    ],
}


def test_training_has_a_row_for_each_toolkit_and_precision() -> None:
    header, rows = training(KEPT)
    assert header == ["", "small, tokens/s", "base, tokens/s", "peak memory, small / base, GiB"]
    assert rows == [
        ["this, bfloat16", "4,000 (3,000 to 4,400)", "100.0 (90.0 to 110.0)", "1.3 / 1.3"],
        ["this, float32", "2,000", "–", "1.3 / –"],
        ["plain 1.0, bfloat16", "2,500", "–", "1.3 / –"],
        ["fairseq 1.0, float32", "1,600 (1,100 to 2,000)", "–", "1.3 / –"],
        ["marian 1.0, bfloat16", "2,000 (1,500 to 2,000)", "–", "1.3 / –"],
    ]


def test_decoding_has_a_column_for_each_size_and_beam() -> None:
    header, rows = decoding(KEPT)
    assert header == ["", "small, greedy", "small, beam 4"]
    assert rows[0] == ["this, bfloat16", "300", "30.0"]
    assert rows[-1] == ["ctranslate2 1.0, int8", "480", "–"]


def test_ratios_are_to_the_fastest_toolkit_and_to_the_same_precision() -> None:
    assert list(training_ratios(KEPT)) == [
        "- small: in bfloat16 2.00 times (1.50 to 2.93) marian 1.0 in bfloat16, 1.60 times (1.20 to 1.76) plain 1.0 in "
        "bfloat16; in float32 1.25 times (1.00 to 1.82) fairseq 1.0 in float32.\n"
    ]
    assert list(decoding_ratios(KEPT)) == [
        "- small, greedy: in bfloat16 4.00 times fairseq 1.0 in float32, 1.50 times ctranslate2 1.0 in float32; in "
        "float32 2.00 times fairseq 1.0 in float32, 0.75 times ctranslate2 1.0 in float32; in int8 0.50 times "
        "ctranslate2 1.0 in int8.\n"
    ]


def test_a_ratio_has_the_extremes_of_two_runs() -> None:
    slow, fast = (row("train", "small", "x", "fp32", values) for values in ((2, 1, 4), (8, 5, 10)))
    assert times(slow, fast) == "0.25 times (0.10 to 0.80)"


@pytest.mark.parametrize(("value", "shown"), [(1234.6, "1,235"), (99.94, "99.9"), (3.25, "3.2")])
def test_small_figures_have_a_decimal(value: float, shown: str) -> None:
    assert figure(row("train", "small", "x", "fp32", (value, value, value))) == shown


def test_the_machine_is_named() -> None:
    assert machine(KEPT) == (
        "Processor: Chip (family 7, model 5), 2 CPUs, instructions avx2; torch 2.13.0; 4 March 2026, commit abc1234. "
        "Medians of 3 rounds, with their range.\n"
    )
    assert machine(KEPT | {"processor": {"name": "Chip"}}).startswith("Processor: Chip, 2 CPUs, instructions unknown;")


def test_the_blocks_of_the_documents_are_made_from_kept_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "load", lambda name: {"peers.json": KEPT}[name])
    shown = kept_results.peers_training()
    assert "| this, bfloat16 | 4,000 (3,000 to 4,400) | 100.0 (90.0 to 110.0) | 1.3 / 1.3 |\n" in shown
    assert shown.endswith("in float32.\n")
    assert "| | small, greedy | small, beam 4 |\n| --- | ---: | ---: |\n" in kept_results.peers_decoding()


def test_configurations_of_both_sizes_are_there() -> None:
    from benchmarking.peers.ours import config_of

    assert [load_config(config_of(size), []).model.d_model for size in ("small", "base")] == [256, 512]

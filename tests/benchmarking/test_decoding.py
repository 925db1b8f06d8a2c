"""Forced lengths are real, counts are exact, and the observed search is the users'."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarking.decoding import Observer, benchmark_decoding, load_translator, peak_decoding_speed
from benchmarking.flops import Product, Work

from transformer.config import ModelConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import EOS_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference import search
from transformer.inference.translator import Translator

TEXTS = [source for source, _ in itertools.islice(builtin_pairs("test", 7), 7)]


@pytest.fixture
def translator(trained_run: Path) -> Translator:
    return Translator.load(trained_run, device="cpu")


def remember_ids(translator: Translator) -> list[list[int]]:
    """Collects the ids of every translation that the translator will make."""
    seen: list[list[int]] = []
    to_text = translator.tokenizer.decode

    def decode(ids: Any) -> list[str]:
        seen.extend(list(map(int, sequence)) for sequence in ids)
        return to_text(ids)

    translator.tokenizer.decode = decode  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(
    ("beam", "length"),
    [
        (1, 2),
        (5, 1),
        (2, 61),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 1), (2, 1), (2, 2), (5, 2), (1, 61), (5, 61))),
    ],
)
def test_every_output_has_the_forced_length(translator: Translator, beam: int, length: int) -> None:
    seen = remember_ids(translator)
    Observer(translator, length)
    translator.translate(TEXTS, beam=beam, max_length_offset=61)
    assert [len(ids) for ids in seen] == [length] * len(TEXTS)
    assert all(ids.index(EOS_ID) == length - 1 for ids in seen)


def test_an_observer_changes_no_translation(translator: Translator, trained_run: Path) -> None:
    seen = remember_ids(translator)
    observer = Observer(translator)
    expected = Translator.load(trained_run, device="cpu").translate(TEXTS)
    assert translator.translate(TEXTS) == expected
    assert observer.output_tokens == sum(map(len, seen))


def test_work_is_counted_by_hand(translator: Translator) -> None:
    length, beam = 5, 3
    observer = Observer(translator, length)
    translator.translate(TEXTS, beam=beam)
    lengths = [len(ids) + 1 for ids in translator.tokenizer.encode(TEXTS)]
    # One hypothesis at the first position, `beam` at all others, for each sentence.
    hypotheses = [1, *[beam] * (length - 1)]
    assert observer.work == Work(
        sentences=len(TEXTS),
        source_tokens=sum(lengths),
        target_tokens=len(TEXTS) * sum(hypotheses),
        source_pairs=sum(n * n for n in lengths),
        target_pairs=len(TEXTS) * sum(position * width for position, width in enumerate(hypotheses, start=1)),
        cross_pairs=sum(hypotheses) * sum(lengths),
    )
    assert observer.mean_rows == (sum(lengths), round(len(TEXTS) * sum(hypotheses) / length))


@pytest.mark.parametrize("size", [{}, {"batch_sentences": 3}, {"batch_tokens": 29}])
def test_a_report_is_consistent_in_itself(translator: Translator, size: dict[str, int]) -> None:
    model = ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29, d_k=7, d_v=5)
    report = benchmark_decoding(translator, model, [*TEXTS, " "], length=11, beam=2, repeat=2, peak_s=0.003, **size)
    assert (report["sentences"], report["output_tokens_per_sentence"]) == (len(TEXTS), 11)
    assert report["tokens_per_s"] == pytest.approx(11 * report["sentences_per_s"])
    assert report["slowest_sentences_per_s"] <= report["sentences_per_s"] <= report["fastest_sentences_per_s"]
    assert list(report["phases"]) == ["encoder", "decoder", "logits", "search and text"]
    assert sum(report["phases"].values()) == pytest.approx(1)
    assert all(share > 0 for share in report["phases"].values())
    assert report["fraction_of_peak"] > 0


def test_cpu_seconds_are_those_of_the_process(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 2)  # each repetition takes 2 s
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    report = benchmark_decoding(translator, ModelConfig(d_model=22, num_heads=2), TEXTS, length=3, beam=1, peak_s=0)
    assert report["sentences_per_cpu_s"] == len(TEXTS) / 2


@pytest.mark.parametrize(("size", "expected"), [(3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_sentences_are_batched_as_asked(
    translator: Translator, size: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def encode(src: torch.Tensor) -> Any:
        batches.append(len(src))
        return original(src)

    original = translator.model.encode
    monkeypatch.setattr(translator.model, "encode", encode)
    benchmark_decoding(translator, ModelConfig(), TEXTS, length=2, batch_sentences=size, repeat=1, peak_s=0)
    assert batches == [expected[0], *expected], "one to warm up"


def test_the_search_is_the_one_that_users_run(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = search.beam_search

    def spy(*arguments: Any, **options: Any) -> Any:
        calls.append(options["beam"])
        return original(*arguments, **options)

    monkeypatch.setattr("transformer.inference.search_requests.beam_search", spy)
    benchmark_decoding(translator, ModelConfig(), TEXTS, length=2, beam=5, repeat=1, peak_s=0)
    assert set(calls) == {5}


def test_nothing_to_translate_is_an_error(translator: Translator) -> None:
    with pytest.raises(DataError, match="there is nothing to translate"):
        benchmark_decoding(translator, ModelConfig(), ["", "  "])


def test_peak_decoding_speed_is_that_of_the_products_in_both_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {(13, 3, 5): 10.0, (17, 3, 5): 20.0, (17, 3, 11): 40.0}
    monkeypatch.setattr(
        "benchmarking.decoding.forward_rate", lambda rows, inputs, outputs, *_: rates[rows, inputs, outputs]
    )
    products = [Product(3, 5, per_source=2, per_target=7), Product(3, 11, per_source=0, per_target=1)]
    work = Work(sentences=4, source_tokens=6, target_tokens=9)
    seconds = 30 * 2 * 6 / 10 + 30 * 7 * 9 / 20 + 66 * 9 / 40
    found = peak_decoding_speed(products, work, (13, 17), torch.float32, torch.device("cpu"), 1.0)
    assert found == pytest.approx(4 / seconds)


def test_a_configuration_gives_an_untrained_model_and_a_run_its_own(trained_run: Path) -> None:
    yaml = trained_run / "config.yaml"
    config, untrained = load_translator(yaml, ["model.d_ff=31", "search.beam=2"], device="cpu", precision="bf16")
    assert (config.model.d_ff, untrained.search.beam, len(untrained.tokenizer)) == (31, 2, 307)
    assert untrained.model.embedding.weight.dtype == torch.bfloat16
    config, trained = load_translator(trained_run, [], device="cpu", precision="fp32")
    assert config.model.d_ff == 29
    assert trained.tokenizer.model == Tokenizer.load(trained_run / "tokenizer.model").model


def test_a_run_takes_no_overrides(trained_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a run: model\.d_ff=31 cannot change it"):
        load_translator(trained_run, ["model.d_ff=31"], device="cpu", precision="fp32")

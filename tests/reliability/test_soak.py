"""A short soak test with real processes."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from memory_growth import Sample, memory_growth

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
SOAK = Path(__file__).with_name("soak.py")


def soak(*arguments: object, **constants: object) -> int:
    module = runpy.run_path(str(SOAK))
    module["main"].__globals__.update(constants)
    return int(module["main"]([str(argument) for argument in arguments]))


def table(printed: str) -> dict[str, str]:
    return {row[:18].strip(): row[19:] for row in printed.splitlines()}


@pytest.mark.slow
def test_a_killed_translation_equals_an_undisturbed_one(
    trained_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--dir", tmp_path, "translate", "--run", trained_run, "--lines", 5003, "--kills", 1)
    soak(*arguments, EVERY_S=0.005, LONG_LINE="A man is sleeping. " * 1031)
    rows = table(capfd.readouterr().out)
    assert rows["a line of 10 MB"] == "refused by its number before any was translated"
    assert rows["undisturbed"].startswith("status 0, ")
    assert re.fullmatch(r"SIG\w+ after [\d,]+ \(-?\d+\)", rows["stopped by"])
    assert rows["after restarts"] == "the same bytes as undisturbed"
    assert rows["lines out"] == "as many as in"
    assert {"rss_mib", "num_files", "num_threads", "verdict"} <= rows.keys()


@pytest.mark.slow
def test_training_is_monitored_until_its_time_is_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soak("--dir", tmp_path, "train", "--minutes", 0.02, EVERY_S=0.02)
    rows = table(capfd.readouterr().out)
    assert re.fullmatch(r"0\.02 minutes, [\d,]+ updates, \d+ validations with BLEU, status 143", rows["trained"])
    assert {"rss_mib", "num_files", "num_threads", "verdict"} <= rows.keys()


def samples(rss: list[float], num_files: list[int], num_threads: list[int]) -> list[Sample]:
    held = zip(rss, num_files, num_threads, strict=True)
    return [Sample(float(i), mib, 0.0, files, threads, i) for i, (mib, files, threads) in enumerate(held)]


def test_growth_compares_quarters_after_a_tenth_to_warm_up() -> None:
    # Of 20 samples 2 warm up; quarters of the other 18 are the samples 2 to 5 and 16 to 19.
    rss = [0.0, 0.0, *[101.0, 103.0, 105.0, 199.0], *[500.0] * 10, *[99.0, 131.0, 137.0, 139.0]]
    found = memory_growth(samples(rss, [9, 9, *[5] * 14, 4, 5, 5, 5], [2] * 20))
    assert found.rss_mib == (104.0, 134.0)
    assert found.num_files == (5, 5)
    assert found.num_threads == (2, 2)
    assert found.is_constant


@pytest.mark.parametrize(
    ("rss", "num_files", "num_threads"),
    [
        ([100.0] * 16 + [133.0] * 4, [5] * 20, [2] * 20),
        ([100.0] * 20, [5] * 19 + [6], [2] * 20),
        ([100.0] * 20, [5] * 20, [2] * 19 + [3]),
    ],
    ids=("memory", "files", "threads"),
)
def test_each_kind_of_growth_is_detected(rss: list[float], num_files: list[int], num_threads: list[int]) -> None:
    assert not memory_growth(samples(rss, num_files, num_threads)).is_constant


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="7 samples are too few to tell growth: at least 8"):
        memory_growth(samples([1.0] * 20, [1] * 20, [1] * 20)[:7])

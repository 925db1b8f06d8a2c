"""Paired tests give sacreBLEU's own numbers, and no small p where sentences cannot tell."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

from transformer.errors import ConfigError, DataError
from transformer.inference import significance
from transformer.inference.scoring import Scorer
from transformer.inference.significance import (
    PairedScores,
    confidence_intervals,
    paired_bootstrap,
    paired_randomization,
    seed,
)

NUM_SENTENCES, NUM_SAMPLES = 41, 53
WORDS = [
    *("der", "die", "Hund", "Katze", "läuft", "schläft", "im", "Park", "über"),
    *("eine", "Wiese,", "kleine", "große", ".", "17", "и", "猫"),
]
CHINESE = "我非常喜欢这只小猫他在公园里看书"


def sentences(rng: random.Random, words: Sequence[str], joint: str = " ") -> list[str]:
    return [joint.join(rng.choices(words, k=rng.randrange(3, 13))) for _ in range(NUM_SENTENCES)]


def noisy(rng: random.Random, lines: Sequence[str], words: Sequence[str], share: float) -> list[str]:
    """The lines with a share of their characters' neighbourhoods replaced; some are empty."""
    changed = []
    for line in lines:
        parts = [rng.choice(words) if rng.random() < share else part for part in line.split(" ")]
        changed.append("" if rng.random() < 0.05 else " ".join(parts))
    return changed


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    rng = random.Random(7)
    reference, chinese = sentences(rng, WORDS), sentences(rng, CHINESE, "")
    return {
        "ref": reference,
        "ref2": noisy(rng, reference, WORDS, 0.3),
        "A": noisy(rng, reference, WORDS, 0.35),
        "B": noisy(rng, reference, WORDS, 0.25),
        "C": noisy(rng, reference, WORDS, 0.4),
        "zh": chinese,
        "zhA": ["".join(noisy(rng, [" ".join(line)], CHINESE, 0.4)[0].split()) for line in chinese],
        "zhB": ["".join(noisy(rng, [" ".join(line)], CHINESE, 0.3)[0].split()) for line in chinese],
    }


def by_sacrebleu(directory: Path, texts: dict[str, list[str]], words: str, **environment: str) -> list[dict[str, Any]]:
    """What sacreBLEU's own command prints; `words` are its arguments, texts by name."""
    for name, lines in texts.items():
        (directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # Its JSON fails for numbers of numpy's type float32.
    main = "import json; json.JSONEncoder.default = lambda _, x: float(x); from sacrebleu.sacrebleu import main; main()"
    command = [sys.executable, "-c", main, *words.split(), "--format", "json"]
    env = {**os.environ, "PYTHONUTF8": "1", **environment}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def assert_equal(found: dict[str, PairedScores], rows: list[dict[str, Any]]) -> None:
    assert [list(row)[1:] for row in rows] == [[one.name for one in found.values()]] * len(rows)
    for one in found.values():
        for mine, row in zip(one.systems, rows, strict=True):
            theirs = row[one.name]
            assert mine.score == theirs["score"]
            assert mine.p == theirs["p_value"]
            assert (mine.mean, mine.ci) == (theirs["mean"], theirs["ci"])


Case = tuple[str, dict[str, Any], dict[str, str]]
CASES: dict[str, Case] = {
    "three systems": ("ref -i A B C -m bleu chrf ter", {"metrics": ("bleu", "chrf", "ter")}, {}),
    "two references, chrF++": (
        "ref ref2 -i A B -m bleu chrf --chrf-word-order 2",
        {"metrics": ("bleu", "chrf++")},
        {},
    ),
    "lowercase": ("ref -i C A -m bleu chrf -lc --chrf-lowercase", {"lowercase": True}, {}),
    "Chinese": ("zh -i zhA zhB -m bleu -tok zh", {"metrics": ("bleu",), "tokenize": "zh"}, {}),
    "another seed": (
        "ref -i A B -m bleu -tok char",
        {"metrics": ("bleu",), "tokenize": "char"},
        {"SACREBLEU_SEED": "3"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("test", "option"),
    [
        (paired_bootstrap, f"--paired-bs --paired-bs-n {NUM_SAMPLES}"),
        (paired_randomization, f"--paired-ar --paired-ar-n {NUM_SAMPLES}"),
    ],
)
def test_numbers_are_those_of_sacrebleus_command(
    texts: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: Callable[..., dict[str, PairedScores]],
    option: str,
    name: str,
) -> None:
    words, options, environment = CASES[name]
    texts = {**texts, "ref2": [line or "leer" for line in texts["ref2"]]}  # the command keeps empty references
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    references, _, rest = words.partition(" -i ")
    systems = {one: texts[one] for one in rest.split(" -m ")[0].split()}
    found = test(systems, [texts[one] for one in references.split()], num_samples=NUM_SAMPLES, **options)
    rows = by_sacrebleu(tmp_path, texts, f"{words} {option}", **environment)
    if test is paired_randomization:  # for which the command has no intervals
        for row in rows:
            for one in found.values():
                index = [system.system for system in one.systems].index(row["system"].removeprefix("Baseline: "))
                row[one.name] |= {"mean": one.systems[index].mean, "ci": one.systems[index].ci}
    assert_equal(found, rows)


def test_intervals_are_those_of_sacrebleu_for_one_system(texts: dict[str, list[str]]) -> None:
    """Both tests give the baseline the interval that `sacrebleu --confidence` computes."""
    metric = CHRF()
    score = metric.corpus_score(texts["A"], [texts["ref"]], n_bootstrap=significance.NUM_RESAMPLES)
    systems = {"A": texts["A"], "B": texts["B"]}
    for found in (
        paired_bootstrap(systems, [texts["ref"]], metrics=("chrf",)),
        paired_randomization(systems, [texts["ref"]], metrics=("chrf",), num_samples=3),
    ):
        baseline = found["chrf"].systems[0]
        assert (baseline.mean, baseline.ci) == pytest.approx((score._mean, score._ci))


def test_intervals_of_a_single_system_are_those_of_the_baseline(texts: dict[str, list[str]]) -> None:
    options: dict[str, Any] = {"metrics": ("bleu", "chrf", "ter"), "lowercase": True, "num_samples": 83}
    alone = confidence_intervals(texts["A"], [texts["ref"]], system="A", **options)
    together = paired_bootstrap({"A": texts["A"], "B": texts["B"]}, [texts["ref"]], **options)
    for name, one in alone.items():
        (row,), baseline = one.systems, together[name].systems[0]
        assert (row.system, row.difference, row.p) == ("A", None, None)
        assert (row.score, row.mean, row.ci) == pytest.approx((baseline.score, baseline.mean, baseline.ci))
        assert "|bs:83|seed:12345|" in one.signature


def test_scores_are_those_of_the_scorer(texts: dict[str, list[str]]) -> None:
    systems = {name: texts[name] for name in "ABC"}
    references, metrics = [texts["ref"], texts["ref2"]], ("ter", "chrf++", "bleu")
    found = paired_bootstrap(systems, references, metrics=metrics, num_samples=5)
    assert list(found) == ["bleu", "chrf++", "ter"]
    for name, lines in systems.items():
        scored = Scorer("13a", metrics).score(lines, references)
        for metric, one in found.items():
            (row,) = (row for row in one.systems if row.system == name)
            assert (row.score, one.name) == (scored[metric].score, scored[metric].name)
            baseline = one.systems[0].score
            assert row.difference == (None if name == "A" else row.score - baseline)
    assert [one.is_error_rate for one in found.values()] == [False, False, True]
    assert "|bs:5|" in found["bleu"].signature
    assert "nrefs:var|" in found["bleu"].signature


@pytest.mark.parametrize("test", [paired_bootstrap, paired_randomization])
def test_the_order_of_other_systems_changes_nothing(
    texts: dict[str, list[str]], test: Callable[..., dict[str, PairedScores]]
) -> None:
    def rows(names: str) -> dict[str, Any]:
        found = test({name: texts[name] for name in names}, [texts["ref"]], metrics=("bleu",), num_samples=29)
        return {row.system: row for row in found["bleu"].systems}

    assert rows("ABC") == rows("ACB")
    assert rows("AB").items() <= rows("ABC").items()


@pytest.mark.parametrize("test", [paired_bootstrap, paired_randomization])
def test_p_is_at_least_what_so_few_sentences_can_tell(
    texts: dict[str, list[str]], test: Callable[..., dict[str, PairedScores]]
) -> None:
    """2 (1/2)^d, of the two extreme signs of d differences; sacreBLEU says 1 / (n + 1) of equal systems."""
    reference = texts["ref"]
    for num_different, least in ((0, 1.0), (1, 1.0), (2, 0.5), (3, 0.25)):
        other = ["Unsinn"] * num_different + reference[num_different:]
        found = test({"A": reference, "B": other}, [reference], metrics=("chrf",), num_samples=999)["chrf"]
        assert found.systems[1].p is not None
        assert found.systems[1].p >= least
        if num_different < 2:
            assert found.systems[1].p == 1
    single = test({"A": ["ein Hund"], "B": ["eine Katze"]}, [["ein Hund"]], num_samples=9)
    assert [one.systems[1].p for one in single.values()] == [1, 1]


@pytest.mark.parametrize("test", [paired_bootstrap, paired_randomization])
def test_p_of_equal_scores_is_1(test: Callable[..., dict[str, PairedScores]]) -> None:
    """Nothing matches, in whatever resample; the lengths differ in each sentence."""
    systems = {"A": ["x"] * NUM_SENTENCES, "B": ["y z"] * NUM_SENTENCES}
    found = test(systems, [["a b c"] * NUM_SENTENCES], metrics=("bleu",), num_samples=99)
    assert (found["bleu"].systems[1].difference, found["bleu"].systems[1].p) == (0, 1)


def test_p_of_a_clear_difference_is_small_and_of_none_is_large(texts: dict[str, list[str]]) -> None:
    rng, reference = random.Random(3), texts["ref"]
    worse = noisy(rng, reference, WORDS, 0.8)
    equal = [noisy(rng, reference, WORDS, 0.3) for _ in range(2)]
    for test in (paired_bootstrap, paired_randomization):
        clear = test({"A": worse, "B": equal[0]}, [reference], num_samples=199)
        assert [one.systems[1].p for one in clear.values()] == [1 / 200] * 2
        unclear = test(dict(zip("AB", equal, strict=True)), [reference], num_samples=199)
        assert all(one.systems[1].p > 0.05 for one in unclear.values())  # type: ignore[operator]


def test_the_randomisation_agrees_with_all_sign_flips(texts: dict[str, list[str]]) -> None:
    """With 9 sentences all 512 assignments can be counted."""
    size = 9
    references, a, b = texts["ref"][:size], texts["A"][:size], texts["C"][:size]
    metric = CHRF()
    stats = [np.array(metric._extract_corpus_statistics(lines, [references])) for lines in (a, b)]

    def difference(chosen: np.ndarray) -> float:
        sides = [np.where(chosen[:, None], one, two).sum(0) for one, two in (stats, stats[::-1])]
        first, second = (metric._compute_score_from_stats(list(side)).score for side in sides)
        return abs(first - second)

    observed = difference(np.ones(size, bool))
    flips = [np.array([number >> i & 1 for i in range(size)], bool) for number in range(2**size)]
    exact = np.mean([difference(chosen) >= observed - 1e-9 for chosen in flips])
    found = paired_randomization({"A": a, "B": b}, [references], metrics=("chrf",), num_samples=4000)
    assert found["chrf"].systems[1].p == pytest.approx(exact, abs=0.03)


def test_progress_counts_every_score(texts: dict[str, list[str]]) -> None:
    shown: list[Any] = []

    @contextmanager
    def stage(what: str, unit: str = "", total: int | None = None) -> Iterator[Callable[[int], None]]:
        shown.extend([what, unit, total, 0])
        yield lambda count: shown.__setitem__(-1, shown[-1] + count)

    for test in (paired_bootstrap, paired_randomization):
        shown.clear()
        systems = {name: texts[name] for name in "ABC"}
        test(systems, [texts["ref"]], metrics=("bleu", "ter"), num_samples=7, stage=stage)
        assert shown[:2] == ["resampling", "scores"]
        assert shown[2] == shown[3] > 0


@pytest.mark.parametrize("value", ["0", "-3", "x", "", "1.5", "²"])
def test_a_seed_that_sacrebleu_would_not_keep_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", value)
    with pytest.raises(ConfigError, match=r"^SACREBLEU_SEED='.*' must be a positive whole number, or none"):
        paired_bootstrap({"A": ["a"], "B": ["b"]}, [["a"]])


def test_the_seed_is_sacrebleus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    assert seed() == "12345"
    monkeypatch.setenv("SACREBLEU_SEED", "None")
    assert seed() == "none"


def test_what_cannot_be_compared_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"A": ["a"], "B": ["b"]}
    with pytest.raises(ConfigError, match="1 systems cannot be compared: give a baseline and at least one other"):
        paired_bootstrap({"A": ["a"]}, [["a"]])
    with pytest.raises(ConfigError, match="num_samples=0 must be a whole number of at least 1"):
        paired_randomization(both, [["a"]], num_samples=0)
    with pytest.raises(DataError, match="2 translations cannot be scored against 1 references"):
        paired_bootstrap({**both, "B": ["b", "c"]}, [["a"]])
    with pytest.raises(DataError, match="there is nothing to score"):
        paired_bootstrap({"A": [], "B": []}, [[]])
    monkeypatch.setattr(significance, "_memory", lambda: 103.0)
    with pytest.raises(DataError, match=r"^1 samples of 1 sentences need 0 GB of memory.*: take fewer samples$"):
        paired_bootstrap(both, [["a"]], num_samples=1)


def test_a_system_without_a_known_memory_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert significance._memory() == float("inf")

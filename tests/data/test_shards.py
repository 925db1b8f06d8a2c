"""Shards: a set is there once and complete, or an error names a file of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from transformer.data.shards import check_shards
from transformer.errors import DataError


def shards(name: str, total: int, *numbers: int, suffix: str = ".csv") -> list[str]:
    return [f"{name}{number:05}-of-{total:05}{suffix}" for number in numbers]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["train.csv", "more.csv"],
        shards("train-", 1, 0),
        shards("train-", 3, 2, 0, 1),
        shards("train-", 3, 3, 1, 2),
        [*shards("news-", 2, 0, 1), *shards("talks-", 3, 0, 1, 2), "train.csv"],
        [*shards("de/train-", 2, 0, 1), *shards("fr/train-", 3, 0, 1, 2)],
        shards("v2-c4-train.", 2, 0, 1, suffix=".json.gz"),
        ["train-00000-of-00002-1a2b.parquet", "train-00001-of-00002-3c4d.parquet"],
        [f"train-{number}-of-11.csv" for number in range(1, 12)],
        ["one-of-2.csv", "2-of.csv"],
    ],
)
def test_complete_sets_are_right_in_any_order_numbered_from_0_or_1(names: list[str]) -> None:
    check_shards(map(Path, names), "here", "mend it")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (shards("train-", 3, 0, 2), r"train-00000-of-00003\.csv is one of 3 shards, of which number 1 is missing"),
        (shards("train-", 3, 1, 0), r"train-00000-of-00003\.csv is one of 3 shards, of which number 2 is missing"),
        (shards("train-", 3, 1, 2), r"train-00001-of-00003\.csv is one of 3 shards, of which number 0 is missing"),
        (shards("train-", 3, 1, 3), r"train-00001-of-00003\.csv is one of 3 shards, of which number 2 is missing"),
        (shards("train-", 2, 0, 1, 2), r"train-00000-of-00002\.csv is one of 2 shards, of which there are 3"),
        (
            [*shards("train-", 2, 0, 1), *shards("train-", 2, 1, suffix="-b.csv")],
            r"train-00000-of-00002\.csv is one of 2 shards, of which there are 3",
        ),
        (
            [*shards("train-", 2, 0, 1), *shards("train-", 1, 0)],
            r"train-00000-of-00001\.csv is of 1 shards, train-00000-of-00002\.csv of 2",
        ),
        ([*shards("a-", 2, 0, 1), *shards("b-", 2, 1)], r"b-00001-of-00002\.csv is one of 2 shards, of which number 0"),
        (["x-0-of-0.csv"], r"x-0-of-0\.csv is one of 0 shards, of which there are 1"),
        (["x-7-of-999999999999999.csv"], r"x-7-of-9+\.csv is one of 9+ shards, of which number 0 is missing"),
    ],
)
def test_a_set_that_is_incomplete_or_there_twice_is_an_error(names: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=rf"^here: {problem}.*; mend it$"):
        check_shards(map(Path, names), "here", "mend it")

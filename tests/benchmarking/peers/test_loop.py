"""The training loop of the peers: every pair once an epoch, within the budget, and timed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarking.peers.peer import Task
from benchmarking.peers.programs.loop import bucket, decode, endless, padded, read_ids, tensors, the_task, train
from benchmarking.peers.programs.plain import Plain
from torch import Tensor


def pairs_of(number: int) -> list[tuple[list[int], list[int]]]:
    order = random.Random(7)
    return [([index] * order.randint(1, 11), [index] * order.randint(1, 11)) for index in range(number)]


def test_every_pair_is_in_one_batch_and_every_batch_within_the_budget() -> None:
    pairs = pairs_of(101)
    batches = bucket(pairs, 31, random.Random(3))
    assert Counter(pair[0][0] for batch in batches for pair in batch) == Counter(range(101))
    for batch in batches:
        assert len(batch) * max(len(side) for pair in batch for side in pair) <= 31


def test_a_pair_beyond_the_budget_is_a_batch_of_its_own() -> None:
    assert bucket([([5] * 3, [5]), ([6], [6])], 2, random.Random(1)) in (
        [[([6], [6])], [([5] * 3, [5])]],
        [[([5] * 3, [5])], [([6], [6])]],
    )


def test_epochs_follow_each_other_in_another_order() -> None:
    pairs = pairs_of(53)
    number = len(bucket(pairs, 31, random.Random(1)))
    found = [pair[0][0] for batch in itertools.islice(endless(pairs, 31, 1), 2 * number) for pair in batch]
    assert Counter(found[:53]) == Counter(found[53:])
    assert found[:53] != found[53:]


def test_targets_are_shifted_and_sides_padded() -> None:
    src, tgt_in, tgt_out = tensors([([5, 3], [6, 7, 3]), ([9, 8, 4, 3], [3])])
    assert src.tolist() == [[5, 3, 0, 0], [9, 8, 4, 3]]
    assert tgt_in.tolist() == [[2, 6, 7], [2, 0, 0]]
    assert tgt_out.tolist() == [[6, 7, 3], [3, 0, 0]]
    assert padded([[5]]).dtype == torch.int64


def test_ids_end_with_the_end_of_the_sentence(task: Task) -> None:
    assert read_ids(str(task.data), "train.src") == [[5, 7, 3], [5, 1, 9, 3]]


def namespace(task: Task) -> SimpleNamespace:
    words = json.dumps(dataclasses.asdict(task), default=str)
    found: SimpleNamespace = json.loads(words, object_hook=lambda values: SimpleNamespace(**values))
    return found


def test_a_task_is_read_from_the_command_line(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", json.dumps(dataclasses.asdict(task), default=str)])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None if number == 1 else pytest.fail())
    found = the_task()
    assert (found.sizes.d_ff, found.data, found.max_tokens) == (23, str(task.data), 13)


def test_only_target_tokens_of_timed_updates_count(
    task: Task, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    task = dataclasses.replace(task, max_tokens=7)
    model = Plain(namespace(task).sizes)
    before = [parameter.clone() for parameter in model.parameters()]
    train(namespace(task), model, model)
    found = json.loads(capsys.readouterr().out)
    # Two batches an epoch, of 2 and 4 target tokens, of which the later three of five updates have 8 or 10.
    assert found["speed"] in (8 / 4, 10 / 4)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert any(not torch.equal(*two) for two in zip(before, model.parameters(), strict=True))


def test_decoding_counts_cpu_seconds_after_a_warm_up(
    task: Task, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    batches: list[Sequence[Any]] = []

    def translate(batch: Sequence[Any]) -> int:
        batches.append(batch)
        return 7 * len(batch)

    decode(namespace(task), ["a", "bbb", "cc", "dddd", "eeeeeee", "ffffff"], translate)
    assert batches == [["eeeeeee", "ffffff", "dddd", "bbb", "cc"]] * 2 + [["a"]]
    assert json.loads(capsys.readouterr().out) == {"speed": 3.0, "tokens_per_sentence": 7.0}


def test_padding_and_the_future_have_no_effect_on_the_plain_model(task: Task) -> None:
    torch.manual_seed(1)
    model = Plain(namespace(task).sizes).eval()
    src, tgt = torch.tensor([[5, 9, 3]]), torch.tensor([[2, 7, 4]])

    def first(source: Tensor, target: Tensor) -> Tensor:
        found: Tensor = model(source, target)[:, :2]
        return found

    expected = first(src, tgt)
    torch.testing.assert_close(first(torch.tensor([[5, 9, 3, 0, 0]]), tgt), expected)
    torch.testing.assert_close(first(src, torch.tensor([[2, 7, 8]])), expected)
    assert not torch.allclose(first(torch.tensor([[5, 8, 3]]), tgt), expected)

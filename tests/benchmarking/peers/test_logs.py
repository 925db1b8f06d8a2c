"""Speeds from the logs of toolkits, with figures that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from benchmarking.peers import fairseq, opennmt
from benchmarking.peers.logs import tokens_per_s
from benchmarking.peers.peer import PeerError


def fairseq_log(updates: Sequence[tuple[float, float]]) -> str:
    lines = [
        "2026-01-02 03:04:05 | INFO | train_inner | "
        + json.dumps(
            {"epoch": 1, "update": 0.01, "wps": str(speed), "ups": "0.5", "wpb": str(tokens), "num_updates": "1"}
        )
        for tokens, speed in updates
    ]
    end = '2026-01-02 03:04:05 | INFO | train | {"epoch": 1, "train_wps": "9", "train_wpb": "9"}'
    return "\n".join(["2026-01-02 | INFO | fairseq.trainer | begin training epoch 1", *lines, end])


def opennmt_log(updates: Sequence[tuple[int, int]]) -> str:
    lines = [
        f"[2026-01-02 03:04:05,678 INFO] Step {step:2d}/{len(updates):5d}; acc: 1.2; ppl: 99.0; xent: 8.9; "
        f"lr: 0.00001; sents:     {240:3d}; bsz: 3396/{tokens:4d}/240; 2300/{speed:3d} tok/s;     15 sec;"
        for step, (tokens, speed) in enumerate(updates, 1)
    ]
    return "\n".join(["[2026-01-02 03:04:05,678 INFO] encoder: 1234", *lines, "[INFO] Saving checkpoint"])


# 3 s, 2 s and 4 s for 6,600 tokens; the first update does not count.
UPDATES = [(9000, 1), (3000, 1000), (1000, 500), (2600, 650)]


def test_tokens_are_divided_by_the_sum_of_their_seconds() -> None:
    assert tokens_per_s(UPDATES, 1, 3) == pytest.approx(6600 / 9)


def test_a_log_is_read_update_by_update() -> None:
    assert fairseq.updates_of(fairseq_log(UPDATES)) == UPDATES
    assert opennmt.updates_of(opennmt_log(UPDATES)) == UPDATES


@pytest.mark.parametrize("updates", [2, 4])
def test_another_number_of_updates_is_an_error(updates: int) -> None:
    with pytest.raises(PeerError, match=rf"^its log has {updates} updates, not 3$"):
        tokens_per_s([(100, 7)] * updates, 1, 2)


def test_a_timed_speed_of_zero_is_an_error() -> None:
    assert tokens_per_s([(100, 0), (100, 7)], 1, 1) == 7
    with pytest.raises(PeerError, match="0 tokens per second"):
        tokens_per_s([(100, 7), (100, 0)], 1, 1)

"""A task with sizes that are distinct primes."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarking.peers.peer import Sizes, Task


@pytest.fixture
def task(tmp_path: Path) -> Task:
    data = tmp_path / "data"
    data.mkdir()
    for name, text in {
        "train.src": "5 7\n5 <unk> 9\n",
        "train.tgt": "6\n8 8 8\n",
        "test.src": "5\n7 9 5\n",
        "test.tgt": "6\n8\n",
        "words.txt": "4\n5\n6\n7\n8\n9\n10\n",
    }.items():
        (data / name).write_text(text, encoding="utf-8")
    sizes = Sizes(vocab_size=11, d_model=34, num_heads=2, d_ff=23, num_layers=3, dropout=0.1, label_smoothing=0.2)
    return Task(
        what="train",
        size="small",
        sizes=sizes,
        data=data,
        work=tmp_path / "work" / "peer" / "small",
        precision="fp32",
        threads=1,
        max_tokens=13,
        updates=3,
        warmup=2,
        sentences=2,
        batch=5,
        length=7,
    )

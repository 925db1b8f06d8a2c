"""CTranslate2 is measured with our weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from benchmarking.decoding import load_translator
from benchmarking.peers.ctranslate2 import CTranslate2
from benchmarking.peers.peer import Sizes, Task


def test_the_weights_are_those_that_this_program_is_measured_with(task: Task) -> None:
    config = Path(__file__).parents[3] / "configs" / "benchmark_small.yaml"
    overrides = ["model.d_model=34", "model.num_heads=2", "model.d_ff=23", "model.num_layers=3", "data.vocab_size=31"]
    (task.data / "train.en").write_text("A man.\nTwo dogs run.\n")
    (task.data / "train.de").write_text("Ein Mann.\nZwei Hunde laufen.\n")
    overrides += [f"data.corpus={task.data}/{{split}}.{{lang}}", f"data.cache_dir={task.work}/cache"]
    loaded, translator = load_translator(config, overrides, device="cpu", precision="fp32")
    here = dataclasses.replace(task, sizes=Sizes(31, 34, 2, 23, 3, 0.1, 0.1), seed=loaded.seed)
    (here.data / "words.txt").write_text("".join(f"{number}\n" for number in range(4, 31)))
    CTranslate2().prepare(Path("python"), here)
    written = (here.work / "model" / "model.bin").read_bytes()
    assert np.asarray(translator.model.embedding.weight.detach()).tobytes() in written
    words = json.loads((here.work / "model" / "shared_vocabulary.json").read_text())
    assert words == ["<pad>", "<unk>", "<s>", "</s>", *map(str, range(4, 31))]

"""Results are bitwise reproducible in any environment, and independent of batches up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from transformer.config import SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.inference.translator import Translation, Translator
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint

SCRIPTS = Path(__file__).parents[1] / "scripts"
# Trains, then translates. Directories are listed backwards on demand.
CHILD = """
import os, runpy, sys
import torch
torch.set_num_threads(1)
backwards, scripts, run_dir, config, pattern, cache, lines, out = sys.argv[1:]
if backwards == "yes":
    listdir, scandir = os.listdir, os.scandir
    class Backwards:
        def __init__(self, *path):
            self.entries = iter(list(scandir(*path))[::-1])
        def __iter__(self): return self
        def __next__(self): return next(self.entries)
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def close(self): pass
    os.listdir = lambda *path: listdir(*path)[::-1]
    os.scandir = Backwards
def script(name, *arguments):
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(os.path.join(scripts, name), run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
script("train.py", config, f"run_dir={run_dir}", f"data.corpus={pattern}", f"data.cache_dir={cache}",
       "train.validation_bleu=true")
script("translate.py", run_dir, lines, "--output", out, "--scores", "--nbest=2", "--precision=fp32", "--device=cpu")
"""
# Tolerance of float32 logits of the order of 10.
FP32_TOLERANCE = 1e-4


def results(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """All saved files and logged values except times."""
    files = [*run.glob("checkpoints/*/*.safetensors"), *run.glob("best/*/*.safetensors"), run / "tokenizer.model"]
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timeless = [{name: x for name, x in event.items() if "_s" not in name and "time" not in name} for event in events]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}, timeless


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_config")
def test_two_processes_train_and_translate_bitwise_equally(tmp_path: Path) -> None:
    """With different hash seeds, locales, time zones, working directories, listing orders, and no shared cache."""
    for i, lang in enumerate(("en", "de")):
        for split in ("train.part", "validation"):
            lines = (pair[i] for pair in builtin_pairs(split.split(".")[0], 397))
            (tmp_path / f"{split}.{lang}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "lines").write_text("".join(f"{line}\n" for line, _ in builtin_pairs("test", 53)))
    surroundings = {
        "first": {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        "second": {"PYTHONHASHSEED": "2", "TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONUTF8": "0"},
    }
    for name, variables in surroundings.items():
        directory = tmp_path / name
        directory.mkdir()
        arguments = ("yes" if name == "second" else "no", SCRIPTS, "run")
        files = ("tiny.yaml", "{split}.{lang}", "cache", "lines")
        ended = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, arguments), *(str(tmp_path / file) for file in files), "out"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
        )
        assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    (saved, events), (other_saved, other_events) = (results(tmp_path / name / "run") for name in surroundings)
    assert len(saved) >= 8
    assert saved == other_saved
    assert events == other_events
    assert any("bleu" in event for event in events)
    assert (tmp_path / "first" / "out").read_bytes() == (tmp_path / "second" / "out").read_bytes()
    assert (tmp_path / "first" / "out").read_bytes().count(b"\n") == 2 * 53


@pytest.fixture(scope="module")
def translator(trained_run: Path) -> Translator:
    """Untrained: after a little training, most outputs would be empty."""
    config, tokenizer, _ = load_checkpoint(trained_run / "best" / "step-00000010")
    torch.manual_seed(5)
    translator = Translator(
        build_model(len(tokenizer), config.model), tokenizer, SearchConfig(beam=3, max_length_offset=7)
    )
    translator.prepack()
    return translator


def logits(translator: Translator, src: Tensor, tgt: Tensor) -> Tensor:
    with torch.no_grad():
        hidden, _ = translator.model.decode(tgt, translator.model.encode(src))
        return translator.logits(hidden)


def test_logits_in_float32_do_not_depend_on_batch_and_threads_beyond_rounding(translator: Translator) -> None:
    generator = torch.Generator().manual_seed(3)
    src, tgt = (torch.randint(4, 300, (37, length), generator=generator) for length in (23, 19))
    together = logits(translator, src, tgt)
    alone = torch.cat([logits(translator, src[i : i + 1], tgt[i : i + 1]) for i in range(len(src))])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        by_two = logits(translator, src, tgt)
    finally:
        torch.set_num_threads(before)
    assert together.abs().max() > 1
    assert (together - alone).abs().max() < FP32_TOLERANCE
    assert (together - by_two).abs().max() < FP32_TOLERANCE


def assert_same_but_for_ties(found: list[list[Translation]], wanted: list[list[Translation]]) -> None:
    for (one,), (other,) in zip(found, wanted, strict=True):
        # A sum over at most some 50 tokens, over its length penalty.
        assert abs(one.score - other.score) < 10 * FP32_TOLERANCE
    assert sum(one.text != other.text for (one,), (other,) in zip(found, wanted, strict=True)) <= 1


def test_translations_do_not_depend_on_batch_order_and_threads_beyond_ties(translator: Translator) -> None:
    texts = [source for source, _ in builtin_pairs("test", 29)]
    wanted = translator.translate_nbest(texts, nbest=1)
    assert len({one.text for (one,) in wanted}) > 15
    assert wanted == translator.translate_nbest(texts, nbest=1), "the same call gives the same bits"
    assert_same_but_for_ties(translator.translate_nbest(texts, nbest=1, batch_tokens=61), wanted)
    assert_same_but_for_ties(translator.translate_nbest(texts[::-1], nbest=1)[::-1], wanted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same_but_for_ties(translator.translate_nbest(texts, nbest=1), wanted)
    finally:
        torch.set_num_threads(before)

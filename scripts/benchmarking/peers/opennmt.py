"""OpenNMT-py 3.5.1, of 2024: its own training command, and its inference engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarking.peers.environments import Environment
from benchmarking.peers.logs import tokens_per_s
from benchmarking.peers.peer import Peer, Sizes, Speed, Task
from benchmarking.peers.processes import Finished, run, run_program

_NEVER = 1_000_000
_LINE = re.compile(r"Step +\d+/ *\d+; .*? bsz: +\d+/ *(\d+)/ *\d+; +\d+/ *(\d+) tok/s")


class OpenNMT(Peer):
    """Trains with onmt.bin.train."""

    name = "opennmt"
    title = "OpenNMT-py 3.5.1"
    environment = Environment(
        "opennmt",
        (
            *("configargparse", "ctranslate2==4.8.5", "flask", "pyahocorasick", "pyonmttok", "pyyaml", "rapidfuzz"),
            *("sacrebleu", "sentencepiece", "six", "tensorboard", "waitress"),
        ),
        alone=("OpenNMT-py==3.5.1",),
        stubs=("spacy", "fasttext"),
    )
    training = ("fp32",)
    decoding = ("fp32",)

    def prepare(self, python: Path, task: Task) -> None:
        """Write its vocabulary; and for decoding, a model, which is that of one update."""
        words = (task.data / "words.txt").read_text(encoding="utf-8")
        task.work.mkdir(parents=True, exist_ok=True)
        (task.work / "words.txt").write_text(words.replace("\n", "\t1\n"), encoding="utf-8")
        if task.what == "decode" and not (done := task.work / "model.complete").is_file():
            self._train(python, task, {"train_steps": 1, "save_checkpoint_steps": 1, "batch_size": 512})
            done.touch()

    def measure(self, python: Path, task: Task) -> Speed:
        """Train or decode."""
        if task.what == "decode":
            return run_program(python, "opennmt_decoding", task)
        finished = self._train(python, task, {"save_model": str(task.work / "trained"), "keep_checkpoint": 1})
        speed = tokens_per_s(updates_of(finished.output), task.warmup, task.updates)
        return Speed(speed, finished.peak_memory_gib)

    def _train(self, python: Path, task: Task, changes: dict[str, Any]) -> Finished:
        path = task.work / "train.yaml"
        path.write_text(json.dumps(training_options(task) | changes), encoding="utf-8")  # JSON is YAML
        return run([python, "-m", "onmt.bin.train", "-config", path], task.threads, task.work)


def training_options(task: Task) -> dict[str, Any]:
    """The configuration of onmt.bin.train."""
    sizes = task.sizes
    return {
        "data": {
            "corpus_1": {"path_src": str(task.data / "train.src"), "path_tgt": str(task.data / "train.tgt")},
            "valid": {"path_src": str(task.data / "test.src"), "path_tgt": str(task.data / "test.tgt")},
        },
        "save_data": str(task.work / "data"),
        "save_model": str(task.work / "model"),
        "src_vocab": str(task.work / "words.txt"),
        "tgt_vocab": str(task.work / "words.txt"),
        "src_vocab_size": sizes.vocab_size,
        "tgt_vocab_size": sizes.vocab_size,
        "share_vocab": True,
        "vocab_size_multiple": 1,
        "train_steps": task.warmup + task.updates,
        "valid_steps": _NEVER,
        "save_checkpoint_steps": _NEVER,
        "report_every": 1,
        "seed": task.seed,
        "world_size": 1,
        "num_workers": 0,
        "bucket_size": 30_000,  # pairs sorted at a time
        "bucket_size_init": 30_000,
        "batch_type": "tokens",
        "batch_size": task.max_tokens,
        "batch_size_multiple": 1,
        "normalization": "tokens",
        "label_smoothing": sizes.label_smoothing,
        "optim": "adam",
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "decay_method": "noam",
        "warmup_steps": 400,
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
        **_model_options(sizes),
    }


def _model_options(sizes: Sizes) -> dict[str, Any]:
    return {
        "encoder_type": "transformer",
        "decoder_type": "transformer",
        "word_vec_size": sizes.d_model,
        "hidden_size": sizes.d_model,
        "layers": sizes.num_layers,
        "transformer_ff": sizes.d_ff,
        "heads": sizes.num_heads,
        "share_embeddings": True,
        "share_decoder_embeddings": True,
        "position_encoding": True,
        "dropout": [sizes.dropout],
        "attention_dropout": [sizes.dropout],
        "param_init": 0,
        "param_init_glorot": True,
    }


def updates_of(output: str) -> list[tuple[float, float]]:
    """Target tokens, and tokens per second, of each update in a log."""
    return [(float(tokens), float(speed)) for tokens, speed in _LINE.findall(output)]

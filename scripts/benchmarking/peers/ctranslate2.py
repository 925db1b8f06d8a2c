"""CTranslate2, which decodes with our weights."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarking.peers.environments import Environment
from benchmarking.peers.peer import Peer, Speed, Task
from benchmarking.peers.processes import run_program
from transformer.interop.ctranslate2 import write_model
from transformer.model.transformer import Transformer

_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


class CTranslate2(Peer):
    """Decodes with our weights."""

    name = "ctranslate2"
    title = "CTranslate2 4.8.5"
    environment = Environment("ctranslate2", ("ctranslate2==4.8.5",))
    decoding = ("fp32", "int8")

    def prepare(self, python: Path, task: Task) -> None:  # noqa: ARG002
        """Write an untrained model of ours."""
        sizes = task.sizes
        torch.manual_seed(task.seed)
        model = Transformer(
            sizes.vocab_size, sizes.d_model, sizes.num_layers, sizes.num_heads, sizes.d_ff, dropout=sizes.dropout
        )
        words = (task.data / "words.txt").read_text(encoding="utf-8").splitlines()
        pieces = [*_SPECIAL, *words]
        write_model(model, pieces, pieces, task.work / "model")

    def measure(self, python: Path, task: Task) -> Speed:
        """Decode; its int8 quantizes the weights as it loads them."""
        return run_program(python, "ctranslate2_decoding", task)

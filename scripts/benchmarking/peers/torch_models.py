"""Models for which the training loop is our own: torch.nn.Transformer, and Hugging Face's Marian."""

from __future__ import annotations

from pathlib import Path

from benchmarking.peers.environments import Environment
from benchmarking.peers.peer import Peer, Speed, Task
from benchmarking.peers.processes import run_program


class Plain(Peer):
    """A plain loop, in the environment of this program."""

    name = "plain"
    title = "a plain loop around `torch.nn.Transformer`"
    training = ("bf16", "fp32")

    def measure(self, python: Path, task: Task) -> Speed:
        """Train."""
        return run_program(python, "plain", task)


class Marian(Peer):
    """Trains in the same plain loop, decodes with its own `generate`."""

    name = "marian"
    title = "Hugging Face Marian (transformers 5.23.0)"
    environment = Environment("marian", ("transformers==5.23.0",))
    training = ("bf16", "fp32")
    decoding = ("fp32",)

    def measure(self, python: Path, task: Task) -> Speed:
        """Train or decode."""
        return run_program(python, "marian", task)

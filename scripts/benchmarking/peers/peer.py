"""What is measured of a peer, and how a peer is described."""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from benchmarking.peers.environments import Environment
from transformer.errors import UserError

What = Literal["train", "decode"]


class PeerError(UserError):
    """A peer cannot be built, or did not do what was asked."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model, the same for all peers."""

    vocab_size: int
    d_model: int
    num_heads: int
    d_ff: int
    num_layers: int
    dropout: float
    label_smoothing: float


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        what: training or decoding.
        size: the name of the model's size, such as "small".
        sizes: the model.
        data: directory of the prepared text (`benchmarking.peers.data`).
        work: directory for the files of this peer and size, which stay from run to run.
        precision: "fp32", "bf16" or "int8".
        threads: CPU threads.
        max_tokens: padded tokens of a batch in training, the longer side counts.
        updates, warmup: timed updates, and updates before them.
        sentences, batch: sentences to translate, and how many at a time; None is the custom of each toolkit.
        beam: beam size, 1 is greedy.
        length: tokens of every output, </s> included.
        seed: of weights and order.
    """

    what: What
    size: str
    sizes: Sizes
    data: Path
    work: Path
    precision: str
    threads: int
    max_tokens: int = 4096
    updates: int = 1
    warmup: int = 0
    sentences: int = 1
    batch: int | None = None
    beam: int = 1
    length: int = 20
    seed: int = 1

    def with_precision(self, precision: str) -> Task:
        """The same with another precision."""
        return dataclasses.replace(self, precision=precision)


@dataclass(frozen=True)
class Speed:
    """Target tokens per second in training, sentences per CPU second in decoding; and peak memory."""

    value: float
    peak_memory_gib: float


class Peer(abc.ABC):
    """A toolkit.

    Attributes:
        name: on the command line.
        title: in tables.
        environment: its packages; None for the environment of this program.
        training, decoding: the precisions that are measured; none if it cannot do it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    environment: ClassVar[Environment | None] = None
    training: ClassVar[tuple[str, ...]] = ()
    decoding: ClassVar[tuple[str, ...]] = ()

    def prepare(self, python: Path, task: Task) -> None:  # noqa: B027 (most need nothing)
        """Make the files in `task.work` that `measure` needs, unless they are there."""

    @abc.abstractmethod
    def measure(self, python: Path, task: Task) -> Speed:
        """Run once. PeerError if that fails."""

    def precisions(self, what: What) -> tuple[str, ...]:
        """The precisions that are measured."""
        return self.training if what == "train" else self.decoding

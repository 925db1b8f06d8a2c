"""Fixtures that several rooms share: a configuration that trains in seconds, a run trained with it, a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported here, and for the processes that tests start: they share few cores.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import pytest
import torch

from transformer import progress
from transformer.config import Config, load_config
from transformer.data.builtin import builtin_pairs
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, save_checkpoint
from transformer.training.trainer import Trainer

# Small matrices do not gain from a second thread, and test processes may share the machine.
torch.set_num_threads(1)

# Sizes are small primes where the model allows it.
TINY_YAML = """
seed: 7
model: {d_model: 22, num_layers: 2, num_heads: 2, d_ff: 29, d_k: 7, d_v: 5, dropout: 0.1}
data: {vocab_size: 307}
train: {tokens_per_update: 509, max_tokens: 211, warmup_steps: 13, max_steps: 11, log_steps: 3, validate_steps: 5,
        validation_bleu: false, save_steps: 4, save_minutes: null, keep_checkpoints: 3, precision: fp32, device: cpu}
search: {beam: 3, max_length_offset: 7}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: one of a minute that is left to the end keeps one core busy and the others idle."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(scope="session", autouse=True)
def untuned() -> Iterator[None]:
    """Commands that tests call in their own process leave its allocator as it is: it would keep all freed memory."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("train", "evaluate", "compare", "translate", "document_files", "score", "parse", "serve"):
            patch.setattr(f"transformer.commands.{command}.tune_process", lambda **_: None)
        yield


def write_tiny_config(directory: Path, corpus: str) -> Config:
    """The tiny configuration, with its run and its cache in `directory`."""
    path = directory / "tiny.yaml"
    path.write_text(TINY_YAML)
    places = [f"run_dir={directory / 'run'}", f"data.cache_dir={directory / 'cache'}"]
    return load_config(path, [f"data.corpus={corpus}", *places])


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pattern of files with pairs of the grammar: 397 for training, 53 for validation and for test.

    The builtin corpus has 1,000 for validation, which take longer than the 11 updates.
    """
    directory = tmp_path_factory.mktemp("tiny")
    for split, size in (("train", 397), ("validation", 53), ("test", 53)):
        for lang, sentences in zip(("en", "de"), zip(*builtin_pairs(split, size), strict=True), strict=True):
            (directory / f"{split}.{lang}").write_text("".join(f"{sentence}\n" for sentence in sentences))
    return f"{directory}/{{split}}.{{lang}}"


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_corpus: str) -> Config:
    """Two small layers on a few hundred pairs, 11 updates, in a directory of its own."""
    return write_tiny_config(tmp_path, tiny_corpus)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: str) -> Path:
    """A run directory after the 11 updates of the tiny configuration; read it, do not change it."""
    config = write_tiny_config(tmp_path_factory.mktemp("trained"), tiny_corpus)
    Trainer.from_config(config).fit()
    return Path(config.run_dir)


@pytest.fixture(scope="session")
def babbler(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint: after a little training, all outputs would be empty."""
    config, tokenizer, _ = load_checkpoint(trained_run / "best" / "step-00000010")
    torch.manual_seed(5)
    directory = tmp_path_factory.mktemp("babbler") / "step-00000010"
    save_checkpoint(directory, config, tokenizer, build_model(len(tokenizer), config.model).state_dict())
    return directory


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled and no graph counted before the test, nothing kept after it."""
    from torch._dynamo.utils import counters  # takes long to import

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Terminal:
    """A terminal of some columns: what a program writes to it, and what it then shows."""

    def __init__(self, columns: int) -> None:
        fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
        self._resize = lambda size: fcntl.ioctl(
            self.program_end, termios.TIOCSWINSZ, size.to_bytes(2, sys.byteorder).join((b"\x18\x00", b"\0\0\0\0"))
        )
        self._screen_end, self.program_end = os.openpty()
        os.set_blocking(self._screen_end, False)
        self.stream = os.fdopen(self.program_end, "w", encoding="utf-8")
        self.resize(columns)
        self.written = ""

    def resize(self, columns: int) -> None:
        self.columns = columns
        self._resize(columns)

    def read(self) -> str:
        """All that has been written."""
        self.stream.flush()
        try:
            while block := os.read(self._screen_end, 1 << 16):
                self.written += block.decode()
        except BlockingIOError:
            pass
        return self.written

    def texts(self) -> list[str]:
        """What stood between two carriage returns or line feeds."""
        return [text.rstrip() for text in re.split(r"[\r\n]+", self.read()) if text.strip()]

    def screen(self) -> list[str]:
        """The lines as they are shown."""
        lines, column = [""], 0
        for character in self.read().replace("\r\n", "\n"):
            if character == "\n":
                lines.append("")
                column = 0
            elif character == "\r":
                column = 0
            else:
                assert column < self.columns, "wraps"
                lines[-1] = f"{lines[-1][:column].ljust(column)}{character}{lines[-1][column + 1 :]}"
                column += 1
        return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Make a terminal of some columns, which becomes stderr."""
    made = []

    def make(columns: int) -> Terminal:
        made.append(Terminal(columns))
        monkeypatch.setattr(sys, "stderr", made[-1].stream)
        return made[-1]

    yield make
    progress._lines.clear()
    for one in made:
        one.stream.close()
        os.close(one._screen_end)

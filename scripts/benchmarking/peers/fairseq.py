"""fairseq 0.12.2, of 2022: its own training command, and its sequence generator."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarking.peers.environments import Change, Environment
from benchmarking.peers.logs import tokens_per_s
from benchmarking.peers.peer import Peer, Speed, Task
from benchmarking.peers.processes import run, run_program

_CHANGES = (
    Change(
        ("fairseq/dataclass/configs.py", "fairseq/models/transformer/transformer_config.py"),
        r"(?m)^(    \w+: )(\w+Config) = \2\(\)$",
        r"\1\2 = field(default_factory=\2)",
        "Python 3.11 refuses mutable defaults",
    ),
    Change(
        ("fairseq/models/transformer/transformer_config.py",),
        r"field\(default=(QuantNoiseConfig)\(\)\)",
        r"field(default_factory=\1)",
        "Python 3.11 refuses mutable defaults",
    ),
    Change(
        ("fairseq/dataclass/initialize.py",),
        r"v = FairseqConfig\.__dataclass_fields__\[k\]\.default\n",
        "v = getattr(FairseqConfig(), k)\n",
        "a default that is made by a factory is no attribute of its field",
    ),
    Change(("fairseq/data/data_utils.py",), r"\bnp\.int\b", "int", "numpy 1.24 removed it"),
    Change(
        ("fairseq/modules/transformer_layer.py",),
        r"(encoder_padding_mask if encoder_padding_mask is not None else attn_mask,\n)",
        r"\1                1 if encoder_padding_mask is not None else 0,\n",
        "torch 2 also asks for the type of the mask: 1 for padding",
    ),
)


class Fairseq(Peer):
    """Trains with fairseq_cli.train."""

    name = "fairseq"
    title = "fairseq 0.12.2"
    environment = Environment(
        "fairseq",
        ("bitarray", "cffi", "cython", "hydra-core", "omegaconf", "regex", "sacrebleu", "tqdm"),
        alone=("fairseq==0.12.2",),
        changes=_CHANGES,
    )
    training = ("fp32",)
    decoding = ("fp32",)

    def prepare(self, python: Path, task: Task) -> None:
        """Write its binary form of the text, which the sizes share."""
        if (done := binary_text(task) / "complete").is_file():
            return
        words = (task.data / "words.txt").read_text(encoding="utf-8")
        dictionary = task.work.parent / "words.txt"
        dictionary.parent.mkdir(parents=True, exist_ok=True)
        dictionary.write_text(words.replace("\n", " 1\n"), encoding="utf-8")
        options = {
            "source-lang": "src",
            "target-lang": "tgt",
            "trainpref": task.data / "train",
            "validpref": task.data / "test",  # not read in training, but asked for
            "destdir": done.parent,
            "srcdict": dictionary,
            "workers": 1,
        }
        words_of = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        run([python, "-m", "fairseq_cli.preprocess", "--joined-dictionary", *words_of], task.threads, task.work)
        done.touch()

    def measure(self, python: Path, task: Task) -> Speed:
        """Train, or decode by a model with random weights."""
        if task.what == "decode":
            return run_program(python, "fairseq_decoding", task, "\n".join(training_arguments(task)))
        finished = run([python, "-m", "fairseq_cli.train", *training_arguments(task)], task.threads, task.work)
        speed = tokens_per_s(updates_of(finished.output), task.warmup, task.updates)
        return Speed(speed, finished.peak_memory_gib)


def binary_text(task: Task) -> Path:
    """The directory of the binary form of the text."""
    return task.work.parent / "binary"


def training_arguments(task: Task) -> list[str]:
    """The command line of fairseq_cli.train; its first word is the directory of the text."""
    sizes = task.sizes
    options: dict[str, object] = {
        "arch": "transformer",
        "encoder-layers": sizes.num_layers,
        "decoder-layers": sizes.num_layers,
        "encoder-embed-dim": sizes.d_model,
        "decoder-embed-dim": sizes.d_model,
        "encoder-ffn-embed-dim": sizes.d_ff,
        "decoder-ffn-embed-dim": sizes.d_ff,
        "encoder-attention-heads": sizes.num_heads,
        "decoder-attention-heads": sizes.num_heads,
        "dropout": sizes.dropout,
        "attention-dropout": sizes.dropout,
        "criterion": "label_smoothed_cross_entropy",
        "label-smoothing": sizes.label_smoothing,
        "optimizer": "adam",
        "adam-betas": "(0.9, 0.98)",
        "lr": 5e-4,
        "lr-scheduler": "inverse_sqrt",
        "warmup-updates": 400,
        "max-tokens": task.max_tokens,
        "required-batch-size-multiple": 1,
        "max-update": task.warmup + task.updates,
        "num-workers": 0,
        "seed": task.seed,
        "log-interval": 1,
        "log-format": "json",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(binary_text(task)), "--cpu", "--share-all-embeddings", "--disable-validation", "--no-save", *words]


def updates_of(output: str) -> list[tuple[float, float]]:
    """Target tokens, and tokens per second, of each update in a log."""
    lines = [json.loads(found) for found in re.findall(r"\| train_inner \| (\{.*\})", output)]
    return [(float(line["wpb"]), float(line["wps"])) for line in lines]

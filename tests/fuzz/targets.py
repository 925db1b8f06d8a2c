"""Everything that reads untrusted input, each as a target of the fuzzer."""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constraint_targets
import corpora_targets
import marian_targets
import mutators
import score_targets
import table_targets
import tokenizer_targets
import torch
import value_mutators
from ablation.report import as_rows, markdown
from ablation.runs import read_results
from command_lines import COMMANDS, end_of
from harness import Case, InvariantError, Stats, fuzz
from safetensors.torch import load_file, save_file

from transformer.commands import inspect as inspect_command
from transformer.commands import tokenizer as tokenizer_command
from transformer.commands.data import main as describe_data
from transformer.config import Config, DataConfig, ModelConfig, SearchConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus, load_split, read_lines
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import UserError
from transformer.inference.sampling import Sampling
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.parsing.f1 import score_outputs
from transformer.parsing.treebank import sentence_pairs
from transformer.parsing.trees import bracketed, read_tree, restore, words
from transformer.training.checkpoint import (
    load_checkpoint,
    resume,
    save_checkpoint,
)
from transformer.training.metrics import read_metrics
from transformer.training.optimizer import adam
from transformer.training.rng import get_rng_state, set_rng_state
from transformer.training.run_directory import checkpoint_name
from transformer.training.training_state import Progress, TrainingState

_SCRIPTS = Path(__file__).parents[2] / "scripts"
_VOCAB_SIZE = 300


@dataclass(frozen=True)
class Target:
    """One target of the fuzzer."""

    case: Case
    share: int  # of a thousand cases
    limit_s: float = 20.0  # per case
    memory: int = 2 << 30  # bytes


def fuzz_target(name: str, cases: int, directory: Path) -> Stats:
    """Run the first cases of one target, with all files and caches in `directory`, in a process of their own."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(directory / "cached")}
    os.chdir(directory)
    target = Targets(directory / "files").all()[name]
    return fuzz(name, target.case, range(cases), seed=7, limit_s=target.limit_s, memory=target.memory)


class Targets:
    """The targets, with the run of a tiny random model that they mutate, written to `directory`."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        self.directory = directory
        pairs = list(builtin_pairs("train", 400))
        self.tokenizer = Tokenizer.train([side for pair in pairs for side in pair], _VOCAB_SIZE)
        self.config = Config(
            model=ModelConfig(d_model=8, num_layers=1, num_heads=2, d_ff=8),
            data=DataConfig(corpus="builtin", vocab_size=_VOCAB_SIZE),
            search=SearchConfig(beam=2, max_length_offset=5),
        )
        self.run = directory / "run"
        self.fingerprints = {"train": "pairs", "validation": "pairs"}
        model = build_model(len(self.tokenizer), self.config.model)
        optimizer = adam(model.parameters(), self.config.train)
        for step in (1, 2):
            _zero_gradient_update(model, optimizer)
            place = self.run / "checkpoints" / checkpoint_name(step)
            progress = Progress(step=step, fingerprints=self.fingerprints)
            state = TrainingState(optimizer, progress, [get_rng_state()])
            save_checkpoint(place, self.config, self.tokenizer, model.state_dict(), state)
        self.checkpoint = self.run / "checkpoints" / "step-00000002"
        self.files = {path.name: path.read_bytes() for path in self.checkpoint.iterdir()}
        self.translator = Translator.load(self.checkpoint, device="cpu", precision="fp32")
        self.corpus = Corpus("pairs", "pairs", lambda: iter(pairs[:50]))
        encode_corpus(self.corpus, self.tokenizer, directory / "cache")
        (self.cache,) = (directory / "cache").iterdir()
        self.mains = {path.stem: runpy.run_path(str(path))["main"] for path in sorted(_SCRIPTS.glob("*.py"))}
        self.mains["data"] = describe_data  # has no script
        self.mains["inspect"] = inspect_command.main  # has none either: its name is a module's that others import
        self.mains["tokenizer"] = tokenizer_command.main

    def all(self) -> dict[str, Target]:
        """The targets by name."""
        return {
            "config": Target(self.read_config, 78),
            "override": Target(self.read_overrides, 220),
            "text file": Target(self.read_text_file, 146),
            "tree": Target(self.read_tree, 131),
            "records": Target(self.read_records, 123),
            "tokenizer": Target(self.load_tokenizer, 12),
            "given tokenizer": Target(tokenizer_targets.take_tokenizer, 12),
            "marian": Target(marian_targets.read_marian, 10, limit_s=60),
            "cache": Target(self.load_cache, 12),
            "checkpoint": Target(self.load_checkpoint, 6, limit_s=60),
            "resumption": Target(self.resume_training, 20),
            "command line": Target(self.run_script, 2, limit_s=120, memory=8 << 30),
            "translation": Target(self.translate, 2, limit_s=60),
            "scores": Target(self.score, 4, limit_s=60),
            "n-best list": Target(score_targets.read_nbest, 40),
            "constraints": Target(self.constrain, 10, limit_s=60),
            "tokenizer training": Target(self.train_tokenizer, 2, limit_s=60),
            "memory": Target(corpora_targets.read_memory, 20),
            "corpora": Target(corpora_targets.read_corpora, 10),
            "table": Target(table_targets.read_table, 60),
            "written table": Target(table_targets.read_written_table, 60),
            "repository": Target(table_targets.read_repository, 10),
            # pyarrow reserves more address space than it uses.
            "parquet": Target(table_targets.read_parquet, 10, memory=8 << 30),
        }

    def read_config(self, rng: random.Random, directory: Path) -> None:
        """A configuration that loads survives a round trip through YAML."""
        names = ("a.yaml", "b.yaml", "c.yaml")
        bases = (
            *names,
            *names,
            "absent.yaml",
            ".",
            "/dev/zero",
            "\0",
            "../" * 50 + "etc/passwd",
            f"{directory}/a.yaml",
        )
        for name in names:
            (directory / name).write_bytes(value_mutators.config_file(rng, bases))
        config = load_config(directory / "a.yaml")
        (directory / "again.yaml").write_text(config.to_yaml(), encoding="utf-8")
        if load_config(directory / "again.yaml", saved=True) != config:
            raise InvariantError("the round trip changed the configuration")

    def read_overrides(self, rng: random.Random, directory: Path) -> None:
        """Overrides are applied to a valid file."""
        path = directory / "valid.yaml"
        path.write_text("seed: 7\n")
        load_config(path, [value_mutators.override(rng) for _ in range(rng.randrange(1, 4))]).to_yaml()

    def read_text_file(self, rng: random.Random, directory: Path) -> None:
        """There are as many lines as line feeds, each as it is in the file; two files are aligned or an error."""
        data = {lang: mutators.text_file(rng) for lang in ("en", "de")}
        if rng.random() < 0.5:
            data["de"] = data["en"]
        suffix = rng.choice(list(mutators.PACK)) if rng.random() < 0.4 else ""
        for lang, content in data.items():
            packed = mutators.packed_file(rng, suffix) if suffix and rng.random() < 0.8 else zlib.compress(content)
            (directory / f"train.{lang}{suffix}").write_bytes(packed if suffix else content)
        if not suffix and rng.random() < 0.5:
            _check_lines(data["en"], list(read_lines(directory / "train.en")))
        pattern = f"{directory}/{{split}}.{{lang}}{suffix}"
        for source, target in load_split(DataConfig(corpus=pattern), "train"):
            if "\n" in source + target:
                raise InvariantError("a line contains a line feed")

    def read_tree(self, rng: random.Random, directory: Path) -> None:
        """Trees keep their words, and any model output is repaired to a tree over its sentence."""
        sequence, sentence = mutators.tree(rng), mutators.text(rng).split() or ["word"]
        if words(restore(sequence, sentence)) != sentence:
            raise InvariantError("the repaired tree has other words")
        (directory / "x.trees").write_text(sequence, encoding="utf-8", newline="\n")
        pairs = list(sentence_pairs(read_lines(directory / "x.trees"), "x.trees"))
        for (source, _), line in zip(pairs, [sequence], strict=False):
            bracketed(read_tree(line))
            if len(source.split("\n")) != 1:
                raise InvariantError("a sentence has several lines")
        if pairs:
            score_outputs([mutators.tree(rng) for _ in pairs], pairs)

    def read_records(self, rng: random.Random, directory: Path) -> None:
        """Malformed metrics and scores are skipped or are errors."""
        steps: list[dict[str, object]] = [
            {"kind": kind, "step": step, "loss": 2.5, "nll": 1.5, "ppl": 4.5, "elapsed_s": 3.5}
            for step, kind in enumerate(("train", "validation"), 1)
        ]
        (directory / "metrics.jsonl").write_bytes(mutators.json_lines(rng, steps))
        for record in read_metrics(directory):
            _ = record["kind"], record["step"] + 1
        result: dict[str, object] = {
            "row": "base",
            "seed": 1,
            "steps": 7,
            "parameters": 9,
            "minutes": 1.5,
            "nll": 1.5,
            "bleu": 2.5,
            "signature": "s",
            "tokenize": "13a",
            "config": Config().flat(),
        }
        for number in range(rng.randrange(1, 4)):
            (directory / f"row{number}").mkdir()
            (directory / f"row{number}" / "score.json").write_bytes(mutators.json_lines(rng, [result]))
        markdown(as_rows(read_results(directory)))

    def load_tokenizer(self, rng: random.Random, directory: Path) -> None:
        """A tokenizer that loads can encode and decode."""
        path = directory / "tokenizer.model"
        path.write_bytes(mutators.sentencepiece_model(rng, self.tokenizer.model))
        tokenizer = Tokenizer.load(path)
        texts = ["A man is sleeping. Ä ½ ﬁ 漢字 😀", *(mutators.text(rng) for _ in range(3))]
        if len(tokenizer.encode(texts)) != len(texts):
            raise InvariantError("the number of texts changed")
        tokenizer.decode([[rng.randrange(len(tokenizer)) for _ in range(20)], list(range(min(len(tokenizer), 500)))])
        if tokenizer.num_characters() > len(tokenizer) or not isinstance(tokenizer.normalization, str):
            raise InvariantError("pieces cannot be counted or the rule cannot be named")

    def train_tokenizer(self, rng: random.Random, directory: Path) -> None:  # noqa: ARG002
        """A tokenizer can be trained on any text, or that is an error."""
        texts = [mutators.text(rng) for _ in range(rng.choice((0, 1, 10)))]
        texts += [source for source, _ in self.corpus] if rng.random() < 0.7 else []
        tokenizer = Tokenizer.train(
            texts,
            rng.choice((8, 200, 300, 600, 1 << 20)),
            [mutators.text(rng)] if rng.random() < 0.2 else [],
            normalization=rng.choice(("minimal", "identity", "nmt_nfkc")),
            character_coverage=rng.choice((1.0, 0.98)),
            byte_fallback=(has_bytes := rng.random() < 0.5),
            tokenizer_type=rng.choice(("bpe", "unigram")),
            user_symbols=[rng.choice((mutators.text(rng), "<2de>", "##"))] if rng.random() < 0.3 else [],
        )
        ids = tokenizer.encode(texts)
        if has_bytes and any(UNK_ID in sequence for sequence in ids):
            raise InvariantError("a piece is unknown, although each byte is a piece")
        if any(len(text.splitlines()) > 1 for text in tokenizer.decode(ids)):
            raise InvariantError("a decoded text has several lines")

    def load_cache(self, rng: random.Random, directory: Path) -> None:
        """A corpus cache that loads has only ids of the vocabulary."""
        cache = directory / self.cache.name
        shutil.copytree(self.cache, cache)
        meta = json.loads((self.cache / "meta.json").read_text())
        if rng.random() < 0.8:  # with checksums, any mutation is noticed at once
            del meta["sha256"]
            (cache / "meta.json").write_text(json.dumps(meta))
        path = rng.choice(sorted(cache.iterdir()))
        path.write_bytes(mutators.mutate(rng, path.read_bytes(), (b"{}", b"[]", b'{"num_pairs": 1}')))
        if path.name == "meta.json" and rng.random() < 0.5:
            meta[rng.choice(sorted(meta))] = mutators.json_value(rng)
            path.write_text(json.dumps(meta))
        dataset = encode_corpus(self.corpus, self.tokenizer, directory)
        for side in (dataset.src, dataset.tgt):
            if side.ids.max() >= _VOCAB_SIZE or len(side.ids) != side.lengths.sum():
                raise InvariantError("ids are out of range or missing")

    def load_checkpoint(self, rng: random.Random, directory: Path) -> None:
        """A checkpoint with a mutated or missing file still translates or is an error."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)
        name = rng.choice(sorted(self.files))
        others = tuple(self.files.values())
        kind = rng.random()
        if kind < 0.05:
            (directory / name).unlink()
        elif kind < 0.4:
            content = value_mutators.saved_config(rng, self.files["config.yaml"])
            (directory / "config.yaml").write_bytes(content)
        else:
            (directory / name).write_bytes(mutators.mutate(rng, self.files[name], others))
        if rng.random() < 0.8:  # with checksums, any mutation is noticed before anything is parsed
            (directory / "SHA256SUMS").unlink(missing_ok=True)
        load_checkpoint(directory)
        translator = Translator.load(directory, device="cpu", precision="fp32")
        if len(translator.translate(["A man is sleeping.", "", "x"], max_length_offset=2)) != 3:
            raise InvariantError("the number of translations is wrong")

    def resume_training(self, rng: random.Random, directory: Path) -> None:
        """Training resumes from a mutated checkpoint at step 2, or that is an error."""
        place = directory / "checkpoints" / self.checkpoint.name
        place.mkdir(parents=True)
        for name, content in self.files.items():
            if name != "SHA256SUMS":  # with it, the mutation would be noticed before anything is parsed
                (place / name).write_bytes(content)
        path = place / rng.choice(("training.json", "optimizer.safetensors"))
        if rng.random() < 0.2:
            path.write_bytes(mutators.mutate(rng, path.read_bytes(), tuple(self.files.values())))
        elif path.suffix == ".json":
            values = json.loads(path.read_bytes())
            values[rng.choice(list(values))] = mutators.json_value(rng)
            path.write_text(json.dumps(values), encoding="utf-8")
        else:
            tensors = load_file(path)
            tensors[rng.choice(list(tensors))] = value_mutators.tensor(rng)
            save_file(tensors, path, metadata={"format": "2"})
        model = build_model(len(self.tokenizer), self.config.model)
        optimizer = adam(model.parameters(), self.config.train)
        progress, others = resume(directory, model, optimizer, self.fingerprints)
        _zero_gradient_update(model, optimizer)
        for state in others:
            set_rng_state(state)
        if progress.step != 2:
            raise InvariantError(f"resumed after step {progress.step}")

    def translate(self, rng: random.Random, directory: Path) -> None:  # noqa: ARG002
        """One line per text, empty if the text is, and independent of the batch."""
        texts = [rng.choice((mutators.text(rng), mutators.text(rng)[:200])) for _ in range(rng.randrange(1, 6))]
        if rng.random() < 0.02:
            texts.append("\udcff")
        options = _search_options(rng)
        found = self.translator.translate_nbest(texts, nbest=1, batch_tokens=rng.choice((1, 50, 4096)), **options)
        if len(found) != len(texts) or any("\n" in nbest[0].text for nbest in found):
            raise InvariantError("the number of lines changed")
        for number, (text, (together,)) in enumerate(zip(texts, found, strict=True), start=1):
            ((alone,),) = self.translator.translate_nbest([text], nbest=1, first_number=number, **options)
            # Rounding may decide ties between hypotheses differently.
            if alone.text != together.text and abs(alone.score - together.score) > 1e-4:
                raise InvariantError(
                    f"{text[:50]!r} is {alone.text[:50]!r} alone and {together.text[:50]!r} among others"
                )
            if not text.strip() and together.text:
                raise InvariantError(f"the blank {text!r} has a translation")

    def score(self, rng: random.Random, directory: Path) -> None:  # noqa: ARG002
        """Scores do not depend on the batch, and links are inside of the texts."""
        score_targets.score(self.translator, rng)

    def constrain(self, rng: random.Random, directory: Path) -> None:
        """Phrases of a file occur in the translations, and lines without any are translated as before."""
        constraint_targets.translate(self.translator, rng, directory)

    def run_script(self, rng: random.Random, directory: Path) -> None:
        """A script exits with 0, or with 2 and either one line `error: ...` or argparse's usage."""
        name = rng.choice(sorted(COMMANDS))
        argv = COMMANDS[name](self.run, rng, directory)
        status, out, err = end_of(self.mains[name], argv, mutators.text_file(rng))
        if status not in (0, 2):
            raise InvariantError(f"{name} {argv}: status {status}")
        if status == 2 and not err.splitlines()[-1].startswith("error: ") and not err.startswith("usage: "):
            raise InvariantError(f"{name} {argv}: {err[-200:]!r}")
        if status == 2:
            raise UserError(err.splitlines()[-1])
        del out


def _search_options(rng: random.Random) -> dict[str, Any]:
    """Valid settings of a search, or of samples."""
    options: dict[str, Any] = {"beam": rng.choice((1, 2, 3))}
    choices: dict[str, Sequence[Any]] = {
        "length_penalty": ("power", "none"),
        "no_repeat_ngram": (1, 2, 3),
        "min_length": (1, 3, 7),
        "max_length": (7, 8),
        "allow_unknown": (False,),
        "sampling": (Sampling(seed=rng.randrange(99)), Sampling(temperature=0.5, top_k=5, top_p=0.9)),
    }
    return options | {name: rng.choice(choices[name]) for name in choices if rng.random() < 0.3}


def _check_lines(data: bytes, lines: Sequence[str]) -> None:
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    if len(lines) != len(expected):
        raise InvariantError(f"{len(lines)} lines of {len(expected)}")
    for line, raw in zip(lines, expected, strict=True):
        if line not in raw.decode() or len(raw.decode()) - len(line) > 2:
            raise InvariantError(f"line {raw[:50]!r} was read as {line[:50]!r}")


def _zero_gradient_update(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

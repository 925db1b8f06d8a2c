"""Training that begins with Marian models: the right tokenizer on each side, the right start, every weight trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from marian_files import LANGUAGES, HuggingFace
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import collate
from transformer.data.corpus import load_split
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import BOS_ID
from transformer.inference.translator import Translator
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint
from transformer.training.initialization import inherit
from transformer.training.packed.cpu_batch import collate_grouped
from transformer.training.train_step import batch_loss
from transformer.training.trainer import Trainer


def tuning(directory: Path, corpus: str, source: Path, *overrides: str) -> Config:
    path = directory / "tune.yaml"
    train: dict[str, Any] = {"init_from": str(source), "tokens_per_update": 509, "max_tokens": 509}
    train |= {"schedule": "linear", "learning_rate": 0.003, "warmup_steps": 3, "max_steps": 23, "log_steps": 1}
    train |= {"validate_steps": 23, "validation_bleu": False, "save_steps": 10, "save_minutes": None}
    train |= {"precision": "fp32", "device": "cpu"}
    data = {"corpus": corpus, "cache_dir": str(directory / "cache")}
    path.write_text(yaml.safe_dump({"run_dir": str(directory / "run"), "seed": 3, "data": data, "train": train}))
    return load_config(path, overrides, complete=inherit)


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["nll"] for record in records if record["kind"] == "train"]


@pytest.mark.parametrize("kind", [{}, {"separate": True}, {"end_inside": True}, {"half": True}])
def test_the_loss_before_training_is_that_of_transformers(
    kind: dict[str, Any], make_hugging_face: Any, tiny_corpus: str, tmp_path: Path
) -> None:
    theirs: HuggingFace = make_hugging_face(**kind)
    config = tuning(tmp_path, tiny_corpus, theirs.directory)
    checkpoint, _ = locate_checkpoint(theirs.directory)
    _, tokenizer, model = load_checkpoint(checkpoint)
    corpus = load_split(config.data, "test")
    dataset = encode_corpus(corpus, tokenizer, config.data.cache_dir, max_length=config.data.max_length)
    chosen = np.arange(11)
    losses = [batch_loss(model.eval(), collated(dataset, chosen), 0.0)[0] for collated in (collate, collate_grouped)]
    sources, targets = zip(*list(corpus)[:11], strict=True)
    batch = theirs.tokenizer(list(sources), text_target=list(targets), return_tensors="pt", padding=True)
    padding = theirs.config.pad_token_id
    labels = batch["labels"].masked_fill(batch["labels"] == padding, -100)
    with torch.no_grad():
        theirs.model.final_logits_bias[0, padding] = -100.0  # out of the softmax, as in Marian itself and here
        mean = theirs.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    for loss in losses:
        assert_close(loss / (labels != -100).sum(), mean, rtol=1e-4, atol=0)


def test_training_goes_on_from_a_directory(hugging_face: HuggingFace, tiny_corpus: str, tmp_path: Path) -> None:
    config = tuning(tmp_path, tiny_corpus, hugging_face.directory)
    assert (config.model.activation, config.model.output_bias, config.data.tgt_lang) == ("swish", True, "de")
    checkpoint, _ = locate_checkpoint(hugging_face.directory)
    before = {name: weight.float() for name, weight in load_file(checkpoint / "model.safetensors").items()}
    Trainer.from_config(config).fit()
    run = Path(config.run_dir)
    assert (run / "tokenizer.model").read_bytes() == (checkpoint / "tokenizer.model").read_bytes()
    found = losses(run)
    assert found[-1] < 0.8 * found[0]
    after = load_file(max((run / "checkpoints").iterdir()) / "model.safetensors")
    assert after.keys() == before.keys()
    unchanged = [name for name, weight in before.items() if torch.equal(after[name], weight)]
    assert unchanged == [], "every weight is trained, the output bias too"
    assert (after["embedding.weight"][BOS_ID] != 0).any()
    started = json.loads((run / "initialization.json").read_text())
    assert started["checkpoint"] == str(hugging_face.directory)
    translator = Translator.load(run, device="cpu")
    assert len(translator.translate(["A man is sleeping."])) == 1


def test_separate_vocabularies_are_inherited(make_hugging_face: Any, tiny_corpus: str, tmp_path: Path) -> None:
    theirs = make_hugging_face(separate=True)
    steps = ("train.max_steps=2", "train.warmup_steps=1", "train.validate_steps=2")
    config = tuning(tmp_path, tiny_corpus, theirs.directory, *steps)
    assert config.data.separate_vocabularies and config.model.tie == "decoder"
    Trainer.from_config(config).fit()
    config, tokenizer, _ = load_checkpoint(max((tmp_path / "run" / "checkpoints").iterdir()))
    assert tokenizer.is_separate
    assert tokenizer.sizes == (len(theirs.vocabularies[1]) + 1, len(theirs.vocabularies[0]) + 1)


def test_a_release_is_trained_on_too(release: Path, tiny_corpus: str, tmp_path: Path) -> None:
    steps = ("train.max_steps=2", "train.warmup_steps=1", "train.validate_steps=2")
    names = ("data.src_lang=en", "data.tgt_lang=de")  # of the files; the README of the release has eng and deu
    config = tuning(tmp_path, tiny_corpus, release, *steps, *names)
    Trainer.from_config(config).fit()
    assert len(losses(tmp_path / "run")) == 2


def test_a_multilingual_model_is_trained_with_a_tag_or_says_that_there_is_none(
    make_hugging_face: Any, tiny_corpus: str, tmp_path: Path
) -> None:
    directory = make_hugging_face(languages=LANGUAGES).directory
    steps = ("train.max_steps=2", "train.warmup_steps=1", "train.validate_steps=2")
    for name, overrides in (("tagged", ["data.tag=>>deu<<"]), ("plain", [])):
        (tmp_path / name).mkdir()
        config = tuning(tmp_path / name, tiny_corpus, directory, *steps, *overrides)
        assert config.data.target_tags == LANGUAGES
        trainer = Trainer.from_config(config)
        warnings = [line for line in trainer.data.counts() if "data.target_tags" in line]
        assert len(warnings) == (name == "plain")
        trainer.fit()
    assert warnings[0].endswith(
        "which this model was trained with: set data.tag (or the tag of a corpus), such as >>deu<<"
    )
    assert " training sources begin with none of data.target_tags" in warnings[0]
    translator = Translator.load(tmp_path / "tagged" / "run", device="cpu")
    assert (translator.tag, list(translator.tags)) == (">>deu<<", [*LANGUAGES])

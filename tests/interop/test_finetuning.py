"""Training that begins with Marian models: the right tokenizer on each side, the right start, every weight trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from interop_models import Make, Save
from marian_files import LANGUAGES, HuggingFace, pairs
from safetensors.torch import load_file
from torch.testing import assert_close

from transformer.config import Config, load_config
from transformer.data.batching import collate, pad
from transformer.data.corpus import load_split
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import BOS_ID, EOS_ID
from transformer.inference.prepacked import PrepackedLinear, can_prepack
from transformer.inference.prepacked_layer import PrepackedLayer
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.model.alternatives.embeddings import BiasedTransformer
from transformer.training.checkpoint import load_checkpoint, load_model, locate_checkpoint
from transformer.training.initialization import inherit
from transformer.training.packed.cpu_batch import collate_grouped
from transformer.training.packed.models import model_obstacle
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


def test_the_only_code_of_a_vocabulary_is_not_asked_for(
    make_hugging_face: Any, tiny_corpus: str, tmp_path: Path
) -> None:
    one = make_hugging_face(languages=[">>lit<<"]).directory
    config = tuning(tmp_path, tiny_corpus, one, "train.max_steps=2", "train.warmup_steps=1", "train.validate_steps=2")
    assert config.data.target_tags == (">>lit<<",)
    assert not [line for line in Trainer.from_config(config).data.counts() if "data.target_tags" in line]


def test_a_tuned_model_goes_back_and_translates_there_as_here(
    hugging_face: HuggingFace, tiny_corpus: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = tuning(tmp_path, tiny_corpus, hugging_face.directory, "search.allow_unknown=false")
    Trainer.from_config(config).fit()
    run, limit = tmp_path / "run", 23
    export(Exported.load(run), "hf", tmp_path / "back")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ours = Translator.load(run, device="cpu", precision="fp32")
    texts = [source for source, _ in pairs("test", 13)]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    src = pad([[*ids, EOS_ID] for ids in ours.tokenizer.source.encode(texts)])
    tgt = torch.tensor([[BOS_ID, 5, 19, 11]] * len(texts))
    assert torch.equal(batch["input_ids"], src)
    with torch.no_grad():
        logits = theirs(**batch, decoder_input_ids=tgt).logits
        assert_close(load_model(run).eval()(src, tgt), logits, rtol=1e-4, atol=1e-4)
    for beam in (1, 3):
        options = {"num_beams": beam, "length_penalty": 0.0, "early_stopping": False, "max_length": limit + 1}
        rows = theirs.generate(**batch, **options).tolist()
        found = ours.translate_nbest(texts, nbest=1, beam=beam, length_penalty="none", max_length=limit)
        for row, (best,) in zip(rows, found, strict=True):
            row = row[1 : row.index(EOS_ID) + 1] if EOS_ID in row else row[1:]
            is_cut = max(len(row), len(best.ids)) >= limit
            if beam == 1 or not is_cut:
                assert list(best.ids)[: limit - 1] == row[: limit - 1]


def test_training_from_what_was_exported_is_training_from_the_original(
    make: Make, save: Save, tiny_corpus: str, tmp_path: Path
) -> None:
    exported = make(norm_eps=1e-5)
    export(exported, "hf", tmp_path / "hf")
    weights: list[dict[str, torch.Tensor]] = []
    for name, source in (("ours", save(exported)), ("theirs", tmp_path / "hf")):
        (tmp_path / name).mkdir()
        steps = ("train.max_steps=7", "train.validate_steps=7", "data.max_length=97")
        config = tuning(tmp_path / name, tiny_corpus, source, *steps)
        Trainer.from_config(config).fit()
        weights.append(load_file(max((tmp_path / name / "run" / "checkpoints").iterdir()) / "model.safetensors"))
    assert losses(tmp_path / "ours" / "run") == losses(tmp_path / "theirs" / "run")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.parametrize("kind", [{}, {"separate": True}])
def test_imported_models_train_packed_and_translate_prepacked(kind: dict[str, Any], make_hugging_face: Any) -> None:
    directory = make_hugging_face(**kind).directory
    model = load_model(directory)
    assert isinstance(model, BiasedTransformer)
    assert model_obstacle(model) is None
    translator = Translator.load(directory, device="cpu", precision="fp32")
    if not can_prepack(translator.model.embedding.weight):
        pytest.skip("needs torch's packed products")
    layers = [*translator.model.encoder.layers, *translator.model.decoder.layers]
    assert {type(layer) for layer in layers} == {PrepackedLayer}
    assert isinstance(translator.logits, PrepackedLinear)
    src, tgt = torch.randint(4, 97, (3, 7)), torch.tensor([[BOS_ID, 5, 19]] * 3)
    with torch.no_grad():
        hidden, _ = translator.model.decode(tgt, translator.model.encode(src))
        assert_close(translator.logits(hidden), model.eval()(src, tgt), rtol=1e-4, atol=1e-4)
        translator.model.embedding.output_bias[5] += 1
    with pytest.raises(RuntimeError, match="was changed in place"):
        translator.translate(["A man is sleeping."])

"""Marian models from elsewhere, as a target of the fuzzer: Hugging Face's directories, and OPUS-MT's releases."""

from __future__ import annotations

import functools
import io
import json
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

import mutators
import numpy as np
import torch
import value_mutators
import yaml
from harness import InvariantError
from safetensors.torch import load, save

from transformer.config import Config, DataConfig, ModelConfig, SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import BOS_ID, PAD_ID, Tokenizer
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.foreign import read_model
from transformer.model.alternatives.build import build_model

_SIZES: dict[str, Any] = {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 8, "norm_eps": 1e-5}
_LONGEST = 5
Files = dict[str, bytes]


@functools.cache
def _models() -> list[Files]:
    """The files of a tiny model in both forms, and of one that did not come from Marian."""
    torch.manual_seed(1)
    sentences = [side for pair in builtin_pairs("train", 400) for side in pair]
    tokenizer = Tokenizer.train(sentences, 300, tokenizer_type="unigram", symbols=["<2de>"])
    config = ModelConfig(**_SIZES, attention_bias=True, output_bias=True, activation="swish")
    model = build_model(len(tokenizer), config).eval()
    whole = Config(model=config, data=DataConfig(corpus="builtin"), search=SearchConfig(max_length_offset=_LONGEST))
    exported = Exported(whole, tokenizer, model, "a model in memory")
    found = [_files(exported, "hf")]
    with torch.no_grad():
        for parameter in model.embedding.parameters():
            parameter[[PAD_ID, BOS_ID]] = 0
    return [*found, _files(exported, "hf"), _files(exported, "opus")]


def _files(exported: Exported, to: str) -> Files:
    with tempfile.TemporaryDirectory() as directory:
        export(exported, to, Path(directory) / to)
        return {path.name: path.read_bytes() for path in (Path(directory) / to).iterdir() if path.name != "README.md"}


def read_marian(rng: random.Random, directory: Path) -> None:
    """A model with a mutated or missing file translates or is an error, in a directory or an archive."""
    files = dict(rng.choice(_models()))
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(files))
        changed = _changed(rng, name, files[name]) if rng.random() < 0.95 else None
        if changed is None:
            del files[name]
            break
        files[name] = changed
    place = directory / "model"
    if "decoder.yml" in files and rng.random() < 0.3:
        place = directory / "model.zip"
        place.write_bytes(_archive(rng, files))
    else:
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
    config, tokenizer, weights = read_model(place).to_checkpoint()
    config.to_yaml().encode()
    model = build_model(len(tokenizer), config.model, source_vocab_size=tokenizer.sizes[1])
    model.load_state_dict(weights)
    translator = Translator(model, tokenizer, config.search)
    texts = ["A man is sleeping.", "", "x", mutators.text(rng)]
    limits: Any = {"max_length_offset": 0, "beam": 2, "min_length": 0, "max_length": _LONGEST, "too_long": "truncate"}
    if len(translator.translate(texts, **limits)) != len(texts):
        raise InvariantError("the number of translations is wrong")


def _changed(rng: random.Random, name: str, content: bytes) -> bytes:
    """A file with values that it should not have, or mutated bytes."""
    if rng.random() < 0.3:
        return mutators.mutate(rng, content)
    suffix = Path(name).suffix
    if suffix == ".spm":
        return mutators.sentencepiece_model(rng, content)
    if suffix == ".json":
        return json.dumps(_with_values(rng, json.loads(content))).encode()
    if suffix == ".safetensors":
        return _tensors(rng, content)
    if suffix == ".npz":
        return _arrays(rng, content)
    if name == "decoder.yml":
        values = _with_values(rng, yaml.safe_load(content))
        return yaml.safe_dump(values).encode(errors="replace")
    lines = content.decode().splitlines()
    for _ in range(rng.choice((1, 3))):
        place = rng.randrange(len(lines))
        piece = rng.choice((value_mutators.scalar(rng), lines[place].rpartition(":")[0]))
        lines[place] = f"{piece}: {rng.randrange(300)}"
    return "\n".join(lines).encode(errors="replace")


def _with_values(rng: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """The keys and values of an object with some of them changed, gone or added."""
    for _ in range(rng.choice((1, 1, 3))):
        key, kind = rng.choice(sorted(values)), rng.random()
        if kind < 0.2:
            del values[key]
        elif kind < 0.5:
            values[key] = mutators.json_value(rng)
        elif kind < 0.8:
            values[key] = values[rng.choice(sorted(values))]
        else:
            values[rng.choice((mutators.text(rng), "\ud800", ">>de<<"))] = values.get(key)
    return values


def _tensors(rng: random.Random, content: bytes) -> bytes:
    tensors = load(content)
    name = rng.choice(sorted(tensors))
    changes = [value_mutators.tensor(rng), tensors[name].half(), tensors[name].to(torch.int32), tensors[name].T]
    tensors[rng.choice((name, name, "lm_head.weight", "other"))] = rng.choice(changes).contiguous()
    if rng.random() < 0.3:
        del tensors[rng.choice(sorted(tensors))]
    changed: bytes = save(tensors)
    return changed


def _arrays(rng: random.Random, content: bytes) -> bytes:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    text = arrays["special:model.yml"].tobytes().rstrip(b"\0")
    options = yaml.safe_dump(_with_values(rng, yaml.safe_load(text))).encode(errors="replace")
    changes = [arrays[name][:1], arrays[name].T, np.full_like(arrays[name], 1), np.array(["x"]), np.array(7.0)]
    changed = {rng.choice((name, "Wpos", "other")): rng.choice(changes)}
    if rng.random() < 0.5:
        changed = {"special:model.yml": np.frombuffer(options, np.int8)}
    kept = {**arrays, **changed}
    if rng.random() < 0.2:
        del kept[name]
    written, to_file = io.BytesIO(), cast(Any, np.savez)  # whose names of arrays mypy takes for its options
    to_file(written, **kept)
    return written.getvalue()


def _archive(rng: random.Random, files: Files) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, content in files.items():
            file.writestr(rng.choice(("", "", "opus/", "../")) + name, content)
    return written.getvalue() if rng.random() < 0.7 else mutators.mutate(rng, written.getvalue())

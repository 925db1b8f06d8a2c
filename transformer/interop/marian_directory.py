"""Hugging Face's directories of Marian models, read without `transformers`.

config.json  generation_config.json  model.safetensors  vocab.json  target_vocab.json  source.spm  target.spm
tokenizer_config.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transformer.data.languages import UNKNOWN_LANGUAGE
from transformer.errors import CheckpointError
from transformer.interop.generation_settings import read_settings
from transformer.interop.local_files import read_bytes
from transformer.interop.marian_model import MarianModel, as_float, sizes_of
from transformer.interop.marian_vocabulary import PADDING, parse_json, vocabulary
from transformer.interop.marian_weights import SHARED, SOURCE, TARGET

WEIGHTS = "model.safetensors"
_HEAD = "lm_head.weight"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "swish", "silu": "swish"}
# What other models of this format have, and the only value of each that ours can be.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "model_type": ("marian",),
    "scale_embedding": (True,),
    **dict.fromkeys(("normalize_before", "normalize_embedding", "add_final_layer_norm"), (False, None)),
    "tie_word_embeddings": (True, None),
}


def read_directory(directory: Path) -> MarianModel:
    """Read a directory. CheckpointError if a file is missing or invalid, or the model is one that ours cannot be."""
    config = _json(directory, "config.json")
    check_config(str(directory / "config.json"), config)
    generation = _json(directory, "generation_config.json", optional=True)
    # Where both have a special id, the weights are of that of the model's configuration.
    known = generation | {key: value for key, value in config.items() if value is not None}
    options = _json(directory, "tokenizer_config.json", optional=True)
    is_shared = config.get("share_encoder_decoder_embeddings", True) is not False
    if is_shared and options.get("separate_vocabs") is True:
        raise CheckpointError(f"{directory}: separate_vocabs=True, but the model has one matrix for both sides")
    tensors = _tensors(directory / WEIGHTS, is_shared=is_shared)
    # Marian's padding starts the decoder. A model of ours, exported, has <s> for that.
    is_marian = known.get("decoder_start_token_id") == known.get("pad_token_id")
    source_file = directory / "vocab.json"
    target_file = source_file if is_shared else directory / "target_vocab.json"
    source, target = (
        vocabulary(str(file), parse_json(str(file), read_bytes(file)), start=PADDING if is_marian else "<s>")
        for file in (source_file, target_file)
    )
    padding = target.start if target.padding is None else target.padding
    ids = {"eos_token_id": target.end, "decoder_start_token_id": target.start, "pad_token_id": padding}
    _check_ids(str(directory / "config.json"), known, target_file, ids)
    never = {target.start, target.padding}
    # As in transformers, the settings of the configuration are those of models without a file of settings.
    chosen = generation if (directory / "generation_config.json").exists() else config
    settings = read_settings(chosen, ids, never=never, unknown=target.unknown, is_marian=is_marian)
    return MarianModel(
        name=str(directory),
        tensors=tensors,
        model=_model_keys(str(directory / "config.json"), config),
        vocabularies=(source, target),
        sentencepiece=(read_bytes(directory / "source.spm"), read_bytes(directory / "target.spm")),
        languages=(_language(options, "source_lang"), _language(options, "target_lang")),
        search=settings.search,
        notes=tuple(settings.notes),
    )


def check_config(file: str, config: dict[str, Any]) -> None:
    """CheckpointError for a model that ours cannot be."""
    for key, accepted in _REQUIRED.items():
        if config.get(key) not in accepted:
            wanted = "true" if accepted[0] is True else "false" if accepted[0] is False else accepted[0]
            raise CheckpointError(f"{file}: {key}={config.get(key)!r}: only models with {wanted} are read")
    for what in ("attention_heads", "ffn_dim"):
        sides = [config.get(f"{side}_{what}") for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise CheckpointError(f"{file}: encoder_{what}={sides[0]!r} and decoder_{what}={sides[1]!r} differ")
    activation = config.get("activation_function")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise CheckpointError(f"{file}: activation_function={activation!r} is not one of {', '.join(_ACTIVATIONS)}")


def no_weights(directory: Path) -> CheckpointError:
    """The error of a directory without weights that can be read, with the ways out."""
    hub_id = _hub_id(directory)
    name = hub_id or str(directory)
    return CheckpointError(
        f"{directory}: has no {WEIGHTS}; pytorch_model.bin is pickled, so that reading it can run programs, and is "
        f"not read. Three ways out: a revision with safetensors, as {hub_id or 'OWNER/NAME'}@refs/pr/N if a pull "
        "request on the hub has them; OPUS-MT's own release of the model, an archive (.zip) that has no such file; "
        f'or, if you trust the file, python -c "import transformers as t; t.MarianMTModel.from_pretrained({name!r})'
        f".save_pretrained('DIRECTORY'); t.MarianTokenizer.from_pretrained({name!r}).save_pretrained('DIRECTORY')\""
    )


def _hub_id(directory: Path) -> str | None:
    """The hub's name of a model in its cache."""
    root = directory.resolve()
    if root.parent.name != "snapshots" or not root.parents[1].name.startswith("models--"):
        return None
    return root.parents[1].name.removeprefix("models--").replace("--", "/", 1)


def _json(directory: Path, name: str, *, optional: bool = False) -> dict[str, Any]:
    path = directory / name
    if optional and not path.exists():
        return {}
    return parse_json(str(path), read_bytes(path))


def _tensors(path: Path, *, is_shared: bool) -> dict[str, Tensor]:
    """The weights with one name each. CheckpointError if several that must be one differ."""
    if not path.is_file():
        raise no_weights(path.parent)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if others := [name for name, x in tensors.items() if x.dtype not in _DTYPES]:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise CheckpointError(f"{path}: {others[0]} is of {tensors[others[0]].dtype}, which is none of {known}")
    tensors = {name: x for name, x in tensors.items() if not name.endswith("embed_positions.weight")}  # a formula
    if is_shared:
        tensors[SHARED] = _one_of(path, tensors, (SHARED, SOURCE, TARGET, _HEAD))
    else:
        tensors[SOURCE] = _one_of(path, tensors, (SOURCE,))
        tensors[TARGET] = _one_of(path, tensors, (TARGET, _HEAD))
    # Copied: what safetensors returns is backed by the file.
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _one_of(path: Path, tensors: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    """The matrix that is saved under some of these names, all of which are taken out of the tensors."""
    found = {name: tensors.pop(name) for name in names if name in tensors}
    if not found:
        raise CheckpointError(f"{path}: the weight {names[0]} is missing")
    (first, matrix), *others = found.items()
    for name, other in others:
        if matrix.dtype != other.dtype or not torch.equal(matrix, other):
            raise CheckpointError(
                f"{path}: {first} and {name} must be one matrix, and differ, so that one of them was damaged when the "
                "model was saved; its repository may have a repaired revision, as OWNER/NAME@refs/pr/N"
            )
    return matrix


def _check_ids(file: str, config: dict[str, Any], vocabulary_file: Path, found: dict[str, int]) -> None:
    for key, id_ in found.items():
        if config.get(key) != id_:
            raise CheckpointError(
                f"{file}: {key}={config.get(key)!r}, but that piece has the id {id_} in {vocabulary_file}"
            )


def _model_keys(file: str, config: dict[str, Any]) -> dict[str, Any]:
    names = {
        "d_model": "d_model",
        "num_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "num_heads": "encoder_attention_heads",
        "d_ff": "encoder_ffn_dim",
    }
    keys = sizes_of(config, names, file)
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        if type(value := config.get(name, 0.0)) in (int, float):
            keys[name] = as_float(value)
    return keys | {"activation": _ACTIVATIONS[config["activation_function"]]}


def _language(options: dict[str, Any], key: str) -> str:
    value = options.get(key)
    return value if isinstance(value, str) and value else UNKNOWN_LANGUAGE

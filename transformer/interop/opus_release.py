"""OPUS-MT's own releases of its models: an archive, or its files, as Marian wrote them.

decoder.yml names the others: weights in an .npz, with Marian's options inside, and a vocabulary per side, in YAML.
Beside them are source.spm and target.spm.
"""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer.config_file import parse_yaml
from transformer.data.languages import UNKNOWN_LANGUAGE
from transformer.errors import CheckpointError
from transformer.interop.local_files import DECODER, read_bytes
from transformer.interop.marian_model import LONGEST_SOURCE, MarianModel, as_float, sizes_of
from transformer.interop.marian_vocabulary import PADDING, parse_yaml_vocabulary, vocabulary
from transformer.interop.marian_weights import OUTPUT_BIAS, SHARED, SOURCE, TARGET

_SPM = ("source.spm", "target.spm")
_README = "README.md"
_OPTIONS = "special:model.yml"
# Options of Marian that change the model, with the only value of each that ours can be; the first is the default.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan",),
    "transformer-postprocess-emb": ("d", ""),
    "transformer-postprocess-top": ("",),
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-ffn-depth": (2,),
    "transformer-no-projection": (False,),
    "transformer-train-position-embeddings": (False,),
    "transformer-tied-layers": ([],),
    "transformer-pool": (False,),
    "right-left": (False,),
    "input-types": ([],),
    "ulr": (False,),
    "lemma-dim-emb": (0,),
}
# Options of the decoder that are taken over, and what they must be.
_TAKEN: dict[str, Any] = {"beam-size": int, "normalize": int | float}
# Those that change outputs and are not, with the values that change none.
_NOT_TAKEN: dict[str, tuple[Any, ...]] = {
    "word-penalty": (None, 0),
    "output-sampling": (None, False, []),
    "max-length-factor": (None, 3),  # Marian's default
}
_DTYPES = (np.float16, np.float32, np.float64)  # in the byte order of this machine
# Marian's gelu is another function than that of Hugging Face and torch.
_ACTIVATIONS = ("relu", "swish")
_EMBEDDINGS = {"Wemb": SHARED, "encoder_Wemb": SOURCE, "decoder_Wemb": TARGET}
_OUTPUT_BIAS = "decoder_ff_logit_out_b"
# What follows the number of a layer, as Hugging Face has it. Matrices are (in, out) here.
_SUFFIXES = {
    f"{ours}_{kind}{x}": f"{theirs}.{y}_proj.{name}"
    for ours, theirs in (("self", "self_attn"), ("context", "encoder_attn"))
    for kind, name in (("W", "weight"), ("b", "bias"))
    for x, y in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))
}
_SUFFIXES |= {f"ffn_{kind}{n}": f"fc{n}.{name}" for n in (1, 2) for kind, name in (("W", "weight"), ("b", "bias"))}
_SUFFIXES |= {
    f"{ours}_ln_{kind}": f"{theirs}_layer_norm.{name}"
    for ours, theirs in (("self_Wo", "self_attn"), ("context_Wo", "encoder_attn"), ("ffn_ffn", "final"))
    for kind, name in (("scale", "weight"), ("bias", "bias"))
}
_MATRIX = re.compile(r"_W[qkvo12]$")
# Weights, text and SentencePiece models are compressed to a third at best; a file to exhaust the disk, a thousandfold.
_MOST_COMPRESSED = 100
# What numpy raises for a damaged file.
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, AttributeError, TypeError)


def unpack(archive: Path, directory: Path) -> None:
    """Unpack the files of a release that `read_release` reads. CheckpointError if it is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = {PurePosixPath(info.filename): info for info in file.infolist() if not info.is_dir()}
            decoders = sorted((path for path in members if path.name == DECODER), key=lambda path: len(path.parts))
            if not decoders:
                raise CheckpointError(f"{archive}: has no {DECODER}: not a release of OPUS-MT")
            inside = {path.name: info for path, info in members.items() if path.parent == decoders[0].parent}
            _unpack(file, inside, DECODER, directory)
            models, vocabularies = _file_names(directory, str(archive))
            for name in (models, *vocabularies, *_SPM, _README):
                if name in inside:
                    _unpack(file, inside, name, directory)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{archive}: cannot be unpacked: {error}") from None


def _unpack(file: zipfile.ZipFile, inside: dict[str, zipfile.ZipInfo], name: str, directory: Path) -> None:
    _check_size(str(file.filename), inside[name])
    with file.open(inside[name]) as packed, (directory / name).open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)


def _check_size(archive: str, info: zipfile.ZipInfo) -> None:
    """CheckpointError for a file that is there to fill the disk or the memory."""
    if info.file_size > _MOST_COMPRESSED * max(info.compress_size, 1 << 10):
        name = PurePosixPath(info.filename).name
        raise CheckpointError(f"{archive}: {name} would have {info.file_size:,} bytes, more than a model's file")


def read_release(directory: Path, name: str) -> MarianModel:
    """Read the files of a release; `name` is for messages. CheckpointError if one is missing or invalid."""
    decoder = _yaml(directory / DECODER, f"{name}: {DECODER}")
    model_file, vocabulary_files = _file_names(directory, name)
    arrays = _arrays(directory / model_file, f"{name}: {model_file}")
    options = _options(arrays, f"{name}: {model_file}")
    ids = [
        parse_yaml_vocabulary(f"{name}: {file}", read_bytes(directory / file, f"{name}: {file}"))
        for file in (vocabulary_files[0], vocabulary_files[-1])
    ]
    # Its padding is a row of zeros after the others, which starts the decoder.
    source, target = (
        vocabulary(f"{name}: {file}", of_side | {PADDING: len(of_side)})
        for file, of_side in zip((vocabulary_files[0], vocabulary_files[-1]), ids, strict=True)
    )
    spm = [read_bytes(directory / file, f"{name}: {file}") for file in _SPM]
    tensors = _tensors(arrays, f"{name}: {model_file}")
    if SHARED in tensors and source != target:
        raise CheckpointError(f"{name}: {' and '.join(vocabulary_files)} differ, but the model has one matrix for both")
    return MarianModel(
        name=name,
        tensors=tensors,
        model=_model_keys(options, f"{name}: {model_file}"),
        vocabularies=(source, target),
        sentencepiece=(spm[0], spm[1]),
        languages=_languages(directory / _README),
        search=_search_keys(decoder),
        notes=_notes(decoder),
    )


def _file_names(directory: Path, name: str) -> tuple[str, list[str]]:
    """The names of the weights and of the vocabularies in `decoder.yml`, which are files beside it."""
    decoder = _yaml(directory / DECODER, f"{name}: {DECODER}")
    found = {}
    for key in ("models", "vocabs"):
        files = decoder.get(key)
        if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
            raise CheckpointError(f"{name}: {DECODER}: {key} must be a list of files, got {files!r}")
        found[key] = [str(PurePosixPath(file)) for file in files]
        for file in found[key]:
            if PurePosixPath(file).name != file or file in ("..", ""):
                raise CheckpointError(f"{name}: {DECODER}: {key}: {file} is not a file beside it")
    if len(found["models"]) > 1:
        raise CheckpointError(
            f"{name}: {DECODER}: names {len(found['models'])} models; only single ones are read, and `translate "
            "--ensemble` joins them"
        )
    if others := [file for file in found["vocabs"] if not file.endswith((".yml", ".yaml"))]:
        raise CheckpointError(f"{name}: {DECODER}: the vocabulary {others[0]} is not in YAML (.yml)")
    return found["models"][0], found["vocabs"]


def _yaml(path: Path, name: str) -> dict[str, Any]:
    try:
        values = parse_yaml(read_bytes(path, name, most=1 << 20).decode())
    except UnicodeDecodeError:
        raise CheckpointError(f"{name}: not text in UTF-8") from None
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{name}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{name}: expected `key: value` lines")
    return values


def _arrays(path: Path, name: str) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise CheckpointError(f"{name}: is missing")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile) or archive.zip is None:
                raise CheckpointError(f"{name}: not an .npz archive")
            for info in archive.zip.infolist():
                _check_size(name, info)
            arrays = {key: archive[key] for key in archive.files}
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise CheckpointError(f"{name}: cannot be read: {error}") from None
    if others := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise CheckpointError(f"{name}: {others[0]} is not an array")
    return arrays


def _options(arrays: dict[str, npt.NDArray[Any]], name: str) -> dict[str, Any]:
    """Marian's options, taken out of the arrays. CheckpointError for a model that ours cannot be."""
    if _OPTIONS not in arrays:
        raise CheckpointError(f"{name}: has no {_OPTIONS}: not a model of Marian")
    content = arrays.pop(_OPTIONS).tobytes().rstrip(b"\0")
    try:
        options = parse_yaml(content.decode())
    except ValueError as error:  # UnicodeDecodeError too
        raise CheckpointError(f"{name}: {_OPTIONS}: not YAML: {error}") from None
    if not isinstance(options, dict):
        raise CheckpointError(f"{name}: {_OPTIONS}: expected `key: value` lines")
    for key, accepted in _REQUIRED.items():
        if options.get(key, accepted[0]) not in accepted:
            raise CheckpointError(f"{name}: {key}={options[key]!r}: only models with {accepted[0]!r} are read")
    if options.get("transformer-ffn-activation", "swish") not in _ACTIVATIONS:
        found = options["transformer-ffn-activation"]
        raise CheckpointError(f"{name}: transformer-ffn-activation={found!r} is not one of {', '.join(_ACTIVATIONS)}")
    return options


def _model_keys(options: dict[str, Any], name: str) -> dict[str, Any]:
    names = {
        "d_model": "dim-emb",
        "num_layers": "enc-depth",
        "num_decoder_layers": "dec-depth",
        "num_heads": "transformer-heads",
        "d_ff": "transformer-dim-ffn",
    }
    keys = sizes_of(options, names, name)
    if options.get("transformer-decoder-dim-ffn") not in (None, 0, keys["d_ff"]):
        raise CheckpointError(f"{name}: transformer-decoder-dim-ffn differs from transformer-dim-ffn")
    return keys | {"activation": options.get("transformer-ffn-activation", "swish")}


def _tensors(arrays: dict[str, npt.NDArray[Any]], name: str) -> dict[str, Tensor]:
    """The weights by Hugging Face's names. CheckpointError for one that no such model has."""
    tensors = {}
    for key, array in arrays.items():
        if key.endswith("_bo_dummy"):  # which Marian makes for speed
            continue
        if array.dtype not in _DTYPES or array.ndim not in (1, 2):
            raise CheckpointError(f"{name}: {key} is an array of {array.dtype} with {array.ndim} dimensions")
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if key in _EMBEDDINGS:
            tensors[_EMBEDDINGS[key]] = torch.cat((tensor, tensor.new_zeros(1, tensor.size(-1))))
        elif key == _OUTPUT_BIAS:
            tensors[OUTPUT_BIAS] = torch.cat((tensor.flatten(), tensor.new_zeros(1)))[None]
        else:
            tensors[_hugging_face_name(key, name)] = tensor.T.contiguous() if _MATRIX.search(key) else tensor.flatten()
    if OUTPUT_BIAS not in tensors:  # as `output-omit-bias` asks for
        output = tensors.get(SHARED, tensors.get(TARGET, torch.zeros(0, 0)))
        tensors[OUTPUT_BIAS] = output.new_zeros(1, len(output))
    return tensors


def _hugging_face_name(key: str, name: str) -> str:
    match = re.fullmatch(r"(encoder|decoder)_l([1-9]\d{0,3})_(\w+)", key)
    if match is None or match[3] not in _SUFFIXES:
        raise CheckpointError(f"{name}: has the weight {key}, which no model of this kind has")
    return f"model.{match[1]}.layers.{int(match[2]) - 1}.{_SUFFIXES[match[3]]}"


def _search_keys(decoder: dict[str, Any]) -> dict[str, Any]:
    """Our search, with what Marian's options for its decoder mean there; those left out have Marian's defaults."""
    beam, alpha = (decoder.get(name) if _is_number(decoder.get(name), kind) else None for name, kind in _TAKEN.items())
    return {
        "beam": 12 if beam is None else beam,
        "alpha": 0.0 if alpha is None else as_float(alpha),
        "length_penalty": "power",
        "allow_unknown": decoder.get("allow-unk") is True,
        "max_source_length": LONGEST_SOURCE,
    }


def _is_number(value: Any, kind: Any) -> bool:
    """`normalize: true` is 1; no other option is a truth value."""
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def _notes(decoder: dict[str, Any]) -> tuple[str, ...]:
    """Options that our search does not have, and values that are none."""
    others = [name for name, same in _NOT_TAKEN.items() if decoder.get(name) not in same]
    given = {name: decoder[name] for name in _TAKEN if decoder.get(name) is not None}
    others += [name for name, value in given.items() if not _is_number(value, _TAKEN[name])]
    return tuple(f"{DECODER}: {name}={decoder[name]!r} is not taken over" for name in others)


def _languages(readme: Path) -> tuple[str, str]:
    """The codes of source and target, where the README names one of each."""
    text = read_bytes(readme).decode(errors="replace") if readme.exists() else ""
    found = []
    for side in ("source", "target"):
        match = re.search(rf"^\W*{side} language(?:s|\(s\)):\s*([a-z]{{2,3}}(?:_\w+)?)\s*$", text, re.MULTILINE)
        found.append(UNKNOWN_LANGUAGE if match is None else match[1])
    return found[0], found[1]

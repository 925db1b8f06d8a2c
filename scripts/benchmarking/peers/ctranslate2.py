"""CTranslate2, which decodes; and our weights as a directory that it loads.

The format is that of ctranslate2.specs: `model.bin` has a header, the variables by name in alphabetical order, and
aliases; `config.json` and `shared_vocabulary.json` stand beside it. Numbers are little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarking.peers.environments import Environment
from benchmarking.peers.peer import Peer, PeerError, Speed, Task
from benchmarking.peers.processes import run_program
from transformer.model.attention import DotProductAttention, MultiHeadAttention
from transformer.model.embeddings import SharedEmbedding, SinusoidalPositions, sinusoidal_positions
from transformer.model.layers import Layer
from transformer.model.transformer import Transformer

_BINARY_VERSION, _REVISION = 6, 7
_DTYPES = ("float32", "int8", "int16")  # by their numbers
_MAX_LENGTH = 1024
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")

Array = npt.NDArray[Any]


class CTranslate2(Peer):
    """Decodes with our weights."""

    name = "ctranslate2"
    title = "CTranslate2 4.8.5"
    environment = Environment("ctranslate2", ("ctranslate2==4.8.5",))
    decoding = ("fp32", "int8")

    def prepare(self, python: Path, task: Task) -> None:  # noqa: ARG002
        """Write an untrained model of ours."""
        sizes = task.sizes
        torch.manual_seed(task.seed)
        model = Transformer(
            sizes.vocab_size, sizes.d_model, sizes.num_layers, sizes.num_heads, sizes.d_ff, dropout=sizes.dropout
        )
        words = (task.data / "words.txt").read_text(encoding="utf-8").splitlines()
        write_model(model, [*_SPECIAL, *words], task.work / "model")

    def measure(self, python: Path, task: Task) -> Speed:
        """Decode; its int8 quantizes the weights as it loads them."""
        return run_program(python, "ctranslate2_decoding", task)


def write_model(model: Transformer, vocabulary: Sequence[str], directory: Path) -> None:
    """Write a directory for ctranslate2.Translator.

    Args:
        model: the paper's; weights are written in float32.
        vocabulary: the pieces by id.
        directory: made if need be.

    Raises:
        PeerError: a part of the model is another than the paper's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "model.bin").open("wb") as file:
        _write_variables(file, dict(variables(model)))
    config = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "decoder_start_token": "<s>",
        "add_source_bos": False,
        "add_source_eos": True,
        "layer_norm_epsilon": next(layer.norm_1.eps for layer in model.encoder.layers),
        "multi_query_attention": False,
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "shared_vocabulary.json").write_text(json.dumps(list(vocabulary)), encoding="utf-8")


def variables(model: Transformer) -> Iterator[tuple[str, Array]]:
    """The variables of a model by their names in CTranslate2."""
    _check(model)
    matrix = _array(model.embedding.output_weight)
    table = sinusoidal_positions(_MAX_LENGTH, matrix.shape[1]).numpy()
    yield "encoder/embeddings_0/weight", matrix
    yield "decoder/embeddings/weight", matrix
    yield "decoder/projection/weight", matrix
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        yield f"{side}/position_encodings/encodings", table
        yield f"{side}/num_heads", np.array(next(iter(stack.layers)).self_attention.num_heads, np.int16)
        yield from ((f"{side}/{name}", np.array(value, np.int8)) for name, value in _FLAGS[side].items())
        for number, layer in enumerate(stack.layers):
            for name, value in _layer(layer):
                yield f"{side}/layer_{number}/{name}", value
    yield "decoder/alignment_heads", np.array(1, np.int16)
    yield "decoder/alignment_layer", np.array(-1, np.int16)


_FLAGS = {
    "encoder": {
        "activation": 0,  # ReLU
        "embeddings_merge": 0,
        "multi_query_attention": 0,
        "pre_norm": 0,
        "scale_embeddings": 1,
    },
    "decoder": {
        "activation": 0,
        "alibi": 0,
        "alibi_use_positive_positions": 0,
        "pre_norm": 0,
        "scale_alibi": 0,
        "scale_embeddings": 1,
        "start_from_zero_embedding": 0,
    },
}


def _layer(layer: Layer) -> Iterator[tuple[str, Array]]:
    yield from _attention("self_attention", layer.self_attention, layer.norm_1, fused=("w_q", "w_k", "w_v"))
    if layer.cross_attention is not None:
        yield from _attention("attention", layer.cross_attention, layer.norm_cross, fused=("w_k", "w_v"))
    yield from _norm("ffn", layer.norm_2)
    for number, linear in enumerate((layer.feed_forward.w_1, layer.feed_forward.w_2)):
        yield f"ffn/linear_{number}/weight", _array(linear.weight)
        yield f"ffn/linear_{number}/bias", _array(linear.bias)


def _attention(
    name: str, attention: MultiHeadAttention, norm: nn.Module, fused: Sequence[str]
) -> Iterator[tuple[str, Array]]:
    """The fused projections are one product: of self-attention all three, of cross-attention those of the memory."""
    products = [fused, ["w_o"]] if "w_q" in fused else [["w_q"], fused, ["w_o"]]
    for number, parts in enumerate(products):
        linears = [getattr(attention, part) for part in parts]
        yield f"{name}/linear_{number}/weight", np.concatenate([_array(linear.weight) for linear in linears])
        if linears[0].bias is not None:
            yield f"{name}/linear_{number}/bias", np.concatenate([_array(linear.bias) for linear in linears])
    yield from _norm(name, norm)


def _norm(name: str, norm: nn.Module) -> Iterator[tuple[str, Array]]:
    yield f"{name}/layer_norm/gamma", _array(norm.weight)
    yield f"{name}/layer_norm/beta", _array(norm.bias)


def _array(x: Any) -> Array:
    found: Array = x.detach().float().contiguous().numpy()
    return found


def _check(model: Transformer) -> None:
    """PeerError for what would be written as something else."""
    layers = [*model.encoder.layers, *model.decoder.layers]
    attentions = [layer.self_attention for layer in layers]
    attentions += [layer.cross_attention for layer in layers if layer.cross_attention is not None]
    parts = [model.embedding, model.source_positions, model.target_positions, *layers, *attentions]
    parts += [attention.attention for attention in attentions]
    expected = (SharedEmbedding, SinusoidalPositions, Layer, MultiHeadAttention, DotProductAttention)
    for part in parts:
        if type(part) not in expected:
            raise PeerError(f"CTranslate2: {type(part).__name__} is not of the paper's model")
    for layer in layers:
        if layer.feed_forward.activation is not nn.functional.relu:
            raise PeerError("CTranslate2: an activation other than ReLU is not written")


def _write_variables(file: BinaryIO, values: Mapping[str, Array]) -> None:
    """Header and variables; equal ones are written once, and are aliases otherwise."""
    first: dict[int, str] = {}
    aliases = {}
    for name in sorted(values):
        if (owner := first.setdefault(id(values[name]), name)) != name:
            aliases[name] = owner
    file.write(struct.pack("<I", _BINARY_VERSION) + _string("TransformerSpec"))
    file.write(struct.pack("<II", _REVISION, len(values) - len(aliases)))
    for name in sorted(values.keys() - aliases.keys()):
        value = np.ascontiguousarray(values[name])
        shape = values[name].shape  # ascontiguousarray makes a scalar a vector
        file.write(_string(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape))
        file.write(struct.pack("<BI", _DTYPES.index(value.dtype.name), value.nbytes))
        file.write(value.tobytes())
    file.write(struct.pack("<I", len(aliases)))
    for name, owner in aliases.items():
        file.write(_string(name) + _string(owner))


def _string(text: str) -> bytes:
    """With its length, a final NUL included."""
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw

"""A model as a directory for CTranslate2, in float32 or int8; the package itself is not needed.

The format is that of ctranslate2.specs: `model.bin` has a header, the variables by name in alphabetical order, and
aliases; `config.json` and the vocabularies stand beside it. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from torch import nn

from transformer.errors import ExportError
from transformer.interop.parts import matrices_of, parts_of
from transformer.interop.tokenizer_files import numbered, write_json
from transformer.model.alternatives import embeddings
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.attention import MultiHeadAttention
from transformer.model.embeddings import sinusoidal_positions
from transformer.model.layers import Layer
from transformer.model.transformer import Transformer

TITLE = "CTranslate2"
MAX_POSITIONS = 1024
_BINARY_VERSION, _REVISION = 6, 7
_DTYPES = ("float32", "int8", "int16")  # by their numbers
_ACTIVATIONS = {"relu": 0, "swish": 2, "gelu": 3}
# Logits of pieces that are no output get it: e to the power of it is 0 in every precision.
_NEVER = -1e9

Array = npt.NDArray[Any]


def write_model(
    model: Transformer,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    directory: Path,
    *,
    num_positions: int = MAX_POSITIONS,
    is_int8: bool = False,
    never: Sequence[int] = (),
) -> None:
    """Write a directory for `ctranslate2.Translator`.

    Args:
        model: its weights are written in float32, or the matrices as 8-bit integers with a scale per row.
        source_pieces, target_pieces: by id; the first ones are <pad>, <unk>, <s> and </s>.
        directory: made if need be.
        num_positions: the longest source and the longest output, </s> included, unless the model's own limit is lower.
        never: ids that are no output.

    Raises:
        ExportError: CTranslate2 has no place for a part of the model, two pieces have one name, or there are more or
            fewer pieces than rows of their matrix.
    """
    names = [list(numbered(pieces)) for pieces in (source_pieces, target_pieces)]
    values = dict(variables(model, num_positions, never))
    for pieces, matrix in zip(names, matrices_of(model)[:2], strict=True):
        if len(pieces) != len(matrix):
            raise ExportError(f"{len(pieces)} pieces are given for the {len(matrix)} rows of their matrix")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "model.bin").open("wb") as file:
        _write_variables(file, values, is_int8=is_int8)
    config = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "decoder_start_token": "<s>",
        "add_source_bos": False,
        "add_source_eos": True,
        "layer_norm_epsilon": parts_of(model, TITLE, _OTHERS).norm_eps,
        "multi_query_attention": False,
    }
    write_json(directory / "config.json", config)
    if names[0] == names[1]:
        write_json(directory / "shared_vocabulary.json", names[0])
    else:
        write_json(directory / "source_vocabulary.json", names[0])
        write_json(directory / "target_vocabulary.json", names[1])


# What CTranslate2 has besides the paper's parts.
_OTHERS = (
    PreNormLayer,
    embeddings.LearnedPositions,
    embeddings.DecoderTiedEmbedding,
    embeddings.UntiedEmbedding,
    embeddings.BiasedEmbedding,
    embeddings.BiasedDecoderTiedEmbedding,
    embeddings.BiasedUntiedEmbedding,
)


def variables(
    model: Transformer, num_positions: int = MAX_POSITIONS, never: Sequence[int] = ()
) -> Iterator[tuple[str, Array]]:
    """The variables of a model by their names in CTranslate2; arguments and errors as of `write_model`."""
    parts, matrices = parts_of(model, TITLE, _OTHERS), matrices_of(model)
    arrays = {id(x): _array(x) for x in matrices[:3]}  # a shared matrix is one array, which is written once
    yield "encoder/embeddings_0/weight", arrays[id(matrices.source)]
    yield "decoder/embeddings/weight", arrays[id(matrices.target)]
    yield "decoder/projection/weight", arrays[id(matrices.output)]
    if matrices.bias is not None or never:
        yield "decoder/projection/bias", _bias(matrices.bias, len(matrices.output), never)
    tables = _tables(model, num_positions)
    stacks: dict[str, Any] = {"encoder": model.encoder, "decoder": model.decoder}
    options = {"activation": _ACTIVATIONS[parts.activation], "pre_norm": int(parts.is_pre_norm)}
    for (side, stack), table in zip(stacks.items(), tables, strict=True):
        yield f"{side}/position_encodings/encodings", table
        yield f"{side}/num_heads", np.array(parts.num_heads, np.int16)
        yield from ((f"{side}/{name}", np.array(value, np.int8)) for name, value in (_FLAGS[side] | options).items())
        if parts.is_pre_norm:
            yield from _norm(side, stack.norm)
        for number, layer in enumerate(stack.layers):
            for name, value in _layer(layer):
                yield f"{side}/layer_{number}/{name}", value
    yield "decoder/alignment_heads", np.array(1, np.int16)
    yield "decoder/alignment_layer", np.array(-1, np.int16)


_FLAGS = {
    "encoder": {"embeddings_merge": 0, "multi_query_attention": 0, "scale_embeddings": 1},
    "decoder": {
        "alibi": 0,
        "alibi_use_positive_positions": 0,
        "scale_alibi": 0,
        "scale_embeddings": 1,
        "start_from_zero_embedding": 0,
    },
}


def _bias(bias: Any, num_pieces: int, never: Sequence[int]) -> Array:
    found = np.zeros(num_pieces, np.float32) if bias is None else _array(bias).copy()
    found[list(never)] = _NEVER
    return found


def _tables(model: Transformer, num_positions: int) -> list[Array]:
    """The vectors of positions, of encoder and decoder."""
    modules: list[Any] = [model.source_positions, model.target_positions]
    if isinstance(modules[0], embeddings.LearnedPositions):
        return [_array(module.table) for module in modules]
    return [_array(sinusoidal_positions(num_positions, model.embedding.weight.size(1)))] * 2


def _layer(layer: Layer) -> Iterator[tuple[str, Array]]:
    yield from _attention("self_attention", layer.self_attention, layer.norm_1, fused=("w_q", "w_k", "w_v"))
    if layer.cross_attention is not None:
        yield from _attention("attention", layer.cross_attention, layer.norm_cross, fused=("w_k", "w_v"))
    yield from _norm("ffn", layer.norm_2)
    for number, linear in enumerate((layer.feed_forward.w_1, layer.feed_forward.w_2)):
        yield f"ffn/linear_{number}/weight", _array(linear.weight)
        yield f"ffn/linear_{number}/bias", _bias_of(linear)


def _attention(
    name: str, attention: MultiHeadAttention, norm: nn.Module, fused: Sequence[str]
) -> Iterator[tuple[str, Array]]:
    """The fused projections are one product: of self-attention all three, of cross-attention those of the memory."""
    products = [fused, ["w_o"]] if "w_q" in fused else [["w_q"], fused, ["w_o"]]
    for number, parts in enumerate(products):
        linears = [getattr(attention, part) for part in parts]
        yield f"{name}/linear_{number}/weight", np.concatenate([_array(linear.weight) for linear in linears])
        if any(linear.bias is not None for linear in linears):
            yield f"{name}/linear_{number}/bias", np.concatenate([_bias_of(linear) for linear in linears])
    yield from _norm(name, norm)


def _bias_of(linear: nn.Linear) -> Array:
    """The bias of a product; zeros where it has none."""
    return np.zeros(linear.out_features, np.float32) if linear.bias is None else _array(linear.bias)


def _norm(name: str, norm: nn.Module) -> Iterator[tuple[str, Array]]:
    yield f"{name}/layer_norm/gamma", _array(norm.weight)
    yield f"{name}/layer_norm/beta", _array(norm.bias)


def _array(x: Any) -> Array:
    found: Array = x.detach().float().contiguous().numpy()
    return found


def quantized(matrix: Array) -> tuple[Array, Array]:
    """A matrix (N, D) as int8 and the scales (N,) by which its rows were multiplied, as CTranslate2 rounds them."""
    largest = np.abs(matrix).max(axis=1)
    largest[largest == 0] = 127
    scales = 127 / np.maximum(largest, np.float32(127) / np.finfo(np.float32).max)
    return np.rint(matrix * scales[:, None]).astype(np.int8), scales


def _write_variables(file: BinaryIO, values: Mapping[str, Array], *, is_int8: bool) -> None:
    """Header and variables; equal ones are written once, and are aliases otherwise."""
    first: dict[int, str] = {}
    aliases = {}
    for name in sorted(values):
        if (owner := first.setdefault(id(values[name]), name)) != name:
            aliases[name] = owner
    written = {name: value for name, value in values.items() if name not in aliases}
    # Of embeddings and products. An alias of a matrix is one of its scales too.
    for name in [name for name in written if is_int8 and name.endswith("/weight")]:
        written[name], written[f"{name}_scale"] = quantized(written[name])
    file.write(struct.pack("<I", _BINARY_VERSION) + _string("TransformerSpec"))
    file.write(struct.pack("<II", _REVISION, len(written)))
    for name in sorted(written):
        shape, value = written[name].shape, np.ascontiguousarray(written[name])  # which makes a scalar a vector
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

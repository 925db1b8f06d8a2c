"""A model written for CTranslate2 has our weights; the file is read back here by a reader of its own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interop_models import TEXTS, Make, source_ids
from torch import nn

from transformer.config import ModelConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ExportError
from transformer.interop.ctranslate2 import quantized, variables, write_model
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.tokenizer_files import piece_names
from transformer.model.alternatives.build import build_model
from transformer.model.alternatives.embeddings import BiasedEmbedding
from transformer.model.layers import Layer
from transformer.model.transformer import Transformer

WORDS = ["<pad>", "<unk>", "<s>", "</s>", *map(str, range(4, 11))]


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(1)
    built = Transformer(11, 34, 3, 2, 23)
    for parameter in built.parameters():  # no zero biases, which could be swapped unseen
        nn.init.normal_(parameter)
    return built


def read(path: Path) -> tuple[tuple[int, str, int], dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """Header, variables and aliases of a model.bin."""
    rest = path.read_bytes()

    def take(form: str) -> Any:
        nonlocal rest
        size = struct.calcsize(f"<{form}")
        values, rest = struct.unpack(f"<{form}", rest[:size]), rest[size:]
        return values[0] if len(values) == 1 else values

    def text() -> str:
        raw: bytes = take(f"{take('H')}s")
        assert raw.endswith(b"\0")
        return raw[:-1].decode()

    header = (take("I"), text(), take("I"))
    values = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        dtype = ("<f4", "<i1", "<i2")[take("B")]
        values[name] = np.frombuffer(take(f"{take('I')}s"), dtype).reshape(shape)
    aliases = {}
    for _ in range(take("I")):
        alias = text()
        aliases[alias] = text()
    assert rest == b""
    return header, values, aliases


def test_the_file_is_read_back_as_it_was_written(model: Transformer, tmp_path: Path) -> None:
    write_model(model, WORDS, WORDS, tmp_path)
    header, values, aliases = read(tmp_path / "model.bin")
    assert header == (6, "TransformerSpec", 7)
    assert list(values) == sorted(values)
    for name, value in variables(model):
        np.testing.assert_array_equal(values[aliases.get(name, name)], value)
    assert aliases == {
        "decoder/projection/weight": "decoder/embeddings/weight",
        "encoder/embeddings_0/weight": "decoder/embeddings/weight",
        "encoder/position_encodings/encodings": "decoder/position_encodings/encodings",
    }
    assert json.loads((tmp_path / "shared_vocabulary.json").read_text()) == WORDS
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["layer_norm_epsilon"], config["add_source_eos"], config["add_source_bos"]) == (1e-6, True, False)


def test_the_written_variables_compute_the_logits_of_the_model(model: Transformer, tmp_path: Path) -> None:
    write_model(model, WORDS, WORDS, tmp_path)
    _, arrays, aliases = read(tmp_path / "model.bin")
    values = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    values |= {name: values[owner] for name, owner in aliases.items()}
    src, tgt = torch.tensor([[5, 9, 4, 7, 3]]), torch.tensor([[2, 8, 6]])
    torch.testing.assert_close(logits(values, src, tgt), model.eval()(src, tgt), rtol=1e-4, atol=1e-3)


def logits(values: dict[str, torch.Tensor], src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
    """The model by the names of CTranslate2, with q, k and v of self-attention, and k and v of the other, in one."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, values[f"{name}/weight"], values.get(f"{name}/bias"))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(
            x, x.shape[-1:], values[f"{name}/layer_norm/gamma"], values[f"{name}/layer_norm/beta"], 1e-6
        )

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> torch.Tensor:
        heads = (x.unflatten(-1, (int(values["encoder/num_heads"]), -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(*heads, is_causal=is_causal).transpose(1, 2).flatten(2)

    def stack(side: str, ids: torch.Tensor, matrix: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        x = F.embedding(ids, matrix) * matrix.size(1) ** 0.5
        x = x + values[f"{side}/position_encodings/encodings"][: ids.size(1)]
        for number in range(3):
            at = f"{side}/layer_{number}"
            q, k, v = linear(f"{at}/self_attention/linear_0", x).chunk(3, dim=-1)
            context = attend(q, k, v, memory is not None)
            x = norm(f"{at}/self_attention", x + linear(f"{at}/self_attention/linear_1", context))
            if memory is not None:
                k, v = linear(f"{at}/attention/linear_1", memory).chunk(2, dim=-1)
                context = attend(linear(f"{at}/attention/linear_0", x), k, v, False)
                x = norm(f"{at}/attention", x + linear(f"{at}/attention/linear_2", context))
            inner = linear(f"{at}/ffn/linear_0", x).relu()
            x = norm(f"{at}/ffn", x + linear(f"{at}/ffn/linear_1", inner))
        return x

    memory = stack("encoder", src, values["encoder/embeddings_0/weight"], None)
    hidden = stack("decoder", tgt, values["decoder/embeddings/weight"], memory)
    return linear("decoder/projection", hidden)


def gelu_in_the_decoder(model: Transformer) -> None:
    for layer in model.decoder.layers:
        layer.feed_forward.activation = F.gelu


def another_activation(model: Transformer) -> None:
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.feed_forward.activation = torch.tanh


def another_embedding(model: Transformer) -> None:
    model.embedding = nn.Embedding(11, 34)  # type: ignore[assignment]


class Sharper(Transformer):
    """Computes something else with the same weights."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return 2 * super().logits(hidden)


def another_model(model: Transformer) -> None:
    model.__class__ = Sharper


def a_last_norm(model: Transformer) -> None:
    model.decoder.norm = nn.LayerNorm(34)


def first_layer(model: Transformer) -> Layer:
    return next(iter(model.encoder.layers))


class Adapted(nn.Linear):
    """Adds something to its product, as adapters do."""


def an_adapter(model: Transformer) -> None:
    first_layer(model).feed_forward.w_1 = Adapted(34, 23)


def a_hook(model: Transformer) -> None:
    model.decoder.register_forward_hook(lambda *_: None)


def a_method(model: Transformer) -> None:
    attention = first_layer(model).self_attention
    attention.forward = attention.forward  # type: ignore[method-assign]


def another_eps(model: Transformer) -> None:
    first_layer(model).norm_2.eps = 0.5


def another_norm(model: Transformer) -> None:
    first_layer(model).norm_2 = nn.RMSNorm(34)  # type: ignore[assignment]


def a_norm_without_bias(model: Transformer) -> None:
    first_layer(model).norm_1 = nn.LayerNorm(34, bias=False)


def another_padding(model: Transformer) -> None:
    model.pad_id = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (an_adapter, "has no place for a Adapted: merge adapters first"),
        (a_hook, "has no place for hooks, which decoder has"),
        (a_method, "has no place for a forward of its own, which encoder.layers.0.self_attention has"),
        (another_eps, "has no place for layers of different norm_eps: 0.5, 1e-06"),
        (another_norm, "has no place for other norms than LayerNorm with weight and bias: RMSNorm"),
        (a_norm_without_bias, "has no place for other norms than LayerNorm with weight and bias: LayerNorm"),
        (another_padding, "has no place for pad_id=5: batches are filled up with 0"),
        (gelu_in_the_decoder, "has no place for layers of different activations: gelu, relu"),
        (another_activation, "has no place for the activation tanh"),
        (another_embedding, "has no place for a Embedding"),
        (another_model, "has no place for a Sharper"),
        (a_last_norm, "has a last norm in pre-norm stacks, and in no others"),
    ],
)
def test_what_would_be_written_as_something_else_is_refused(
    model: Transformer, tmp_path: Path, change: Callable[[Transformer], None], message: str
) -> None:
    change(model)
    with pytest.raises(ExportError, match=f"^CTranslate2 {message}"):
        write_model(model, WORDS, WORDS, tmp_path)


@pytest.mark.parametrize("is_int8", [False, True])
def test_weights_that_are_no_numbers_are_refused(model: Transformer, tmp_path: Path, is_int8: bool) -> None:
    with torch.no_grad():
        first_layer(model).feed_forward.w_2.weight[3, 5] = float("nan")
    with pytest.raises(ExportError, match=r"^encoder\.layers\.0\.\S+\.w_2\.weight contains non-finite values$"):
        write_model(model, WORDS, WORDS, tmp_path, is_int8=is_int8)


def test_more_or_fewer_pieces_than_rows_are_refused(model: Transformer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^10 pieces are given for the 11 rows of their matrix$"):
        write_model(model, WORDS, WORDS[:-1], tmp_path)


def test_a_bias_that_the_model_does_not_add_is_refused(model: Transformer, tmp_path: Path) -> None:
    model.embedding = BiasedEmbedding(11, 34)
    with pytest.raises(ExportError, match=r"^CTranslate2: an output bias is for a BiasedTransformer, and one of the"):
        write_model(model, WORDS, WORDS, tmp_path)


@pytest.mark.parametrize("options", [{"positional": "rotary"}, {"num_kv_heads": 1}, {"attention_score": "cosine"}])
def test_alternatives_that_it_does_not_have_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    config = ModelConfig(d_model=20, num_layers=3, num_heads=2, d_ff=23, **options)
    with pytest.raises(ExportError, match=rf"^CTranslate2 has no place for model\.{next(iter(options))}"):
        write_model(build_model(11, config), WORDS, WORDS, tmp_path)


def test_a_bias_of_attention_is_written() -> None:
    config = ModelConfig(d_model=34, num_layers=3, num_heads=2, d_ff=23, attention_bias=True)
    names = {name for name, _ in variables(build_model(11, config))}
    assert {"encoder/layer_0/self_attention/linear_0/bias", "decoder/layer_2/attention/linear_1/bias"} < names


def test_two_pieces_of_one_name_are_refused(model: Transformer, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^no format has a place for two pieces of one name: '4'$"):
        write_model(model, WORDS, [*WORDS[:-1], "4"], tmp_path)


def test_in_int8_each_row_of_a_matrix_has_a_scale(model: Transformer, tmp_path: Path) -> None:
    write_model(model, WORDS, WORDS, tmp_path, is_int8=True)
    _, values, aliases = read(tmp_path / "model.bin")
    for name, value in variables(model):
        if not name.endswith("/weight"):
            np.testing.assert_array_equal(values[aliases.get(name, name)], value)
            continue
        owner = aliases.get(name, name)
        rows, scales = values[owner], values[f"{owner}_scale"]
        assert rows.dtype == np.int8
        assert np.abs(rows).max(axis=1).tolist() == [127] * len(value)
        np.testing.assert_allclose(rows / scales[:, None], value, atol=np.abs(value).max() / 254 * 1.01)


def test_a_row_of_zeros_stays_zero() -> None:
    rows, scales = quantized(np.array([[0, 0, 0], [1, -2, 0.5]], np.float32))
    assert rows.tolist() == [[0, 0, 0], [64, -127, 32]]
    assert scales.tolist() == [1, 63.5]


def test_pieces_that_are_no_output_get_a_bias(model: Transformer) -> None:
    values = dict(variables(model, never=(0, 2)))
    assert values["decoder/projection/bias"].tolist() == [-1e9, 0, -1e9, *[0] * 8]


# With the engine itself, if it is installed.

ENGINE: dict[str, dict[str, Any]] = {
    "paper": {},
    "pre-norm": {"norm": "pre"},
    "swish": {"activation": "swish"},
    "gelu": {"activation": "gelu"},
    "biases": {"attention_bias": True},
    "learned": {"positional": "learned"},
    "decoder tied": {"tie": "decoder"},
    "untied": {"tie": "none"},
    "other norm_eps": {"norm_eps": 0.1},
}


def log_probs(exported: Exported, targets: list[list[int]]) -> list[list[float]]:
    """By the model itself, of each token and </s>."""
    src, found = source_ids(exported), []
    for i, target in enumerate(targets):
        with torch.no_grad():
            logits = exported.model(src[i : i + 1], torch.tensor([[2, *target]]))[0].log_softmax(-1)
        found.append([logits[place, id_].item() for place, id_ in enumerate([*target, 3])])
    return found


def scored(exported: Exported, directory: Path, targets: list[list[int]]) -> list[list[float]]:
    """By CTranslate2."""
    engine = pytest.importorskip("ctranslate2").Translator(str(directory), compute_type="float32")
    tokenizer = exported.tokenizer
    sources = [tokenizer.source.pieces(ids) for ids in tokenizer.source.encode(TEXTS)]
    return [one.log_probs for one in engine.score_batch(sources, [tokenizer.pieces(ids) for ids in targets])]


TARGETS = [[5, 19, 11, 7], [101, 44], [33, 34, 35, 36, 37, 38, 39], [300]]


@pytest.mark.parametrize("variant", ENGINE)
def test_the_engine_computes_the_probabilities_of_the_model(make: Make, tmp_path: Path, variant: str) -> None:
    exported = make(**ENGINE[variant])
    export(exported, "ct2", tmp_path / "ct2")
    for ours, theirs in zip(log_probs(exported, TARGETS), scored(exported, tmp_path / "ct2", TARGETS), strict=True):
        assert theirs == pytest.approx(ours, abs=2e-5)


def test_the_engine_adds_the_biases_that_only_some_products_have(make: Make, tmp_path: Path) -> None:
    exported = make()
    for layer in (*exported.model.encoder.layers, *exported.model.decoder.layers):
        for attention in filter(None, (layer.self_attention, layer.cross_attention)):
            attention.w_v.bias = nn.Parameter(torch.randn(22))
        layer.feed_forward.w_2.bias = None
    write_model(exported.model, *[piece_names(exported.tokenizer, range(len(exported.tokenizer)))] * 2, tmp_path)
    for ours, theirs in zip(log_probs(exported, TARGETS), scored(exported, tmp_path, TARGETS), strict=True):
        assert theirs == pytest.approx(ours, abs=2e-5)


def test_the_engine_reads_a_vocabulary_for_each_side(make: Make, tmp_path: Path, other_tokenizer: Tokenizer) -> None:
    exported = make(tie="decoder", source=other_tokenizer)
    export(exported, "ct2", tmp_path / "ct2")
    for ours, theirs in zip(log_probs(exported, TARGETS), scored(exported, tmp_path / "ct2", TARGETS), strict=True):
        assert theirs == pytest.approx(ours, abs=2e-5)


def test_the_engine_computes_about_the_same_in_int8(make: Make, tmp_path: Path) -> None:
    exported = make()
    export(exported, "ct2", tmp_path / "ct2", precision="int8")
    for ours, theirs in zip(log_probs(exported, TARGETS), scored(exported, tmp_path / "ct2", TARGETS), strict=True):
        assert theirs == pytest.approx(ours, abs=0.3)

"""A model written for CTranslate2 has our weights; the file is read back here by a reader of its own."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarking.decoding import load_translator
from benchmarking.peers.ctranslate2 import CTranslate2, variables, write_model
from benchmarking.peers.peer import PeerError, Sizes, Task
from torch import nn

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
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
    write_model(model, WORDS, tmp_path)
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
    write_model(model, WORDS, tmp_path)
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


def gelu(model: Transformer) -> None:
    for layer in model.decoder.layers:
        layer.feed_forward.activation = F.gelu


def another_embedding(model: Transformer) -> None:
    model.embedding = nn.Embedding(11, 34)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "message"),
    [(gelu, "an activation other than ReLU"), (another_embedding, "Embedding is not of the paper's model")],
)
def test_what_would_be_written_as_something_else_is_refused(
    model: Transformer, tmp_path: Path, change: Callable[[Transformer], None], message: str
) -> None:
    change(model)
    with pytest.raises(PeerError, match=message):
        write_model(model, WORDS, tmp_path)


@pytest.mark.parametrize("options", [{"norm": "pre"}, {"positional": "rotary"}, {"tie": "none"}])
def test_alternatives_to_the_paper_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    config = ModelConfig(d_model=20, num_layers=3, num_heads=2, d_ff=23, **options)
    with pytest.raises(PeerError, match="is not of the paper's model"):
        write_model(build_model(11, config), WORDS, tmp_path)


def test_a_bias_of_attention_is_written() -> None:
    config = ModelConfig(d_model=34, num_layers=3, num_heads=2, d_ff=23, attention_bias=True)
    names = {name for name, _ in variables(build_model(11, config))}
    assert {"encoder/layer_0/self_attention/linear_0/bias", "decoder/layer_2/attention/linear_1/bias"} < names


def test_the_weights_are_those_that_this_program_is_measured_with(task: Task) -> None:
    config = Path(__file__).parents[3] / "configs" / "benchmark_small.yaml"
    overrides = ["model.d_model=34", "model.num_heads=2", "model.d_ff=23", "model.num_layers=3", "data.vocab_size=31"]
    (task.data / "train.en").write_text("A man.\nTwo dogs run.\n")
    (task.data / "train.de").write_text("Ein Mann.\nZwei Hunde laufen.\n")
    overrides += [f"data.corpus={task.data}/{{split}}.{{lang}}", f"data.cache_dir={task.work}/cache"]
    loaded, translator = load_translator(config, overrides, device="cpu", precision="fp32")
    sizes = Sizes(31, 34, 2, 23, 3, 0.1, 0.1)
    here = dataclasses.replace(task, sizes=sizes, seed=loaded.seed)
    (here.data / "words.txt").write_text("".join(f"{number}\n" for number in range(4, 31)))
    CTranslate2().prepare(Path("python"), here)
    _, values, _ = read(here.work / "model" / "model.bin")
    weight = translator.model.embedding.weight.detach().numpy()
    np.testing.assert_array_equal(values["decoder/embeddings/weight"], weight)

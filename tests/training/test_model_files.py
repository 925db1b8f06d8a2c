"""Models written by `save_model` and read by `load_model`, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from transformer.config import Config, DataConfig, ModelConfig, SearchConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.model.attention import DotProductAttention
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import load_checkpoint, load_model, save_checkpoint, save_model

V = 53
SIZES: dict[str, Any] = {"d_model": 22, "num_layers": 2, "num_heads": 2, "d_ff": 29}
SRC, TGT = torch.tensor([[3, 17, 23, 5, 2], [11, 7, 2, 0, 0]]), torch.tensor([[1, 13, 29], [1, 5, 2]])
VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie": "decoder"},
    {"tie": "none", "norm": "pre", "positional": "rotary", "d_k": 6},
    {"num_kv_heads": 1, "activation": "gelu", "num_decoder_layers": 1, "positional": "alibi"},
    {"attention_score": "location", "max_positions": 31, "attention_bias": True},
    {"positional": "t5", "attention_window": 3},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_model_comes_back_trainable_with_its_configuration(tmp_path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    model = build_model(V, ModelConfig(**SIZES, **options))
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.eval()(SRC, TGT), model.eval()(SRC, TGT))
    loaded(SRC, TGT).sum().backward()
    with torch.no_grad():
        next(loaded.parameters()).add_(1)
    save_model(loaded, tmp_path / "model")  # over the first
    assert torch.equal(load_model(tmp_path / "model").eval()(SRC, TGT), loaded(SRC, TGT))


def test_a_transformer_built_by_hand_is_saved_with_a_configuration_that_describes_it(tmp_path: Path) -> None:
    model = Transformer(V, 22, 2, 2, 29).eval()
    with pytest.raises(ValueError, match=r"does not know its configuration: give config=ModelConfig"):
        save_model(model, tmp_path / "model")
    save_model(model, tmp_path / "model", ModelConfig(**SIZES))
    assert torch.equal(load_model(tmp_path / "model").eval()(SRC, TGT), model(SRC, TGT))


def changed(model: Transformer, change: str) -> Transformer:
    layer = next(iter(model.encoder.layers))
    match change:
        case "padding":
            model.pad_id = 1
        case "dropout":
            model.dropout.p = 0.3
        case "activation":
            layer.feed_forward.activation = F.gelu
        case "attention":
            layer.self_attention.attention = type("Other", (DotProductAttention,), {})()
        case "heads":
            return Transformer(V, 22, 2, 11, 29)
    return model


@pytest.mark.parametrize("change", ["padding", "dropout", "activation", "attention", "heads"])
def test_a_configuration_that_describes_another_model_is_refused(tmp_path: Path, change: str) -> None:
    model = changed(build_model(V, ModelConfig(**SIZES)), change)
    with pytest.raises(ValueError, match="the configuration does not describe the model"):
        save_model(model, tmp_path / "model", ModelConfig(**SIZES))
    assert not (tmp_path / "model").exists()


def tied_afterwards(model: Transformer) -> None:
    model.embedding.target_weight = model.embedding.weight  # type: ignore[assignment]


def without_values(model: Transformer) -> None:
    model.decoder.to("meta")


def diverged(model: Transformer) -> None:
    with torch.no_grad():
        next(iter(model.encoder.layers)).feed_forward.w_1.weight[2, 3] = float("nan")


def quantized(model: Transformer) -> None:
    next(iter(model.encoder.layers)).feed_forward.w_1 = torch.ao.nn.quantized.dynamic.Linear(22, 29)  # type: ignore[assignment]


WEIGHTS: dict[Any, str] = {
    tied_afterwards: r"^embedding\.weight and embedding\.target_weight share their memory, and the configuration has ",
    without_values: r"^decoder\.layers\.0\.\S+ has no values: the model is on the device meta$",
    diverged: r"^encoder\.layers\.0\.feed_forward\.w_1\.weight contains non-finite values, and would not be loaded$",
    quantized: "the configuration does not describe the model",
}


@pytest.mark.parametrize("change", WEIGHTS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_weights_that_would_not_come_back_are_not_saved(tmp_path: Path, change: Callable[[Transformer], None]) -> None:
    model = build_model(V, ModelConfig(**SIZES, tie="decoder"))
    change(model)
    with pytest.raises(ValueError, match=WEIGHTS[change]):
        save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_without_a_whole_configuration_corpus_and_languages_are_unknown(tmp_path: Path) -> None:
    save_model(build_model(V, ModelConfig(**SIZES)), tmp_path / "model")
    data = load_config(tmp_path / "model" / "config.yaml").data
    assert (data.corpus, data.subset, data.src_lang, data.tgt_lang) == ("unknown", None, "und", "und")


def test_a_directory_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("Attention")
    with pytest.raises(ValueError, match="holds other files than a model's, which would be replaced"):
        save_model(build_model(V, ModelConfig(**SIZES)), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "Attention"


def test_compiled_models_are_refused_and_those_with_a_tokenizer_translate(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)
    model = build_model(len(tokenizer), ModelConfig(**SIZES))
    with pytest.raises(ValueError, match="does not describe the model"):
        save_model(torch.compile(model), tmp_path / "model", ModelConfig(**SIZES))
    save_model(model, tmp_path / "model", tokenizer=tokenizer)
    assert len(Translator.load(tmp_path / "model", device="cpu").translate(["A cat.", ""])) == 2


def test_no_model_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent: no such run or checkpoint directory"):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize("way", ["load_model", "load_checkpoint", "configuration"])
def test_a_saved_model_keeps_languages_search_and_data(tmp_path: Path, way: str) -> None:
    tokenizer = Tokenizer.train((text for pair in builtin_pairs("train", 101) for text in pair), 151)
    model = build_model(len(tokenizer), ModelConfig(**SIZES))
    whole = Config(
        model=ModelConfig(**SIZES),
        data=DataConfig(src_lang="ja", tgt_lang="zh", normalization="identity", max_length=37),
        search=SearchConfig(beam=7, alpha=0.3),
    )
    save_model(model, tmp_path / "first", whole, tokenizer)
    loaded = load_checkpoint(tmp_path / "first")[2] if way == "load_checkpoint" else load_model(tmp_path / "first")
    save_model(loaded, tmp_path / "second", whole.model if way == "configuration" else None, tokenizer)
    for name in ("first", "second"):
        config = load_checkpoint(tmp_path / name)[0]
        assert (config.model, config.data, config.search) == (whole.model, whole.data, whole.search)
        translator = Translator.load(tmp_path / name, device="cpu")
        assert (translator.languages, translator.search) == (("ja", "zh"), whole.search)


@pytest.mark.parametrize(("options", "length"), [({}, 256), ({"attention_score": "location"}, None)], ids=str)
def test_one_position_matters_only_where_positions_have_a_limit(
    tmp_path: Path, options: dict[str, Any], length: int | None
) -> None:
    model = build_model(V, ModelConfig(**SIZES, max_positions=1, **options))
    if length is None:
        with pytest.raises(ConfigError, match=r"^model\.max_positions=1 is less than data\.max_length=2: "):
            save_model(model, tmp_path / "model")
        assert not (tmp_path / "model").exists()
    else:
        save_model(model, tmp_path / "model")
        assert load_config(tmp_path / "model" / "config.yaml").data.max_length == length


def test_paths_may_be_text(tmp_path: Path) -> None:
    config = Config(model=ModelConfig(**SIZES))
    save_checkpoint(str(tmp_path / "model"), config, None, build_model(V, config.model).state_dict())
    assert load_model(str(tmp_path / "model")).training

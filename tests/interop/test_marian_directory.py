"""Hugging Face's directories of Marian models: what is taken from them, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from marian_files import (
    D_FF,
    D_MODEL,
    LANGUAGES,
    HuggingFace,
    change_json,
    make_vocabulary,
    pieces_of,
    train_sentencepiece,
)
from safetensors.torch import load_file, save_file

from transformer.config import Config, ModelConfig
from transformer.data.tokenizer import BOS_ID, PAD_ID, Tokenizer
from transformer.errors import CheckpointError
from transformer.interop.foreign import read_model
from transformer.interop.marian_vocabulary import vocabulary
from transformer.interop.marian_weights import Sizes, to_marian
from transformer.model.alternatives.build import build_model


def checkpoint(directory: Path) -> tuple[Config, Tokenizer, dict[str, torch.Tensor]]:
    return read_model(directory).to_checkpoint()


# What is taken.


def test_the_configuration_says_what_the_model_is(hugging_face: HuggingFace) -> None:
    config, tokenizer, weights = checkpoint(hugging_face.directory)
    model = config.model
    assert (model.d_model, model.num_layers, model.num_heads, model.d_ff) == (D_MODEL, 2, 2, D_FF)
    assert (model.activation, model.attention_bias, model.output_bias) == ("swish", True, True)
    assert (model.norm, model.norm_eps, model.tie, model.dropout) == ("post", 1e-5, "all", 0.1)
    assert (config.data.src_lang, config.data.tgt_lang, config.data.target_tags) == ("en", "de", ())
    assert (config.data.vocab_size, config.data.separate_vocabularies) == (len(tokenizer), False)
    assert (config.data.tokenizer_type, config.data.normalization) == ("unigram", "nmt_nfkc")
    assert (config.search.beam, config.search.alpha, config.search.length_penalty) == (3, 1.0, "power")
    assert (config.search.allow_unknown, config.search.max_length, config.search.max_source_length) == (False, 96, 512)
    assert len(weights["embedding.weight"]) == len(tokenizer) == len(hugging_face.vocabularies[0]) + 1


def test_unequal_depths_and_separate_vocabularies_are_described(make_hugging_face: Any) -> None:
    theirs = make_hugging_face(separate=True, encoder_layers=3, decoder_layers=1)
    config, tokenizer, weights = checkpoint(theirs.directory)
    assert (config.model.num_layers, config.model.num_decoder_layers, config.model.tie) == (3, 1, "decoder")
    assert config.data.separate_vocabularies
    assert tokenizer.is_separate
    assert {"embedding.weight", "embedding.target_weight", "embedding.output_bias"} <= weights.keys()


def test_padding_and_the_start_are_never_an_output(hugging_face: HuggingFace) -> None:
    _, _, weights = checkpoint(hugging_face.directory)
    bias = weights["embedding.output_bias"]
    assert bias[[PAD_ID, BOS_ID]].tolist() == [-100.0, -100.0]
    assert bias[1] > -10
    assert (bias[BOS_ID + 1 :] > -10).all()
    assert not weights["embedding.weight"][[PAD_ID, BOS_ID]].any()


def test_float16_weights_stay_as_they_are_in_the_file(make_hugging_face: Any) -> None:
    _, _, weights = checkpoint(make_hugging_face(half=True).directory)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def test_codes_of_several_languages_are_the_target_tags(make_hugging_face: Any) -> None:
    config, tokenizer, _ = checkpoint(make_hugging_face(languages=LANGUAGES).directory)
    assert config.data.target_tags == LANGUAGES == tuple(config.data.tags)
    assert config.data.tag is None
    assert [len(tokenizer.source.encode([tag])[0]) for tag in LANGUAGES] == [1, 1]


def test_what_a_directory_may_lack(directory: Path) -> None:
    for name in ("generation_config.json", "tokenizer_config.json"):
        (directory / name).unlink()
    change_json(directory / "config.json", share_encoder_decoder_embeddings="absent")
    config = checkpoint(directory)[0]
    assert (config.data.src_lang, config.search.beam) == ("und", 4)


def test_each_name_of_a_tied_matrix_is_read(directory: Path) -> None:
    before = checkpoint(directory)[2]["embedding.weight"]
    tensors = load_file(directory / "model.safetensors")
    (name,) = [name for name in tensors if tensors[name].shape == (len(before) - 1, D_MODEL)]
    matrix = tensors.pop(name)
    for other in ("model.shared.weight", "lm_head.weight", "model.encoder.embed_tokens.weight"):
        save_file({**tensors, other: matrix}, directory / "model.safetensors", {"format": "pt"})
        assert torch.equal(checkpoint(directory)[2]["embedding.weight"], before)
    both = {"model.shared.weight": matrix, "model.decoder.embed_tokens.weight": matrix.clone()}
    save_file({**tensors, **both}, directory / "model.safetensors", {"format": "pt"})
    assert torch.equal(checkpoint(directory)[2]["embedding.weight"], before)


def test_a_model_of_ours_that_was_exported_comes_back_as_it_was(trained_run: Path, tmp_path: Path) -> None:
    """Its own padding and start, one SentencePiece model, no biases: what is zero throughout is left out."""
    tokenizer = Tokenizer.load(trained_run / "tokenizer.model")
    torch.manual_seed(3)
    model = build_model(len(tokenizer), ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29))
    directory = tmp_path / "exported"
    directory.mkdir()
    weights = model.state_dict()
    save_file(to_marian(weights, Sizes(2, 2)), directory / "model.safetensors", {"format": "pt"})
    for side in ("source", "target"):
        (directory / f"{side}.spm").write_bytes(tokenizer.model)
    pieces = tokenizer.pieces(range(len(tokenizer)))
    (directory / "vocab.json").write_text(json.dumps({piece: id_ for id_, piece in enumerate(pieces)}))
    config = {"model_type": "marian", "scale_embedding": True, "activation_function": "relu", "d_model": 22}
    for side in ("encoder", "decoder"):
        config |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 29}
    config |= {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 3}
    (directory / "config.json").write_text(json.dumps(config))
    read, back, found = checkpoint(directory)
    assert type(back) is Tokenizer
    assert back.digest == tokenizer.digest
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert (read.model.attention_bias, read.model.output_bias) == (False, False)


# What is refused.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "bart"}, r"config\.json: model_type='bart': only models with marian are read"),
        ({"scale_embedding": False}, "scale_embedding=False: only models with true are read"),
        ({"normalize_before": True}, "normalize_before=True: only models with false are read"),
        ({"normalize_embedding": True}, "normalize_embedding=True: only models with false"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm=True: only models with false"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False: only models with true"),
        ({"decoder_attention_heads": 1}, "encoder_attention_heads=2 and decoder_attention_heads=1 differ"),
        ({"decoder_ffn_dim": 31}, "encoder_ffn_dim=29 and decoder_ffn_dim=31 differ"),
        ({"activation_function": []}, r"activation_function=\[\] is not one of relu, gelu, swish, silu"),
        ({"activation_function": "tanh"}, "activation_function='tanh' is not one of relu, gelu, swish, silu"),
        ({"d_model": "absent"}, "d_model=None must be a whole number"),
        ({"d_model": 22.0}, r"d_model=22\.0 must be a whole number"),
        ({"encoder_layers": True}, "encoder_layers=True must be a whole number"),
        ({"encoder_layers": 10**9}, r"model\.num_layers=1000000000"),
        ({"encoder_layers": 3}, r"the weight model\.encoder\.layers\.2\.self_attn\.q_proj\.weight is missing"),
        ({"encoder_layers": 1}, r"has the weight model\.encoder\.layers\.1\.\S+, which no model of this kind has"),
        ({"eos_token_id": 1}, r"eos_token_id=1, but that piece has the id 0 in .*vocab\.json"),
        ({"pad_token_id": 5, "decoder_start_token_id": 5}, "decoder_start_token_id=5, but that piece has the id"),
        ({"dropout": 10**400}, r"model\.dropout=1e\+300"),
        ({"d_model": 24}, r"has shape \(\d+, 22\), but its configuration requires \(\d+, 24\)"),
    ],
)
def test_a_model_that_ours_cannot_be_is_refused(directory: Path, values: dict[str, Any], message: str) -> None:
    change_json(directory / "config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        checkpoint(directory)


def test_two_vocabularies_with_one_matrix_are_refused(directory: Path) -> None:
    change_json(directory / "tokenizer_config.json", separate_vocabs=True)
    with pytest.raises(CheckpointError, match="copy: separate_vocabs=True, but the model has one matrix for both"):
        read_model(directory)


def test_a_model_that_is_only_pickled_is_refused_with_the_ways_out(directory: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "marker",)

    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError) as refused:
        checkpoint(directory)
    message = str(refused.value)
    assert message.startswith(f"{directory}: has no model.safetensors; pytorch_model.bin is pickled")
    assert all(way in message for way in ("refs/pr/N", ".zip", "save_pretrained('DIRECTORY')"))
    assert not (tmp_path / "marker").exists()


def test_tied_matrices_that_differ_are_refused_by_name(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    name = next(name for name in tensors if tensors[name].shape[-1] == D_MODEL and "layers" not in name)
    changed = tensors[name].clone()
    changed[7, 3] += 1
    other = "lm_head.weight" if name != "lm_head.weight" else "model.shared.weight"
    save_file({**tensors, other: changed}, directory / "model.safetensors", {"format": "pt"})
    first, second = sorted((name, other), key=lambda x: ("shared" not in x, "encoder" not in x, "head" in x))
    message = f"{directory / 'model.safetensors'}: {first} and {second} must be one matrix, and differ, .*@refs/pr/N"
    with pytest.raises(CheckpointError, match=message):
        checkpoint(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids.pop("<unk>"), r"vocab\.json: the id of .* is \d+: ids of \d+ pieces must be 0, 1, 2"),
        (lambda ids: ids.update(new=7), r"vocab\.json: .* have the same id, 7|ids of \d+ pieces must be"),
        (lambda ids: ids.update({"<unk>": "1"}), r"the id of '<unk>' is '1'"),
        (lambda ids: ids.update({"<unk>": True}), "the id of '<unk>' is True"),
        (lambda ids: ids.update({"<unk>": -1}), "the id of '<unk>' is -1"),
        (lambda ids: ids.update(new=len(ids)), r"model\.shared\.weight has \d+ rows for \d+ pieces"),
        (lambda ids: ids.update({"\ud800": ids.pop(max(ids))}), r"vocab\.json: has a piece with surrogates"),
        (lambda ids: ids.update(other=ids.pop("<pad>")), r"vocab\.json: has no piece <pad>"),
        (lambda ids: ids.update(other=ids.pop("</s>")), r"vocab\.json: has no piece </s>"),
    ],
)
def test_a_damaged_vocabulary_is_refused(directory: Path, change: Callable[[Any], Any], message: str) -> None:
    ids = json.loads((directory / "vocab.json").read_text())
    change(ids)
    (directory / "vocab.json").write_text(json.dumps(ids))
    with pytest.raises(CheckpointError, match=message):
        checkpoint(directory)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", r"config\.json: not JSON: "),
        ("config.json", b"[" * 100_000, r"config\.json: not JSON: "),
        ("config.json", b"[]", r"config\.json: not a JSON object"),
        ("config.json", b'{"a": 1, "a": 2}', r"config\.json: 'a' is given twice"),
        ("vocab.json", b"\xff", r"vocab\.json: not JSON: "),
        ("vocab.json", None, r"vocab\.json: is missing"),
        ("source.spm", None, r"source\.spm: is missing"),
        ("target.spm", b"nothing", "not a SentencePiece model"),
        ("model.safetensors", b"nothing", r"model\.safetensors: cannot be read: "),
    ],
)
def test_a_damaged_file_is_named(directory: Path, name: str, content: bytes | None, message: str) -> None:
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint(directory)


def test_a_directory_in_the_place_of_a_file_is_named(directory: Path) -> None:
    (directory / "source.spm").unlink()
    (directory / "source.spm").mkdir()
    with pytest.raises(CheckpointError, match=r"source\.spm: cannot be read: not a regular file"):
        checkpoint(directory)


def test_a_file_beyond_all_measure_is_not_read(directory: Path) -> None:
    with (directory / "vocab.json").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(CheckpointError, match=r"vocab\.json: has more than 67,108,864 bytes"):
        checkpoint(directory)


def test_the_sentencepiece_model_of_another_model_is_refused(directory: Path) -> None:
    words = [" ".join(chr(0x4E00 + (7 * i + j) % 500) for j in range(9)) for i in range(200)]
    (directory / "target.spm").write_bytes(train_sentencepiece(words, 520))
    with pytest.raises(CheckpointError, match=r"most pieces of target\.spm are not in the vocabulary"):
        checkpoint(directory)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "model.encoder.layers.0.fc1.weight",
            float("nan"),
            r"fc1\.weight contains values that are no finite numbers",
        ),
        ("final_logits_bias", float("inf"), "final_logits_bias contains values that are no finite numbers"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(directory: Path, name: str, value: float, message: str) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors[name][0, 3] = value
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        checkpoint(directory)


def test_weights_of_another_kind_of_number_are_refused(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["final_logits_bias"] = tensors["final_logits_bias"].to(torch.float8_e4m3fn)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"final_logits_bias is of torch\.float8_e4m3fn, which is none of"):
        checkpoint(directory)


def test_a_weight_that_no_such_model_has_is_refused(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    save_file({**tensors, "model.decoder.other": torch.zeros(1)}, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has the weight model\.decoder\.other, which no model of this kind has"):
        checkpoint(directory)


def test_the_vocabulary_of_a_side_has_its_pieces_in_our_order(sentencepiece_models: tuple[bytes, bytes]) -> None:
    ids = make_vocabulary(pieces_of(sentencepiece_models[0]), end_inside=True)
    found = vocabulary("vocab.json", ids)
    assert found.our_pieces()[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert found.order()[:4] == [-1, 0, len(ids) - 1, ids["</s>"]]
    assert [ids[piece] for piece in found.our_pieces()[4:]] == found.order()[4:] == sorted(found.order()[4:])

"""Marian models of the sizes that OPUS-MT publishes, with random weights: logits are those of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from marian_files import SPECIAL, pieces_of
from torch.testing import assert_close

from transformer.data.tokenizer import BOS_ID, PAD_ID
from transformer.interop.foreign import read_model
from transformer.model.alternatives.build import build_model

B, S, T = 2, 7, 5


class Shape(NamedTuple):
    """Of a model; `end` is the id of </s>, and the layers are as many in the decoder."""

    num_pieces: int
    end: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    activation: str
    dtype: torch.dtype  # of the file


SHAPES = {
    "opus-mt": Shape(58101, 0, 512, 6, 8, 2048, "swish", torch.float32),
    # Of six layers, which the other has; these are four times as large.
    "opus-mt-tc-big": Shape(53017, 43311, 1024, 1, 16, 4096, "relu", torch.float16),
}


def vocabulary(shape: Shape, models: tuple[bytes, bytes]) -> dict[str, int]:
    """The pieces of both SentencePiece models, others that none has, and the special ones where Marian has them."""
    pieces = [piece for model in models for piece in pieces_of(model) if piece not in SPECIAL]
    known = [*dict.fromkeys(pieces)]
    known += [f"unused{number}" for number in range(shape.num_pieces - len(known) - 3)]
    known.insert(shape.end and shape.end - 1, "</s>")
    known.insert(0 if shape.end else 1, "<unk>")
    return {piece: id_ for id_, piece in enumerate([*known, "<pad>"])}


def save(directory: Path, shape: Shape, models: tuple[bytes, bytes]) -> None:
    """Write a directory as transformers does."""
    import transformers

    ids = vocabulary(shape, models)
    assert (len(ids), ids["</s>"]) == (shape.num_pieces, shape.end)
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        sides |= {f"{side}_layers": shape.num_layers, f"{side}_attention_heads": shape.num_heads}
        sides |= {f"{side}_ffn_dim": shape.d_ff}
    config = transformers.MarianConfig(
        vocab_size=shape.num_pieces,
        d_model=shape.d_model,
        activation_function=shape.activation,
        scale_embedding=True,
        static_position_embeddings=True,
        max_position_embeddings=shape.d_model,
        pad_token_id=ids["<pad>"],
        decoder_start_token_id=ids["<pad>"],
        eos_token_id=shape.end,
        forced_eos_token_id=shape.end,
        bos_token_id=0,
        **sides,
    )
    torch.manual_seed(7)
    model = transformers.MarianMTModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.normal_(1.0 if name.endswith("layer_norm.weight") else 0.0, 0.1)
        model.final_logits_bias.normal_(0.0, 0.5)
    model.to(shape.dtype).save_pretrained(directory)
    (directory / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    for side, content in zip(("source", "target"), models, strict=True):
        (directory / f"{side}.spm").write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_transformers(name: str, sentencepiece_models: tuple[bytes, bytes], tmp_path: Path) -> None:
    transformers, shape = pytest.importorskip("transformers"), SHAPES[name]
    save(tmp_path, shape, sentencepiece_models)
    read = read_model(tmp_path)
    config, tokenizer, weights = read.to_checkpoint()
    assert {weight.dtype for weight in weights.values()} == {shape.dtype}
    model = build_model(len(tokenizer), config.model).eval()
    model.load_state_dict(weights)
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    order = torch.tensor(read.vocabularies[1].order())  # theirs of each of ours
    src, tgt = torch.randint(BOS_ID + 1, len(order), (B, S)), torch.randint(BOS_ID + 1, len(order), (B, T))
    tgt[:, 0] = BOS_ID
    with torch.no_grad():
        ours, expected = model(src, tgt), theirs(input_ids=order[src], decoder_input_ids=order[tgt]).logits
    kept = torch.tensor([id_ for id_ in range(len(order)) if id_ not in (PAD_ID, BOS_ID)])
    assert expected.abs().max() > 1
    assert_close(ours[..., kept], expected[..., order[kept]], rtol=0, atol=1e-5)

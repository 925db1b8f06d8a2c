"""Names and channels of Marian's weights: an exact change of notation, there and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.interop.marian_weights import Sizes, to_marian, to_ours
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer

V, D_MODEL, ENCODER, DECODER, H, D_FF = 31, 14, 2, 3, 2, 29
SIZES = Sizes(ENCODER, DECODER)


def make_model(**options: Any) -> Transformer:
    torch.manual_seed(3)
    sizes = {"d_model": D_MODEL, "num_layers": ENCODER, "num_decoder_layers": DECODER, "num_heads": H, "d_ff": D_FF}
    model = build_model(V, ModelConfig(**sizes, **options))
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("tie", ["all", "decoder"])
def test_there_and_back_no_bit_of_a_weight_changes(tie: str) -> None:
    ours = make_model(tie=tie, attention_bias=True, output_bias=True).state_dict()
    theirs = to_marian(ours, SIZES)
    back = to_ours(theirs, SIZES)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], weight) for name, weight in ours.items())
    again = to_marian(back, SIZES)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], weight) for name, weight in theirs.items())


def test_biases_that_a_model_does_not_have_are_zeros_there() -> None:
    ours = make_model().state_dict()
    theirs = to_marian(ours, SIZES)
    assert theirs["final_logits_bias"].shape == (1, V)
    assert theirs["model.decoder.layers.2.encoder_attn.k_proj.bias"].shape == (D_MODEL,)
    back = to_ours(theirs, SIZES)
    assert {name for name in back if not back[name].any()} == back.keys() - ours.keys()
    assert all(torch.equal(back[name], weight) for name, weight in ours.items())


def test_a_sine_and_its_cosine_stand_beside_each_other_here_and_in_halves_there() -> None:
    ours = make_model(attention_bias=True, output_bias=True).state_dict()
    matrix = to_marian(ours, SIZES)["model.shared.weight"]
    assert torch.equal(matrix[:, : D_MODEL // 2], ours["embedding.weight"][:, 0::2])
    assert torch.equal(matrix[:, D_MODEL // 2 :], ours["embedding.weight"][:, 1::2])


def test_marians_sinusoids_added_to_its_channels_give_the_models_own_outputs() -> None:
    """The encoder of Marian, written out with its halves, equals ours with alternating channels."""
    model = make_model(attention_bias=True).double().eval()
    src = torch.randint(1, V, (3, 7))
    half = model.source_positions.rows(0, 7, torch.zeros(1, dtype=torch.float64))
    order = [*range(0, D_MODEL, 2), *range(1, D_MODEL, 2)]
    shared = to_marian(model.state_dict(), SIZES)["model.shared.weight"]
    theirs = shared[src] * D_MODEL**0.5 + half[:, order]  # (B, S, D): what Marian's first layer reads
    assert_close(theirs, model.source_positions(model.embedding(src))[..., order])


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda tensors: tensors.pop("final_logits_bias"), "final_logits_bias"),
        (lambda tensors: tensors.pop("model.encoder.layers.1.fc1.bias"), r"model\.encoder\.layers\.1\.fc1\.bias"),
        (lambda tensors: tensors.pop("model.shared.weight"), r"model\.encoder\.embed_tokens\.weight"),
    ],
)
def test_a_missing_weight_is_named(change: Any, missing: str) -> None:
    tensors = to_marian(make_model().state_dict(), SIZES)
    change(tensors)
    with pytest.raises(KeyError, match=missing):
        to_ours(tensors, SIZES)


def test_a_missing_matrix_of_ours_is_named() -> None:
    weights = make_model().state_dict()
    del weights["decoder.layers.1.cross_attention.w_q.weight"]
    with pytest.raises(KeyError, match=r"decoder\.layers\.1\.cross_attention\.w_q\.weight"):
        to_marian(weights, SIZES)

"""The whole model against an independent one: Marian of Hugging Face transformers, with the same weights.

Marian's models are the paper's, with biases in attention, sines and cosines in two halves instead of alternating, and
a norm epsilon of 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.embeddings import sinusoidal_positions
from transformer.model.transformer import Transformer

V, D_MODEL, N, H, D_FF, B, S, T = 53, 22, 3, 2, 29, 3, 11, 7
PAD, START = 0, 1


@pytest.fixture(scope="module", autouse=True)
def in_float64() -> Iterator[None]:
    """Older versions of Marian make a mask of the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def marian() -> Any:
    """A Marian model with random weights, biases and norms included; float64, eval."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.MarianConfig(
        vocab_size=V,
        d_model=D_MODEL,
        encoder_layers=N,
        decoder_layers=N,
        encoder_attention_heads=H,
        decoder_attention_heads=H,
        encoder_ffn_dim=D_FF,
        decoder_ffn_dim=D_FF,
        max_position_embeddings=17,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        pad_token_id=PAD,
        eos_token_id=2,
        forced_eos_token_id=None,
        decoder_start_token_id=START,
    )
    model = transformers.MarianMTModel(config).double().eval()
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            nn.init.normal_(parameter, mean=0.1, std=0.3)
    return model


def copy_attention(theirs: Any, ours: Any) -> None:
    names = {"q_proj": "w_q", "k_proj": "w_k", "v_proj": "w_v", "out_proj": "w_o"}
    for their_name, our_name in names.items():
        getattr(ours, our_name).load_state_dict(getattr(theirs, their_name).state_dict())


class MarianPositions(nn.Module):
    """Adds the rows of Marian's table of positions."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table.detach()

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return x + self.table[start : start + x.size(1)]


@pytest.fixture(scope="module")
def ours(marian: Any) -> Transformer:
    """Our model with Marian's weights and Marian's table of positions."""
    sizes = {"d_model": D_MODEL, "num_layers": N, "num_heads": H, "d_ff": D_FF}
    model = build_model(V, ModelConfig(**sizes, attention_bias=True, norm_eps=1e-5)).double().eval()
    assert model.pad_id == PAD
    with torch.no_grad():
        model.embedding.weight.copy_(marian.model.shared.weight)
    model.source_positions = MarianPositions(marian.model.encoder.embed_positions.weight)
    model.target_positions = MarianPositions(marian.model.decoder.embed_positions.weight)
    for our_stack, their_stack in ((model.encoder, marian.model.encoder), (model.decoder, marian.model.decoder)):
        for a, b in zip(our_stack.layers, their_stack.layers, strict=True):
            copy_attention(b.self_attn, a.self_attention)
            a.feed_forward.w_1.load_state_dict(b.fc1.state_dict())
            a.feed_forward.w_2.load_state_dict(b.fc2.state_dict())
            a.norm_1.load_state_dict(b.self_attn_layer_norm.state_dict())
            a.norm_2.load_state_dict(b.final_layer_norm.state_dict())
            if our_stack is model.decoder:
                copy_attention(b.encoder_attn, a.cross_attention)
                a.norm_cross.load_state_dict(b.encoder_attn_layer_norm.state_dict())
    return model


def make_batch() -> tuple[Tensor, Tensor]:
    """Source ids with padding, and target ids that begin with the start id."""
    torch.manual_seed(5)
    src, tgt = torch.randint(3, V, (B, S)), torch.randint(3, V, (B, T))
    src[1, 7:] = PAD
    src[2, 3:] = PAD
    tgt[:, 0] = START
    return src, tgt


def test_every_weight_of_marian_has_its_place_in_ours(marian: Any, ours: Transformer) -> None:
    theirs = {id(p): p.numel() for name, p in marian.named_parameters() if "embed_positions" not in name}
    assert sum(p.numel() for p in ours.parameters()) == sum(theirs.values())


def test_the_sinusoids_of_marian_are_ours_in_another_order(marian: Any) -> None:
    table = sinusoidal_positions(17, D_MODEL)
    theirs = marian.model.encoder.embed_positions.weight.detach().float()
    assert_close(torch.cat([table[:, 0::2], table[:, 1::2]], dim=1), theirs)


def test_logits_and_gradients_equal_those_of_marian(marian: Any, ours: Transformer) -> None:
    src, tgt = make_batch()
    expected = marian(input_ids=src, attention_mask=(src != PAD).long(), decoder_input_ids=tgt).logits
    actual = ours(src, tgt)
    assert_close(actual, expected)
    upstream = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, marian.model.shared.weight, upstream)
    (gradient,) = torch.autograd.grad(actual, ours.embedding.weight, upstream)
    # torch.nn.Embedding gives the row of the padding no gradient for being an input; ours is never attended to.
    assert_close(gradient, expected_gradient)


def test_step_by_step_decoding_equals_marians_without_a_cache(marian: Any, ours: Transformer) -> None:
    src, tgt = make_batch()
    expected = marian(input_ids=src, attention_mask=(src != PAD).long(), decoder_input_ids=tgt, use_cache=False).logits
    state = ours.encode(src)
    for t in range(T):
        hidden, state = ours.decode(tgt[:, t : t + 1], state)
        assert_close(ours.logits(hidden), expected[:, t : t + 1])

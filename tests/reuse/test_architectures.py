"""Other systems of the same parts: decoder-only, left padding, unequal stacks, two vocabularies, checkpointing."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.testing import assert_close
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2LMHeadModel

from transformer.model.alternatives.embeddings import LearnedPositions, UntiedEmbedding
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.alternatives.relative import RotaryAttention
from transformer.model.attention import DotProductAttention, KeyValue, MultiHeadAttention
from transformer.model.embeddings import SinusoidalPositions, sinusoidal_positions
from transformer.model.layers import FeedForward, Layer
from transformer.model.transformer import Decoder, DecoderState, Transformer


class LanguageModel(nn.Module):
    """GPT-2's architecture: layers without cross-attention, decoded from a state without memory."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        d_model, eps = config.n_embd, config.layer_norm_epsilon
        self.tokens = nn.Embedding(config.vocab_size, d_model)
        self.positions = LearnedPositions(config.n_positions, d_model)
        attention = partial(MultiHeadAttention, d_model, config.n_head, bias=True)
        feed_forward = partial(FeedForward, d_model, 4 * d_model, activation=partial(F.gelu, approximate="tanh"))
        layers = (PreNormLayer(attention(), feed_forward(), norm_eps=eps) for _ in range(config.n_layer))
        self.decoder = Decoder(layers, nn.LayerNorm(d_model, eps))

    def forward(self, ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = self.decoder(self.positions(self.tokens(ids), state.length), state)
        return hidden @ self.tokens.weight.T, state


@torch.no_grad()
def port_gpt2(ours: LanguageModel, theirs: GPT2LMHeadModel) -> None:
    ours.tokens.weight.copy_(theirs.transformer.wte.weight)
    ours.positions.table.copy_(theirs.transformer.wpe.weight)
    ours.decoder.norm.load_state_dict(theirs.transformer.ln_f.state_dict())
    for layer, block in zip(ours.decoder.layers, theirs.transformer.h, strict=True):
        attention, feed_forward = layer.self_attention, layer.feed_forward
        q, k, v = zip(block.attn.c_attn.weight.T.chunk(3), block.attn.c_attn.bias.chunk(3), strict=True)
        pairs = [(attention.w_q, q), (attention.w_k, k), (attention.w_v, v)]
        for linear, conv in ((attention.w_o, block.attn.c_proj), (feed_forward.w_1, block.mlp.c_fc)):
            pairs.append((linear, (conv.weight.T, conv.bias)))
        pairs.append((feed_forward.w_2, (block.mlp.c_proj.weight.T, block.mlp.c_proj.bias)))
        pairs += [(layer.norm_1, (block.ln_1.weight, block.ln_1.bias)), (layer.norm_2, block.ln_2.parameters())]
        for module, (weight, bias) in pairs:
            module.weight.copy_(weight)
            module.bias.copy_(bias)


def test_a_decoder_only_model_equals_gpt_2(ids) -> None:
    config = GPT2Config(vocab_size=53, n_positions=64, n_embd=22, n_layer=3, n_head=2)
    theirs, ours = GPT2LMHeadModel(config).eval().double(), LanguageModel(config).eval().double()
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases are 0 at first
            parameter.add_(torch.randn_like(parameter) / 5)
    port_gpt2(ours, theirs)
    text = ids(3, 11)
    expected = theirs(text).logits
    assert_close(ours(text, DecoderState())[0], expected)
    logits, state = ours(text[:, :4], DecoderState())  # a prompt, then token by token
    for position in range(4, 11):
        step, state = ours(text[:, position : position + 1], state)
        logits = torch.cat((logits, step), dim=1)
    assert_close(logits, expected)


def test_every_parameter_of_a_decoder_only_model_is_trained(ids) -> None:
    model = LanguageModel(GPT2Config(vocab_size=53, n_positions=64, n_embd=22, n_layer=2, n_head=2))
    model(ids(2, 64), DecoderState())[0].logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("length", [7, 60])
def test_left_padded_sequences_equal_unpadded_ones(rotary: bool, length: int) -> None:
    def layer() -> Layer:
        attention = RotaryAttention(DotProductAttention(), 6) if rotary else DotProductAttention()
        return Layer(MultiHeadAttention(22, 2, d_k=6, attention=attention), FeedForward(22, 31))

    decoder, embedded, lengths = Decoder(layer() for _ in range(2)).eval(), torch.randn(3, length, 22), (length, 3, 5)
    positions = torch.tensor([[max(i - (length - n), 0) for i in range(length + 1)] for n in lengths])
    real = torch.tensor([[i >= length - n for i in range(length + 1)] for n in lengths])[:, None, None, :]
    if not rotary:  # these are relative: a shift of all positions changes nothing
        embedded = embedded + sinusoidal_positions(length, 22)[positions[:, :length]]
    hidden, state = decoder(embedded, DecoderState(), real[..., :length])
    new = torch.randn(3, 1, 22)
    step, _ = decoder(new, state, real)
    for row, n in enumerate(lengths):
        expected, alone = decoder(embedded[row, None, length - n :], DecoderState())
        assert_close(hidden[row, None, length - n :], expected)
        assert_close(step[row, None], decoder(new[row, None], alone)[0])


def test_packed_sequences_do_not_see_each_other() -> None:
    decoder = Decoder([Layer(MultiHeadAttention(22, 2), FeedForward(22, 31)) for _ in range(2)]).eval()
    x, document = torch.randn(1, 9, 22), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    hidden, _ = decoder(x, DecoderState(), (document[:, None] == document)[None, None])
    for part in (slice(0, 3), slice(3, 5), slice(5, 9)):
        assert_close(hidden[:, part], decoder(x[:, part], DecoderState())[0])


def test_a_state_is_a_pytree_and_moves(variant, build, ids) -> None:
    model = build(variant).eval()
    _, state = model.decode(ids(2, 3), model.encode(ids(2, 7)))
    leaves, _ = tree_flatten(state)
    assert len(leaves) == 9 and all(isinstance(leaf, Tensor) for leaf in leaves)  # 2 layers: 2 x 2 x 2, and the mask
    moved = state.to("meta")
    assert moved.length == 3 and all(leaf.is_meta for leaf in tree_flatten(moved)[0])
    back = tree_map(torch.clone, state)
    new = ids(2, 1)
    assert isinstance(back, DecoderState) and isinstance(back.past[0], KeyValue)
    assert torch.equal(model.decode(new, back)[0], model.decode(new, state.to("cpu"))[0])


def test_a_state_of_a_model_with_other_layers_is_refused(build, ids) -> None:
    state = build(num_decoder_layers=3).encode(ids(2, 7))
    _, state = build(num_decoder_layers=3).decode(ids(2, 3), state)
    with pytest.raises(ValueError, match="zip"):
        build(num_decoder_layers=2).decode(ids(2, 1), state)


def test_unequal_depths_and_two_vocabularies(ids) -> None:
    model = Transformer(53, 22, num_layers=1, num_heads=2, d_ff=31, num_decoder_layers=3)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (1, 3)
    model.embedding = UntiedEmbedding(53, 22, source_vocab_size=101)
    src = torch.randint(90, 101, (2, 7))
    logits = model(src, ids(2, 5))
    assert logits.shape == (2, 5, 53)
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("way", ["wrapper", "by hand"])
@pytest.mark.parametrize("length", [7, 60])
def test_gradients_with_activation_checkpointing_are_the_same(variant, build, ids, way: str, length: int) -> None:
    plain, checkpointed = build(variant, dropout=0.3), build(variant, dropout=0.3)
    if way == "wrapper":
        apply_activation_checkpointing(checkpointed, check_fn=lambda module: isinstance(module, Layer))
    else:
        for layer in (*checkpointed.encoder.layers, *checkpointed.decoder.layers):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    src, tgt = ids(2, length), ids(2, length)
    for model in (plain, checkpointed):
        torch.manual_seed(1)
        model(src, tgt).logsumexp(-1).sum().backward()
    assert checkpointed.state_dict().keys() == plain.state_dict().keys()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_an_encoder_alone_classifies_patches() -> None:
    layers = [PreNormLayer(MultiHeadAttention(22, 2), FeedForward(22, 31, activation=F.gelu)) for _ in range(2)]
    patches = nn.Conv2d(3, 22, kernel_size=4, stride=4)(torch.randn(2, 3, 12, 16)).flatten(2).mT  # (2, 12, 22)
    x = SinusoidalPositions(22)(patches)
    for layer in layers:
        x, _, _ = layer(x)
    assert nn.Linear(22, 5)(x.mean(dim=1)).shape == (2, 5)

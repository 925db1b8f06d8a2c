"""docs/PORTING.md: its code runs, and weights ported with it give equal outputs."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from transformers import FSMTConfig, FSMTForConditionalGeneration

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.attention import causal_mask
from transformer.model.transformer import DecoderState

PAGE = Path(__file__).parents[2] / "docs" / "PORTING.md"


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """The names that the page's Python blocks define, run one after the other in a job of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    names: dict[str, Any] = {"__name__": "porting"}
    with pytest.MonkeyPatch.context() as patch:
        # Another backend's code would be written in C++ and compiled for minutes; it is not what is tested.
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        text = PAGE.read_text()
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            lines_before = text[: match.start(1)].count("\n")  # for the line numbers of errors
            exec(compile("\n" * lines_before + match[1], str(PAGE), "exec"), names)
    yield names
    dist.destroy_process_group()


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Change what is 0 or 1 at first, such as biases."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) / 5)


def test_every_block_of_the_page_runs(page: dict[str, Any]) -> None:
    assert {"port_attention", "port_layer", "port_transformer", "from_fairseq", "program", "step"} <= page.keys()
    assert len(page["norms"]) == 1


def test_every_tested_recipe_is_still_on_the_page() -> None:
    text = PAGE.read_text()
    for recipe in (
        "fully_shard(layer)",
        "apply_activation_checkpointing",
        "AveragedModel",
        "to_empty",
        "fullgraph=True",
    ):
        assert recipe in text


@pytest.mark.parametrize("length", [7, 60])
def test_multihead_attention_of_torch(page: dict[str, Any], length: int) -> None:
    theirs = nn.MultiheadAttention(22, 2, batch_first=True, dtype=torch.float64)
    randomise(theirs)
    ours = page["port_attention"](theirs)
    x, memory = torch.randn(3, length, 22).double(), torch.randn(3, 5, 22).double()
    padding = torch.arange(5) >= torch.tensor([5, 2, 1])[:, None]  # True where masked
    assert_close(ours(x), theirs(x, x, x)[0])
    expected = theirs(x, memory, memory, key_padding_mask=padding)[0]
    assert_close(ours(x, memory, mask=~padding[:, None, None]), expected)
    causal = nn.Transformer.generate_square_subsequent_mask(length).isinf()
    assert_close(ours(x, mask=~causal), theirs(x, x, x, attn_mask=causal)[0])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
def test_encoder_and_decoder_layers_of_torch(page: dict[str, Any], norm_first: bool, activation: Any) -> None:
    options = {"batch_first": True, "norm_first": norm_first, "activation": activation, "dtype": torch.float64}
    x, memory = torch.randn(3, 7, 22).double(), torch.randn(3, 5, 22).double()
    padding = torch.arange(7) >= torch.tensor([7, 2, 1])[:, None]
    theirs: nn.Module = nn.TransformerEncoderLayer(22, 2, 31, **options).eval()
    randomise(theirs)
    ours = page["port_layer"](theirs).eval()
    assert_close(ours(x, ~padding[:, None, None])[0], theirs(x, src_key_padding_mask=padding))
    theirs = nn.TransformerDecoderLayer(22, 2, 31, **options).eval()
    randomise(theirs)
    ours = page["port_layer"](theirs).eval()
    causal = causal_mask(7)
    assert_close(ours(x, causal, memory=memory)[0], theirs(x, memory, tgt_mask=~causal[0, 0]))


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_of_torch(page: dict[str, Any], norm_first: bool) -> None:
    theirs = nn.Transformer(22, 2, 2, 3, 31, batch_first=True, norm_first=norm_first, dtype=torch.float64).eval()
    randomise(theirs)
    encoder, decoder = (stack.eval() for stack in page["port_transformer"](theirs))
    source, target = torch.randn(3, 9, 22).double(), torch.randn(3, 7, 22).double()
    padding = torch.arange(9) >= torch.tensor([9, 2, 1])[:, None]
    state = DecoderState(encoder(source, ~padding[:, None, None]), ~padding[:, None, None])
    options = {"tgt_mask": ~causal_mask(7)[0, 0], "src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    expected = theirs(source, target, **options)
    assert_close(decoder(target, state)[0], expected)
    steps = []
    for position in range(7):  # and with the KV cache that theirs lacks
        hidden, state = decoder(target[:, position : position + 1], state)
        steps.append(hidden)
    assert_close(torch.cat(steps, dim=1), expected)


def test_a_model_of_fairseq(page: dict[str, Any]) -> None:
    sizes = {"d_model": 22, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 31, "decoder_ffn_dim": 31}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 40}
    vocabulary = {
        "src_vocab_size": 53,
        "tgt_vocab_size": 53,
        "langs": ["en", "de"],
        "pad_token_id": 1,
        "tie_word_embeddings": True,
    }
    theirs = FSMTForConditionalGeneration(FSMTConfig(**sizes, **heads, **vocabulary)).eval()
    for part in (theirs.model.encoder, theirs.model.decoder):
        randomise(part.layers)
    config = ModelConfig(d_model=22, num_layers=2, num_decoder_layers=1, num_heads=2, d_ff=31, attention_bias=True,
                         norm_eps=1e-5, tie="decoder", positional="learned", max_positions=40)  # fmt: skip
    ours = build_model(53, config).eval()
    ours.pad_id = 1
    ours.load_state_dict(page["from_fairseq"](theirs.state_dict(), 40))
    src, tgt = torch.randint(4, 53, (2, 9)), torch.randint(4, 53, (2, 7))
    src[1, 5:] = 1
    expected = theirs(src, attention_mask=src != 1, decoder_input_ids=tgt, use_cache=False).logits
    assert_close(ours(src, tgt), expected, rtol=1e-4, atol=1e-4)

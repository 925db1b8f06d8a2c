"""docs/PORTING.md: its code runs, and weights ported with it give equal outputs (torch.nn's: tests/interop)."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing import assert_close
from transformers import FSMTConfig, FSMTForConditionalGeneration

from transformer.config import ModelConfig
from transformer.model.alternatives.build import build_model
from transformer.model.attention import causal_mask
from transformer.model.embeddings import sinusoidal_positions
from transformer.model.transformer import Decoder, DecoderState, Encoder

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
    assert {"encoder", "decoder", "ours", "from_fairseq", "program", "step"} <= page.keys()
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


def test_a_model_around_the_transformer_of_torch(page: dict[str, Any]) -> None:
    theirs, ours = page["theirs"].eval(), page["ours"].eval()
    src, tgt = torch.randint(1, 1000, (3, 9)), torch.randint(1, 1000, (3, 7))
    src[1, 5:] = 0
    source, target = (
        embedding(ids) * 8 + sinusoidal_positions(ids.size(1), 64)
        for embedding, ids in ((theirs.source, src), (theirs.target, tgt))
    )
    masks = {"src_key_padding_mask": src == 0, "memory_key_padding_mask": src == 0, "tgt_mask": ~causal_mask(7)[0, 0]}
    expected = theirs.generator(theirs.transformer(source, target, **masks))
    assert_close(ours(src, tgt), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cross_attend", [False, True])
def test_a_stack_of_x_transformers(page: dict[str, Any], cross_attend: bool) -> None:
    library = pytest.importorskip("x_transformers")
    sizes: dict[str, Any] = {"dim": 22, "heads": 2, "attn_dim_head": 7}
    more = {"cross_attend": True} if cross_attend else {}
    theirs = (library.Decoder if cross_attend else library.Encoder)(depth=3, **sizes, **more).eval().double()
    randomise(theirs)
    layers = [page["like_x_transformers"](**sizes, **more) for _ in range(3)]
    ours = (Decoder if cross_attend else Encoder)(layers, norm=nn.LayerNorm(22, 1e-5)).eval().double()
    ours.load_state_dict(page["from_x_transformers"](theirs.state_dict(), cross_attend=cross_attend))
    x, memory = torch.randn(3, 7, 22).double(), torch.randn(3, 5, 22).double()
    real = torch.arange(7) < torch.tensor([7, 2, 1])[:, None]
    close = {"rtol": 1e-5, "atol": 1e-5}  # its softmax is that of float32
    if cross_attend:
        assert_close(ours(x, DecoderState(memory))[0], theirs(x, context=memory), **close)
    else:
        assert_close(ours(x, real[:, None, None])[real], theirs(x, mask=real)[real], **close)

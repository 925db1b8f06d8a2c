"""In bfloat16 and int8, a long sentence in a batch changes no bit of the others, which are padded to its length."""

from __future__ import annotations

import pytest
import torch

from transformer.config import ModelConfig
from transformer.inference.prepacked import can_prepack, can_quantize, prepack_model
from transformer.model.alternatives.build import build_model

BFLOAT16 = torch.zeros(1, dtype=torch.bfloat16)


@pytest.mark.parametrize("length", [31, 173, 331, 1013])
@pytest.mark.parametrize("quantize", [False, True])
def test_a_long_sentence_changes_no_bit_of_the_others(length: int, quantize: bool) -> None:
    if not (can_quantize if quantize else can_prepack)(BFLOAT16):
        pytest.skip("torch has no kernel here")
    torch.manual_seed(1)
    sizes = ModelConfig(d_model=34, num_layers=2, num_heads=2, d_ff=43)
    model = build_model(101, sizes).to(torch.bfloat16).eval()
    prepack_model(model, quantize=quantize)
    short = torch.randint(4, 101, (5, 23))
    src = torch.zeros(6, length, dtype=torch.int64)
    src[:5, :23], src[5] = short, torch.randint(4, 101, (length,))
    with torch.inference_mode():
        assert torch.equal(model.encode(src).memory[:5, :23], model.encode(short).memory)

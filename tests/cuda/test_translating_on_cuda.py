"""Translation on CUDA by a model of six layers: the text of the CPU, and the waits and kernels of a step of it.

What the searches themselves wait for, with all their options: test_searching_on_cuda.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretended import PretendedCuda
from torch import Tensor

from transformer.data.tokenizer import BOS_ID, EOS_ID
from transformer.inference.search import beam_search, greedy_search
from transformer.inference.translator import Translator
from transformer.model.transformer import DecoderState, Transformer

V, B, NUM_LAYERS = 103, 3, 6


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(3)
    return Transformer(V, d_model=32, num_layers=NUM_LAYERS, num_heads=4, d_ff=37).eval()


def count_steps(
    model: Transformer, search: Callable[..., object], num_steps: int, **options: Any
) -> tuple[Counter[str], int]:
    """Waits by their place, and kernels, of a search in which no hypothesis ends before its limit."""
    with PretendedCuda() as cuda, torch.no_grad():
        on_cuda = Transformer(V, d_model=32, num_layers=NUM_LAYERS, num_heads=4, d_ff=37).eval()
        on_cuda.load_state_dict(model.state_dict())
        on_cuda = on_cuda.to("cuda", torch.bfloat16)
        source = torch.full((B, 7), 11, device="cuda")
        bias = torch.zeros(V, device="cuda")
        bias[EOS_ID].fill_(-1e4)

        def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
            hidden, state = on_cuda.decode(tokens[:, None], state)
            return on_cuda.logits(hidden[:, -1]) + bias, state

        state = on_cuda.encode(source)
        cuda.reset()
        search(decode, state, [num_steps] * B, bos_id=BOS_ID, eos_id=EOS_ID, device="cuda", **options)
        return Counter(wait.split(" < ")[0] for wait in cuda.waits), cuda.num_kernels


@pytest.mark.parametrize(
    ("search", "options", "steps_per_wait", "most_kernels"),
    [(greedy_search, {}, 8, 160), (beam_search, {"beam": 4}, 1, 190)],
)
def test_a_step_waits_once_at_most_and_takes_no_more_kernels_than_stated(
    model: Transformer,
    search: Callable[..., object],
    options: dict[str, int],
    steps_per_wait: int,
    most_kernels: int,
) -> None:
    (few, few_kernels), (many, many_kernels) = (count_steps(model, search, steps, **options) for steps in (8, 16))
    more = {place: number - few[place] for place, number in many.items() if number != few[place]}
    assert list(more.values()) == [8 // steps_per_wait], more
    assert (many_kernels - few_kernels) / 8 <= most_kernels


def test_translations_are_those_of_the_cpu(babbler: Any) -> None:
    sources = ["the old man sees a dog .", "two women", ""]
    expected = Translator.load(babbler, device="cpu", precision="fp32")
    with PretendedCuda() as cuda:
        found = Translator.load(babbler, device="cuda", precision="fp32")
        for options in ({"beam": 1}, {"beam": 3, "max_length_offset": 7}):
            assert found.translate(sources, **options) == expected.translate(sources, **options)
        assert cuda.attention.keys() == {"math"}, "the tiny model's d_k is 7"

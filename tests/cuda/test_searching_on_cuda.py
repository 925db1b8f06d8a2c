"""Searches on CUDA with all their options: at most one wait per step, and the outputs of the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pretended import PretendedCuda
from torch import Tensor

from transformer.inference.constraints import constrained_beam_search
from transformer.inference.ensemble import EnsembleState, mean_probabilities
from transformer.inference.exchange import to_host
from transformer.inference.rules import Forbidden, ForcedPrefix, MinLength, NoRepeatNgram
from transformer.inference.sampling import sample
from transformer.inference.search import beam_search, greedy_search
from transformer.inference.token_scores import token_log_probs
from transformer.model.transformer import DecoderState, Transformer

V, BOS, EOS = 104, 1, 2
LIMITS = [13, 3, 11]
Search = Callable[..., list[Any]]


@pytest.fixture
def cuda() -> Iterator[PretendedCuda]:
    with PretendedCuda() as device:
        yield device


def make_model(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(V, d_model=16, num_layers=1, num_heads=2, d_ff=24).eval()
    with torch.no_grad():
        model.embedding.weight *= 2
    return model


def sources() -> Tensor:
    src = torch.randint(4, V, (len(LIMITS), 7), generator=torch.Generator().manual_seed(3))
    src[1, 4:] = 0
    return src


def decode_of(model: Transformer, num_steps: list[int], eos_logit: float) -> Callable[..., tuple[Tensor, DecoderState]]:
    def decode(tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        num_steps[0] += 1
        hidden, state = model.decode(tokens[:, None], state)
        logits = model.logits(hidden[:, -1])
        return torch.cat((logits[:, :EOS], logits[:, EOS : EOS + 1] + eos_logit, logits[:, EOS + 1 :]), dim=1), state

    return decode


def run(search: Search, device: str, eos_logit: float = 0.0, **options: Any) -> tuple[list[Any], int]:
    """What a search finds, and the number of its steps."""
    num_steps = [0]
    model = make_model().to(device)
    decode: Any = decode_of(model, num_steps, eos_logit)
    src = sources()
    with torch.no_grad():
        state: Any = model.encode(src.pin_memory().to(device, non_blocking=True) if device == "cuda" else src)
        if options.pop("is_ensemble", False):
            other = make_model(seed=1).to(device)
            decode = mean_probabilities([decode, decode_of(other, [0], eos_logit)])
            state = EnsembleState((state, other.encode(state.memory_mask[:, 0, 0].long() * 5)))
        if PretendedCuda.current is not None:
            PretendedCuda.current.reset()
        return search(decode, state, LIMITS, device=device, **{"bos_id": BOS, "eos_id": EOS} | options), num_steps[0]


RULES = (ForcedPrefix([[], [5], [5, 7, 7]], (Forbidden([3, 9]), MinLength([5, 2, 4], [EOS]), NoRepeatNgram(2))),)
PHRASES: list[list[list[int]]] = [[[11], [13, 5]], [], [[17, 5], [17, 5]]]


def constrained(decode: Any, state: Any, limits: list[int], **options: Any) -> list[Any]:
    return constrained_beam_search(decode, state, limits, PHRASES, **options)


def sampled(decode: Any, state: Any, limits: list[int], **options: Any) -> list[Any]:
    generators = [np.random.default_rng(i) for i in range(len(limits))]
    return sample(decode, state, limits, generator=generators, top_k=5, top_p=0.9, num_samples=2, **options)


BEAMS: list[tuple[Search, dict[str, Any]]] = [
    (beam_search, {"beam": 4}),
    (beam_search, {"beam": 3, "nbest": 3, "key": lambda ids: len(ids) // 2}),
    (beam_search, {"beam": 4, "rules": RULES}),
    (beam_search, {"beam": 3, "eos_id": [EOS, 5, 7]}),
    (beam_search, {"beam": 4, "bos_id": [[BOS, i] for i in range(len(LIMITS))]}),
    (beam_search, {"beam": 2, "is_ensemble": True}),
    (greedy_search, {"rules": RULES}),
    (sampled, {"rules": RULES}),
]
LONG_LOOKS: list[tuple[Search, dict[str, Any]]] = [
    (greedy_search, {}),
    (greedy_search, {"is_ensemble": True}),
    (sampled, {}),
]


def flat(found: list[Any]) -> list[Any]:
    return [one for x in found for one in (x if isinstance(x, list) else [x])]


def ids_of(found: list[Any]) -> list[list[int]]:
    return [one.ids for one in flat(found)]


ALL = [*BEAMS, *LONG_LOOKS, (constrained, {"beam": 5, "nbest": 2}), (constrained, {"beam": 4, "rules": RULES[0].rules})]


@pytest.mark.parametrize(("search", "options"), ALL)
def test_outputs_are_those_of_the_cpu(search: Search, options: dict[str, Any]) -> None:
    expected, _ = run(search, "cpu", 2.0, **options)
    with PretendedCuda():
        found, _ = run(search, "cuda", 2.0, **options)
    assert ids_of(found) == ids_of(expected)
    scores = [[one.log_prob for one in flat(x)] for x in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)  # attention takes another kernel


@pytest.mark.parametrize(("search", "options"), BEAMS)
def test_a_step_waits_once(search: Search, options: dict[str, Any], cuda: PretendedCuda) -> None:
    _, num_steps = run(search, "cuda", 2.0, **options)
    assert num_steps > 3
    assert len(cuda.waits) <= num_steps, cuda.waits
    assert all("exchange.py" in place for place in cuda.waits)


@pytest.mark.parametrize(("search", "options"), LONG_LOOKS)
def test_the_host_looks_after_every_eighth_step(search: Search, options: dict[str, Any], cuda: PretendedCuda) -> None:
    _, num_steps = run(search, "cuda", **options)
    assert num_steps <= max(LIMITS)
    looks = [place for place in cuda.waits if "exchange.py" in place]
    assert len(looks) == -(-num_steps // 8)
    assert cuda.waits == looks


def test_each_part_of_a_constrained_search_waits_once_per_step(cuda: PretendedCuda) -> None:
    _, num_steps = run(constrained, "cuda", beam=5, nbest=2)
    assert len(cuda.waits) <= num_steps, cuda.waits


def test_scores_of_given_tokens_are_read_once(cuda: PretendedCuda) -> None:
    outputs = [[[5, 7, EOS], [11]], [[13, 17, 19, EOS], []], []]

    def scores(decode: Any, state: Any, _: list[int], bos_id: int, eos_id: int, device: str) -> list[Any]:  # noqa: ARG001
        return token_log_probs(decode, state, outputs, bos_id=bos_id, device=device)

    found, num_steps = run(scores, "cuda")
    assert (len(cuda.waits), num_steps) == (1, 4)
    assert [[len(one) for one in hypotheses] for hypotheses in found] == [[3, 1], [4, 0], []]
    expected, _ = run(scores, "cpu")
    for one, other in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_numbers_of_both_kinds_travel_in_one_copy_to_the_bit(cuda: PretendedCuda) -> None:
    x = torch.tensor([[0.1, -torch.inf, torch.nan], [1e-45, -0.0, 3.0e38]])
    ids = torch.tensor([2**31 - 1, 0, 37000])
    on_device = [y.pin_memory().to("cuda", non_blocking=True) for y in (x, ids)]
    found = to_host(*on_device)
    assert len(cuda.waits) == 1
    assert found[0].view(torch.int32).equal(x.view(torch.int32))
    assert found[1].equal(ids)


class Nothing:
    def select(self, _: Tensor) -> Nothing:
        return self


@pytest.mark.parametrize(("search", "options", "most"), [(beam_search, {"beam": 4}, 15), (greedy_search, {}, 15)])
def test_a_step_takes_few_kernels_besides_those_of_the_decoder(
    search: Search, options: dict[str, Any], most: int, cuda: PretendedCuda
) -> None:
    table = torch.randn(11, V, generator=torch.Generator().manual_seed(5)).pin_memory().to("cuda", non_blocking=True)
    logits = {num_rows: table[:num_rows] for num_rows in range(1, 13)}
    logits[12] = torch.cat((table, table[:1]))
    num_steps = 0

    def decode(tokens: Tensor, state: Nothing) -> tuple[Tensor, Nothing]:
        nonlocal num_steps
        num_steps += 1
        return logits[len(tokens)], state

    cuda.reset()
    search(decode, Nothing(), LIMITS, bos_id=BOS, eos_id=EOS, device="cuda", **options)
    assert num_steps > 5
    assert cuda.num_kernels <= most * num_steps, cuda.calls

"""Log-probabilities of the tokens of given outputs, over any decode callable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transformer.inference.decoding import BosId, Decode, Device, State, prefill
from transformer.inference.exchange import to_device, to_host


@torch.no_grad()
def token_log_probs(
    decode: Decode[State],
    state: State,
    outputs: Sequence[Sequence[Sequence[int]]],
    *,
    bos_id: BosId,
    device: Device = "cpu",
) -> list[list[list[float]]]:
    """log P of each token of given outputs, in nats.

    It takes one step per token, as the search does, and reads from the device once.

    Args:
        outputs: per sentence, the ids of its hypotheses, </s> included where they have it; those without ids get none.
            After a token that the model makes impossible, or where logits are NaN, there are no numbers.
        decode, state, bos_id, device: as for `greedy_search`.
    """
    found: list[list[list[float]]] = [[[] for _ in hypotheses] for hypotheses in outputs]
    places = [(i, j) for i, hypotheses in enumerate(outputs) for j, ids in enumerate(hypotheses) if ids]
    _, _, logits, state = prefill(decode, state, [1] * len(outputs), bos_id, (), device)
    if not places:
        return found
    copies = to_device([i for i, _ in places], device)
    logits, state = logits[copies], state.select(copies[:, None])
    rows, steps = places, list[tuple[list[tuple[int, int]], Tensor]]()
    for t in range(max(len(outputs[i][j]) for i, j in places)):
        tokens = to_device([outputs[i][j][t] for i, j in rows], device)  # (R,)
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32).gather(1, tokens[:, None])[:, 0]  # (R,)
        steps.append((rows, log_probs))
        kept = [n for n, (i, j) in enumerate(rows) if len(outputs[i][j]) > t + 1]
        if kept and len(kept) < len(rows):
            index = to_device(kept, device)
            rows, tokens, state = [rows[n] for n in kept], tokens[index], state.select(index[:, None])
        if kept:
            logits, state = decode(tokens, state)
    for (step_rows, _), log_probs in zip(steps, to_host(*(log_probs for _, log_probs in steps)), strict=True):
        for (i, j), log_prob in zip(step_rows, log_probs.tolist(), strict=True):
            if all(math.isfinite(x) for x in found[i][j][-1:]):
                found[i][j].append(log_prob)
    return found

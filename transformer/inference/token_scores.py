"""Log-probabilities of the tokens of given outputs, over any decode callable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transformer.inference.search import BosId, Decode, Device, State, generate, prefill


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

    It takes one step per token, as the search does.

    Args:
        outputs: per sentence, the ids of its hypotheses, </s> included where they have it; those without ids get none.
        decode, state, bos_id, device: as for `greedy_search`.
    """
    found: list[list[list[float]]] = [[[] for _ in hypotheses] for hypotheses in outputs]
    places = [(i, j) for i, hypotheses in enumerate(outputs) for j, ids in enumerate(hypotheses) if ids]
    _, _, logits, state = prefill(decode, state, [1] * len(outputs), bos_id, (), device)
    if not places:
        return found
    copies = torch.tensor([i for i, _ in places], device=device)
    logits, state = logits[copies], state.select(copies[:, None])

    def given_token(logits: Tensor, rows: Sequence[int], so_far: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        t = len(so_far[rows[0]])
        tokens = torch.tensor([[outputs[i][j][t]] for i, j in (places[row] for row in rows)], device=device)
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32).gather(1, tokens)  # (R, 1)
        for row, log_prob in zip(rows, log_probs[:, 0].tolist(), strict=True):
            found[places[row][0]][places[row][1]].append(log_prob)
        return log_probs, tokens

    limits = [len(outputs[i][j]) for i, j in places]
    generate(decode, state, logits, limits, (), given_token, alpha=0.0)
    return found

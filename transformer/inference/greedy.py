"""Greedy search, and the loop that it shares with sampling.

Dimension key: R unfinished hypotheses, one per row; V vocabulary, t tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from transformer.inference.decoding import BosId, Decode, Device, EosId, State, prefill
from transformer.inference.exchange import steps_per_look, to_device, to_host
from transformer.inference.hypotheses import NOTHING, Hypothesis
from transformer.inference.penalties import Penalty, length_penalty
from transformer.inference.rules import Rule, ruled_log_probs
from transformer.inference.topk import grouped_topk, log_softmax_topk

# From logits (R, V), the numbers of these rows, and how many tokens they have: log-probabilities and tokens, (R, 1).
NextToken = Callable[[Tensor, Sequence[int], int], tuple[Tensor, Tensor]]


@torch.no_grad()
def greedy_search(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: BosId,
    eos_id: EosId,
    alpha: float = 0.6,
    penalty: Penalty = length_penalty,
    rules: Sequence[Rule] = (),
    device: Device = "cpu",
) -> list[Hypothesis]:
    """Take the most probable token until </s> or the length limit.

    Args:
        decode: gives the next token's logits.
        state: before the first token, one hypothesis per sentence.
        max_lengths: per sentence, the most tokens it may produce, </s> included; at least 1.
        bos_id: the id of <s>; or a prompt for each sentence, <s> included, all equally long. Neither the output nor its
            length and log P include it.
        eos_id: the id of </s>, or several ids that all end a hypothesis.
        alpha: α of the length penalty in the score; it changes no output.
        penalty: the length penalty, from length and α.
        rules: that every hypothesis obeys, applied in this order.
        device: where `decode` wants its tokens.

    Returns:
        One hypothesis per sentence. Where logits are NaN, or rules leave nothing, it has no ids, and log P and score
        are -inf.

    Raises:
        TypeError: `bos_id`, `eos_id` or `max_lengths` has something other than ints.
        ValueError: a limit is less than 1, or the prompts are not one per sentence, equally long and not empty.
    """
    rules = tuple(rules)
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)
    outputs: list[list[int]] = [[] for _ in limits]

    def best_token(logits: Tensor, rows: Sequence[int], _: int) -> tuple[Tensor, Tensor]:
        if not rules:
            return log_softmax_topk(logits, 1)
        return grouped_topk(ruled_log_probs(logits, rules, prefixes_of(outputs, rows, logits.device), rows), 1)

    return generate(decode, state, logits, limits, eos_ids, best_token, outputs, alpha, penalty, bool(rules))


def generate(
    decode: Decode[State],
    state: State,
    logits: Tensor,
    limits: Sequence[int],
    eos_ids: Collection[int],
    next_token: NextToken,
    outputs: Sequence[list[int]],
    alpha: float,
    penalty: Penalty,
    is_ruled: bool,
) -> list[Hypothesis]:
    """Append the tokens that `next_token` picks: the loop of greedy search and sampling.

    Args:
        state, logits, limits: a row per hypothesis, otherwise as `prefill` returns them.
        next_token: picks them. It may meet rows that are over, and past their limits, if they are not ruled.
        outputs: per row an empty list, to which its tokens are appended.
        is_ruled: whether `next_token` reads `outputs`, so that these must have every token before the next.
    """
    found, rows = [NOTHING] * len(limits), list(range(len(limits)))
    log_probs = torch.zeros((len(rows), 1), device=logits.device)
    num_unseen = 1 if is_ruled else steps_per_look(logits.device)
    unseen: list[tuple[Tensor, Tensor]] = []  # tokens and log P (R, 1) of the steps since the last look
    t = 0
    while rows:
        step_log_probs, tokens = next_token(logits, rows, t)
        log_probs = log_probs + step_log_probs  # (R, 1)
        unseen.append((tokens, log_probs))
        t += 1
        if len(unseen) == num_unseen or t == max(limits[row] for row in rows):
            new_tokens, sums = (torch.cat(x, dim=1) if len(x) > 1 else x[0] for x in zip(*unseen, strict=True))
            unseen.clear()
            kept = []
            look = zip(rows, *(x.tolist() for x in to_host(new_tokens, sums)), strict=True)
            for i, (row, row_tokens, row_log_probs) in enumerate(look):
                ids = outputs[row]
                for token, log_prob in zip(row_tokens, row_log_probs, strict=True):
                    ids.append(token)
                    if token in eos_ids or len(ids) == limits[row] or not math.isfinite(log_prob):
                        if math.isfinite(log_prob):
                            found[row] = Hypothesis(ids, log_prob, log_prob / penalty(len(ids), alpha))
                        break
                else:
                    kept.append(i)
            if kept and len(kept) < len(rows):
                index = to_device(kept, logits.device)
                tokens, log_probs, state = tokens[index], log_probs[index], state.select(index[:, None])
            rows = [rows[i] for i in kept]
        if rows:
            logits, state = decode(tokens[:, 0], state)
    return found


def prefixes_of(outputs: Sequence[Sequence[int]], rows: Sequence[int], device: Device) -> Tensor:
    """The tokens (R, t) of these rows, for rules."""
    return to_device([outputs[row] for row in rows], device)

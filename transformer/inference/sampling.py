"""Sampling from the model's distribution, over any decode callable."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from transformer.inference.search import BosId, Decode, Device, EosId, Hypothesis, State, generate, prefill


@torch.no_grad()
def sample(
    decode: Decode[State],
    state: State,
    max_lengths: Sequence[int],
    *,
    bos_id: BosId,
    eos_id: EosId,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
    alpha: float = 0.6,
    device: Device = "cpu",
) -> list[list[Hypothesis]]:
    """Draw tokens from the model's distribution, after temperature, top-k and top-p.

    Each hypothesis takes as many random numbers as it may have tokens, sentence by sentence, before the first step. So
    samples do not depend on other sentences' outcomes nor, with a CPU generator, on how sentences are batched.

    Args:
        temperature: divides the logits; close to 0 this is greedy search.
        top_k: keep the k most probable tokens, and those that tie with the last of them; 0 keeps all.
        top_p: keep the fewest most probable tokens with this total probability (nucleus sampling); 1 keeps all.
        num_samples: hypotheses per sentence, independent of each other.
        generator: source of the random numbers; torch's default one if None.
        decode, state, max_lengths, bos_id, eos_id, alpha, device: as for `greedy_search`.

    Returns:
        Per sentence its samples as drawn. Their log P is the model's own, as in the other searches.

    Raises:
        TypeError, ValueError: as `greedy_search`; or an option is out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} must be positive and finite; greedy_search is the limit 0")
    if top_k < 0:
        raise ValueError(f"top_k={top_k} must be positive, or 0 to keep all tokens")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be more than 0 and at most 1")
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} must be at least 1")
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)
    limits = [limit for limit in limits for _ in range(num_samples)]
    if num_samples > 1 and limits:
        copies = torch.arange(len(limits), device=device) // num_samples
        logits, state = logits[copies], state.select(copies[:, None])
    *first, total = itertools.accumulate(limits, initial=0)
    noise_device = generator.device if generator else None
    noise = torch.rand(total, generator=generator, dtype=torch.float64, device=noise_device).to(device)

    def draw(logits: Tensor, rows: Sequence[int], t: int) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32)
        # Inverse of the cumulative distribution; in float32, rounding would hide improbable tokens.
        log_odds = log_probs - log_probs.amax(dim=-1, keepdim=True)  # the best stays 0 at any temperature
        probs = warp_logits(log_odds, temperature, top_k, top_p).softmax(dim=-1, dtype=torch.float64)
        cumulative = probs.cumsum(dim=-1)  # (R, V)
        threshold = noise[[first[row] + t for row in rows], None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True)  # (R, 1)
        tokens = tokens.clamp(max=logits.size(-1) - 1)  # if NaN
        return log_probs.gather(1, tokens), tokens

    found = generate(decode, state, logits, limits, eos_ids, draw, alpha)
    return [found[i : i + num_samples] for i in range(0, len(found), num_samples)]


def warp_logits(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Apply temperature, top-k and top-p to logits (R, V), in this order.

    Equals Hugging Face's `TemperatureLogitsWarper`, `TopKLogitsWarper` and `TopPLogitsWarper`, ties included.
    """
    logits = logits / temperature
    if top_k:
        smallest = logits.topk(min(top_k, logits.size(-1))).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p < 1:
        ascending, index = logits.sort(dim=-1)
        is_dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        is_dropped[:, -1] = False
        logits = logits.masked_fill(is_dropped.scatter(1, index, is_dropped), -torch.inf)
    return logits

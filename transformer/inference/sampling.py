"""Sampling from the model's distribution, over any decode callable."""

import itertools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transformer.errors import ConfigError
from transformer.inference.decoding import BosId, Decode, Device, EosId, State, prefill
from transformer.inference.exchange import to_device
from transformer.inference.greedy import generate, prefixes_of
from transformer.inference.hypotheses import Hypothesis
from transformer.inference.penalties import Penalty, length_penalty
from transformer.inference.rules import Rule, apply_rules

_FLOAT32 = torch.finfo(torch.float32)  # in which logits are divided


@dataclass(frozen=True)
class Sampling:
    """How `Translator` samples instead of searching.

    Args:
        temperature, top_k, top_p: as of `sample`.
        seed: from 0. The samples of a text depend on this and the text's number alone, and not on other texts.

    Raises:
        ConfigError: one of them is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"temperature={self.temperature} must be positive and finite; greedy_search is the limit 0"
            )
        if not _FLOAT32.tiny <= self.temperature <= _FLOAT32.max:  # 0 / 0 and inf / inf would be NaN
            raise ConfigError(
                f"temperature={self.temperature} must be from {_FLOAT32.tiny:.2g} to {_FLOAT32.max:.2g}, the numbers "
                "of float32"
            )
        if not isinstance(self.top_k, numbers.Integral) or self.top_k < 0:
            raise ConfigError(f"top_k={self.top_k!r} must be a positive whole number, or 0 to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p} must be more than 0 and at most 1")
        if not isinstance(self.seed, numbers.Integral) or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r} must be a whole number of at least 0")

    def generator(self, number: int, part: int = 0) -> np.random.Generator:
        """The random numbers of a part of the text with this number, both from 0."""
        return np.random.default_rng((self.seed, number, part))


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
    generator: torch.Generator | Sequence[np.random.Generator] | None = None,
    alpha: float = 0.6,
    penalty: Penalty = length_penalty,
    rules: Sequence[Rule] = (),
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
        generator: source of the random numbers; torch's default one if None. Or a NumPy one for each sentence, whose
            samples then depend on it alone.
        decode, state, max_lengths, bos_id, eos_id, alpha, penalty, rules, device: as for `greedy_search`; the rules
            come before temperature, top-k and top-p.

    Returns:
        Per sentence its samples as drawn. Their log P is the model's own, as in the other searches.

    Raises:
        TypeError, ValueError: as `greedy_search`; or an option is out of range.
    """
    Sampling(temperature, top_k, top_p)
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} must be at least 1")
    rules = tuple(rules)
    limits, eos_ids, logits, state = prefill(decode, state, max_lengths, bos_id, eos_id, device)
    limits = [limit for limit in limits for _ in range(num_samples)]
    if num_samples > 1 and limits:
        copies = torch.arange(len(limits), device=device) // num_samples
        logits, state = logits[copies], state.select(copies[:, None])
    *first, _ = itertools.accumulate(limits, initial=0)
    noise = to_device(_noise(generator, limits, num_samples), device)
    outputs: list[list[int]] = [[] for _ in limits]

    def draw(logits: Tensor, rows: Sequence[int], t: int) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(dim=-1, dtype=torch.float32)
        allowed = log_probs
        if rules:
            sentences = [row // num_samples for row in rows]
            allowed = apply_rules(rules, log_probs, prefixes_of(outputs, rows, logits.device), sentences)
        # Inverse of the cumulative distribution; in float32, rounding would hide improbable tokens.
        log_odds = allowed - allowed.amax(dim=-1, keepdim=True)  # the best stays 0 at any temperature
        probs = warp_logits(log_odds, temperature, top_k, top_p).softmax(dim=-1, dtype=torch.float64)
        cumulative = probs.cumsum(dim=-1)  # (R, V)
        # A row that is over but not looked at may be past its numbers; it draws from any.
        index = to_device([min(first[row] + t, len(noise) - 1) for row in rows], device)
        threshold = noise[index, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True)  # (R, 1)
        tokens = tokens.clamp(max=logits.size(-1) - 1)  # if NaN
        return allowed.gather(1, tokens), tokens

    found = generate(decode, state, logits, limits, eos_ids, draw, outputs, alpha, penalty, bool(rules))
    return [found[i : i + num_samples] for i in range(0, len(found), num_samples)]


def _noise(
    generator: torch.Generator | Sequence[np.random.Generator] | None, limits: Sequence[int], num_samples: int
) -> Tensor:
    """Uniform numbers in [0, 1), float64: as many per hypothesis as its limit, one hypothesis after the other."""
    if isinstance(generator, Sequence):
        if len(generator) * num_samples != len(limits):
            raise ValueError(f"{len(generator)} generators are not one per sentence, of {len(limits) // num_samples}")
        counts = (sum(limits[i * num_samples : (i + 1) * num_samples]) for i in range(len(generator)))
        drawn = [one.random(count) for one, count in zip(generator, counts, strict=True)]
        return torch.from_numpy(np.concatenate([np.empty(0), *drawn]))
    device = generator.device if generator else None
    return torch.rand(sum(limits), generator=generator, dtype=torch.float64, device=device)


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

"""The logit lens: what a decoder would predict if it ended after each layer (nostalgebraist 2020).

logits(x_l) of the state x_l after layer l, with pre-norm logits(LayerNorm(x_l)) by the norm that ends the stack.
Dimension key: T target positions, N of them without padding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer.data.batching import Batch
from transformer.inspection.stacks import StackCall, record_decoding
from transformer.model.transformer import Transformer

# Logits at a time, 16 MB in float32.
_CHUNK_NUMEL = 1 << 22


@dataclass(frozen=True)
class TokenAtDepth:
    """How a depth rates a token: the share of positions where it is the first choice, and the mean probability."""

    first: float
    probability: float
    median_rank: int  # 1 the most probable


@dataclass(frozen=True)
class Depth:
    """The predictions after `layer` layers; 0 is the input of the stack.

    Attributes:
        final: of the token that the last layer finds most probable, the model's own choice.
        reference: of the token that the reference has.
        current: of the token that is read at the position.
        nll: of the reference, in nats per token.
        divergence: KL(p_N ‖ p_l) from the prediction of the last layer, in nats.
        entropy: of the prediction, in nats.
    """

    layer: int
    final: TokenAtDepth
    reference: TokenAtDepth
    current: TokenAtDepth
    nll: float
    divergence: float
    entropy: float


@dataclass(frozen=True)
class Reading:
    """One sentence by depth: the first choices (ids), their probabilities, and the ranks of the final choice."""

    layer: int
    choices: list[int]
    probabilities: list[float]
    final_ranks: list[int]


def lens_logits(model: Transformer, call: StackCall, depth: int) -> Tensor:
    """Logits (N, V) of the pieces after `depth` layers; at the last depth those of the model."""
    return model.logits(call.norm(call.states[depth][call.is_piece]))


@torch.no_grad()
def logit_lens(model: Transformer, batches: Sequence[Batch]) -> list[Depth]:
    """The predictions of every depth of the decoder, over all target pieces: N + 1 of them, the input first."""
    collected: list[list[Tensor]] = []
    for batch in batches:
        _, _, call = record_decoding(model, batch)
        final = _choices(model, call)  # (N,)
        tokens = torch.stack((final, batch.tgt_out[call.is_piece], batch.tgt_in[call.is_piece]), dim=1)  # (N, 3)
        collected = collected or [[] for _ in call.states]
        for depth, parts in enumerate(collected):
            parts += _numbers(model, call, depth, tokens)
    return [_depth(layer, torch.cat(parts)) for layer, parts in enumerate(collected)]


@torch.no_grad()
def read_sentence(model: Transformer, batch: Batch) -> list[Reading]:
    """The first choice of every depth at each position of a pair.

    ValueError unless the batch has one pair.
    """
    if len(batch.src) != 1:
        raise ValueError(f"give a batch of one pair; this one has {len(batch.src)}")
    _, _, call = record_decoding(model, batch)
    final = _choices(model, call)  # (T,)
    readings = []
    for depth in range(len(call.states)):
        probabilities, choices = lens_logits(model, call, depth).softmax(dim=-1).max(dim=-1)  # (T,)
        ranks = torch.cat([numbers[:, 2] for numbers in _numbers(model, call, depth, final[:, None])])
        readings.append(Reading(depth, choices.tolist(), probabilities.tolist(), ranks.long().tolist()))
    return readings


def _choices(model: Transformer, call: StackCall) -> Tensor:
    chunks = _chunks(model, call, len(call.states) - 1)
    return torch.cat([logits().argmax(dim=-1) for _, logits in chunks])


def _chunks(model: Transformer, call: StackCall, depth: int) -> Iterator[tuple[slice, Callable[[], Tensor]]]:
    """Rows of positions, and what computes their logits (n, V)."""
    rows = call.norm(call.states[depth][call.is_piece])  # (N, D)
    size = max(1, _CHUNK_NUMEL // model.embedding.output_weight.size(0))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield part, lambda part=part: model.logits(rows[part])  # type: ignore[misc]


def _numbers(model: Transformer, call: StackCall, depth: int, tokens: Tensor) -> Iterator[Tensor]:
    """Per position the entropy and the divergence, then rank and log-probability of each of its tokens (N, k)."""
    last = len(call.states) - 1
    for (rows, logits), (_, final) in zip(_chunks(model, call, depth), _chunks(model, call, last), strict=True):
        values = logits().double()  # (n, V)
        log_p, log_final = values.log_softmax(dim=-1), final().double().log_softmax(dim=-1)
        columns = [-(log_p.exp() * log_p).sum(-1), (log_final.exp() * (log_final - log_p)).sum(-1)]
        for token in tokens[rows].T:
            of_token = values.gather(1, token[:, None])  # (n, 1)
            columns += [(values > of_token).sum(-1) + 1.0, log_p.gather(1, token[:, None]).squeeze(1)]
        yield torch.stack(columns, dim=1).cpu()  # (n, 2 + 2k)


def _depth(layer: int, numbers: Tensor) -> Depth:
    entropy, divergence, *pairs = numbers.T
    final, reference, current = (
        TokenAtDepth(float((rank == 1).double().mean()), float(log_p.exp().mean()), int(rank.median()))
        for rank, log_p in zip(pairs[::2], pairs[1::2], strict=True)
    )
    return Depth(
        layer, final, reference, current, -float(pairs[3].mean()), float(divergence.mean()), float(entropy.mean())
    )

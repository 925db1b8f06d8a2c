"""One update and one validation: from batches to gradients and numbers (sections 5.1 and 5.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from transformer.data.batching import Batch, collate, plan_batches
from transformer.data.dataset import PairDataset
from transformer.model.transformer import Transformer
from transformer.training.distributed import ALONE, World
from transformer.training.loss import projected_loss
from transformer.training.phases import Phase, untimed
from transformer.training.precision import MasterWeights


def batch_loss(model: Transformer, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The smoothed loss and the NLL of a batch, summed over its real target tokens, in nats."""
    hidden, _ = model.decode(batch.tgt_in, model.encode(batch.src))  # (B, T, D)
    # Padded positions are neither projected nor counted.
    hidden = hidden.flatten(0, 1).index_select(0, batch.real)  # (N, D)
    target = batch.tgt_out.flatten().index_select(0, batch.real)  # (N,)
    return projected_loss(hidden, model.embeddings.output_matrix, target, label_smoothing)


def train_step(
    weights: MasterWeights,
    batches: Sequence[Batch],
    label_smoothing: float,
    phase: Phase = untimed,
    num_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum the gradients of one update on the master weights, divided by the target tokens of all its batches.

    How the pairs of an update are split into batches changes memory use and nothing else. Returns loss and NLL sums.
    `num_tokens` is of the whole update, for a process that has only a share of its batches, or none.
    """
    if num_tokens is None:
        num_tokens = sum(batch.num_tokens for batch in batches)
    device = weights.model.embeddings.output_matrix.device
    total_loss, total_nll = torch.zeros((), device=device), torch.zeros((), device=device)
    for batch in batches:
        with phase("forward"):
            loss, nll = batch_loss(weights.model, batch, label_smoothing)
        with phase("backward"):
            (loss / num_tokens).backward()
            weights.collect_gradients()
        total_loss += loss.detach()
        total_nll += nll
    return total_loss, total_nll


@torch.no_grad()
def validation_nll(
    model: Transformer, dataset: PairDataset, max_tokens: int, device: torch.device, world: World = ALONE
) -> float:
    """Negative log-likelihood of a dataset, without smoothing or dropout, in nats per target token.

    The processes of `world` share the batches; each returns the whole.
    """
    was_training = model.training
    model.eval()
    total = torch.zeros((), device=device)
    batches = plan_batches(dataset.src.lengths, dataset.tgt.lengths, max_tokens, np.random.default_rng(0))
    for indices in world.share(batches):
        total += batch_loss(model, collate(dataset, indices).to(device), 0.0)[1]
    model.train(was_training)
    return world.sum(total).item() / int(dataset.tgt.lengths.sum())

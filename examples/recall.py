"""Retrieval over length: the task on which the examples of efficient attention are compared.

A sequence lists items, a key with a value each, and asks for the values of some of them by their keys. Nothing but the
key says where the answer is, which may be anywhere. So a model answers if its attention finds one position among n.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from loop import fit
from torch import Tensor, nn

from transformer import Encoder, FeedForward, Layer, MultiHeadAttention

NUM_VALUES = 16


class Questions(NamedTuple):
    """Sequences of n positions, int64: items, and questions, which have a key and no value."""

    keys: Tensor  # (B, n)
    values: Tensor  # (B, n), from 1; 0 in questions
    answers: Tensor  # (B, n), the value from 0 that a question asks for; -100 in items
    distances: Tensor  # (B, n), between a question and its item; 0 in items


def ask(batch: int, num_items: int, num_questions: int, *, first: bool = False) -> Questions:
    """Items with distinct keys, then questions about some of them; `first`: the questions come first."""
    keys = torch.rand(batch, num_keys(num_items)).argsort(dim=1)[:, :num_items]  # (B, items)
    values = torch.randint(1, NUM_VALUES + 1, (batch, num_items))
    asked = torch.rand(batch, num_items).argsort(dim=1)[:, :num_questions]  # (B, questions), positions of items
    nothing = torch.zeros(batch, num_items, dtype=torch.int64)
    columns = (
        torch.cat((keys, keys.gather(1, asked)), dim=1),
        torch.cat((values, torch.zeros_like(asked)), dim=1),
        torch.cat((nothing - 100, values.gather(1, asked) - 1), dim=1),
        torch.cat((nothing, torch.arange(num_items, num_items + num_questions) - asked), dim=1),
    )
    return Questions(*(column.flip(1) if first else column for column in columns))


def num_keys(num_items: int) -> int:
    """How many keys there are: of twice as many as items, a sequence has another half each time."""
    return 2 * num_items


class Recall(nn.Module):
    """An encoder with the given attentions, a layer each; keys and values are embedded and added, positions are not."""

    def __init__(self, attentions: Iterable[MultiHeadAttention], num_items: int, d_model: int) -> None:
        super().__init__()
        self.keys, self.values = nn.Embedding(num_keys(num_items), d_model), nn.Embedding(NUM_VALUES + 1, d_model)
        self.encoder = Encoder(Layer(each, FeedForward(d_model, 2 * d_model), dropout=0.0) for each in attentions)
        self.output = nn.Linear(d_model, NUM_VALUES)

    def forward(self, questions: Questions, mask: Tensor | None = None) -> Tensor:
        """Logits of values: (B, n, NUM_VALUES)."""
        x = self.keys(questions.keys) + self.values(questions.values)  # (B, n, D)
        return self.output(self.encoder(x, mask))


def train(model: Recall, updates: int, lr: float, mask: Tensor | None = None, **task: int) -> None:
    """Train on new sequences in each update; `task` are the arguments of `ask`."""

    def loss(_: int) -> Tensor:
        questions = ask(**task)  # type: ignore[arg-type]
        asked = questions.values == 0
        return F.cross_entropy(model(questions, mask)[asked], questions.answers[asked])

    fit(model, loss, updates, lr=lr, warmup_updates=updates // 20)


@torch.no_grad()
def answered(model: Recall, batches: int = 8, mask: Tensor | None = None, **task: int) -> tuple[Tensor, Tensor]:
    """Whether each question of new sequences was answered, float, and its distance to the item, int64."""
    correct, distances = [], []
    for _ in range(batches):
        questions = ask(**task)  # type: ignore[arg-type]
        asked = questions.values == 0
        correct.append((model(questions, mask)[asked].argmax(dim=1) == questions.answers[asked]).float())
        distances.append(questions.distances[asked])
    return torch.cat(correct), torch.cat(distances)

"""How far phrases are met, by automata (Knuth, Morris and Pratt 1977) over token ids.

Dimension key: B sentences, W hypotheses of each, P distinct phrases, A distinct tokens in them, S states of all
automata of a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Phrases = Sequence[Sequence[int]]  # of a sentence


@dataclass(frozen=True)
class Automata:
    """States of an automaton for each distinct phrase of each sentence.

    State i of a phrase of L tokens that must occur n times, 0 <= i <= n * L: it has occurred i // L times, and the last
    i % L tokens are its first ones. All states of a sentence are numbered; state 0 belongs to no phrase.
    """

    alphabet: Tensor  # (B, A): the tokens of the phrases; -1 fills up
    starts: Tensor  # (B, P): first states
    table: Tensor  # (B, S, A + 1): the state after each token, and after any other one
    met: Tensor  # (B, S): tokens of the occurrences that are complete
    partial: Tensor  # (B, S): tokens of the one that is not
    totals: Tensor  # (B,): tokens of all phrases

    @classmethod
    def of(cls, constraints: Sequence[Phrases], vocab_size: int) -> Automata:
        """Build them. ValueError for an id that the vocabulary has not."""
        alphabets = [sorted({token for phrase in phrases for token in phrase}) for phrases in constraints]
        for token in (token for alphabet in alphabets for token in alphabet):
            if not 0 <= token < vocab_size:
                raise ValueError(f"a phrase has the id {token}, and the vocabulary has {vocab_size}")
        width = max(map(len, alphabets)) + 1
        rows: dict[str, list[Tensor]] = {"starts": [], "table": [], "met": [], "partial": []}
        for phrases, alphabet in zip(constraints, alphabets, strict=True):
            starts, table, met, partial = [], [[0] * width], [0], [0]
            for phrase, count in Counter(map(tuple, phrases)).items():
                starts.append(len(table))
                symbols = [alphabet.index(token) for token in phrase]
                table += _transitions(symbols, count, width, len(table))
                places = range(count * len(phrase) + 1)
                met += [i - i % len(phrase) for i in places]
                partial += [i % len(phrase) for i in places]
            for name, x in zip(rows, (starts, table, met, partial), strict=True):
                rows[name].append(torch.tensor(x))
        totals = [sum(map(len, phrases)) for phrases in constraints]
        padded = {name: pad_sequence(x, batch_first=True) for name, x in rows.items()}
        ids = [torch.tensor(alphabet, dtype=torch.int64) for alphabet in alphabets]
        return cls(pad_sequence(ids, True, -1), **padded, totals=torch.tensor(totals))

    def select(self, sentences: Tensor) -> Automata:
        """Keep some sentences."""
        return Automata(*(getattr(self, field.name)[sentences] for field in fields(self)))

    def after(self, states: Tensor) -> Tensor:
        """The states after each token of the alphabet, and any other one.

        From states (B, W, P); they are (B, W, A + 1, P).
        """
        rows = states.flatten(1)[:, :, None].expand(-1, -1, self.table.size(2))  # (B, W * P, A + 1)
        return self.table.gather(1, rows).view(*states.shape, -1).transpose(2, 3)

    def progress(self, states: Tensor) -> Tensor:
        """How many tokens of its phrases a hypothesis has met.

        From states (B, ..., P): all tokens of complete occurrences, and those of the longest incomplete one. Whatever
        the states, the token that continues it raises the number.
        """
        flat = states.flatten(1)
        met, partial = (x.gather(1, flat).view_as(states) for x in (self.met, self.partial))
        return met.sum(dim=-1) + partial.amax(dim=-1)


def progress_of(phrases: Phrases, ids: Sequence[int]) -> int:
    """How many tokens of its phrases an output has met.

    Of an output that so far has these ids; as `Automata.progress` counts.
    """
    places = states_after(phrases, ids).items()
    met = sum(state - state % len(phrase) for phrase, state in places)
    return met + max((state % len(phrase) for phrase, state in places), default=0)


def states_after(phrases: Phrases, ids: Sequence[int]) -> dict[tuple[int, ...], int]:
    """The state of each distinct phrase after these ids."""
    states = {}
    for phrase, count in Counter(map(tuple, phrases)).items():
        alphabet = sorted(set(phrase))
        table = _transitions([alphabet.index(token) for token in phrase], count, len(alphabet) + 1, 0)
        state = 0
        for token in ids:
            state = table[state][alphabet.index(token) if token in alphabet else -1]
        states[phrase] = state
    return states


def _transitions(symbols: Sequence[int], count: int, width: int, first: int) -> list[list[int]]:
    """The states after each symbol, of an automaton with numbers from `first` that finds `count` occurrences."""
    rows: list[list[int]] = []
    fallback = 0  # where the longest proper suffix of what was read stands
    for i, symbol in enumerate(symbols):
        row = list(rows[fallback]) if i else [0] * width
        fallback = row[symbol] if i else 0
        row[symbol] = i + 1
        rows.append(row)
    copies = (first + n * len(symbols) for n in range(count))
    last = first + count * len(symbols)
    return [[start + state for state in row] for start in copies for row in rows] + [[last] * width]

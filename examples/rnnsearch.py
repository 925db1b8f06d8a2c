"""RNNenc (Cho et al. 2014) and RNNsearch (Bahdanau et al. 2015): translation before the Transformer.

Both read the source by a recurrent network and write the target by another. RNNenc hands over one vector, however long
the source is. RNNsearch keeps a vector of each position and looks them up again before every word: this is where
attention comes from, and the Transformer is what is left if the recurrence goes. `source_lengths.py` measures them.

Equations are those of Bahdanau et al., appendix A. The models have `encode`, `decode` and `logits` as our `Transformer`
has, so everything that trains, searches and translates with one takes the others. What differs from the paper: one
matrix for both embeddings and the output, as in section 3.4 of ours, so that l = m; dropout; and the initial weights,
but for the orthogonal recurrent ones.

Shapes: B sentences, W hypotheses of each, R = B·W, S source and T target positions, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from transformer import SharedEmbedding


class GRU(nn.Module):
    """The gated recurrent unit of Cho et al.: inputs of size m, states of size n.

    h_i = (1 − z_i) ∘ h_{i−1} + z_i ∘ tanh(W x_i + U [r_i ∘ h_{i−1}])
    z_i = σ(W_z x_i + U_z h_{i−1}),  r_i = σ(W_r x_i + U_r h_{i−1})

    `torch.nn.GRU` has 1 − z for z, and r ∘ (U h) for U (r ∘ h).
    """

    def __init__(self, m: int, n: int) -> None:
        super().__init__()
        self.w, self.u_gates, self.u = nn.Linear(m, 3 * n), nn.Linear(n, 2 * n, bias=False), nn.Linear(n, n, bias=False)
        for square in (*self.u_gates.weight.chunk(2), self.u.weight):
            nn.init.orthogonal_(square)

    def step(self, inputs: Tensor, h: Tensor) -> Tensor:
        """The next state (R, n), from what `self.w` makes of the input, (R, 3n), and the last state (R, n)."""
        n = h.size(-1)
        z, r = (inputs[..., : 2 * n] + self.u_gates(h)).sigmoid().chunk(2, dim=-1)  # (R, n)
        candidate = (inputs[..., 2 * n :] + self.u(r * h)).tanh()
        return torch.lerp(h, candidate, z)

    def forward(self, x: Tensor, mask: Tensor, *, backwards: bool = False) -> Tensor:
        """States (B, S, n) at all inputs (B, S, m); where `mask` (B, S) is False, the state stays as it is."""
        h = x.new_zeros(x.size(0), self.u.in_features)
        states = []
        steps = list(zip(self.w(x).unbind(1), mask[..., None].unbind(1), strict=True))
        for inputs, is_token in reversed(steps) if backwards else steps:
            h = torch.where(is_token, self.step(inputs, h), h)
            states.append(h)
        return torch.stack(states[::-1] if backwards else states, dim=1)  # (B, S, n)


class State(NamedTuple):
    """What the decoder knows, a row per hypothesis; a search reorders it by `select`."""

    annotations: Tensor  # h_j, (R, S, 2n); of RNNenc only the last of the forward network, (R, 1, n)
    keys: Tensor  # U_a h_j, the part of the scores that no step changes, (R, S, n)
    mask: Tensor  # (R, S), True at real tokens
    hidden: Tensor  # s_{i−1}, (R, n)

    def select(self, rows: Tensor) -> State:
        """Hypothesis (i, j) continues row rows[i, j]; (B', W') int64."""
        return State(*(x.index_select(0, rows.flatten()) for x in self))


class RNNsearch(nn.Module):
    """Bidirectional encoder, additive attention, maxout output; the defaults are the paper's sizes.

    Args:
        vocab_size: V, of source and target together.
        m, n: size of embeddings and of the maxout layer (the paper's l is 500); of states and of the hidden layer of a.
        dropout: of embeddings and of the maxout layer.
        pad_id: the id that fills up batches and is never attended to.
    """

    max_length: int | None = None  # of input and output: there is no limit

    def __init__(self, vocab_size: int, m: int = 620, n: int = 1000, *, dropout: float = 0.0, pad_id: int = 0) -> None:
        super().__init__()
        self.pad_id, self.dropout = pad_id, nn.Dropout(dropout)
        self.embedding = SharedEmbedding(vocab_size, m)
        size = self.build_encoder(m, n)
        self.w_s, self.gru, self.c = nn.Linear(n, n), GRU(m, n), nn.Linear(size, 3 * n, bias=False)
        self.output = nn.Linear(n + size + m, 2 * m)  # U_o, C_o and V_o side by side

    def build_encoder(self, m: int, n: int) -> int:
        """Make the encoder and the alignment model; returns the size of a context."""
        self.forwards, self.backwards = GRU(m, n), GRU(m, n)
        self.w_a, self.u_a, self.v = nn.Linear(n, n), nn.Linear(2 * n, n, bias=False), nn.Linear(n, 1, bias=False)
        return 2 * n

    def encode(self, src: Tensor) -> State:
        """Read source ids (B, S) int64: h_j = [→h_j; ←h_j], s_0 = tanh(W_s ←h_1)."""
        mask, x = src != self.pad_id, self.dropout(self.embedding(src))  # (B, S), (B, S, m)
        forwards, backwards = self.forwards(x, mask), self.backwards(x, mask, backwards=True)
        annotations = torch.cat((forwards, backwards), dim=-1)  # (B, S, 2n)
        return State(annotations, self.u_a(annotations), mask, self.w_s(backwards[:, 0]).tanh())

    def attention(self, state: State) -> Tensor:
        """The weights α_ij = softmax_j vᵀ tanh(W_a s_{i−1} + U_a h_j): (R, S)."""
        scores = self.v((self.w_a(state.hidden)[:, None] + state.keys).tanh()).squeeze(-1)  # (R, S)
        return scores.masked_fill(~state.mask, torch.finfo(scores.dtype).min).softmax(dim=-1)

    def context(self, state: State) -> Tensor:
        """c_i = Σ_j α_ij h_j: (R, 2n)."""
        return (self.attention(state)[:, None] @ state.annotations).squeeze(1)

    def decode(self, tgt: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next target ids (R, T) int64; returns the maxout layer t (R, T, m) and the state after them.

        s_i = GRU(s_{i−1}; E y_{i−1}, c_i),  t_i = maxout(U_o s_{i−1} + V_o E y_{i−1} + C_o c_i)
        """
        y, seen = self.dropout(self.embedding(tgt, is_target=True)), []  # (R, T, m)
        for inputs in self.gru.w(y).unbind(1):
            c = self.context(state)
            seen.append(torch.cat((state.hidden, c), dim=-1))
            state = state._replace(hidden=self.gru.step(inputs + self.c(c), state.hidden))
        outputs = self.output(torch.cat((torch.stack(seen, dim=1), y), dim=-1))  # (R, T, 2m)
        return self.dropout(outputs.unflatten(-1, (-1, 2)).amax(dim=-1)), state  # (R, T, m)

    def logits(self, hidden: Tensor) -> Tensor:
        """The maxout layer (..., m) to logits (..., V)."""
        return hidden @ self.embedding.output_weight.T


class RNNenc(RNNsearch):
    """RNNsearch with every c_i fixed to the last state of the forward network (appendix A.2.2); s_0 = tanh(W_s c)."""

    def build_encoder(self, m: int, n: int) -> int:
        self.forwards = GRU(m, n)
        return n

    def encode(self, src: Tensor) -> State:
        """Read source ids (B, S) int64 into one vector."""
        mask = src != self.pad_id
        last = self.forwards(self.dropout(self.embedding(src)), mask)[:, -1:]  # (B, 1, n)
        return State(last, last[..., :0], mask[:, :1], self.w_s(last[:, 0]).tanh())

    def context(self, state: State) -> Tensor:
        """The same c (R, n) at every step."""
        return state.annotations[:, 0]

"""The residual stream: which sub-layer wrote which part of the state at the top of a stack.

Pre-norm: x_L = x_0 + the sum of all writes, exactly. Post-norm: LayerNorm rescales the sum after every sub-layer. With
the scale σ of each norm held at its value, it is linear, γ (z - mean z) / σ + β, so that the top is again a sum: of the
writes, each rescaled by all norms behind it, and of their biases. Dimension key: B sentences, L positions, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transformer.data.batching import Batch
from transformer.inspection.stacks import SUBLAYERS, LayerCall, StackCall, record_stacks
from transformer.model.alternatives.layers import PreNormLayer
from transformer.model.transformer import Transformer

# Of sums of float32 terms; another class of layer, which would combine them otherwise, is off by far more.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Term:
    """A part of the final state; `layer` counts from 1, and is 0 of the embedding and of the norms' biases."""

    layer: int
    name: str  # embedding, self_attention, cross_attention, feed_forward or norm_biases


@dataclass(frozen=True)
class Decomposition:
    """The final state of a stack as a sum.

    Attributes:
        terms: the embedding (with positions) first, then every write; with post-norm the biases of the norms last.
        values: (number of terms, B, L, D), which add up to `final`.
        final: (B, L, D), the output of the last layer, before the norm that ends a pre-norm stack.
        error: the largest difference of the sum from `final`, relative to the largest absolute value in it.
    """

    terms: list[Term]
    values: Tensor
    final: Tensor
    error: float


@dataclass(frozen=True)
class StreamRow:
    """What one sub-layer did to the stream, in the mean over positions.

    Attributes:
        stack, layer, name: as of `Term`; encoder or decoder.
        write: root mean square of the components of the write.
        stream: the same of the state behind it, with post-norm behind its norm.
        cosine: between the write and the state before it; None of terms that no sub-layer wrote.
        share: of the final state: ⟨term, final⟩ / ‖final‖²; the shares of a stack add up to 1.
    """

    stack: str
    layer: int
    name: str
    write: float
    stream: float | None
    cosine: float | None
    share: float


@dataclass(frozen=True)
class Stream:
    """The streams of encoder and decoder.

    Attributes:
        is_pre_norm: whether the sum is exact in itself; else each term is rescaled by the norms behind it.
        error: the largest of `Decomposition.error`.
        rows: encoder first, in the order of the sum.
    """

    is_pre_norm: bool
    error: float
    rows: list[StreamRow]


def decompose(call: StackCall) -> Decomposition:
    """Decompose the final state of a stack into its embedding and its writes.

    ValueError if they do not add up, as of layers of a class that combines them otherwise, and for post-norm by other
    norms than LayerNorm.
    """
    terms, values = [Term(0, "embedding")], call.layers[0].input[None]  # (K, B, L, D)
    is_post = False
    for number, layer in enumerate(call.layers, start=1):
        is_pre = isinstance(layer.layer, PreNormLayer)
        if not is_pre and not is_post:
            is_post, terms = True, [*terms, Term(0, "norm_biases")]
            values = torch.cat((values, torch.zeros_like(values[:1])))
        for name, write in layer.writes.items():
            terms.append(Term(number, name))
            values = torch.cat((values, write[None]))
            if not is_pre:
                values = _normalised(values, terms, layer, SUBLAYERS[name])
    final = call.layers[-1].output
    largest = final[call.is_piece].abs().max().clamp_min(torch.finfo(final.dtype).tiny)
    error = float(((values.sum(dim=0) - final)[call.is_piece].abs().max() / largest).detach())
    if not error <= _TOLERANCE:
        kinds = ", ".join(sorted({type(layer.layer).__name__ for layer in call.layers}))
        raise ValueError(
            f"the writes of the {call.name} do not add up to its state: its layers ({kinds}) add otherwise"
        )
    if is_post:  # biases last
        place = terms.index(Term(0, "norm_biases"))
        order = [*(i for i in range(len(terms)) if i != place), place]
        terms, values = [terms[i] for i in order], values[order]
    return Decomposition(terms, values, final, error)


def _normalised(values: Tensor, terms: Sequence[Term], layer: LayerCall, norm_name: str) -> Tensor:
    """Each term behind a LayerNorm whose scale is held; its bias joins the term of biases."""
    norm: nn.Module = getattr(layer.layer, norm_name)
    if not isinstance(norm, nn.LayerNorm):
        raise ValueError(f"{norm_name} is of class {type(norm).__name__}: only sums behind LayerNorm are decomposed")
    scale = (layer.norm_inputs[norm_name].var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()  # (B, L, 1)
    values = (values - values.mean(dim=-1, keepdim=True)) / scale
    if norm.elementwise_affine:
        values = values * norm.weight
    if norm.bias is not None:
        values[terms.index(Term(0, "norm_biases"))] += norm.bias
    return values


@torch.no_grad()
def residual_stream(model: Transformer, batches: Sequence[Batch]) -> Stream:
    """Sizes, directions and shares of all writes of a model over the pieces of some batches.

    ValueError as of `decompose` and `record_stacks`.
    """
    sums: dict[tuple[str, Term], Tensor] = {}
    error = 0.0
    for batch in batches:
        for call in record_stacks(model, batch):
            found = decompose(call)
            error = max(error, found.error)
            for term, numbers in _measure(call, found):
                sums[call.name, term] = sums.get((call.name, term), torch.zeros_like(numbers)) + numbers
    rows = [_row(stack, term, total.tolist()) for (stack, term), total in sums.items()]
    return Stream(not any(row.name == "norm_biases" for row in rows), error, rows)


def _row(stack: str, term: Term, sums: Sequence[float]) -> StreamRow:
    count, write, stream, cosine, share = sums
    return StreamRow(
        stack,
        term.layer,
        term.name,
        write=(write / count) ** 0.5,
        stream=None if term.name == "norm_biases" else (stream / count) ** 0.5,
        cosine=cosine / count if term.layer else None,
        share=share / count,
    )


def _measure(call: StackCall, found: Decomposition) -> Iterator[tuple[Term, Tensor]]:
    """Per term the sums over positions of 1, mean square of write and of stream, cosine, and share: (5,) float64."""
    real = call.is_piece
    final = found.final[real].double()  # (N, D)
    before = call.layers[0].input[real].double()  # (N, D)
    for term, value in zip(found.terms, found.values, strict=True):
        share = (value[real].double() * final).sum(-1) / final.square().sum(-1)  # (N,)
        if term.layer == 0:
            write = before if term.name == "embedding" else value[real].double()
            after, cosine = before, torch.zeros_like(share)
        else:
            layer = call.layers[term.layer - 1]
            write = layer.writes[term.name][real].double()  # (N, D)
            after = _state_after(layer, term.name, before, write, real)
            cosine = torch.cosine_similarity(before, write, dim=-1)  # (N,)
            before = after
        of_each = (torch.ones_like(share), write.square().mean(-1), after.square().mean(-1), cosine, share)
        yield term, torch.stack([x.sum() for x in of_each])


def _state_after(layer: LayerCall, name: str, before: Tensor, write: Tensor, real: Tensor) -> Tensor:
    """The state behind a sub-layer: (N, D)."""
    if isinstance(layer.layer, PreNormLayer):
        return before + write
    return layer.norm_outputs[SUBLAYERS[name]][real].double()

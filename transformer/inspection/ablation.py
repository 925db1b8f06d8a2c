"""Head ablation: BLEU without one head, by a hook that sets its output to zero (Michel et al. 2019)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from transformer.errors import ConfigError
from transformer.inference.scoring import Scorer
from transformer.inference.translator import Translator
from transformer.inspection.heads import USES
from transformer.model.attention import MultiHeadAttention
from transformer.model.transformer import Transformer
from transformer.progress import Advance


@dataclass(frozen=True)
class HeadName:
    """One head: its use, one of `USES`, and layer and head from 1."""

    use: str
    layer: int
    head: int


@dataclass(frozen=True)
class HeadAblation:
    """A score without one head.

    Attributes:
        bleu: without the head.
        difference: from that of the whole model; negative if the head helps.
        changed: the share of translations that are others.
    """

    use: str
    layer: int
    head: int
    bleu: float
    difference: float
    changed: float


@dataclass(frozen=True)
class Ablations:
    """BLEU of the whole model, and without each head."""

    bleu: float
    sentences: int
    heads: list[HeadAblation]


def list_heads(model: Transformer) -> list[HeadName]:
    """All heads of a model, encoder first."""
    return [
        HeadName(use, layer, head)
        for use in USES
        for layer, attention in enumerate(_attentions(model, use), start=1)
        for head in range(1, attention.num_heads + 1)
    ]


@contextlib.contextmanager
def without_head(model: Transformer, name: HeadName) -> Iterator[None]:
    """Within this context the output of a head, before Wᴼ, is zero; ConfigError if there is no such head."""
    attentions = _attentions(model, name.use)
    is_there = 1 <= name.layer <= len(attentions) and 1 <= name.head <= attentions[name.layer - 1].num_heads
    if not is_there:
        raise ConfigError(f"{name.use}, layer {name.layer}, head {name.head}: the model has no such head")

    def silence(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        output = output.clone()  # (B, H, Q, d_v)
        output[:, name.head - 1] = 0
        return output

    attention: nn.Module = attentions[name.layer - 1].attention
    handle = attention.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()


def ablate_heads(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    scorer: Scorer,
    *,
    heads: Sequence[HeadName] | None = None,
    advance: Advance | None = None,
    **search: Any,
) -> Ablations:
    """Translate with the whole model, then without each head, and score with BLEU.

    Args:
        translator: of a single model that was not prepacked: `Translator.load(..., prepack=False)`.
        sources, references: as of `Translator.translate` and `Scorer.score`.
        scorer: with the metric `bleu`.
        heads: to be ablated one by one; by default all.
        advance: called with 1 after each translation of all sources.
        search: arguments of `translate`, such as `beam=1`.

    Errors as of `without_head`, `Translator.translate` and `Scorer.score`.
    """
    heads = list_heads(translator.model) if heads is None else heads
    whole = translator.translate(sources, **search)
    bleu = scorer.score(whole, references)["bleu"].score
    rows = []
    for name in heads:
        with without_head(translator.model, name):
            translations = translator.translate(sources, **search)
        score = scorer.score(translations, references)["bleu"].score
        changed = sum(a != b for a, b in zip(whole, translations, strict=True)) / len(whole)
        rows.append(HeadAblation(name.use, name.layer, name.head, score, score - bleu, changed))
        if advance is not None:
            advance(1)
    return Ablations(bleu, len(whole), rows)


def _attentions(model: Transformer, use: str) -> list[MultiHeadAttention]:
    """The attentions of a use, by layer; ConfigError for a use that is none."""
    if use not in USES:
        raise ConfigError(f"{use!r} is not one of the uses of attention: {', '.join(USES)}")
    layers = model.encoder.layers if use == USES[0] else model.decoder.layers
    found = [layer.cross_attention if use == USES[2] else layer.self_attention for layer in layers]
    return [attention for attention in found if attention is not None]

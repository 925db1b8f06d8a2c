"""Head ablation: BLEU without one head, by a hook that sets its output to zero (Michel et al. 2019)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from transformer.errors import ConfigError
from transformer.inference.significance import paired_bootstrap
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
        p: the probability of such a difference, up or down, if the head did not matter: paired bootstrap resampling.
        changed: the share of translations that are others.
    """

    use: str
    layer: int
    head: int
    bleu: float
    difference: float
    p: float
    changed: float


@dataclass(frozen=True)
class Ablations:
    """BLEU of the whole model, with half the width of its 95 % confidence interval, and without each head."""

    bleu: float
    ci: float
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
    *,
    heads: Sequence[HeadName] | None = None,
    tokenize: str = "13a",
    advance: Advance | None = None,
    **search: Any,
) -> Ablations:
    """Translate with the whole model, then without each head, and score with BLEU.

    Args:
        translator: of a single model that was not prepacked: `Translator.load(..., prepack=False)`.
        sources, references: as of `Translator.translate` and `paired_bootstrap`.
        heads: to be ablated one by one, at least one (else ConfigError); by default all.
        tokenize: of BLEU.
        advance: called with 1 after each translation of all sources.
        search: arguments of `translate`, such as `beam=1`.

    Other errors as of `without_head`, `Translator.translate` and `paired_bootstrap`.
    """
    heads = list_heads(translator.model) if heads is None else heads
    whole = translator.translate(sources, **search)
    systems = {"whole": whole}
    for name in heads:
        with without_head(translator.model, name):
            systems[str(name)] = translator.translate(sources, **search)
        if advance is not None:
            advance(1)
    scores = {
        x.system: x for x in paired_bootstrap(systems, references, metrics=["bleu"], tokenize=tokenize)["bleu"].systems
    }
    rows = []
    for name in heads:
        score = scores[str(name)]
        assert score.difference is not None and score.p is not None  # None of the baseline only
        changed = sum(a != b for a, b in zip(whole, systems[str(name)], strict=True)) / len(whole)
        rows.append(HeadAblation(name.use, name.layer, name.head, score.score, score.difference, score.p, changed))
    return Ablations(scores["whole"].score, scores["whole"].ci, len(whole), rows)


def _attentions(model: Transformer, use: str) -> list[MultiHeadAttention]:
    """The attentions of a use, by layer; ConfigError for a use that is none."""
    if use not in USES:
        raise ConfigError(f"{use!r} is not one of the uses of attention: {', '.join(USES)}")
    layers = model.encoder.layers if use == USES[0] else model.decoder.layers
    found = [layer.cross_attention if use == USES[2] else layer.self_attention for layer in layers]
    return [attention for attention in found if attention is not None]

"""What efficient attention costs (Tay et al. 2020 survey it): seconds and operations of one layer, by length.

Full attention needs n² pairs; the others have a budget of some 128 keys or features per position, at any n, of which
causal ones (Performer, Reformer, Transformer-XL) use those in front. Counted are multiply-adds of matrix products;
seconds include all else, such as sorting. Where curves cross, an efficient attention pays, here and at this size.

    python examples/attention_cost.py
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from linformer import LengthProjection, LinformerAttention
from lsh import LSHAttention, SharedQueryKey
from options import at_least, demand, run
from performer import PerformerAttention
from report import print_end, print_table, processor
from sparse import Pattern, SparseAttention
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformer_xl import RelativeAttention

from transformer import DotProductAttention, MultiHeadAttention, causal_mask
from transformer.model.alternatives.scores import WrittenOutAttention

BUDGET = 128  # keys or features per position
FULL, WRITTEN_OUT = "full, fused kernel", "full, equation 1"


class Segments(MultiHeadAttention):
    """Transformer-XL over a long input: segments of half the budget, each with the one before as its memory."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        size = BUDGET // 2
        parts = [self._segment(x[:, max(0, i - size) : i + size], i) for i in range(0, x.size(1), size)]
        return torch.cat(parts, dim=1)

    def _segment(self, context: Tensor, start: int) -> Tensor:
        segment = context[:, BUDGET // 2 if start else 0 :]
        return super().forward(segment, context, mask=causal_mask(segment.size(1), context.size(1) - segment.size(1)))


def layers(length: int, d_model: int, num_heads: int, dot: DotProductAttention) -> dict[str, MultiHeadAttention]:
    """One attention layer of each kind for sequences of a length; `dot` computes what is full attention inside."""
    d_k, block = d_model // num_heads, BUDGET // 8
    attentions = {
        FULL: dot,
        WRITTEN_OUT: WrittenOutAttention(),
        "Longformer": SparseAttention(dot, Pattern(BUDGET, BUDGET, first=block)),
        "BigBird": SparseAttention(dot, Pattern(block, 3 * block, True, first=block, last=block, num_random=3)),
        "Linformer": LinformerAttention(dot, LengthProjection(BUDGET, length)),
        "Performer": PerformerAttention(BUDGET, d_k),
    }
    lsh = LSHAttention(2 * math.ceil(length / BUDGET), BUDGET // 4, num_rounds=2)  # each round meets two chunks
    return {
        **{name: MultiHeadAttention(d_model, num_heads, attention=each) for name, each in attentions.items()},
        "Reformer": SharedQueryKey(d_model, num_heads, lsh),
        "Transformer-XL": Segments(d_model, num_heads, attention=RelativeAttention(num_heads, d_k, d_model)),
    }


@torch.no_grad()
def measure(lengths: Sequence[int], d_model: int, num_heads: int, seconds: float) -> list[dict[str, Any]]:
    """By kind and length, multiply-adds and the milliseconds of the fastest of two calls or more."""
    points = []
    for length in lengths:
        x = torch.randn(1, length, d_model)
        counted = layers(length, d_model, num_heads, WrittenOutAttention())  # what is in a fused kernel is not counted
        for name, layer in layers(length, d_model, num_heads, DotProductAttention()).items():
            with FlopCounterMode(display=False) as counter:
                counted[name](x)
            took: list[float] = []
            end = time.perf_counter() + seconds
            while len(took) < 2 or time.perf_counter() < end:
                start = time.perf_counter()
                layer(x)
                took.append(1e3 * (time.perf_counter() - start))
            count = counter.get_total_flops() // 2
            points.append({"of": name, "size": length, "ms": min(took), "multiply_adds": count})
    return points


def crossover(lengths: Sequence[int], costs: Sequence[float], others: Sequence[float]) -> float | None:
    """The length from which `costs` are below `others`, on straight lines between points in log-log space.

    The first length if they always are; None if they are not at the last one.
    """
    gains = [math.log(other / cost) for cost, other in zip(costs, others, strict=True)]
    if gains[-1] <= 0:
        return None
    last = max((i for i, gain in enumerate(gains) if gain <= 0), default=-1)
    share = 1.0 if last < 0 else -gains[last] / (gains[last + 1] - gains[last])
    return float(lengths[max(0, last)] ** (1 - share) * lengths[last + 1] ** share)


def summary(points: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row per kind: milliseconds by length, multiply-adds at the last, and from where it beats full attention."""
    names, lengths = (list(dict.fromkeys(point[key] for point in points)) for key in ("of", "size"))
    curves = {
        key: {name: [point[key] for point in points if point["of"] == name] for name in names}
        for key in ("ms", "multiply_adds")
    }

    def crossing(name: str, key: str, other: str) -> str:
        found = crossover(lengths, curves[key][name], curves[key][other])
        return "–" if name == other or found is None else f"{found:,.0f}"

    rows = []
    for name in names:
        times = (f"{ms:,.1f}" for ms in curves["ms"][name])
        against = ("ms", FULL), ("ms", WRITTEN_OUT), ("multiply_adds", FULL)
        crossings = (crossing(name, *each) for each in against)
        rows.append((name, *times, f"{curves['multiply_adds'][name][-1] / 1e6:,.0f}", *crossings))
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=at_least(BUDGET), nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    for name, default in {"d-model": 64, "heads": 2, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=at_least(1), default=default)
    parser.add_argument("--seconds", type=float, default=0.5, help="per point")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the points to a file")
    options = parser.parse_args(argv)
    start, lengths = time.perf_counter(), sorted({*options.lengths})
    demand(options.d_model % options.heads == 0, f"--d-model {options.d_model} is not a multiple of {options.heads}")
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    points = measure(lengths, options.d_model, options.heads, options.seconds)
    if options.json:
        sizes = {"threads": 1, "d_model": options.d_model, "num_heads": options.heads, "budget": BUDGET}
        report = {"torch": torch.__version__, "processor": processor(), **sizes, "points": points}
        options.json.write_text(json.dumps(report) + "\n", encoding="utf-8")
    times = (f"ms, n = {length:,}" for length in lengths)
    counted = f"million multiply-adds, n = {lengths[-1]:,}"
    crossings = ("faster than fused from n", "than equation 1", "fewer multiply-adds")
    print_table(("attention", *times, counted, *crossings), summary(points))
    print_end(time.perf_counter() - start)


if __name__ == "__main__":
    run(main)

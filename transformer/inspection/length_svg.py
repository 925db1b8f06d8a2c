"""Scores by sentence length as SVG for a page: without matplotlib, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from transformer.inference.by_length import LengthBucket

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 46
_NUM_TICKS = 5
_RADIUS = 4
NUM_COLOURS = 8  # of the page: --colour-0, ...


def charts(systems: Mapping[str, Sequence[LengthBucket]], unit: str) -> Iterator[str]:
    """An SVG element for each metric, and one with the number of sentences.

    Args:
        systems: their buckets by name, from `score_by_length` with the same lengths.
        unit: of the lengths, such as "source words".
    """
    first = next(iter(systems.values()))
    names = [bucket.name for bucket in first]
    metrics = {name: one.name for bucket in first for name, one in bucket.scores.items()}
    for metric, title in metrics.items():
        series = {
            system: [bucket.scores[metric].score if bucket.scores else None for bucket in buckets]
            for system, buckets in systems.items()
        }
        most = max((score for scores in series.values() for score in scores if score is not None), default=1.0)
        step = _tick(most or 1.0)
        marks = "".join(
            _line(number, scores, names, most, step, title) for number, scores in enumerate(series.values())
        )
        yield _frame(names, unit, title, step, most, marks)
    counts = [bucket.sentences for bucket in first]
    yield _frame(names, unit, "sentences", max(1, _tick(max(counts))), max(counts), _bars(counts, names))


def marker(number: int, x: float, y: float) -> str:
    """The mark of a system, with its colour; shapes tell systems apart without colours."""
    r = _RADIUS
    style = f'fill="var(--colour-{number % NUM_COLOURS})"'
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {style}/>',
        f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {style}/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z" {style}/>',
        f'<path d="M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z" {style}/>',
    )
    return shapes[number % len(shapes)]


def _tick(most: float) -> float:
    """The distance of ticks: 1, 2 or 5 times a power of ten."""
    raw = most / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def _top(most: float, step: float) -> float:
    return step * max(1, math.ceil(most / step - 1e-9))


def _x(index: int, names: Sequence[str]) -> float:
    return _LEFT + (index + 0.5) * (_WIDTH - _LEFT - _RIGHT) / len(names)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _line(
    number: int, scores: Sequence[float | None], names: Sequence[str], most: float, step: float, title: str
) -> str:
    top = _top(most, step)
    points = [(i, _x(i, names), _y(score, top), score) for i, score in enumerate(scores) if score is not None]
    parts, previous = [], None
    for i, x, y, _ in points:  # no line across an empty bucket
        parts.append(f"{'L' if previous == i - 1 else 'M'}{x:.1f} {y:.1f}")
        previous = i
    colour = f"var(--colour-{number % NUM_COLOURS})"
    marks = "".join(
        f"<g><title>{escape(names[i])}: {escape(title)} {score:.2f}</title>{marker(number, x, y)}</g>"
        for i, x, y, score in points
    )
    return f'<path d="{"".join(parts)}" fill="none" stroke="{colour}" stroke-width="2"/>{marks}'


def _bars(counts: Sequence[int], names: Sequence[str]) -> str:
    top = _top(max(counts), max(1, _tick(max(counts))))
    width = 0.7 * (_WIDTH - _LEFT - _RIGHT) / len(names)
    return "".join(
        f'<g><title>{escape(name)}: {count:,} sentences</title><rect class="bar" x="{_x(i, names) - width / 2:.1f}" '
        f'y="{_y(count, top):.1f}" width="{width:.1f}" height="{_y(0, top) - _y(count, top):.1f}"/></g>'
        for i, (name, count) in enumerate(zip(names, counts, strict=True))
    )


def _frame(names: Sequence[str], unit: str, title: str, step: float, most: float, marks: str) -> str:
    """Axes with their titles around what is drawn."""
    top, right, bottom = _top(most, step), _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for i in range(round(top / step) + 1):
        y = _y(i * step, top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{i * step:,.6g}</text>')
    for i, name in enumerate(names):
        parts.append(f'<text x="{_x(i, names):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="{(_LEFT + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(unit)}</text>')
    turned = f'transform="rotate(-90 13 {middle:.1f})"'
    parts.append(f'<text x="13" y="{middle:.1f}" text-anchor="middle" {turned}>{escape(title)}</text>')
    label = f"{escape(title)} by {escape(unit)}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}{marks}</svg>'

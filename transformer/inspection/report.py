"""A self-contained HTML page that compares systems: scores, lengths, and the sentences where they differ most.

It loads nothing from elsewhere, and no text in it can become markup or code.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from transformer.inference.by_length import LengthBucket
from transformer.inference.comparison import count_wins, differences, most_different
from transformer.inference.evaluation_set import EvaluationSet
from transformer.inference.sentence_scores import worst
from transformer.inference.significance import PairedScores, SystemScore
from transformer.inference.suspicious import KINDS
from transformer.inspection.canvas import THEMES
from transformer.inspection.length_svg import charts, marker
from transformer.inspection.word_differences import tokens, unlike, unlike_references

MAX_CHARACTERS = 2000  # of a text; the rest is left out, so that a page has a limit
NUM_EXAMPLES = 50
SIGNIFICANT = 0.05
_SHADING = ' <span class="differs">Shaded</span>: unlike the baseline; in the baseline: unlike the next system.'


@dataclass(frozen=True)
class ReportedSystem:
    """A system with all that a page shows of it.

    Attributes:
        name: of the system.
        hypotheses: a line per sentence.
        scores: chrF of each sentence.
        by_length: scores by length, from `score_by_length`.
        suspicious: kinds of each sentence, from `find_suspicious`.
        note: on how the translations were made.
    """

    name: str
    hypotheses: Sequence[str]
    scores: Sequence[float]
    by_length: Sequence[LengthBucket]
    suspicious: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        texts: sources and references.
        systems: the baseline first; a single one is shown without differences.
        results: corpus-level scores by metric, with the systems in the same order.
        unit: of the lengths, such as "source words".
        method: of the significance test, or of the intervals, in words.
    """

    texts: EvaluationSet
    systems: Sequence[ReportedSystem]
    results: Mapping[str, PairedScores]
    unit: str
    method: str


def page(report: Report, num_examples: int = NUM_EXAMPLES) -> str:
    """The page as HTML.

    It shows at most `num_examples` sentences in which a system gains most, and as many in which it loses most.

    Its size is bounded by `num_examples` and `MAX_CHARACTERS`, whatever the number and length of the sentences.
    """
    template = resources.files("transformer.inspection").joinpath("report.html").read_text(encoding="utf-8")
    found = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    chosen = _examples(report, num_examples)
    values = {
        "light": _colours("light"),
        "dark": _colours("dark"),
        "script": f"'sha256-{digest}'",  # no other script runs
        "title": _title(report),
        "summary": "".join(_summary(report)),
        "scores": "".join(_score_table(one) for one in report.results.values()),
        "wins": _wins(report),
        "suspicious": _suspicious(report),
        "legend": _legend(report),
        "charts": "".join(charts({system.name: system.by_length for system in report.systems}, report.unit)),
        "lengths": _lengths(report),
        "shading": _SHADING if len(report.systems) > 1 else "",
        "orders": "".join(_orders(report)),
        "shown": f"{len(chosen):,} of {len(report.texts):,}",
        "sentences": "".join(_sentence(report, index) for index in chosen),
    }
    # In one pass: what looks like a place in a sentence stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def escape(text: str) -> str:
    """Text as HTML, visible: control characters and lone surrogates become escapes."""
    visible = "".join(c if unicodedata.category(c) not in ("Cc", "Cs") or c == "\t" else _code(c) for c in text)
    return html.escape(visible)


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _colours(name: str) -> str:
    theme = THEMES[name]
    values = {"background": theme.background, "text": theme.text, "faint": theme.faint}
    values |= {f"colour-{i}": colour for i, colour in enumerate(theme.colours)}
    return " ".join(f"--{key}: {value};" for key, value in values.items())


def _title(report: Report) -> str:
    return "Comparison of translations" if len(report.systems) > 1 else "Errors of a translation"


def _summary(report: Report) -> Iterator[str]:
    texts, number = report.texts, len(report.texts.references)
    yield f"<p>{escape(texts.name)}: {len(texts):,} sentences, {number} reference{'s' if number > 1 else ''}.</p>"
    is_compared = len(report.systems) > 1
    baseline = f"Baseline: {escape(report.systems[0].name)}. Test: " if is_compared else "Intervals: "
    yield f"<p>{baseline}{escape(report.method)}.</p>"
    notes = [system for system in report.systems if system.note]
    if notes:
        rows = (f"<li>{escape(system.name)}: {escape(system.note)}</li>" for system in notes)
        yield f"<ul>{''.join(rows)}</ul>"


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows; cells are HTML already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    label = html.escape(re.sub("<.*?>", "", caption), quote=True)
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{table}</div>'


def _score_table(one: PairedScores) -> str:
    is_paired = len(one.systems) > 1
    header = ["system", one.name, "mean ± 95&nbsp;% CI", *(["difference", "p"] if is_paired else [])]
    rows = [[*_score_cells(row), *(_difference_cells(row) if is_paired else [])] for row in one.systems]
    direction = " (less is better)" if one.is_error_rate else ""
    signature = escape(one.signature).replace("|", "|<wbr>")
    return _table(f"{one.name}{direction} <code>{signature}</code>", header, rows)


def _score_cells(row: SystemScore) -> list[str]:
    return [_name(row.system), f"{row.score:.2f}", f"{row.mean:.2f} ± {row.ci:.2f}"]


def _difference_cells(row: SystemScore) -> list[str]:
    if row.difference is None or row.p is None:
        return ["baseline", ""]
    p = f"{row.p:.4f}"
    return [_signed(row.difference), f"<strong>{p}&nbsp;*</strong>" if row.p < SIGNIFICANT else p]


def _signed(number: float, digits: int = 2) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")


def _name(name: str) -> str:
    return f'<bdi class="name">{escape(name)}</bdi>'


def _wins(report: Report) -> str:
    baseline, *others = report.systems
    if not others:
        return ""
    rows = [[_name(system.name), *(f"{x:,}" for x in count_wins(system.scores, baseline.scores))] for system in others]
    caption = "Sentences that are better, equal or worse than the baseline's, by chrF2 of the sentence"
    return _table(caption, ["system", "better", "equal", "worse"], rows)


def _suspicious(report: Report) -> str:
    found = {kind: [sum(kind in kinds for kinds in system.suspicious) for system in report.systems] for kind in KINDS}
    rows = [
        [f"{kind}<small>{escape(KINDS[kind])}</small>", *(f"{number:,}" for number in numbers)]
        for kind, numbers in found.items()
        if any(numbers)
    ]
    if not rows:
        return "<p>No translation is empty, looping, copied, or far too long or short.</p>"
    return _table("Suspicious translations", ["kind", *(_name(system.name) for system in report.systems)], rows)


def _legend(report: Report) -> str:
    items = (
        f'<li><svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{marker(i, 6, 6)}</svg>{_name(system.name)}</li>'
        for i, system in enumerate(report.systems)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _lengths(report: Report) -> str:
    first = report.systems[0].by_length
    names = {name: one.name for bucket in first for name, one in bucket.scores.items()}
    header = [escape(report.unit), "sentences"]
    header += [f"{title} {_name(system.name)}" for title in names.values() for system in report.systems]
    rows = []
    for number, bucket in enumerate(first):
        scores = [system.by_length[number].scores.get(name) for name in names for system in report.systems]
        cells = ["" if one is None else f"{one.score:.2f}" for one in scores]
        rows.append([bucket.name, f"{bucket.sentences:,}", *cells])
    return _table("Scores by length", header, rows)


def _examples(report: Report, number: int) -> list[int]:
    """Sentences to show: of each system the largest gains and losses; of a single one the worst."""
    baseline, *others = report.systems
    if not others:
        return worst(baseline.scores, number)
    largest: dict[int, float] = {}
    for system in others:
        found = differences(system.scores, baseline.scores)
        for chosen in most_different(system.scores, baseline.scores, number):
            largest |= {i: max(largest.get(i, 0.0), abs(found[i])) for i in chosen}
    return sorted(largest, key=lambda i: (-largest[i], i))


def _orders(report: Report) -> Iterator[str]:
    """The choices of an order; their values are the key of the sentences' data, and its sign."""
    if len(report.systems) == 1:
        yield '<option value="0 1">worst first</option><option value="0 -1">best of these first</option>'
    else:
        yield '<option value="">largest differences first</option>'
    for number, system in enumerate(report.systems[1:], 1):
        name = escape(system.name)
        yield f'<option value="{number} -1">{name}: largest gains first</option>'
        yield f'<option value="{number} 1">{name}: largest losses first</option>'
    yield '<option value="line 1">in the order of the text</option>'


def _sentence(report: Report, index: int) -> str:
    texts, systems = report.texts, report.systems
    rows = [] if texts.sources is None else [("source", "", _plain(texts.sources[index]))]
    references = [tokens(_cut(side[index])) for side in texts.references]
    rows += [("reference", "", _plain(side[index])) for side in texts.references]
    split = [tokens(_cut(system.hypotheses[index])) for system in systems]
    for number, system in enumerate(systems):
        other = split[0] if number else split[-1 if len(split) == 1 else 1]
        differs = unlike(split[number], other)
        text = _marked(split[number], unlike_references(split[number], references), differs)
        cut = "…" if len(system.hypotheses[index]) > MAX_CHARACTERS else ""
        badges = "".join(f' <span class="badge">{kind}</span>' for kind in system.suspicious[index])
        difference = system.scores[index] - systems[0].scores[index]
        detail = f"{system.scores[index]:.1f}" + (f" ({_signed(difference, 1)})" if number else "")
        rows.append((_name(system.name), f"<small>chrF2 {detail}{badges}</small>", text + cut))
    cells = "\n".join(f'<dt>{name} {detail}</dt>\n<dd dir="auto">{text}</dd>' for name, detail, text in rows)
    keys = [f"{system.scores[index] - systems[0].scores[index]:.6g}" for system in systems[1:]]
    data = " ".join([f"{systems[0].scores[index]:.6g}", *keys])
    return (
        f'<article data-line="{index + 1}" data-keys="{data}"><h3>Line {index + 1:,}</h3><dl>{cells}</dl></article>\n'
    )


def _cut(text: str) -> str:
    return text[:MAX_CHARACTERS]


def _plain(text: str) -> str:
    return escape(_cut(text)) + ("…" if len(text) > MAX_CHARACTERS else "") or "<i>empty</i>"


def _marked(words: Sequence[str], is_wrong: Sequence[bool], differs: Sequence[bool]) -> str:
    """Words as HTML; neighbours with the same marks share an element."""
    if not "".join(words).strip():
        return "<i>empty</i>"
    parts: list[tuple[str, list[str]]] = []
    for i, word in enumerate(words):
        classes = " ".join(name for name, has in (("wrong", is_wrong[i]), ("differs", differs[i])) if has)
        following = i + 1 < len(words) and parts and word.isspace()
        if following:  # between two words of the same marks
            after = " ".join(n for n, has in (("wrong", is_wrong[i + 1]), ("differs", differs[i + 1])) if has)
            classes = parts[-1][0] if after == parts[-1][0] else ""
        if parts and parts[-1][0] == classes:
            parts[-1][1].append(word)
        else:
            parts.append((classes, [word]))
    return "".join(
        f'<span class="{classes}">{escape("".join(group))}</span>' if classes else escape("".join(group))
        for classes, group in parts
    )

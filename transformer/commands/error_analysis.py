"""What `transformer evaluate` shows beside the scores: scores by length, the worst sentences, suspicious ones."""

import argparse
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer.errors import ConfigError
from transformer.files import write_atomic
from transformer.inference.by_length import LengthBucket, default_step, score_by_length, text_lengths
from transformer.inference.evaluation_set import EvaluationSet
from transformer.inference.scoring import Scorer
from transformer.inference.sentence_scores import SENTENCE_METRICS, sentence_scores, worst
from transformer.inference.significance import NUM_RESAMPLES, confidence_intervals, seed
from transformer.inference.suspicious import KINDS, find_suspicious
from transformer.inspection.canvas import check_format, save, theme
from transformer.inspection.length_chart import draw_by_length
from transformer.inspection.report import NUM_EXAMPLES, Report, ReportedSystem, page
from transformer.progress import stage

MAX_SHOWN = 1000  # sentences
_NUM_LINES = 5  # numbers of lines that are printed for a kind of suspicion
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # would turn round the rest of the line


def add_analysis_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `analyse` reads."""
    parser.add_argument("--by-length", action="store_true", help="also score the sentences of each length")
    parser.add_argument(
        "--length-step", type=int, metavar="N", help="with --by-length: lengths per bucket, by default 10 words"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="with --by-length: draw it; .png, .svg or .pdf; needs matplotlib"
    )
    parser.add_argument(
        "--worst", type=int, metavar="N", help="also print the N worst sentences, and count suspicious translations"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with scores, lengths and the worst sentences (or 50)"
    )
    parser.add_argument(
        "--worst-by", choices=tuple(SENTENCE_METRICS), help="with --worst: sentence-level score; by default chrf"
    )


def check_analysis_options(arguments: argparse.Namespace) -> None:
    """Check the options.

    ConfigError if some do not go together, are out of range, or need what is not installed.
    """
    if arguments.plot is not None and not arguments.by_length:
        raise ConfigError("--plot goes with --by-length")
    if arguments.length_step is not None and not arguments.by_length and arguments.html is None:
        raise ConfigError("--length-step goes with --by-length or --html")
    if arguments.length_step is not None and arguments.length_step < 1:
        raise ConfigError(f"--length-step {arguments.length_step} must be at least 1")
    if arguments.worst is not None and not 1 <= arguments.worst <= MAX_SHOWN:
        raise ConfigError(f"--worst {arguments.worst} must be at least 1 and at most {MAX_SHOWN:,}")
    if arguments.worst_by is not None and arguments.worst is None:
        raise ConfigError("--worst-by goes with --worst")
    if arguments.plot is not None:
        check_format(arguments.plot)
    if arguments.html is not None:
        seed()  # of the intervals: an error now


def analyse(
    scorer: Scorer, hypotheses: Sequence[str], texts: EvaluationSet, arguments: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """What the options ask for, for JSON, and as lines for readers."""
    report: dict[str, Any] = {}
    lines: list[str] = []
    if arguments.by_length:
        unit, buckets = lengths_of(texts, scorer, hypotheses, arguments.length_step)
        if arguments.plot is not None:
            with theme():
                save(draw_by_length({"": buckets}, unit), arguments.plot)
        report["by_length"] = {"unit": unit, "buckets": [_bucket(bucket) for bucket in buckets]}
        lines += [*_length_table(buckets, unit), ""]
    if arguments.worst is not None:
        kinds = find_suspicious(hypotheses, texts.references, texts.sources)
        report["suspicious"] = {
            kind: numbers
            for kind in KINDS
            if (numbers := [number for number, found in enumerate(kinds, 1) if kind in found])
        }
        options: dict[str, Any] = {"tokenize": scorer.tokenize, "lowercase": arguments.lowercase}
        metric = arguments.worst_by or "chrf"
        scores = sentence_scores(hypotheses, texts.references, metric, **options)
        chosen = worst(scores, arguments.worst)
        report["worst_by"] = metric
        report["worst"] = [sentence_record(i, scores[i], kinds[i], hypotheses[i], texts) for i in chosen]
        lines += _suspicious_lines(report["suspicious"], kinds)
        lines += [f"worst sentences by {SENTENCE_METRICS[metric]} of the sentence:"]
        lines += [line for record in report["worst"] for line in _worst_lines(record)]
        lines += [""]
    return report, lines


def write_page(
    scorer: Scorer,
    hypotheses: Sequence[str],
    texts: EvaluationSet,
    arguments: argparse.Namespace,
    name: str,
    note: str = "",
) -> None:
    """Write the page of --html: scores with their intervals, scores by length and the worst sentences.

    `note` says how the translations were made.
    """
    options: dict[str, Any] = {"tokenize": scorer.tokenize, "lowercase": arguments.lowercase}
    references = texts.references
    results = confidence_intervals(
        hypotheses, references, metrics=arguments.metrics, system=name, stage=stage, **options
    )
    unit, buckets = lengths_of(texts, scorer, hypotheses, arguments.length_step)
    kinds = find_suspicious(hypotheses, references, texts.sources)
    scores = sentence_scores(hypotheses, references, **options)
    system = ReportedSystem(name, hypotheses, scores, buckets, kinds, note)
    method = f"{NUM_RESAMPLES:,} bootstrap resamples; seed {seed()}"
    report = Report(texts, [system], results, unit, method)
    write_atomic(arguments.html, page(report, arguments.worst or NUM_EXAMPLES))


def lengths_of(
    texts: EvaluationSet, scorer: Scorer, hypotheses: Sequence[str], step: int | None = None
) -> tuple[str, list[LengthBucket]]:
    """The unit of lengths, and the scores by sentence length.

    Lengths are those of the source, or without sources those of the first reference.
    """
    side, lines = ("source", texts.sources) if texts.sources is not None else ("reference", texts.references[0])
    unit, lengths = text_lengths(lines)
    buckets = score_by_length(scorer, hypotheses, texts.references, lengths, step or default_step(unit))
    return f"{side} {unit}", buckets


def sentence_record(
    index: int, score: float, kinds: Sequence[str], hypothesis: str, texts: EvaluationSet
) -> dict[str, Any]:
    """A sentence for JSON; numbers count from 1."""
    source = {} if texts.sources is None else {"source": texts.sources[index]}
    references = [side[index] for side in texts.references]
    return {
        "number": index + 1,
        "score": round(score, 2),
        "suspicious": list(kinds),
        **source,
        "hypothesis": hypothesis,
        "references": references,
    }


def printable(text: str) -> str:
    """Text for a terminal.

    What would move the cursor or turn the line round is escaped; letters are kept.
    """

    def shown(character: str) -> str:
        if character in _BIDI or unicodedata.category(character) in ("Cc", "Cs", "Co", "Zl", "Zp"):
            return character.encode("unicode_escape").decode()
        return character

    return "".join(map(shown, text))


def table(rows: Sequence[Sequence[str]], num_text_columns: int = 1) -> list[str]:
    """Aligned columns: the first ones to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < num_text_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _bucket(bucket: LengthBucket) -> dict[str, Any]:
    ratio = next((one.length_ratio for one in bucket.scores.values() if one.length_ratio is not None), None)
    return {
        "length": bucket.name,
        "low": bucket.low,
        "high": bucket.high,
        "sentences": bucket.sentences,
        **{name: round(one.score, 2) for name, one in bucket.scores.items()},
        **({} if ratio is None else {"length_ratio": round(ratio, 3)}),
    }


def _length_table(buckets: Sequence[LengthBucket], unit: str) -> list[str]:
    names = {name: one.name for bucket in buckets for name, one in bucket.scores.items()}
    has_ratio = "bleu" in names
    rows = [[unit, "sentences", *names.values(), *(["length ratio"] if has_ratio else [])]]
    for bucket in buckets:
        values = _bucket(bucket)
        scores = [f"{values[name]:.2f}" if name in values else "-" for name in names]
        ratio = [f"{values['length_ratio']:.3f}" if "length_ratio" in values else "-"] if has_ratio else []
        rows.append([bucket.name, f"{bucket.sentences:,}", *scores, *ratio])
    return table(rows)


def _suspicious_lines(found: dict[str, list[int]], kinds: Sequence[Sequence[str]]) -> Iterator[str]:
    number = sum(map(bool, kinds))
    yield f"suspicious translations: {number:,} of {len(kinds):,}"
    for kind, numbers in found.items():
        shown = ", ".join(map(str, numbers[:_NUM_LINES])) + (", ..." if len(numbers) > _NUM_LINES else "")
        yield f"  {kind} ({KINDS[kind]}): {len(numbers):,}, line{'s' if len(numbers) > 1 else ''} {shown}"
    yield ""


def _worst_lines(record: dict[str, Any]) -> Iterator[str]:
    kinds = f"  {', '.join(record['suspicious'])}" if record["suspicious"] else ""
    yield f"line {record['number']}: {record['score']:.2f}{kinds}"
    if "source" in record:
        yield f"  source       {printable(record['source'])}"
    yield f"  translation  {printable(record['hypothesis'])}".rstrip()
    for reference in record["references"]:
        yield f"  reference    {printable(reference)}"

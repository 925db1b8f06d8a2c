"""N-best lists of any system: read, scored by another model, and reranked.

Three forms are read:
    text: a candidate per line, as `translate --nbest K` writes them;
    scores: its score and a tab before it, as with `--scores`;
    moses: `id ||| text ||| features ||| score`, ids of sources counted from 0, as Moses, Marian and fairseq's tools.

A line with more fields is of another form. What separates them belongs to a text only if its source has it too, which
`translate` may have copied.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transformer.errors import ConfigError, DataError
from transformer.inference.forced import ForcedScore, PairNotes, score_translations
from transformer.inference.translator import Translator

Format = Literal["text", "scores", "moses"]
_SCORE = re.compile(r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+)|-inf")
_SEPARATOR = "|||"
_ID = re.compile(r"[0-9]{1,18}")
_FEATURE = "Transformer"  # and a number: each reranking adds one


@dataclass(frozen=True)
class Candidate:
    """One translation of an n-best list.

    Attributes:
        old: its score in the list; -inf, without a text, where the system found fewer; None if the list has no scores.
        id, features, others: fields of the Moses form; others follow the score.
        new: log P / length penalty by this model; -inf if it was not scored.
        log_prob: log P by this model.
        total: what it is ranked by.
    """

    text: str
    old: float | None = None
    id: str = ""
    features: str = ""
    others: tuple[str, ...] = ()
    new: float = -math.inf
    log_prob: float = -math.inf
    total: float = -math.inf

    @property
    def is_absent(self) -> bool:
        """Whether it fills up a list, of which the system found fewer."""
        return not self.text and self.old in (None, -math.inf)


def detect_format(line: str, source: str = "") -> Format:
    """The form of a list, by the separators in its first line. Whether it has that form, `parse_candidate` tells.

    Args:
        source: of the line, which may be a copy of it.
    """
    if line == source:
        return "text"
    is_copy = bool(source) and line.partition("\t")[2] == source
    if _SEPARATOR in line and not is_copy:
        return "moses"
    return "scores" if "\t" in line else "text"


def parse_candidate(form: Format, line: str, source: str = "") -> Candidate:
    """A line of an n-best list, with the source that it translates. DataError if it has another form."""
    if form == "text":
        _check_text(line, source, "the first line of the list has a text alone")
        return Candidate(line)
    if form == "scores":
        score, tab, text = line.partition("\t")
        expected = "the first line of the list has a score and a tab before the text"
        if not tab:
            raise DataError(f"has no tab; {expected}")
        old = _score(score)
        _check_text(text, source, f"{expected}, and nothing else", "second ")
        return Candidate(text, old)
    fields = [field.strip() for field in line.split(_SEPARATOR)]
    expected = f"expected `id {_SEPARATOR} text {_SEPARATOR} features {_SEPARATOR} score`"
    if len(fields) not in (4, 5):
        raise DataError(f"has {_count(fields)}; {expected}, where features may be empty")
    if not _ID.fullmatch(fields[0]):
        raise DataError(f"its id {fields[0][:40]!r} is not a number from 0; {expected}")
    id_, text, features, score, *others = fields
    return Candidate(text, _score(score), id_, features, tuple(others))


def _check_text(text: str, source: str, expected: str, ordinal: str = "") -> None:
    """DataError for the fields of another tool's list, which would otherwise be scored as a part of the text."""
    if text == source:
        return
    for separator, name in ((_SEPARATOR, _SEPARATOR), ("\t", f"a {ordinal}tab")):
        if separator in text and separator not in source:
            raise DataError(f"has {name}; {expected}")
    # A source may have tabs too, and be translated.
    fields = text.split("\t")
    if len(fields) > 1 and (field := next(filter(_SCORE.fullmatch, (fields[0], fields[-1])), None)):
        raise DataError(f"has the number {field[:40]} as a field; {expected}")
    if text.startswith("{") and _is_json(text):
        raise DataError(f"has a JSON object; {expected}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _count(fields: Sequence[str]) -> str:
    return f"{len(fields)} field{'s' * (len(fields) > 1)}"


def _score(text: str) -> float:
    if not _SCORE.fullmatch(text) or (score := float(text)) == math.inf:
        raise DataError(f"its score {text[:40]!r} is not a number")
    return score


def score_nbest(
    translator: Translator,
    groups: Sequence[tuple[str, Sequence[Candidate]]],
    *,
    weight: float | None = None,
    reverse: bool = False,
    first_number: int = 1,
    notes: PairNotes | None = None,
    too_long: Literal["error", "skip"] = "error",
) -> list[list[Candidate]]:
    """Score the candidates of each source.

    `total` is the new score, or with a weight w: old + w · new.

    Args:
        weight: as for `check_weight`.
        reverse: score the source as the translation of the candidate, by a model of the other direction: the channel of
            a noisy channel (Yee et al. 2019).
        translator, first_number, notes, too_long: as for `score_translations`; pairs are counted by their source.

    Errors as of `score_translations`.
    """
    groups = [(source, list(candidates)) for source, candidates in groups]
    for _, candidates in groups:
        check_weight(weight, candidates)
    scored: list[list[Candidate]] = []
    pairs = [
        (number, source, candidate.text)
        for number, (source, candidates) in enumerate(groups, start=first_number)
        for candidate in candidates
        if not candidate.is_absent
    ]
    numbers, *texts = zip(*pairs, strict=True) if pairs else ((), (), ())
    sources, targets = texts[::-1] if reverse else texts
    found = iter(score_translations(translator, sources, targets, numbers=numbers, notes=notes, too_long=too_long))
    for _, candidates in groups:
        scored.append([c if c.is_absent else _with_score(c, next(found), weight) for c in candidates])
    return scored


def _with_score(candidate: Candidate, found: ForcedScore, weight: float | None) -> Candidate:
    total = found.score if weight is None or candidate.old is None else candidate.old + weight * found.score
    return replace(candidate, new=found.score, log_prob=found.log_prob, total=total)


def check_weight(weight: float | None, candidates: Sequence[Candidate]) -> None:
    """Check a weight. ConfigError if it is not above 0, DataError if a candidate has no score."""
    if weight is None:
        return
    if not 0 < weight < math.inf:
        raise ConfigError(f"weight={weight} must be a finite number above 0")
    if any(candidate.old is None for candidate in candidates):
        raise DataError("the n-best list has no scores to add to: leave out --weight, or take a list with scores")


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate with the highest total. The first of equal ones; None of none."""
    return max(candidates, key=lambda candidate: candidate.total, default=None)


def as_line(candidate: Candidate) -> str:
    """A scored candidate in the form of its list. In the Moses form its score is also a feature."""
    total = f"{candidate.total:.4f}"
    if not candidate.id:
        return f"{total}\t{candidate.text}"
    number = len(re.findall(rf"\b{_FEATURE}\d+=", candidate.features))
    features = f"{candidate.features} {_FEATURE}{number}= {candidate.new:.4f}".strip()
    return " ||| ".join((candidate.id, candidate.text, features, total, *candidate.others))

"""Scores, n-best lists and alignments as lines of text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformer.cli import print_aside
from transformer.data.normalization import is_blank, without_control_space
from transformer.data.tokenizer import UNK_ID
from transformer.inference.alignment import Step, checked_layer, single_model, word_alignment
from transformer.inference.forced import (
    ForcedScore,
    PairNotes,
    TooLongPair,
    encode_pairs,
    perplexity,
    score_translations,
)
from transformer.inference.json_line import finite_or_none, json_line
from transformer.inference.nbest import Candidate, as_line, best, check_weight, parse_candidate, score_nbest
from transformer.inference.paired_input import lines_of
from transformer.inference.prepacked import precision_of
from transformer.inference.translator import Translator


class Work:
    """Base of the kinds of output.

    Items are those of `paired_input`, or of `nbest_input` for n-best lists.

    Args:
        reverse: the model translates the second line of an item to the first.
        too_long: whether a pair that is too long is an error or skipped.
        as_json: a JSON object per line.
    """

    summary_only = False

    def __init__(self, translator: Translator, *, reverse: bool, too_long: TooLongPair, as_json: bool) -> None:
        self.translator, self.reverse, self.too_long, self.as_json = translator, reverse, too_long, as_json
        self._notes: PairNotes | None = PairNotes()

    def lines(self, items: Sequence[str], first_number: int) -> str:
        """The output of items, numbered from `first_number`."""
        raise NotImplementedError

    def check(self, items: Sequence[str], first_number: int) -> None:
        """Encode items before the work: for the errors of `lines`, and for the notes."""
        pairs = self.pairs(items, first_number)
        encode_pairs(self.translator, *self.sides(pairs), **self._options(pairs))

    def pairs(self, items: Sequence[str], first_number: int) -> list[tuple[int, str, str]]:
        """Number and texts of each pair of the items."""
        return [(number, *_pair(item)) for number, item in enumerate(items, start=first_number)]

    def sides(self, pairs: Sequence[tuple[int, str, str]]) -> tuple[list[str], list[str]]:
        """What the model reads, and what it is to write."""
        first, second = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
        return (second, first) if self.reverse else (first, second)

    def print_notes(self) -> None:
        """Print on standard error what a user should know, once."""
        for message in () if self._notes is None else self._notes.messages():
            print_aside(message)
        self._notes = None

    def summary(self, num_before: int) -> str:  # noqa: ARG002
        """The line at the end, if any. An earlier process did `num_before` lines."""
        return ""

    def _options(self, pairs: Sequence[tuple[int, str, str]]) -> dict[str, Any]:
        # Without notes once they are printed: a check has found them all.
        notes = PairNotes() if self._notes is None else self._notes
        return {"too_long": self.too_long, "numbers": [pair[0] for pair in pairs], "notes": notes}


class PairLines(Work):
    """Scores of pairs, and their sums."""

    def __init__(self, translator: Translator, *, with_tokens: bool, summary_only: bool, **options: Any) -> None:
        super().__init__(translator, **options)
        self.with_tokens, self.summary_only = with_tokens, summary_only
        self._num_pairs = self._num_scored = self._num_pieces = self._num_words = 0
        self._log_prob = 0.0
        self._precision = precision_of(member.model for member in translator.members)

    def lines(self, items: Sequence[str], first_number: int) -> str:
        pairs = self.pairs(items, first_number)
        sources, targets = self.sides(pairs)
        options = self._options(pairs)
        scores = score_translations(self.translator, sources, targets, with_ranks=self.with_tokens, **options)
        out = []
        for (number, *_), target, score in zip(pairs, targets, scores, strict=True):
            num_words = len(target.split()) + 1  # </s> counts, as it does among the pieces
            self._num_pairs += 1
            if score.ids:
                self._num_scored += 1
                self._num_pieces += len(score.ids)
                self._num_words += num_words
                self._log_prob += score.log_prob
            if not self.summary_only:
                out += self._as_json(number, score, num_words) if self.as_json else self._as_text(number, score)
        return "".join(f"{line}\n" for line in out)

    def _as_text(self, number: int, score: ForcedScore) -> list[str]:
        if not self.with_tokens:
            return [f"{score.log_prob:.4f}\t{score.score:.4f}\t{score.perplexity:.4f}\t{len(score.ids)}"]
        pieces = self._pieces(score)
        return [f"{number}\t{p}\t{x:.4f}\t{r}" for p, x, r in zip(pieces, score.log_probs, score.ranks, strict=True)]

    def _as_json(self, number: int, score: ForcedScore, num_words: int) -> list[str]:
        record: dict[str, object] = {
            "line": number,
            "log_prob": finite_or_none(score.log_prob),
            "score": finite_or_none(score.score),
            "perplexity": finite_or_none(score.perplexity),
            "perplexity_per_word": finite_or_none(perplexity(score.log_prob, num_words if score.ids else 0)),
            "pieces": len(score.ids),
            "words": num_words if score.ids else 0,
            "unknown": score.ids.count(UNK_ID),
        }
        if self.with_tokens:
            rows = zip(self._pieces(score), map(finite_or_none, score.log_probs), score.ranks, strict=True)
            record["tokens"] = [{"piece": piece, "log_prob": x, "rank": rank} for piece, x, rank in rows]
        return [json_line(record)]

    def _pieces(self, score: ForcedScore) -> list[str]:
        return [without_control_space(piece) for piece in self.translator.tokenizer.pieces(score.ids)]

    def summary(self, num_before: int) -> str:
        """The sums over all pairs that were scored."""
        per_piece, per_word = (perplexity(self._log_prob, number) for number in (self._num_pieces, self._num_words))
        if self.summary_only and self.as_json:
            return json_line(
                {
                    "lines": self._num_pairs,
                    "scored": self._num_scored,
                    "pieces": self._num_pieces,
                    "words": self._num_words,
                    "log_prob": finite_or_none(self._log_prob),
                    "perplexity": finite_or_none(per_piece),
                    "perplexity_per_word": finite_or_none(per_word),
                    **({"precision": self._precision} if self._precision != "float32" else {}),
                }
            )
        of_all = f" of {self._num_pairs:,}" * (self._num_scored < self._num_pairs)
        since = f" after line {num_before:,}" * (num_before > 0)
        what = "pair" if self._num_pairs == 1 else "pairs"
        precision = f", precision {self._precision}" if self._precision != "float32" else ""
        return (
            f"{self._num_scored:,}{of_all} {what}{since}: log P {self._log_prob:.2f}, perplexity {per_piece:.4f} per "
            f"piece ({self._num_pieces:,}), {per_word:.4f} per word ({self._num_words:,}){precision}"
        )


class NbestLines(Work):
    """Candidates with their scores, or the best of each source."""

    def __init__(self, translator: Translator, *, weight: float | None, rerank: bool, **options: Any) -> None:
        super().__init__(translator, **options)
        self.weight, self.rerank = weight, rerank

    def pairs(self, items: Sequence[str], first_number: int) -> list[tuple[int, str, str]]:
        groups = enumerate(map(_group, items), start=first_number)
        return [
            (number, source, candidate.text)
            for number, (source, candidates) in groups
            for candidate in candidates
            if not candidate.is_absent
        ]

    def check(self, items: Sequence[str], first_number: int) -> None:
        super().check(items, first_number)
        groups = [_group(item) for item in items]
        for _, candidates in groups:
            check_weight(self.weight, candidates)
        self._note_sources(groups, first_number)

    def _note_sources(self, groups: Sequence[tuple[str, Sequence[Candidate]]], first_number: int) -> None:
        """Note sources with text that have no candidate to score: ids may be missing, or counted from 1."""
        for number, (source, candidates) in enumerate(groups, start=first_number):
            if self._notes is not None and not is_blank(source):
                self._notes.add("no_candidate", number, all(candidate.is_absent for candidate in candidates))

    def lines(self, items: Sequence[str], first_number: int) -> str:
        groups = [_group(item) for item in items]
        self._note_sources(groups, first_number)
        scored = score_nbest(
            self.translator,
            groups,
            weight=self.weight,
            reverse=self.reverse,
            first_number=first_number,
            too_long=self.too_long,
            notes=self._notes,
        )
        if self.rerank:
            chosen = map(best, scored)
            return "".join(f"{candidate.text if candidate else ''}\n" for candidate in chosen)
        if self.as_json:
            return "".join(
                json_line({"line": number, "candidates": [_as_record(c) for c in candidates]}) + "\n"
                for number, candidates in enumerate(scored, start=first_number)
            )
        return "".join(f"{as_line(candidate)}\n" for candidates in scored for candidate in candidates)


class WordLinks(Work):
    """Word alignments in Pharaoh format: source-target."""

    def __init__(self, translator: Translator, *, layer: int | None, step: Step, **options: Any) -> None:
        super().__init__(translator, **options)
        self.layer, self.step = checked_layer(single_model(translator), layer), step

    def lines(self, items: Sequence[str], first_number: int) -> str:
        pairs = self.pairs(items, first_number)
        options = {**self._options(pairs), "layer": self.layer, "step": self.step}
        links = word_alignment(self.translator, *self.sides(pairs), **options)
        if self.reverse:  # as the files are, whatever the model reads
            links = [sorted((i, j) for j, i in of_pair) for of_pair in links]
        out = []
        for (number, *_), of_pair in zip(pairs, links, strict=True):
            pharaoh = " ".join(f"{j}-{i}" for j, i in of_pair)
            out.append(json_line({"line": number, "alignment": of_pair}) if self.as_json else pharaoh)
        return "".join(f"{line}\n" for line in out)


def _pair(item: str) -> tuple[str, str]:
    first, second = lines_of(item)
    return first, second


def _group(item: str) -> tuple[str, list[Candidate]]:
    form, source, *lines = lines_of(item)
    return source, [parse_candidate(form, line, source) for line in lines]  # type: ignore[arg-type]


def _as_record(candidate: Candidate) -> dict[str, object]:
    return {
        "text": candidate.text,
        "log_prob": finite_or_none(candidate.log_prob),
        "score": finite_or_none(candidate.new),
        "total": finite_or_none(candidate.total),
    }

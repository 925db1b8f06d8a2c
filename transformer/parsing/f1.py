"""Labelled bracket F1, as evalb computes it with COLLINS.prm."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from transformer.errors import DataError
from transformer.parsing.trees import PUNCTUATION, ROOT, Leaf, Tree, leaves, linearise, restore, walk

_EQUAL_LABELS = {"PRT": "ADVP"}

Brackets = collections.Counter[tuple[str, int, int]]  # label, start, end (exclusive)


@dataclass(frozen=True)
class BracketScore:
    """Bracket counts of a corpus, and scores from 0 to 100."""

    sentences: int
    skipped: int  # empty, or words that differ from the reference; not counted below
    matched: int  # brackets
    reference: int
    predicted: int
    complete: int  # sentences with all brackets correct

    @property
    def precision(self) -> float:
        return _percent(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        return _percent(self.matched, self.reference)

    @property
    def f1(self) -> float:
        return _percent(2 * self.matched, self.reference + self.predicted)

    @property
    def complete_match(self) -> float:
        return _percent(self.complete, self.sentences - self.skipped)


def score_trees(predicted: Sequence[Tree], references: Sequence[Tree]) -> BracketScore:
    """Score each tree against one reference, by the rules of evalb.

    - A bracket is a label over a span of words; it matches if the reference contains it. Repeated brackets, such as
      (NP (NP ...)), match as often as both trees contain them. Leaves are not brackets.
    - Words tagged as one of `, : . `` ''` are deleted first, in each tree by its own tags, and with them constituents
      that contain nothing else; spans count the remaining words.
    - Brackets labelled TOP are ignored, and PRT equals ADVP.
    - Sentences without words, or with words other than the reference's after deletion, are skipped.
    - Precision, recall and F1 are over the brackets of the whole corpus, not averaged over sentences.

    `read_tree` removes traces and function labels, as evalb does. Later versions of evalb also repair quotation marks
    with tags that differ from the reference; this does not.

    Raises:
        DataError: different numbers of trees and references, or none.
    """
    if len(predicted) != len(references):
        raise DataError(f"{len(predicted)} trees cannot be scored against {len(references)} references")
    if not references:
        raise DataError("nothing to score: the references are empty")
    skipped = matched = num_reference = num_predicted = complete = 0
    for tree, reference in zip(predicted, references, strict=True):
        (words, brackets), (true_words, true_brackets) = map(_brackets, (tree, reference))
        if not words or words != true_words:
            skipped += 1
            continue
        matched += (brackets & true_brackets).total()
        num_predicted += brackets.total()
        num_reference += true_brackets.total()
        complete += brackets == true_brackets
    return BracketScore(len(references), skipped, matched, num_reference, num_predicted, complete)


def score_outputs(outputs: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[BracketScore, int]:
    """Score linearised trees; returns the score and the number of malformed ones.

    `pairs` are sentences and linearised reference trees.
    """
    sentences = [sentence.split() for sentence, _ in pairs]
    references = [restore(target, words) for (_, target), words in zip(pairs, sentences, strict=True)]
    parses = [restore(output, words) for output, words in zip(outputs, sentences, strict=True)]
    num_repaired = sum(linearise(tree) != output for tree, output in zip(parses, outputs, strict=True))
    # F1 ignores tags except to delete punctuation: with the reference's tags, both sides lose the same words.
    tags = [[leaf.tag for leaf in leaves(reference)] for reference in references]
    retagged = [restore(*arguments) for arguments in zip(outputs, sentences, tags, strict=True)]
    return score_trees(retagged, references), num_repaired


def _brackets(tree: Tree) -> tuple[list[str], Brackets]:
    """Words and brackets without what evalb ignores."""
    words: list[str] = []
    starts: list[int] = []
    brackets: Brackets = collections.Counter()
    for symbol in walk(tree):
        if isinstance(symbol, Leaf):
            if symbol.tag not in PUNCTUATION:
                words.append(symbol.word)
        elif symbol[0] == "(":
            starts.append(len(words))
        else:
            start, label = starts.pop(), symbol[1:]
            if start < len(words) and label != ROOT:
                brackets[_EQUAL_LABELS.get(label, label), start, len(words)] += 1
    return words, brackets


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0

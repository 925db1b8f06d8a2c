"""Labelled bracket F1, as evalb counts it with the parameters of Collins (COLLINS.prm)."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from transformer.errors import DataError
from transformer.parsing.trees import PUNCTUATION, ROOT, Leaf, Tree, leaves, linearise, restore, walk

_EQUAL_LABELS = {"PRT": "ADVP"}

Brackets = collections.Counter[tuple[str, int, int]]  # label, first word, word behind the last


@dataclass(frozen=True)
class BracketScore:
    """Counts over a corpus, and what follows from them, from 0 to 100."""

    sentences: int
    skipped: int  # no words, or others than in the reference: they count nowhere below
    matched: int  # brackets
    reference: int
    predicted: int
    complete: int  # sentences whose brackets are all right

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
    """Score trees against one reference each. The rules of evalb:

    - A bracket is a label over a span of words; it is right if the reference has the same. Of equal brackets in a tree,
      such as (NP (NP ...)), as many are right as both trees have. Leaves with their parts of speech are no brackets.
    - Words whose part of speech is one of `, : . `` ''` are deleted first, in each tree by its own parts of speech;
      spans are counted without them, and constituents of nothing else go.
    - Brackets labelled TOP do not count.
    - PRT is the same label as ADVP.
    - A sentence whose words, after that, are not those of the reference is skipped, and so is one without words.
    - Precision, recall and F1 are of the brackets of the whole corpus, not averages over sentences.

    Traces and the functions of labels, which evalb removes too, `read_tree` has removed. Of evalb's later versions, the
    repair of quotation marks tagged otherwise than in the reference is not here.

    Raises:
        DataError: the sides differ in length, or there is nothing to score.
    """
    if len(predicted) != len(references):
        raise DataError(f"{len(predicted)} trees cannot be scored against {len(references)} references")
    if not references:
        raise DataError("there is nothing to score: the references are empty")
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
    return BracketScore(
        sentences=len(references),
        skipped=skipped,
        matched=matched,
        reference=num_reference,
        predicted=num_predicted,
        complete=complete,
    )


def score_outputs(outputs: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[BracketScore, int]:
    """The score of a model's outputs, and how many of them were no tree and had to be repaired.

    Args:
        outputs: linearised trees, as the model wrote them.
        pairs: of each its sentence and the linearised tree that is right.
    """
    sentences = [sentence.split() for sentence, _ in pairs]
    references = [restore(target, words) for (_, target), words in zip(pairs, sentences, strict=True)]
    parses = [restore(output, words) for output, words in zip(outputs, sentences, strict=True)]
    num_repaired = sum(linearise(tree) != output for tree, output in zip(parses, outputs, strict=True))
    # F1 judges no parts of speech: with those of the reference, both sides lose the same punctuation.
    tags = [[leaf.tag for leaf in leaves(reference)] for reference in references]
    judged = [restore(*arguments) for arguments in zip(outputs, sentences, tags, strict=True)]
    return score_trees(judged, references), num_repaired


def _brackets(tree: Tree) -> tuple[list[str], Brackets]:
    """The words and brackets that count."""
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

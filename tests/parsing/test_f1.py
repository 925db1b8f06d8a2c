"""Bracket scores computed by hand, rule by rule, and invariants of the counts."""

from __future__ import annotations

import random

import pytest

from transformer.errors import DataError
from transformer.parsing.f1 import BracketScore, score_trees
from transformer.parsing.trees import Leaf, Tree, read_tree, walk

# Brackets without punctuation: S 0-4, NP 0-1, VP 1-4, NP 2-4.
JOHN = "(S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .))"


def score(predicted: str, reference: str) -> BracketScore:
    return score_trees([read_tree(predicted)], [read_tree(reference)])


def counts(predicted: str, reference: str) -> tuple[int, int, int, int]:
    found = score(predicted, reference)
    return found.matched, found.predicted, found.reference, found.skipped


@pytest.mark.parametrize(
    ("predicted", "matched", "num_predicted"),
    [
        (JOHN, 4, 4),
        # VP 1-2 is wrong: S 0-4, NP 0-1 and NP 2-4 are right.
        ("(S (NP (NNP John)) (VP (VBZ has)) (NP (DT a) (NN dog)) (. .))", 3, 4),
        # A wrong label over a right span.
        ("(S (NP (NNP John)) (VP (VBZ has) (PP (DT a) (NN dog))) (. .))", 3, 4),
        # Of the two NP 2-4 one is right.
        ("(S (NP (NNP John)) (VP (VBZ has) (NP (NP (DT a) (NN dog)))) (. .))", 4, 5),
        # Leaves are not brackets.
        ("(S (NP (XX John)) (VP (XX has) (NP (XX a) (XX dog))) (. .))", 4, 4),
        # The full stop is nowhere, so it may be anywhere, and a constituent of it alone does not count.
        ("(S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog) (. .))))", 4, 4),
        ("(S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (X (. .)))", 4, 4),
        # TOP does not count.
        (f"(TOP {JOHN})", 4, 4),
        ("(TOP (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .))", 3, 3),
        ("(TOP (NNP John) (VBZ has) (DT a) (NN dog) (. .))", 0, 0),
    ],
)
def test_brackets_are_counted_as_by_hand(predicted: str, matched: int, num_predicted: int) -> None:
    assert counts(predicted, JOHN) == (matched, num_predicted, 4, 0)
    assert counts(JOHN, predicted) == (matched, 4, num_predicted, 0)


def test_particles_are_adverbs() -> None:
    give_up = "(S (VP (VB give) ({} (RP up))))"
    assert counts(give_up.format("PRT"), give_up.format("ADVP")) == (3, 3, 3, 0)
    assert counts(give_up.format("PRT"), give_up.format("PP")) == (2, 3, 3, 0)


@pytest.mark.parametrize("tag", [",", ":", "``", "''", "."])
def test_punctuation_is_deleted_by_its_tag(tag: str) -> None:
    # With the mark the first NP would be 0-2, without it 0-1.
    one, other = f"(S (NP (NN a) ({tag} x)) (NP (NN b)))", f"(S (NP (NN a)) (NP ({tag} x) (NN b)))"
    assert counts(one, other) == (3, 3, 3, 0)


@pytest.mark.parametrize("tag", ["-LRB-", "$", "#", "XX", "?"])
def test_other_marks_are_words(tag: str) -> None:
    one, other = f"(S (NP (NN a) ({tag} x)) (NP (NN b)))", f"(S (NP (NN a)) (NP ({tag} x) (NN b)))"
    assert counts(one, other) == (1, 3, 3, 0)


@pytest.mark.parametrize(
    "predicted",
    [
        "(S (NP (NNP John)) (VP (VBZ has) (NP (NN dogs))) (. .))",  # fewer words
        JOHN.replace("dog", "cat"),  # another word
        JOHN.replace("(. .)", "(NN .)"),  # a mark that only one side deletes
    ],
)
def test_a_sentence_of_other_words_is_skipped(predicted: str) -> None:
    assert counts(predicted, JOHN) == (0, 0, 0, 1)
    both = score_trees([read_tree(predicted), read_tree(JOHN)], [read_tree(JOHN)] * 2)
    assert (both.sentences, both.skipped, both.f1, both.complete_match) == (2, 1, 100, 100)


def test_a_sentence_of_punctuation_alone_is_skipped() -> None:
    assert counts("(S (. .))", "(S (. .))") == (0, 0, 0, 1)


def test_scores_are_over_the_corpus_not_averages_over_sentences() -> None:
    # 3 of 4 brackets are right against 4, and 1 of 2 against 1.
    predicted = ["(S (NP (NNP John)) (VP (VBZ has)) (NP (DT a) (NN dog)) (. .))", "(S (NP (NN a)) (NN b))"]
    references = [JOHN, "(S (NN a) (NN b))"]
    found = score_trees([*map(read_tree, predicted), read_tree(JOHN)], [*map(read_tree, references), read_tree(JOHN)])
    assert (found.matched, found.predicted, found.reference, found.complete) == (8, 10, 9, 1)
    assert found.precision == pytest.approx(100 * 8 / 10)
    assert found.recall == pytest.approx(100 * 8 / 9)
    assert found.f1 == pytest.approx(2 / (10 / 800 + 9 / 800))
    assert found.complete_match == pytest.approx(100 / 3)


def test_without_brackets_every_score_is_zero() -> None:
    found = score("(TOP (NN a))", "(TOP (NN a))")
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(13))
def test_dropping_brackets_costs_recall_alone(seed: int) -> None:
    rng = random.Random(seed)
    reference = read_tree(f"(S {JOHN} (, ,) (CC and) {JOHN})")

    def thinned(node: Tree | Leaf) -> list[Tree | Leaf]:
        if isinstance(node, Leaf):
            return [node]
        children = [one for child in node.children for one in thinned(child)]
        return children if rng.random() < 0.4 else [Tree(node.label, tuple(children))]

    tree = Tree("TOP", tuple(thinned(reference)))
    kept = sum(isinstance(symbol, str) and symbol[0] == "(" for symbol in walk(tree)) - 1
    found = score_trees([tree], [reference])
    assert (found.matched, found.predicted, found.reference) == (kept, kept, 9)


def test_unequal_or_empty_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="1 trees cannot be scored against 0 references"):
        score_trees([read_tree(JOHN)], [])
    with pytest.raises(DataError, match="nothing to score"):
        score_trees([], [])

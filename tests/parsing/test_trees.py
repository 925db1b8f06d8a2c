"""Trees: reading, formatting, linearising, and repair of malformed output."""

from __future__ import annotations

import random

import pytest

from transformer.errors import DataError
from transformer.parsing.trees import Leaf, Tree, bracketed, leaves, linearise, read_tree, restore, words

JOHN = "(S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .))"
SEEDS = range(211)


def random_tree(rng: random.Random, depth: int = 7) -> Tree:
    """Few labels, so that constituents nest in others of the same label; unary chains; sometimes a TOP root."""
    root = random_constituent(rng, depth)
    if rng.random() < 0.3:
        return Tree("TOP", (root, *[random_constituent(rng, 2) for _ in range(rng.randint(1, 2))]))
    return Tree("TOP", root.children) if rng.random() < 0.1 and len(root.children) > 1 else root


def random_constituent(rng: random.Random, depth: int) -> Tree:
    children = [
        random_constituent(rng, depth - 1) if depth > 1 and rng.random() < 0.6 else random_leaf(rng)
        for _ in range(rng.choice((1, 1, 2, 3, 5)))
    ]
    return Tree(rng.choice(("S", "NP", "VP", "X|Y")), tuple(children))


def random_leaf(rng: random.Random) -> Leaf:
    return rng.choice((Leaf("XX", f"w{rng.randrange(13)}"), Leaf("XX", "S"), Leaf(",", ","), Leaf(".", "?")))


def test_restoring_undoes_linearising_and_reading_undoes_writing() -> None:
    for seed in SEEDS:
        tree = random_tree(random.Random(seed))
        assert restore(linearise(tree), words(tree)) == tree, seed
        assert read_tree(bracketed(tree)) == tree, seed


def test_a_tree_is_linearised_as_vinyals_and_kaiser_do_with_tags_normalised() -> None:
    tree = read_tree(JOHN)
    assert linearise(tree) == "(S (NP XX )NP (VP XX (NP XX XX )NP )VP . )S"
    assert words(tree) == ["John", "has", "a", "dog", "."]
    assert restore(linearise(tree), words(tree), [leaf.tag for leaf in leaves(tree)]) == tree


@pytest.mark.parametrize("tag", [",", ":", ".", "``", "''"])
def test_punctuation_keeps_its_tag(tag: str) -> None:
    assert linearise(Tree("S", (Leaf("NN", "a"), Leaf(tag, "b")))) == f"(S XX {tag} )S"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"({JOHN})", JOHN),
        (f" ( TOP {JOHN} )\n", JOHN),
        (JOHN.replace(" ", "  ").replace("(", "( "), JOHN),
        ("(ROOT (S1 (NN a)))", "(S1 (NN a))"),
        ("(TOP (NN Go))", "(TOP (NN Go))"),
        ("((NN Go))", "(TOP (NN Go))"),
        ("(NN Go)", "(TOP (NN Go))"),
        ("(ROOT (S (NN a)) (, ,) (S (NN b)))", "(TOP (S (NN a)) (, ,) (S (NN b)))"),
        ("(S (NP-SBJ-1 (PRP$ My)) (NP=2 (-LRB- -LRB-)))", "(S (NP (PRP$ My)) (NP (-LRB- -LRB-)))"),
        ("(S (NP (NN a)) (SBAR (-NONE- 0) (S (-NONE- *T*-1))) (NP))", "(S (NP (NN a)))"),
    ],
)
def test_reading_cleans_a_tree(text: str, clean: str) -> None:
    assert bracketed(read_tree(text)) == clean


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(S (NN a)", "a bracket is not closed"),
        ("(S (NN a)))", r"the \) at character 11 closes nothing"),
        ("(S (NP a dog))", "'a' is not in a bracket with its tag"),
        ("hello", "'hello' is not in a bracket"),
        ("", "expected one tree with words, found 0"),
        ("(S (-NONE- *))", "expected one tree with words, found 0"),
        (f"{JOHN} {JOHN}", "expected one tree with words, found 2"),
    ],
)
def test_malformed_trees_are_refused(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"^not a bracketed tree: {problem}"):
        read_tree(text)


@pytest.mark.parametrize(
    ("sequence", "mended"),
    [
        ("(S (NP XX )NP (VP XX XX", "(S (NP a) (VP b c))"),  # not closed
        ("(S (NP XX (VP XX )S XX", "(TOP (S (NP a (VP b))) c)"),  # closed by what is around it
        ("(S XX )NP XX )VP XX )S )S", "(S a b c)"),  # closed, but never opened
        ("(S (NP XX )NP )S", "(TOP (S (NP a)) b c)"),  # too few words
        ("(S XX XX XX (NP XX )NP XX )S", "(S a b c)"),  # too many, and a constituent of none
        ("(S (NP )NP XX XX XX )S", "(S a b c)"),  # a constituent without words
        ("(S XX )S (S XX XX )S", "(TOP (S a) (S b c))"),  # two trees
        ("XX (NP XX XX )NP", "(TOP a (NP b c))"),  # a word outside
        ("(S dog ( ) XX ⁇ )S", "(S a b c)"),  # symbols that are none
        ("(TOP (S XX (TOP XX )TOP XX )S )TOP", "(S a b c)"),  # a symbol that `linearise` does not write
        ("", "(TOP a b c)"),
    ],
)
def test_malformed_sequences_are_repaired(sequence: str, mended: str) -> None:
    tree = restore(sequence, ["a", "b", "c"])
    assert bracketed(tree).replace("(XX a)", "a").replace("(XX b)", "b").replace("(XX c)", "c") == mended


def test_any_sequence_becomes_a_tree_over_exactly_the_words() -> None:
    symbols = ["(S", ")S", "(NP", ")NP", "(TOP", ")TOP", "XX", "XX", ".", "(", ")", "⁇", "S"]
    for seed in SEEDS:
        rng = random.Random(seed)
        sentence = [f"w{i}" for i in range(rng.choice((1, 2, 7)))]
        tree = restore(" ".join(rng.choices(symbols, k=rng.randrange(29))), sentence)
        assert words(tree) == sentence, seed
        assert {leaf.tag for leaf in leaves(tree)} <= {"XX", "."}, seed
        assert words(read_tree(bracketed(tree))) == sentence, seed
        assert restore(linearise(tree), sentence) == tree, f"it is well-formed now, with seed {seed}"


def test_thousands_of_nested_brackets_are_handled() -> None:
    depth = 5003
    tree = restore("(S " * depth + "XX", ["a"])
    assert linearise(tree) == "(S " * depth + "XX" + " )S" * depth
    assert linearise(read_tree(bracketed(tree))) == linearise(tree)

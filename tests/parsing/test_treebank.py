"""Treebanks as corpora, from files and the builtin grammar, and their user-defined symbols."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from transformer.config import DataConfig
from transformer.data.builtin import builtin_trees
from transformer.data.corpus import load_split
from transformer.data.dataset import corpus_tokenizer
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError
from transformer.parsing.trees import linearise, read_tree, restore

# The labels that the Penn Treebank gives to phrases and clauses, and two that its preprocessing makes.
PENN_LABELS = (
    "ADJP ADVP CONJP FRAG INTJ LST NAC NP NX PP PRN PRT QP RRC UCP VP WHADJP WHADVP WHNP WHPP X S SBAR SBARQ SINV SQ "
    "PRT|ADVP NP+VP"
)


def write_trees(directory: Path, *lines: str, split: str = "train") -> DataConfig:
    with gzip.open(directory / f"{split}.trees.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return DataConfig(corpus=f"{directory}/{{split}}.trees.gz")


def test_a_file_of_trees_is_a_corpus_of_sentences_and_symbols(tmp_path: Path) -> None:
    trees = ["( (S (NP-SBJ (NNP Zoë)) (VP (VBZ has) (NP (-NONE- *))) (. .)) )", "", "(TOP (NN Go))"]
    corpus = load_split(write_trees(tmp_path, *trees, split="dev"), "validation")
    assert list(corpus) == list(corpus) == [("Zoë has .", "(S (NP XX )NP (VP XX )VP . )S"), ("Go", "XX")]
    assert corpus.symbols() == ["(NP", "(S", "(VP", ")NP", ")S", ")VP", "XX"]
    assert corpus.name == str(tmp_path / "dev.trees.gz")


def test_a_treebank_is_known_by_its_content(tmp_path: Path) -> None:
    fingerprints = []
    for trees in (["(S (NN a))"], ["(S (NN a))"], ["(S (NN b))"]):
        fingerprints.append(load_split(write_trees(tmp_path, *trees), "train").fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    corpus = load_split(write_trees(tmp_path, "(S (NN a))", "", "(S (NN a)"), "train")
    with pytest.raises(DataError, match=r"train\.trees\.gz, line 3: not a bracketed tree: a bracket is not closed$"):
        list(corpus)


def test_a_missing_treebank_and_an_unknown_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*test\.trees\.gz"):
        load_split(write_trees(tmp_path, "(S (NN a))"), "test")
    with pytest.raises(DataError, match="unknown split 'dev'"):
        load_split(DataConfig(corpus="treebank"), "dev")


def test_the_grammars_treebank_has_the_trees_of_its_derivations() -> None:
    corpus = load_split(DataConfig(corpus="treebank", builtin_size=97), "train")
    trees = [read_tree(line) for line in builtin_trees("train", 97)]
    assert [restore(target, source.split()) for source, target in corpus] == trees
    assert corpus.fingerprint != load_split(DataConfig(corpus="builtin", builtin_size=97), "train").fingerprint


def test_each_bracket_is_one_piece_and_comes_back(tmp_path: Path) -> None:
    labels = PENN_LABELS.split()
    pairs = zip(labels, reversed(labels), strict=True)
    trees = [f"({label} (NN dog) ({other} (`` ``) (VB bark) ('' '') (, ,)) (. .))" for label, other in pairs]
    corpus = load_split(write_trees(tmp_path, *trees), "train")
    tokenizer = corpus_tokenizer(corpus, 83, tmp_path / "cache")
    assert len(tokenizer) == 83
    for _, target in corpus:
        (ids,) = tokenizer.encode([target])
        pieces = [piece for piece in tokenizer.pieces(ids) if "(" in piece or ")" in piece or "XX" in piece]
        assert pieces == [f"▁{symbol}" for symbol in target.split() if symbol[0] in "()X"]
        assert tokenizer.decode([ids]) == [target]


def test_symbols_leave_the_pieces_of_sentences_alone() -> None:
    sentences = ["a dog barks at a cat .", "the cat sees the dog ."] * 7
    symbols = ["(S", ")S", "XX"]
    with_symbols = Tokenizer.train([*sentences, linearise(read_tree("(S (NN a) (NN b))"))], 43, symbols)
    without = Tokenizer.train(sentences, 40)
    for sentence in sentences[:2]:
        pieces = [tokenizer.pieces(tokenizer.encode([sentence])[0]) for tokenizer in (with_symbols, without)]
        assert pieces[0] == pieces[1]

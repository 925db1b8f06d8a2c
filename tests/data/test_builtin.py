"""The built-in corpus: its invariants, and its German against manual translations."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, islice
from typing import Any

import pytest

from transformer.data import builtin
from transformer.data.builtin import NP, Noun, Predicate, Preposition, Words, builtin_pairs, builtin_trees

SPLITS = ("train", "validation", "test")

# Declension tables as a German grammar prints them: nominative, accusative, dative.
DECLENSIONS = """
the small dog = der kleine Hund, den kleinen Hund, dem kleinen Hund
the small cat = die kleine Katze, die kleine Katze, der kleinen Katze
the small horse = das kleine Pferd, das kleine Pferd, dem kleinen Pferd
the small houses = die kleinen Häuser, die kleinen Häuser, den kleinen Häusern
a small dog = ein kleiner Hund, einen kleinen Hund, einem kleinen Hund
a small cat = eine kleine Katze, eine kleine Katze, einer kleinen Katze
a small horse = ein kleines Pferd, ein kleines Pferd, einem kleinen Pferd
small houses = kleine Häuser, kleine Häuser, kleinen Häusern
two small dogs = zwei kleine Hunde, zwei kleine Hunde, zwei kleinen Hunden
the two small dogs = die zwei kleinen Hunde, die zwei kleinen Hunde, den zwei kleinen Hunden
some small cars = einige kleine Autos, einige kleine Autos, einigen kleinen Autos
this small boy = dieser kleine Junge, diesen kleinen Jungen, diesem kleinen Jungen
every tired bear = jeder müde Bär, jeden müden Bären, jedem müden Bären
a tired bear = ein müder Bär, einen müden Bären, einem müden Bären
our red ball = unser roter Ball, unseren roten Ball, unserem roten Ball
my new books = meine neuen Bücher, meine neuen Bücher, meinen neuen Büchern
these old black cats = diese alten schwarzen Katzen, diese alten schwarzen Katzen, diesen alten schwarzen Katzen
a new red car = ein neues rotes Auto, ein neues rotes Auto, einem neuen roten Auto
many women = viele Frauen, viele Frauen, vielen Frauen
several clean parks = mehrere saubere Parks, mehrere saubere Parks, mehreren sauberen Parks
"""

TRANSLATIONS = """
The dog is sleeping. = Der Hund schläft.
The dogs are sleeping. = Die Hunde schlafen.
Many children are dancing on the meadow. = Viele Kinder tanzen auf der Wiese.
The mice are sitting on the roofs. = Die Mäuse sitzen auf den Dächern.
A man and a woman are dancing. = Ein Mann und eine Frau tanzen.
Every girl is wearing a new dress. = Jedes Mädchen trägt ein neues Kleid.
Three women are wearing blue hats. = Drei Frauen tragen blaue Hüte.
Two small dogs are playing with a red ball in the park. = Zwei kleine Hunde spielen im Park mit einem roten Ball.
In the park, the boy is playing with the ball. = Im Park spielt der Junge mit dem Ball.
Today, a woman is reading a book. = Heute liest eine Frau ein Buch.
A woman is reading a book today. = Eine Frau liest heute ein Buch.
The woman is reading the book today. = Die Frau liest das Buch heute.
The woman is reading a book in the garden. = Die Frau liest im Garten ein Buch.
The woman is reading the book in the garden. = Die Frau liest das Buch im Garten.
The boy is not sleeping. = Der Junge schläft nicht.
The girl is not eating an apple. = Das Mädchen isst keinen Apfel.
The girls are not eating apples. = Die Mädchen essen keine Äpfel.
The girl is not eating the apple. = Das Mädchen isst den Apfel nicht.
The girl cannot eat the apple. = Das Mädchen kann den Apfel nicht essen.
The man is not waiting for the bus. = Der Mann wartet nicht auf den Bus.
At the moment, the birds are not hungry. = Im Moment sind die Vögel nicht hungrig.
The horse is eating an apple. = Das Pferd frisst einen Apfel.
An apple is being eaten by the horse. = Ein Apfel wird vom Pferd gefressen.
The apples are being eaten by a child. = Die Äpfel werden von einem Kind gegessen.
The letter is being read by my aunt now. = Der Brief wird jetzt von meiner Tante gelesen.
The man is calling a friendly farmer. = Der Mann ruft einen freundlichen Bauern an.
The man wants to call the farmers. = Der Mann will die Bauern anrufen.
The man has called the students. = Der Mann hat die Studenten angerufen.
The monkeys are waking up. = Die Affen wachen auf.
The monkeys have woken up. = Die Affen sind aufgewacht.
A dog is running into the house. = Ein Hund rennt ins Haus.
A dog is running out of the house. = Ein Hund rennt aus dem Haus.
A dog has run to the station. = Ein Hund ist zum Bahnhof gerannt.
The cow must walk to the church. = Die Kuh muss zur Kirche gehen.
The cows are going back across the bridge. = Die Kühe gehen über die Brücke zurück.
Our teacher has jumped over the wall. = Unser Lehrer ist über die Mauer gesprungen.
Tomorrow, the teacher will show the children a picture. = Morgen wird der Lehrer den Kindern ein Bild zeigen.
The teacher is giving the child the picture. = Der Lehrer gibt dem Kind das Bild.
The teacher is giving a child the picture. = Der Lehrer gibt das Bild einem Kind.
The women are helping the old man. = Die Frauen helfen dem alten Mann.
A boy is playing a guitar. = Ein Junge spielt auf einer Gitarre.
Is the cat sleeping under the table? = Schläft die Katze unter dem Tisch?
Are the children listening to a teacher? = Hören die Kinder einem Lehrer zu?
Can the bird play? = Kann der Vogel spielen?
The boy is singing, and the girl is dancing. = Der Junge singt, und das Mädchen tanzt.
The boy is singing, but the dogs are sleeping. = Der Junge singt, aber die Hunde schlafen.
The boy is singing while the man is reading a book. = Der Junge singt, während der Mann ein Buch liest.
The boy is singing because the man has called a girl. = Der Junge singt, weil der Mann ein Mädchen angerufen hat.
The boy is singing although the dog is waking up. = Der Junge singt, obwohl der Hund aufwacht.
While the man is singing, the dog is sleeping. = Während der Mann singt, schläft der Hund.
The woman who is singing is tired. = Die Frau, die singt, ist müde.
The mouse that the cats are chasing is small. = Die Maus, die die Katzen jagen, ist klein.
The man whom the woman is helping is sleeping. = Der Mann, dem die Frau hilft, schläft.
The women whom the man is helping are sleeping. = Die Frauen, denen der Mann hilft, schlafen.
The bus that the man is waiting for is red. = Der Bus, auf den der Mann wartet, ist rot.
A boy is watching a dog that is sleeping. = Ein Junge beobachtet einen Hund, der schläft.
A boy is drawing the park that a dog is running into. = Ein Junge zeichnet den Park, in den ein Hund rennt.
The child is dreaming of the dog. = Das Kind träumt vom Hund.
The child is dreaming of the dog that is sleeping. = Das Kind träumt von dem Hund, der schläft.
"""


def equations(text: str) -> list[Any]:
    return [pytest.param(*line.split(" = "), id=line.split(" = ")[0]) for line in text.strip().splitlines()]


def phrase(english: str) -> NP:
    """Look up the words of a noun phrase in the lexicon."""
    head, _, last = english.rpartition(" ")
    forms = [(noun, number) for group in builtin.NOUNS.values() for noun in group for number in (0, 1)]
    [(noun, number)] = [(noun, number) for noun, number in forms if noun.english[number] == last]
    determiners = sorted({*builtin.ANY[number]}, key=lambda one: -len(one.english))
    determiner = next(one for one in determiners if f"{head} ".startswith(f"{one.english} ".lstrip()))
    known = [*builtin.QUALITIES[noun.kind], *builtin.COLOURS[noun.kind]]
    rest = head.removeprefix(determiner.english).split()
    return NP(determiner, [one for word in rest for one in known if one.english == word], noun, bool(number))


def hide_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restrict the grammar to choices compatible with a text (lower case, without punctuation)."""
    kept: dict[int, tuple[Sequence[Any], list[Any]]] = {}

    def said(words: str) -> bool:
        return f" {words.lower()} ".replace("  ", " ") in f" {text} "

    def fits(item: Any) -> bool:
        if isinstance(item, list):
            return any(map(fits, item))
        if isinstance(item, Predicate):
            return any(map(said, item.auxiliary)) and said(item.english) and all(map(fits, item.frame))
        if isinstance(item, Noun):
            return any(map(said, item.english))
        if isinstance(item, (Words, Preposition)):
            return said(item.english)
        return any(map(fits, builtin.NOUNS[item]))

    def pick(draw: builtin.Draw, items: Sequence[Any]) -> Any:
        if id(items) not in kept:
            kept[id(items)] = items, [item for item in items if fits(item)] or list(items)
        fitting = kept[id(items)][1]
        return fitting[int(draw() * len(fitting))]

    monkeypatch.setattr(builtin, "pick", pick)


def derive(english: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Climb, from one tape of draws to a slightly changed one, to where the grammar derives this very sentence.

    Returns its tree and its German.
    """
    text = re.sub(r"\ban\b", "a", re.sub("[^a-z ]", "", english.lower()))
    hide_words(text.replace("cannot", "can not"), monkeypatch)
    rng = random.Random(0)
    tape: list[float] = []
    reached = 0
    for _ in range(50_000):
        position = rng.randrange(len(tape) + 1)
        rest = tape[position + 1 :] if rng.random() < 0.5 else []
        draws = chain(tape[:position], [rng.random()], rest, iter(rng.random, None))
        drawn: list[float] = []

        def draw(draws: Iterator[float] = draws, drawn: list[float] = drawn) -> float:
            drawn.append(next(draws))
            return drawn[-1]

        tree, german = builtin.sample_sentence(draw)
        derived = builtin.tidy(tree)
        if derived == english:
            return tree, builtin.tidy(german)
        agreement = [one == other for one, other in zip(derived.split(), english.split(), strict=False)]
        words = [*agreement, False].index(False)
        if words >= reached:
            tape, reached = drawn, words
    raise AssertionError(f"the grammar does not derive {english!r}: only its first {reached} words")


@pytest.mark.parametrize(("english", "german"), equations(DECLENSIONS))
def test_noun_phrases_decline_as_in_a_grammar_book(english: str, german: str) -> None:
    np = phrase(english)
    cases = [builtin.render(np, Preposition("", "", "", case)) for case in ("nom", "acc", "dat")]
    assert {one.english for one in cases} == {builtin.bracket("NP", builtin.leaves(english))}
    assert [one.german for one in cases] == german.split(", ")


@pytest.mark.parametrize(("english", "german"), equations(TRANSLATIONS))
def test_the_grammar_translates_as_a_person_would(english: str, german: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert derive(english, monkeypatch)[1] == german


def test_the_same_english_always_has_the_same_tree_and_german() -> None:
    draw = random.Random(3).random
    seen: dict[str, builtin.Words] = {}
    for _ in range(20_011):
        pair = builtin.sample_sentence(draw)
        assert seen.setdefault(builtin.tidy(pair.english), pair) == pair
    assert len(seen) < 20_011  # short sentences do come back, so the loop has compared something


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_distinct_and_as_many_as_asked(split: str) -> None:
    pairs = list(builtin_pairs(split, 503, seed=2))
    assert len(pairs) == len({english for english, _ in pairs}) == 503
    assert list(builtin_pairs(split, 0)) == []


def test_a_longer_corpus_extends_a_shorter_one() -> None:
    assert list(builtin_pairs("train", 211)) == list(islice(builtin_pairs("train", 1009), 211))


def test_the_seed_chooses_the_sentences() -> None:
    first, again, other = (list(builtin_pairs("train", 211, seed)) for seed in (5, 5, 7))
    assert first == again
    assert len(set(first) & set(other)) < 53


def test_splits_share_no_sentence_whatever_their_seeds() -> None:
    corpora = {split: {e for seed in (0, 1) for e, _ in builtin_pairs(split, 211, seed)} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not corpora[one] & corpora[other]


@pytest.mark.slow
def test_another_process_yields_the_same_pairs() -> None:
    code = "import runpy, sys; print(ascii(list(runpy.run_path(sys.argv[1])['builtin_pairs']('test', 31))))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", code, builtin.__file__]
    run = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert run.stdout.strip() == ascii(list(builtin_pairs("test", 31)))


def test_sentences_are_4_to_25_words_cased_and_punctuated() -> None:
    for english, german in builtin_pairs("train", 3001):
        assert 4 <= len(english.split()) <= 25
        assert english[-1] == german[-1]
        for text in (english, german):
            assert re.fullmatch(r"[A-ZÄÖÜ][A-Za-zäöüÄÖÜß]*(,? [A-Za-zäöüÄÖÜß]+)+[.?]", text), text


def test_every_word_of_the_tables_occurs() -> None:
    english, german = zip(*builtin_pairs("train", 10_007), strict=True)
    said = [set(re.findall(r"\w+", " ".join(side))) for side in (english, german)]
    for noun in (noun for group in builtin.NOUNS.values() for noun in group):
        assert said[0].issuperset(noun.english)
        assert all(said[1] & {*forms} for forms in noun.german)
    for active, _ in builtin.VERBS:
        assert said[0].issuperset(active[0].english.split())
        assert said[1].issuperset(active[0].finite)


def test_clauses_behind_a_conjunction_end_in_a_finite_verb() -> None:
    forms = {(one.tail, *one.finite) for active, _ in builtin.VERBS for one in active}
    finite = {"ist", "sind", "wird", "werden"}.union(
        *[{*verbs, *(tail + verb for verb in verbs)} for tail, *verbs in forms]
    )
    clauses = [
        clause
        for _, german in builtin_pairs("train", 3001)
        if german.count(",") == 1  # no relative clauses
        for clause in re.findall(r"\b(?:[Ww]eil|[Ww]ährend|[Oo]bwohl) ([^,.]*)", german)
    ]
    assert len(clauses) > 101
    assert {clause.split()[-1] for clause in clauses} <= finite


def test_prepositions_contract_except_before_a_relative_clause() -> None:
    for _, german in builtin_pairs("train", 5003):
        for match in re.finditer(r"(, )?\b(in|an|von|zu) dem\b|(, )?\bzu der\b|(, )?\bin das\b", german):
            antecedent = re.match(r"( [a-zäöüß]+)* [A-ZÄÖÜ]\w+,", german[match.end() :])
            assert match[0].startswith(", ") or antecedent, german


# Trees that a person drew of English that the grammar derives; the leaves are the words and the punctuation.
TREES = """
(S (NP The dog) (VP is (VP sleeping)) .)
(S (NP The man) (VP is not (VP waiting for (NP the bus))) .)
(S (ADVP Today) , (NP a woman) (VP is (VP reading (NP a book))) .)
(S (NP Two small dogs) (VP are (VP playing with (NP a red ball) (PP in (NP the park)))) .)
(S (NP An apple) (VP is (VP being eaten (PP by (NP the horse)))) .)
(S (NP (NP A man) and (NP a woman)) (VP are (VP dancing)) .)
(S (NP (NP The woman) (SBAR (WHNP who) (S (VP is (VP singing))))) (VP is (ADJP tired)) .)
(S (NP (NP The mouse) (SBAR (WHNP that) (S (NP the cats) (VP are (VP chasing))))) (VP is (ADJP small)) .)
(S (S (NP The boy) (VP is (VP singing))) , and (S (NP the girl) (VP is (VP dancing))) .)
(S (NP The boy) (VP is (VP singing)) (SBAR while (S (NP the man) (VP is (VP reading (NP a book))))) .)
(S (SBAR While (S (NP the man) (VP is (VP singing)))) , (NP the dog) (VP is (VP sleeping)) .)
(SQ Is (NP the cat) (VP sleeping (PP under (NP the table))) ?)
(S (NP Men) (VP are (VP drawing (NP (NP the park) (SBAR (WHNP that) (S (NP a dog) (VP is (VP running (PP into)))))))) .)
(S (NP The girl) (VP can not (VP eat (NP the apple))) .)
"""


@pytest.mark.parametrize("drawn", TREES.strip().splitlines())
def test_the_grammar_brackets_as_a_person_would(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {",": ",", ".": ".", "?": "."}
    drawn = re.sub(r"(?<= )[^() ]+", lambda word: f"({tags.get(word[0], 'XX')} {word[0]})", drawn)
    tree, _ = derive(builtin.tidy(drawn), monkeypatch)
    assert tree == re.sub(r"[A-Z][a-z]*(?=\))", lambda word: word[0].lower(), drawn, count=1)


def test_the_trees_are_of_the_english_of_the_pairs() -> None:
    for tree, (english, _) in zip(builtin_trees("train", 503, 3), builtin_pairs("train", 503, 3), strict=True):
        assert builtin.tidy(tree) == english
        assert re.findall(r" ([^() ]+)\)", tree)[0] == re.findall(r"\w+", english)[0]  # in capitals too


@pytest.mark.parametrize("corpus", [builtin_pairs, builtin_trees])
@pytest.mark.parametrize("split", ["dev", "", "Train"])
def test_an_unknown_split_is_refused_at_once(split: str, corpus: Callable[[str, int], object]) -> None:
    with pytest.raises(ValueError, match=f"unknown split '{split}'.*train, validation, test"):
        corpus(split, 3)


@pytest.mark.parametrize("corpus", [builtin_pairs, builtin_trees])
def test_a_negative_size_is_refused_at_once(corpus: Callable[[str, int], object]) -> None:
    with pytest.raises(ValueError, match="size -3 is negative"):
        corpus("train", -3)

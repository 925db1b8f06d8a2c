"""The built-in corpus: English captions with German translations, from a synchronous grammar.

A toy corpus for the quickstart and the tests: no download, no licence, over 10^29 sentences; not for reported results.
The German is a function of the English, so a model can learn it exactly.

Covered: gender, case, number; weak, mixed, strong adjectives; dative -n, n-declension; number words; contractions; verb
second with inversion, verb last after conjunctions and relative pronouns; separable verbs, modals, perfect, passive;
nicht and kein; definite objects before adverbials, indefinite ones behind; questions; coordination; agreement.

English is derived as a bracketed tree, which `tidy` turns into a sentence: the grammar is also a small treebank.
"""

import configparser
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

from transformer.errors import DataError

T = TypeVar("T")
Draw = Callable[[], float]  # Random.random, whose sequence Python keeps stable across versions
SPLITS = {"train": range(90), "validation": range(90, 95), "test": range(95, 100)}  # percentiles of the sentence's hash

LEXICON = configparser.ConfigParser(delimiters=":", interpolation=None)
LEXICON.read_string(Path(__file__).with_name("lexicon.ini").read_text(encoding="utf-8"))
STRONG = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em"), "p": ("e", "e", "en")}  # by case
CASES, ARTICLES = {"nom": 0, "acc": 1, "dat": 2}, {"er": "der", "en": "den", "em": "dem", "e": "die", "es": "das"}
EIN_STEMS, DER_STEMS, SOME_STEMS = {"ein", "kein", "mein", "unser"}, {"d", "dies", "jed"}, {"einig", "viel", "mehrer"}
CONTRACTIONS = {"in dem": "im", "an dem": "am", "von dem": "vom", "zu dem": "zum", "zu der": "zur", "in das": "ins"}


class Words(NamedTuple):
    english: str
    german: str


class Preposition(NamedTuple):
    english: str
    german: str
    kinds: str = ""  # of the noun behind it
    case: str = "dat"


class Noun(NamedTuple):
    kind: str
    gender: str
    english: list[str]  # by number
    german: list[tuple[str, str, str]]  # by number and case


class NP(NamedTuple):
    det: Words  # in German a stem, and a number word behind it
    adjectives: list[Words]
    noun: Noun
    plural: bool
    extra: Words = Words("", "")  # a relative clause


class Predicate(NamedTuple):
    auxiliary: Sequence[str]  # English, by number
    english: str  # the verb form behind it
    finite: Sequence[str]  # German, by number
    tail: str  # the end of the German clause; a final finite verb follows its blank, or joins it: aufhebt
    subjects: str  # kinds
    frame: tuple[Preposition, ...] = ()  # of each object; only goals and agents have their English preposition here
    kinds: str = ""  # of the last object
    times: tuple[Words, ...] = ()


class Clause(NamedTuple):
    front: Words
    subject: Words
    finite: Words  # the finite verb, in English the auxiliary
    rest: Words  # all between that and the tail
    tail: str


def words(text: str) -> tuple[Words, ...]:
    return tuple(Words(*entry.strip().split("/")) for entry in text.split(","))


def entries(section: str) -> list[tuple[str, str]]:
    return [(key, entry.strip()) for key, group in LEXICON[section].items() for entry in group.split(",")]


def parse_noun(kind: str, entry: str) -> Noun:
    english, article, german = entry.split()
    singular, plural = german.rstrip("*").split("/")
    oblique = plural if german.endswith("*") else singular
    plurals = (plural, plural, plural if plural[-1] in "ns" else plural + "n")
    forms = (english if "/" in english else f"{english}/{english}s").split("/")
    return Noun(kind, {"der": "m", "die": "f", "das": "n"}[article], forms, [(singular, oblique, oblique), plurals])


def parse_verb(key: str, entry: str) -> tuple[list[Predicate], list[Predicate]]:
    """Return the predicates of a verb in the active voice and, with an accusative, in the passive."""
    subjects, objects, kinds = (*key.split(), "", "")[:3]
    english, german = (side.split("/") for side in entry.split(" = "))
    if len(english) == 1:
        verb, _, particle = english[0].partition(" ")
        english += [f"{verb.removesuffix('e')}{ending} {particle}".strip() for ending in ("ing", "ed")]
    infinitive, (singular, _, prefix), participle = german[0], german[1].partition(" "), german[2].removeprefix("ist ")
    finite, perfect = (singular, infinitive.removeprefix(prefix)), HAVE if participle == german[2] else ARE
    slots = [slot.rpartition("-") for slot in objects.split("+")]
    frame = tuple(Preposition("", preposition, "", case) for preposition, _, case in slots if case in CASES)
    active = [Predicate(IS, english[1], finite, prefix, subjects, frame, kinds, NOW)] * 6
    active += [Predicate(HAS, english[2], perfect, f"{participle} ", subjects, frame, kinds, NOW[:2])] * 2
    active += [Predicate(en, english[0], de, f"{infinitive} ", subjects, frame, kinds, PLANNED) for en, de in MODALS]
    if objects == "goal":
        active = [one._replace(frame=(goal,), kinds=goal.kinds) for one in active for goal in GOALS]
    passive = Predicate(IS, f"being {english[2]}", ("wird", "werden"), f"{participle} ", kinds, (BY,), subjects, NOW)
    return active, [passive] if objects == "acc" else []


COMMA = "(, ,)"
EMPTY, KEIN, NOMINATIVE = Words("", ""), Words("no", "kein"), Preposition("", "", "", "nom")
IS, ARE, HAS, HAVE, BY = ("is", "are"), ("ist", "sind"), ("has", "have"), ("hat", "haben"), Preposition("by", "von")
THE = words("the/d, the/d, the/d, this/dies, my/mein, our/unser")
THESE = words("the/d, the/d, the/d, these/dies, my/mein, our/unser, the two/d zwei, the three/d drei, the four/d vier")
SOME = words("/, /, /, /, some/einig, many/viel, several/mehrer, two/zwei, two/zwei, three/drei, four/vier, five/fünf")
SOME += words("six/sechs, seven/sieben, eight/acht, nine/neun, ten/zehn")
DEFINITE = {*THE, *THESE}  # these objects stand before the adverbials
ANY = THE + words("a/ein, a/ein, a/ein, a/ein, a/ein, every/jed"), THESE + SOME  # of singulars, of plurals
PLACED = words("the/d, the/d, the/d, the/d, this/dies, our/unser, a/ein, a/ein"), words("/, the/d, two/zwei")
NEGATABLE = words("a/ein, the/d"), words("/, the/d")
NOW = words("today/heute, this morning/heute Morgen, now/jetzt, this evening/heute Abend, at the moment/im Moment")
PLANNED = words("today/heute, tomorrow/morgen, on Sunday/am Sonntag, on Monday/am Montag, in the evening/am Abend")
CONJUNCTIONS = words("while/während, because/weil, although/obwohl, and/und, but/aber")
MODALS = [[side.split("/") for side in entry.split(" = ")] for _, entry in entries("modals")]
PREPOSITIONS = [(use, Preposition(*entry.split("/"))) for use, entry in entries("prepositions")]
PLACES, GOALS = ([one for use, one in PREPOSITIONS if use == wanted] for wanted in ("place", "goal"))
KINDS = "patrfhvibunoqw"
NOUNS = {kind: [parse_noun(kind, entry) for key, entry in entries("nouns") if key == kind] for kind in KINDS}
QUALITIES = {k: [Words(*entry.split("/")) for kinds, entry in entries("qualities") if k in kinds] for k in KINDS}
COLOURS = {k: [Words(*entry.split("/")) for kinds, entry in entries("colours") if k in kinds] for k in KINDS}
VERBS = [parse_verb(key, entry) for key, entry in entries("verbs")]
STATES = {k: [Predicate(IS, en, ARE, f"{de} ", k, times=NOW) for en, de in QUALITIES[k] + COLOURS[k]] for k in KINDS}
PASSIVES = {k: [one for _, passive in VERBS for one in passive if k in one.subjects] or STATES[k] for k in KINDS}
ACTIONS = {k: [one for one, _ in VERBS if k in one[0].subjects] + [PASSIVES[k]] * 2 for k in KINDS}
GAPS = {k: [one for active, _ in VERBS for one in active if k in one.kinds and len(one.frame) == 1] for k in KINDS}


def pick(draw: Draw, items: Sequence[T]) -> T:
    return items[int(draw() * len(items))]


def join(*parts: str) -> str:
    return " ".join(filter(None, parts))


def leaves(text: str) -> str:
    """Words as leaves of an English tree; parts of speech are not modelled."""
    return join(*[f"(XX {word})" for word in text.split()])


def bracket(label: str, *parts: str) -> str:
    """Bracket the parts as an English constituent; empty if they are."""
    inside = join(*parts)
    return inside and f"({label} {inside})"


def render(np: NP, slot: Preposition = NOMINATIVE) -> Words:
    """Render a noun phrase; in German, determiner or adjectives take the strong ending."""
    gender, case = "p" if np.plural else np.noun.gender, CASES[slot.case]
    (stem, _, number), ending = np.det.german.partition(" "), STRONG[gender][case]
    bare = gender in "mn" and ending in ("er", "es")  # ein Hund, ein Pferd, but einen Hund
    inflected = stem in DER_STEMS or stem in SOME_STEMS or (stem in EIN_STEMS and not bare)
    head = join(slot.german, ARTICLES[ending] if stem == "d" else stem + ending if inflected else stem)
    if not np.extra.german:  # the antecedent of a relative clause keeps its article whole
        head = CONTRACTIONS.get(head, head)
    if inflected and stem not in SOME_STEMS:
        ending = "e" if bare or (gender == "f" and ending == "e") else "en"
    adjectives = [adjective.german.removesuffix("e") + ending for adjective in np.adjectives]
    german = join(head, number, *adjectives, np.noun.german[np.plural][case]) + np.extra.german
    english = join(np.det.english, *[adjective.english for adjective in np.adjectives], np.noun.english[np.plural])
    if np.det.english == "a" and english[2] in "aeiou":
        english = f"an{english[1:]}"
    english = bracket("NP", leaves(english))
    if np.extra.english:
        english = bracket("NP", english, np.extra.english)
    return Words(bracket("PP", leaves(slot.english), english) if slot.english else english, german)


def in_english(clause: Clause) -> str:
    front = clause.front.english and join(clause.front.english, COMMA)
    return join(front, clause.subject.english, bracket("VP", leaves(clause.finite.english), clause.rest.english))


def in_german(clause: Clause, lead: str | None = None, final: bool = False) -> str:
    """Put the finite verb last, or second: after `lead`, the clause's front or the subject."""
    _, (_, subject), (_, finite), (_, rest), tail = clause
    if final:
        return join(lead or "", subject, rest, tail + finite)
    if lead is None and not clause.front.german:
        return join(subject, finite, rest, tail.strip())
    return join(lead or clause.front.german, finite, subject, rest, tail.strip())


def sample_np(draw: Draw, kinds: str, determiners: Sequence[Sequence[Words]] = ANY, plurals: float = 0.4) -> NP:
    noun, plural = pick(draw, NOUNS[pick(draw, kinds)]), draw() < plurals
    adjectives = [pick(draw, QUALITIES[noun.kind])] if draw() < 0.4 else []
    if draw() < 0.3 and COLOURS[noun.kind]:
        adjectives.append(pick(draw, COLOURS[noun.kind]))
    return NP(pick(draw, determiners[plural]), adjectives, noun, plural)


def sample_subject(draw: Draw) -> tuple[Words, NP]:
    """Draw a subject; returns it with a noun phrase of its kind, number and definiteness."""
    kind = pick(draw, "p" * 12 + "a" * 7 + "trfhvi")
    np, chance = sample_np(draw, kind), draw()
    if chance < 0.1:
        one, other = render(np), render(sample_np(draw, kind))
        both = bracket("NP", one.english, leaves("and"), other.english)
        return Words(both, f"{one.german} und {other.german}"), np._replace(plural=True)
    if chance < 0.25:
        np = np._replace(extra=sample_relative(draw, np))
    return render(np), np


def sample_relative(draw: Draw, np: NP) -> Words:
    """Draw a relative clause whose pronoun is the subject or the only object."""
    kind, slot = np.noun.kind, NOMINATIVE
    if draw() < 0.5 and GAPS[kind]:
        predicate = pick(draw, GAPS[kind])
        subject, slot = sample_np(draw, predicate.subjects), predicate.frame[0]
        clause = sample_clause(draw, render(subject), subject, gapped=predicate)
    else:
        clause = sample_clause(draw, EMPTY, np)
    pronoun = "that" if kind != "p" else "who" if slot is NOMINATIVE else "whom"
    article = ARTICLES[STRONG["p" if np.plural else np.noun.gender][CASES[slot.case]]]
    lead = join(slot.german, "denen" if np.plural and slot.case == "dat" else article)
    english = bracket("SBAR", bracket("WHNP", leaves(pronoun)), bracket("S", in_english(clause)))
    return Words(english, f", {in_german(clause, lead, final=True)},")


def sample_clause(draw: Draw, subject: Words, head: NP, main: bool = False, gapped: Predicate | None = None) -> Clause:
    """Draw a clause; only main ones have times, fronts and relative clauses of objects."""
    described = head.adjectives or draw() < 0.8  # a red ball is not said to be blue
    predicate = gapped or pick(draw, pick(draw, ACTIONS[head.noun.kind]) if described else STATES[head.noun.kind])
    is_state = predicate.finite is ARE and predicate.auxiliary is IS
    placeless = predicate.frame[0].kinds if predicate.frame else is_state
    negatable = head.det in DEFINITE and len(predicate.frame) < 2 and predicate.auxiliary[0] not in ("must", "wants to")
    negated = negatable and draw() < 0.12
    adverbials = []
    if main and draw() < 0.35:
        time = pick(draw, predicate.times)
        adverbials.append(Words(bracket("ADVP", leaves(time.english)), time.german))
    if not (placeless or negated) and draw() < 0.4:
        place = pick(draw, PLACES)
        adverbials.append(render(sample_np(draw, place.kinds, PLACED, 0.15), place))
    front = adverbials.pop(0) if main and adverbials and draw() < 0.4 else EMPTY
    bare = main and len(predicate.frame) == 1 and not (adverbials or negated or predicate.tail)
    parts = [bracket("PP", leaves(slot.english)) for slot in predicate.frame if gapped]
    middle, negation = [(1, one.german) for one in adverbials], "nicht" if negated else ""
    for slot in () if gapped else predicate.frame:
        determiners = PLACED if slot.kinds else NEGATABLE if negated else ANY
        plurals = 0.15 if slot.kinds else head.plural if predicate.kinds == "h" else 0.4
        np = sample_np(draw, predicate.kinds if slot is predicate.frame[-1] else "p", determiners, plurals)
        if bare and draw() < 0.3:
            np = np._replace(extra=sample_relative(draw, np))
        pair = render(np, slot)
        parts.append(pair.english)
        if negated and not slot.german and np.det not in DEFINITE:
            pair, negation = render(np._replace(det=KEIN), slot), ""
        middle.append((4 if slot.german else 0 if np.det in DEFINITE else 2, pair.german))  # with its rank in the field
    verb, later = leaves(predicate.english), [*parts, *[one.english for one in adverbials[::-1]]]
    rest = join(bracket("ADJP", verb), *later) if is_state else bracket("VP", verb, *later)
    english = join(leaves("not") if negated else "", rest)
    german = join(*[text for _, text in sorted([*middle, (3, negation)], key=itemgetter(0))])
    finite = Words(predicate.auxiliary[head.plural], predicate.finite[head.plural])
    return Clause(front, subject, finite, Words(english, german), predicate.tail)


def sample_sentence(draw: Draw) -> Words:
    """Draw an English tree and a German sentence."""
    shape, (subject, head) = draw(), sample_subject(draw)
    clause = sample_clause(draw, subject, head, main=shape > 0.15)
    if shape <= 0.15 and clause.finite.german not in ("will", "wollen"):
        english = bracket("SQ", leaves(clause.finite.english), subject.english, clause.rest.english, "(. ?)")
        return Words(english, f"{in_german(clause, '')}?")
    english, german = in_english(clause), in_german(clause)
    if shape > 0.75:
        link, other = pick(draw, CONJUNCTIONS), sample_clause(draw, *sample_subject(draw))
        final = link.german not in ("und", "aber")
        added = bracket("S", in_english(other))
        if final and not clause.front.german and draw() < 0.4:
            english = join(bracket("SBAR", leaves(link.english), added), COMMA, english)
            german = in_german(clause, f"{link.german} {in_german(other, final=True)},")
        else:
            if final:
                english = join(english, bracket("SBAR", leaves(link.english), added))
            else:
                english = join(bracket("S", english), COMMA, leaves(link.english), added)
            german += f", {link.german} {in_german(other, final=final)}"
    return Words(bracket("S", english, "(. .)"), f"{german}.")


def tidy(text: str) -> str:
    """Remove the brackets of a tree, attach punctuation and capitalise."""
    text = re.sub(r"\([^ ()]+ |\)", "", text)
    text = re.sub(r" ([,.?])", r"\1", text)
    text = text.replace(",,", ",").replace(",.", ".").replace(",?", "?").replace(" can not ", " cannot ")
    return text[0].upper() + text[1:]


def distinct_sentences(split: str, size: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield trees with the English and the German sentence. Raises as `builtin_pairs`, at the call."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: the built-in corpus has {', '.join(SPLITS)}")
    if size < 0:
        raise ValueError(f"size {size} is negative: ask for 0 pairs or more")
    return draw_distinct(SPLITS[split], size, random.Random(f"{split} {seed}").random)


def draw_distinct(percentiles: range, size: int, draw: Draw) -> Iterator[tuple[str, str, str]]:
    seen: set[str] = set()
    while len(seen) < size:
        tree, german = sample_sentence(draw)
        english = tidy(tree)
        chosen = zlib.crc32(english.encode()) % 100 in percentiles
        if chosen and 4 <= len(english.split()) <= 25 and english not in seen:
            seen.add(english)
            yield tree, english, tidy(german)


def builtin_pairs(split: str, size: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield `size` distinct (English, German) pairs of 4 to 25 English words.

    A larger corpus starts with the smaller one. A hash of the English text decides the split ("train", "validation" or
    "test") of a sentence, so splits are disjoint for all seeds. An unknown split (DataError) and a negative size
    (ValueError) are refused at the call, not at the first pair.
    """
    return ((english, german) for _, english, german in distinct_sentences(split, size, seed))


def builtin_trees(split: str, size: int, seed: int = 0) -> Iterator[str]:
    """Yield the bracketed English trees of `builtin_pairs` with the same arguments.

    Labels are those of the Penn Treebank; parts of speech are XX except for punctuation. Raises as `builtin_pairs`.
    """
    trees = distinct_sentences(split, size, seed)
    # Labels have no lower-case letters: the first one starts the sentence.
    return (re.sub("[a-z]", lambda letter: letter[0].upper(), tree, count=1) for tree, _, _ in trees)

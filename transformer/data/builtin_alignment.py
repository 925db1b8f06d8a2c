"""Gold word alignments of the built-in corpus, found with its lexicon.

As in hand-made ones (Och and Ney 2003), links are sure, or only possible: function words without a clear counterpart,
and words of which a sentence has several. Words are what white space separates, with their punctuation.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from transformer.data import builtin
from transformer.data.new_words import new_forms
from transformer.errors import DataError

Link = tuple[int, int]  # (English, German) positions from 0
_ENDINGS = ("", "e", "en", "em", "er", "es")
_TIMES = ("today/heute", "now/jetzt", "tomorrow/morgen", "morning/morgen", "evening/abend", "moment/moment")
_DAYS = ("sunday/sonntag", "monday/montag", "while/während", "because/weil", "although/obwohl", "and/und", "but/aber")
_ARTICLES = {*builtin.ARTICLES.values(), "denen"}
_RELATIVE = {"who", "whom", "that"}
_NEGATIVE, _NICHT = {"not", "cannot"}, {"nicht", *(f"kein{ending}" for ending in _ENDINGS)}


class GoldLinks(NamedTuple):
    """Links of a pair; those that are sure are possible too."""

    sure: frozenset[Link]
    possible: frozenset[Link]


def alignment_error_rate(found: Iterable[Sequence[Link]], gold: Iterable[GoldLinks]) -> float:
    """The alignment error rate of all pairs (Och and Ney 2003).

    AER = 1 - (|A ∩ S| + |A ∩ P|) / (|A| + |S|), of links A found, S sure and P possible. 0 if there is nothing to find.
    """
    right = total = 0
    for links, (sure, possible) in zip(found, gold, strict=True):
        right += len(sure.intersection(links)) + len(possible.intersection(links))
        total += len(set(links)) + len(sure)
    return 1 - right / total if total else 0.0


def gold_alignment(english: str, german: str) -> GoldLinks:
    """Align a pair of the built-in corpus. Unknown words get no links.

    DataError for the words of `data.subset=new_words`, of which the lexicon has none.
    """
    pair = _Pair(english, german)
    if found := _new_words().intersection(pair.english):
        raise DataError(f"{min(found)!r} is of data.subset=new_words: gold alignments are of the usual words alone")
    pair.link_content_words()
    pair.link_noun_phrases()
    pair.link_verbs()
    pair.link_function_words()
    return GoldLinks(frozenset(pair.sure), frozenset(pair.sure | pair.possible))


@functools.cache
def _new_words() -> frozenset[str]:
    return frozenset(new.lower() for _, new in new_forms()[0])


class _Verb(NamedTuple):
    particle: str  # of the English verb, as "for" of "look for"
    forms: frozenset[str]  # German verb forms
    prefix: str  # the part of a separable verb at the end of its clause
    is_finite: bool  # without a German auxiliary


def _verbs() -> Iterator[tuple[str, _Verb]]:
    """The English main verb of each predicate, with its German."""
    for active, passive in builtin.VERBS:
        for one in (*active, *passive):
            main, _, particle = one.english.removeprefix("being ").partition(" ")
            prefix = one.tail.strip()
            is_finite = one.finite not in (builtin.HAVE, builtin.ARE) and not one.tail.endswith(" ")
            forms = {*one.finite, *(prefix + finite for finite in one.finite)} if is_finite else {prefix}
            lower = frozenset(form.lower() for form in forms)
            yield main, _Verb(particle, lower, prefix if is_finite else "", is_finite)


def _dictionary() -> dict[str, set[str]]:
    """German forms of English nouns, adjectives and unambiguous words, in lower case."""
    found: dict[str, set[str]] = defaultdict(set)
    for noun in itertools.chain.from_iterable(builtin.NOUNS.values()):
        for english in noun.english:
            found[english] |= {form.lower() for cases in noun.german for form in cases}
    for english, forms in _adjectives():
        found[english] |= forms
    for entry in (*_TIMES, *_DAYS):
        english, _, german = entry.partition("/")
        found[english].add(german)
    return found


def _adjectives() -> Iterator[tuple[str, set[str]]]:
    for words in (*builtin.QUALITIES.values(), *builtin.COLOURS.values()):
        for english, german in words:
            yield english, {german, *(german.removesuffix("e") + ending for ending in _ENDINGS)}


def _determiners() -> dict[str, set[str]]:
    """German forms of English determiners and number words; contractions contain an article."""
    found: dict[str, set[str]] = defaultdict(set)
    for english, german in (*builtin.ANY[0], *builtin.ANY[1]):
        for word, stem in zip(english.split(), german.split(), strict=True):
            if stem == "d":
                found[word] |= _ARTICLES | set(builtin.CONTRACTIONS.values())
            else:
                found[word] |= {f"{stem}{ending}" for ending in _ENDINGS}
    found["a"] |= {f"kein{ending}" for ending in _ENDINGS}
    found["an"] = found["a"]
    return found


def _prepositions() -> dict[str, set[str]]:
    """German prepositions and contractions by English preposition. A verb's particle is one."""
    found: dict[str, set[str]] = defaultdict(set)
    pairs = [(one.english, one.german) for _, one in builtin.PREPOSITIONS]
    pairs += [("by", "von"), ("on", "an"), ("at", "in"), ("in", "an")]  # and of times: am Sonntag, im Moment, am Abend
    for active, _ in builtin.VERBS:
        for one in active:
            _, _, particle = one.english.partition(" ")
            pairs += [(particle, slot.german) for slot in one.frame if particle and slot.german and not slot.english]
    for english, german in pairs:
        found[english] |= {
            german,
            *(short for long, short in builtin.CONTRACTIONS.items() if long.split()[0] == german),
        }
    return found


NOUN_WORDS = {word for nouns in builtin.NOUNS.values() for noun in nouns for word in noun.english}
NOUN_WORDS |= {"morning", "evening", "moment", "sunday", "monday"}
CONTENT, DETERMINERS, PREPOSITIONS = _dictionary(), _determiners(), _prepositions()
ADJECTIVES = {english for english, _ in _adjectives()}
GERMAN_ADJECTIVES = {form for _, forms in _adjectives() for form in forms}
GERMAN_DETERMINERS = {form for forms in DETERMINERS.values() for form in forms}
GERMAN_PREPOSITIONS = {form for forms in PREPOSITIONS.values() for form in forms}
VERBS: dict[str, list[_Verb]] = defaultdict(list)
for _main, _verb in _verbs():
    VERBS[_main].append(_verb)
AUXILIARIES = {
    "is": {"ist", "wird"},
    "are": {"sind", "werden"},
    "has": {"hat", "ist"},
    "have": {"haben", "sind"},
    "cannot": {"kann", "können"},
    **{
        form: {*german} for english, german in builtin.MODALS for form in (english[0].split()[0], english[1].split()[0])
    },
}


class _Pair:
    """The words of a pair, and the links found so far."""

    def __init__(self, english: str, german: str) -> None:
        self.english = [word.strip(".,?").lower() for word in english.split()]
        self.marked = german.split()
        self.german = [word.strip(".,?").lower() for word in self.marked]
        self.sure: set[Link] = set()
        self.possible: set[Link] = set()
        self._unpaired: set[int] = set()  # English auxiliaries without a German one

    def link_content_words(self) -> None:
        """Nouns, adjectives, main verbs, and words of time."""
        candidates = {
            i: [j for j, german in enumerate(self.german) if german in self._translations(word)]
            for i, word in enumerate(self.english)
        }
        self._add_exclusive(candidates)

    def link_noun_phrases(self) -> None:
        """Words before a noun, and the relative pronoun behind it."""
        for i, j in [link for link in self.sure if self.english[link[0]] in NOUN_WORDS]:
            inner, prepositions = self._english_phrase(i)
            others, german_prepositions = self._german_phrase(j)
            for a in inner:
                forms = CONTENT[self.english[a]] | DETERMINERS.get(self.english[a], set())
                self._add([a], [b for b in (*others, *german_prepositions) if self.german[b] in forms])
            words = " ".join(self.english[a] for a in prepositions)
            matching = [b for b in german_prepositions if self.german[b] in PREPOSITIONS.get(words, ())]
            self._add(prepositions, matching, is_sure=len(prepositions) == 1)
            if self.english[i - 1 : i] == ["this"] and self.german[j - 1 : j] == ["heute"]:  # heute Morgen
                self.sure.add((i - 1, j - 1))
            free = [b for b in german_prepositions if b not in matching]  # spielt auf der Gitarre
            self.possible.update(itertools.product([*inner, i], free))
            self._link_relative_pronoun(i + 1, j + 1)

    def link_verbs(self) -> None:
        """Particles, separated prefixes, and auxiliaries that German does without."""
        for i, j in [link for link in self.sure if self.english[link[0]] in VERBS]:
            verbs = [verb for verb in VERBS[self.english[i]] if self.german[j] in verb.forms]
            forms = [
                j,
                *(b for b in self._ends_of_clauses() if self.german[b] in {verb.prefix for verb in verbs} - {""}),
            ]
            particle = [i + 1] if self.english[i + 1 : i + 2] in [[verb.particle] for verb in verbs] else []
            self.possible.update(itertools.product((i, *particle), forms))
            if any(verb.is_finite for verb in verbs):  # is sleeping: schläft
                progressive = [a for a in range(i) if self.english[a] in ("is", "are") and a not in self._unpaired][-1:]
                self.possible.update(itertools.product(progressive, forms))
                self._unpaired.update(progressive)

    def link_function_words(self) -> None:
        """Auxiliaries and negation. Sure if there is one on either side."""
        candidates = {
            i: [j for j, german in enumerate(self.german) if german in AUXILIARIES[word]]
            for i, word in enumerate(self.english)
            if word in AUXILIARIES and i not in self._unpaired
        }
        self._add_exclusive(candidates)
        negative = [i for i, word in enumerate(self.english) if word in _NEGATIVE]
        nicht = [j for j, word in enumerate(self.german) if word in _NICHT]
        self._add(negative, nicht, is_sure=len(negative) == 1)
        for i, word in enumerate(self.english):
            if word == "being":
                self.possible.update((i, j) for j, german in enumerate(self.german) if german in ("wird", "werden"))
            if self.english[i - 1 : i + 1] in (["wants", "to"], ["want", "to"]):
                self.possible.update((i, j) for j, german in enumerate(self.german) if german in ("will", "wollen"))

    def _translations(self, word: str) -> set[str]:
        return CONTENT.get(word, set()).union(*(verb.forms for verb in VERBS.get(word, ())))

    def _english_phrase(self, noun: int) -> tuple[list[int], list[int]]:
        """Positions before a noun: of determiners and adjectives, and of its preposition."""
        start = noun
        while start and (self.english[start - 1] in ADJECTIVES or self.english[start - 1] in DETERMINERS):
            start -= 1
        for length in (3, 2, 1):
            if length <= start and " ".join(self.english[start - length : start]) in PREPOSITIONS:
                return list(range(start, noun)), list(range(start - length, start))
        return list(range(start, noun)), []

    def _german_phrase(self, noun: int) -> tuple[list[int], list[int]]:
        start = noun
        while start and self.german[start - 1] in GERMAN_ADJECTIVES | GERMAN_DETERMINERS - GERMAN_PREPOSITIONS:
            start -= 1
        has_preposition = start > 0 and self.german[start - 1] in GERMAN_PREPOSITIONS
        return list(range(start, noun)), [start - 1] if has_preposition else []

    def _link_relative_pronoun(self, i: int, j: int) -> None:
        if self.english[i : i + 1] and self.english[i] in _RELATIVE:
            has_preposition = self.german[j : j + 1] and self.german[j] in GERMAN_PREPOSITIONS - _ARTICLES
            pronoun = j + bool(has_preposition)
            if self.german[pronoun : pronoun + 1] and self.german[pronoun] in _ARTICLES:
                self.sure.add((i, pronoun))
                self.possible.update([(i, j)] if has_preposition else [])

    def _ends_of_clauses(self) -> list[int]:
        return [j for j, word in enumerate(self.marked) if word[-1] in ".,?"]

    def _add_exclusive(self, candidates: Mapping[int, Sequence[int]]) -> None:
        """Link candidates. Sure if a word has one, which is that of no other word."""
        uses = [j for found in candidates.values() for j in found]
        for i, found in candidates.items():
            is_sure = len(found) == 1 and uses.count(found[0]) == 1
            (self.sure if is_sure else self.possible).update((i, j) for j in found)

    def _add(self, english: Sequence[int], german: Sequence[int], *, is_sure: bool = True) -> None:
        links = set(itertools.product(english, german))
        self.possible |= links
        if is_sure and len(german) == 1:
            self.sure |= links

"""The built-in corpus with other words: the domain of the fine-tuning example.

Nouns, adjectives and verbs of the lexicon are replaced by others of the same inflection, so the grammar stays, and the
German is still a function of the English. `data.corpus=builtin data.subset=new_words`.
"""

import configparser
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from transformer.data.builtin import COLOURS, NOUNS, QUALITIES, VERBS, Noun, Predicate, parse_noun, parse_verb

NAME = "new_words"

WORDS = configparser.ConfigParser(delimiters=":", interpolation=None)
WORDS.read_string(Path(__file__).with_name("new_words.ini").read_text(encoding="utf-8"))
_ENDINGS = ("e", "en", "er", "es", "em")


def with_new_words(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Replace the words of (English, German) pairs of the built-in corpus."""
    english, german = (dict(forms) for forms in new_forms())
    return ((replaced(source, english), replaced(target, german)) for source, target in pairs)


def replaced(text: str, forms: Mapping[str, str]) -> str:
    """The text with other words; one that begins a sentence stays capitalised."""

    def replace(match: re.Match[str]) -> str:
        word = match[0]
        if word in forms:
            return forms[word]
        lower = word[0].lower() + word[1:]
        return forms[lower][0].upper() + forms[lower][1:] if lower in forms else word

    return re.sub(r"\w+", replace, text)


@functools.cache
def new_forms() -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(old, new) inflected forms of English and of German."""
    english: list[tuple[str, str]] = []
    german: list[tuple[str, str]] = []
    nouns = {noun.english[0]: noun for group in NOUNS.values() for noun in group}
    for word, entry in WORDS["nouns"].items():
        old, new = nouns[word], parse_noun("", entry)
        english += zip(old.english, new.english, strict=True)
        german += zip(_declension(old), _declension(new), strict=True)
    adjectives = {
        one.english: one.german for group in (QUALITIES, COLOURS) for words in group.values() for one in words
    }
    for word, entry in WORDS["adjectives"].items():
        adjective, stem = entry.split("/")
        english.append((word, adjective))
        stems = (adjectives[word], stem)
        german += [stems, *zip(*map(_adjective_forms, stems), strict=True)]
    for word, entry in WORDS["verbs"].items():
        for active, _ in VERBS:
            if active[-1].english == word:
                pairs = list(zip(_verb_forms(active), _verb_forms(parse_verb("p", entry)[0]), strict=True))
                english += pairs[:3]
                german += pairs[3:]
    return tuple(english), tuple(german)


def _declension(noun: Noun) -> list[str]:
    return [form for forms in noun.german for form in forms]


def _adjective_forms(stem: str) -> list[str]:
    return [stem.removesuffix("e") + ending for ending in _ENDINGS]


def _verb_forms(active: list[Predicate]) -> list[str]:
    """English: -ing form, participle, base; German: third person, participle, infinitive."""
    progressive, perfect, modal = active[0], active[6], active[-1]
    english = [one.english for one in (progressive, perfect, modal)]
    return [*english, progressive.finite[0], perfect.tail.strip(), modal.tail.strip()]

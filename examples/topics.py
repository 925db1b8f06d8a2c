"""Generated sentences about money or about water; "bank" may stand in either."""

from __future__ import annotations

import random

TOPICS = ("money", "water")
WORDS = {
    "agent": {"money": "clerk robber lender client auditor trader", "water": "otter heron fisher swimmer beaver rower"},
    "thing": {"money": "loan cheque coin banknote deposit credit", "water": "reed pebble boat trout minnow net"},
    "place": {"money": "bank office vault bank", "water": "bank shore ferry bank"},
}
FRAMES = (
    "the {agent} saw the {thing} at the {place}",
    "at the {place} the {agent} took a {thing}",
    "a {thing} was left by the {agent} near the {place}",
    "near the {place} was the {thing} of the old {agent}",
)


def sentence(draw: random.Random, topic: str, half: slice = slice(None), strays: float = 0.0) -> list[str]:
    """A sentence of a topic, from a half of its words; `strays` of them are of the other topic."""
    (other,) = {*TOPICS} - {topic}
    topics = {slot: other if draw.random() < strays else topic for slot in WORDS}
    slots = {slot: draw.choice(words[topics[slot]].split()[half]) for slot, words in WORDS.items()}
    return draw.choice(FRAMES).format(**slots).split()

"""Translators of a few lines, and one that returns whatever it likes."""

from __future__ import annotations

import random

from transformer.documents.formats import Translate, Translated


def identity(sentences: list[str]) -> list[Translated]:
    """Each sentence itself."""
    return [Translated(one, [(i, i) for i in range(len(one.split()))]) for one in sentences]


def upper(sentences: list[str]) -> list[Translated]:
    """The same words in capitals."""
    return [Translated(one.upper(), [(i, i) for i in range(len(one.split()))]) for one in sentences]


def reverse(sentences: list[str]) -> list[Translated]:
    """The words backwards, in capitals."""
    found = []
    for one in sentences:
        words = one.upper().split()
        found.append(Translated(" ".join(words[::-1]), [(len(words) - 1 - i, i) for i in range(len(words))]))
    return found


def unaligned(sentences: list[str]) -> list[Translated]:
    """Capitals, without an alignment."""
    return [Translated(one.upper()) for one in sentences]


def nothing(sentences: list[str]) -> list[Translated]:
    """Empty translations."""
    return [Translated("") for _ in sentences]


# What would do harm if it came through as it is.
HOSTILE = (
    *(
        "<b>",
        "</b>",
        "<br/>",
        "</p>",
        "<i",
        "<<i>b>",
        "<!--",
        "-->",
        "{\\an8}",
        "{name}",
        "%s",
        "&amp;",
        "&",
        "<",
        "]]>",
    ),
    *(
        "\n",
        "\n\n",
        "\r",
        "\u2028",
        "\x00",
        "\x0b",
        "\x1b[2J",
        "\ud800",
        "\uffff",
        "1",
        "00:00:01,000 --> 00:00:02,000",
    ),
)


def babble(seed: int) -> Translate:
    """Some words, some of them hostile, and links of which some lead nowhere."""

    def translate(sentences: list[str]) -> list[Translated]:
        draw = random.Random(seed)
        found = []
        for one in sentences:
            words = draw.choices([*HOSTILE, *one.split(), "Wort", "ein", "Katze."], k=draw.choice((0, 1, 2, 7, 23)))
            links = [(draw.randrange(-1, 30), draw.randrange(-1, 30)) for _ in range(draw.randrange(30))]
            found.append(Translated(draw.choice((" ", "", "\n")).join(words), links))
        return found

    return translate


TRANSLATORS: dict[str, Translate] = {
    **{"identity": identity, "upper": upper, "reverse": reverse, "unaligned": unaligned, "nothing": nothing},
    **{f"babble {seed}": babble(seed) for seed in range(5)},
}

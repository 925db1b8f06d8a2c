"""Translation memories, and several corpora with what is left out of them, as targets of the fuzzer."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any
from xml.sax import saxutils

import mutators
from harness import InvariantError

from transformer.config import CorpusEntry, DataConfig
from transformer.data.corpus import load_split
from transformer.data.mixture import Visits, training_corpora
from transformer.data.tags import tagged
from transformer.sections.types import Filter

_FILTERS: tuple[Filter, ...] = ("copies", "encoding", "markup", "no_letters", "numbers")
_TAGS = ("<a>", "<2de>", "<bt>")
_LANGUAGES = ("en", "en", "de", "de", "de-AT", "EN_gb", "fr")
_PARTS = (
    b"<tu>",
    b"</tuv>",
    b'<tuv xml:lang="en-US">',
    b"<seg>",
    b"<ph>",
    b"</hi>",
    b"&nbsp;",
    b"&#x0;",
    b'<!DOCTYPE tmx [<!ENTITY a "b">]>',
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"\xff\xfe",
    b"<?x?>",
)


def read_memory(rng: random.Random, directory: Path) -> None:
    """A translation memory that loads has the same pairs each time, each side on one line."""
    data = _memory(rng)
    if rng.random() < 0.6:
        data = mutators.mutate(rng, data, _PARTS)
    packing = rng.choice(list(mutators.PACK)) if rng.random() < 0.2 else ""
    (directory / f"x.tmx{packing}").write_bytes(mutators.PACK[packing](data) if packing else data)
    corpus = load_split(DataConfig(corpus=f"{directory}/x.tmx{packing}"), "train")
    pairs = list(corpus)
    if pairs != list(corpus):
        raise InvariantError("the second reading differs")
    if any("\n" in source + target or "\r" in source + target for source, target in pairs):
        raise InvariantError("a segment has several lines")


def _memory(rng: random.Random) -> bytes:
    units = []
    for _ in range(rng.randrange(5)):
        variants = [
            f'<tuv xml:lang="{rng.choice(_LANGUAGES)}"><seg>{_segment(rng)}</seg></tuv>'
            for _ in range(rng.randrange(1, 5))
        ]
        units.append(f"<tu>{''.join(variants)}</tu>\n")
    encoding = rng.choice(("utf-8", "utf-8", "utf-16", "latin-1"))
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<tmx version="1.4"><body>{"".join(units)}</body></tmx>'
    return text.encode(encoding, "xmlcharrefreplace" if encoding == "latin-1" else "surrogatepass")


def _segment(rng: random.Random) -> str:
    text = mutators.text(rng)[:200]
    if rng.random() < 0.95:  # XML has no control characters
        text = "".join(c for c in text if c.isprintable())
    text = saxutils.escape(text)
    for code in rng.sample(("ph", "hi", "bpt", "sub", "x"), rng.randrange(3)):
        text = f"{text}<{code}>{rng.choice(('', 'a', '<hi>b</hi>'))}</{code}>"
    return text


def read_corpora(rng: random.Random, directory: Path) -> None:
    """Kept and dropped pairs add up to the input, held-out sources are not trained on, and tags are put once."""
    entries = []
    for number in range(rng.randrange(1, 4)):
        pairs = [(mutators.text(rng), mutators.text(rng)) for _ in range(rng.choice((0, 1, 40, 90)))]
        pairs += [(text, text) for text, _ in pairs[:3]] + pairs[:2]
        for side, lang in enumerate(("en", "de")):
            lines = (" ".join(pair[side].encode("utf-8", "replace").decode().split()) for pair in pairs)
            (directory / f"{number}.{lang}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        options: dict[str, Any] = {
            "tag": rng.choice((None, *_TAGS)),
            "weight": rng.choice((0.001, 0.5, 1.0, 2.7, 900.0)),
        }
        entries.append(CorpusEntry(path=f"{directory}/{number}.{{lang}}", **options))
    data = DataConfig(
        corpus="none",
        corpora=tuple(entries),
        tag=entries[0].tag,
        hold_out=("validation", "test"),
        validation_size=rng.choice((None, 1, 3)),
        filters=tuple(rng.sample(_FILTERS, rng.randrange(6))),
        cache_dir=f"{directory}/cache",
    )
    held_out = [{" ".join(source.split()) for source, _ in load_split(data, split)} for split in data.hold_out]
    if held_out[0] & held_out[1]:
        raise InvariantError("validation and test share a source")
    everything = training_corpora(dataclasses.replace(data, corpus="x", hold_out=(), validation_size=None, filters=()))
    for one, whole in zip(training_corpora(data), everything, strict=True):
        kept, total = list(one.corpus), len(list(whole.corpus))
        if len(kept) + sum(one.corpus.dropped().values()) != total:
            raise InvariantError(f"{len(kept)} pairs kept of {total}, dropped {one.corpus.dropped()}")
        if {" ".join(source.split()) for source, _ in kept} & (held_out[0] | held_out[1]):
            raise InvariantError("a held-out source is trained on")
        once = tagged(one.corpus, one.tag, data.tags)
        twice = tagged(once, one.tag, data.tags)
        # White space at the beginning of a text, such as one after a byte order mark, goes with the second.
        if [source.split() for source, _ in twice] != [source.split() for source, _ in once]:
            raise InvariantError("a source has two tags")
    _check_visits(rng, tuple(len(list(one.corpus)) for one in everything), tuple(entry.weight for entry in entries))


def _check_visits(rng: random.Random, sizes: tuple[int, ...], weights: tuple[float, ...]) -> None:
    visits, epoch = Visits(sizes, weights, rng.randrange(100)), rng.choice((0, 1, 5, 10**6))
    found = visits.of_epoch(epoch) if any(sizes) else ()
    number = sum(visits.before(epoch + 1)) - sum(visits.before(epoch))
    if len(found) != number or any(not 0 <= index < sum(sizes) for index in found):
        raise InvariantError(f"an epoch of {sizes} with weights {weights} has {len(found)} visits")

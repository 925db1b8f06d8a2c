"""Lines of two inputs read together, as pairs or n-best lists."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from transformer.errors import ConfigError, DataError
from transformer.inference.line_input import LineInput
from transformer.inference.nbest import Candidate, Format, detect_format, parse_candidate

# Between the lines of an item, which have none.
_SEPARATOR = "\n"


def paired_input(src: LineInput, tgt: LineInput) -> LineInput:
    """Line-aligned inputs as one. Each item is a pair for `lines_of`.

    Reading raises DataError, with both counts, after the last pair if one input has more lines. ConfigError if both are
    standard input.
    """

    def read() -> Iterator[str]:
        num_src = num_tgt = 0
        for source, target in itertools.zip_longest(src.read(), tgt.read()):
            num_src += source is not None
            num_tgt += target is not None
            if num_src == num_tgt:
                yield f"{source}{_SEPARATOR}{target}"
        if num_src != num_tgt:
            raise DataError(f"the two sides differ in length: {src.name} has {num_src} lines, {tgt.name} has {num_tgt}")

    return _joined(src, tgt, read)


def nbest_input(src: LineInput, nbest: LineInput, size: int | None = None) -> LineInput:
    """A source and its n-best list as one.

    Each item is, for `lines_of`, the name of the list's format, a source, and its candidates. The format is that of the
    first line, as `detect_format` tells it.

    Args:
        size: candidates of each source; None for a list that says which source a candidate belongs to.

    Reading raises DataError for a line of another format, for ids that go back or have no source, and, with both counts
    after the last item, if a list of `size` candidates each has more or fewer lines. ConfigError if both are standard
    input, or if `size` is missing or not needed.
    """

    def read() -> Iterator[str]:
        lines, sources = iter(nbest.read()), iter(src.read())
        first, first_source = list(itertools.islice(lines, 1)), list(itertools.islice(sources, 1))
        pair = (first[0], *first_source) if first else ("",)
        form = detect_format(*pair)
        if first:
            _parse(form, nbest.name, 1, *pair)  # before what follows from its form
        if first and (form == "moses") != (size is None):
            if size is None:
                raise ConfigError(
                    f"{nbest.name}: its lines do not say which source they belong to: give --nbest-size K"
                )
            raise ConfigError(f"{nbest.name}: its lines say which source they belong to: leave out --nbest-size")
        numbered, sources = enumerate(itertools.chain(first, lines), start=1), itertools.chain(first_source, sources)
        names = (src.name, nbest.name)
        groups = _by_size(sources, numbered, names, form, size) if size else _by_id(sources, numbered, names)
        return (_SEPARATOR.join((form, *group)) for group in groups)

    return _joined(src, nbest, read)


def lines_of(item: str) -> list[str]:
    """The lines of an item of `paired_input` or `nbest_input`."""
    return item.split(_SEPARATOR)


def _joined(first: LineInput, second: LineInput, read: Callable[[], Iterator[str]]) -> LineInput:
    if first.name == second.name == "standard input":
        raise ConfigError("only one of the inputs can be standard input")
    paces = (first.pace, second.pace)
    # The slowest decides; what cannot be read twice makes the pair so.
    pace = next(pace for pace in ("typing", "arriving", "memory", "file") if pace in paces)
    return LineInput(f"{first.name} and {second.name}", read, pace)


def _by_size(
    sources: Iterator[str], numbered: Iterator[tuple[int, str]], names: tuple[str, str], form: Format, size: int
) -> Iterator[list[str]]:
    src, nbest = names
    num_src = number = 0
    for source in sources:
        num_src += 1
        group = [source]
        for number, line in itertools.islice(numbered, size):
            _parse(form, nbest, number, line, source)
            group.append(line)
        if len(group) == size + 1:
            yield group
    number += sum(1 for _ in numbered)
    if number != size * num_src:
        raise DataError(
            f"{nbest} has {number} lines; with {size} for each of the {num_src} lines of {src} it would have "
            f"{size * num_src}"
        )


def _by_id(sources: Iterator[str], numbered: Iterator[tuple[int, str]], names: tuple[str, str]) -> Iterator[list[str]]:
    src, nbest = names
    pending = next(numbered, None)
    num_src = 0
    for source in sources:
        group = [source]
        while pending is not None and (id_ := _id(nbest, *pending)) <= num_src:
            if id_ < num_src:
                raise DataError(f"{nbest}, line {pending[0]}: its id {id_} comes after {num_src}; sort the list")
            group.append(pending[1])
            pending = next(numbered, None)
        num_src += 1
        yield group
    if pending is not None:
        raise DataError(
            f"{nbest}, line {pending[0]}: its id is {_id(nbest, *pending)}, and the {num_src} lines of {src} are "
            "counted from 0"
        )


def _id(name: str, number: int, line: str) -> int:
    return int(_parse("moses", name, number, line).id)


def _parse(form: Format, name: str, number: int, line: str, source: str = "") -> Candidate:
    try:
        return parse_candidate(form, line, source)
    except DataError as error:
        raise DataError(f"{name}, line {number}: {error}") from None

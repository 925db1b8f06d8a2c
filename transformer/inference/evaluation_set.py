"""What is scored: sources with one or more references each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.config import DataConfig
from transformer.data.compression import open_binary
from transformer.data.corpus import decode_lines, load_split, published_test_set, read_lines
from transformer.errors import ConfigError, DataError


@dataclass(frozen=True)
class EvaluationSet:
    """Sentences with their references.

    Attributes:
        name: for messages.
        sources: a line per sentence; None if only the references are known.
        references: lists of equally many lines.
        names: of the references, for messages.
        files: that were read, if they are known.
    """

    name: str
    sources: list[str] | None
    references: list[list[str]]
    names: list[str]
    files: Sequence[Path] = ()

    @classmethod
    def from_split(cls, data: DataConfig, split: str) -> "EvaluationSet":
        """Read a split of a run's corpus. UserError as of `load_split`."""
        corpus = load_split(data, split)
        sources, references = ([pair[side] for pair in list(corpus)] for side in (0, 1))
        return cls(corpus.name, sources, [references], [f"the references of {corpus.name}"])

    @classmethod
    def from_files(cls, src: Path | None, refs: Sequence[Path], name: str | None = None) -> "EvaluationSet":
        """Read aligned files, plain or compressed, or pipes.

        DataError if they differ in length, with all counts, or if there is no reference.
        """
        if not refs:
            raise DataError("there is no reference to score against")
        paths = [*([] if src is None else [src]), *refs]
        texts = [list(read_lines(path)) for path in paths]
        check_lengths({str(path): len(lines) for path, lines in zip(paths, texts, strict=True)})
        sources = None if src is None else texts.pop(0)
        return cls(name or " and ".join(map(str, paths)), sources, texts, [str(path) for path in refs], paths)

    @classmethod
    def published(cls, name: str, src_lang: str, tgt_lang: str) -> "EvaluationSet":
        """One of sacreBLEU's test sets, with all its references. DataError as of `published_test_set`."""
        src, refs = published_test_set(name, src_lang, tgt_lang)
        return cls.from_files(src, refs, f"{name} {src_lang}-{tgt_lang} of sacreBLEU")

    def __len__(self) -> int:
        return len(self.references[0])


def read_hypotheses(path: Path) -> tuple[list[str], bool]:
    """The lines of a translation, and whether some end in CR LF. DataError as of `read_lines`."""
    with open_binary(path) as file:
        data = file.read()
    return list(decode_lines(io.BytesIO(data), str(path))), b"\r\n" in data


def check_lengths(lengths: dict[str, int]) -> None:
    """DataError, with every count, unless texts have equally many lines."""
    if len(set(lengths.values())) > 1:
        (first, number), *rest = lengths.items()
        counts = ", ".join([f"{first} has {number} lines", *(f"{name} has {number}" for name, number in rest)])
        raise DataError(f"the {'two sides' if len(rest) == 1 else 'texts'} differ in length: {counts}")


def signs_of_swapped_files(src: Path | None, refs: Sequence[Path], data: DataConfig) -> list[str]:
    """A line for each file whose suffix names the other language of a run."""
    if data.src_lang == data.tgt_lang:
        return []
    sides = [("--src", src, data.tgt_lang), *(("--ref", ref, data.src_lang) for ref in refs)]
    return [
        f"{option} {path} is in {other!r} by its name, but the run translates {data.src_lang!r} into "
        f"{data.tgt_lang!r}: are sources and references swapped?"
        for option, path, other in sides
        if path is not None and f".{other}" in path.suffixes
    ]


def check_distinct(refs: Sequence[Path]) -> None:
    """ConfigError if a reference is given twice, which would only look like several references."""
    for number, ref in enumerate(refs):
        for earlier in refs[:number]:
            if ref.is_file() and earlier.is_file() and ref.samefile(earlier):
                raise ConfigError(f"--ref {ref} is the same file as --ref {earlier}")

"""All signs that references or translations are scored wrongly, from `text_checks` and the names of files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.config import DataConfig
from transformer.inference.evaluation_set import EvaluationSet, signs_of_swapped_files
from transformer.inference.text_checks import (
    signs_of_copies,
    signs_of_nothing,
    signs_of_other_composition,
    signs_of_other_words,
    signs_of_pieces,
    signs_of_scores,
    signs_of_tokenisation,
)


def signs_in_references(
    texts: EvaluationSet,
    tokenize: str,
    metrics: Sequence[str],
    *,
    src: Path | None = None,
    refs: Sequence[Path] = (),
    data: DataConfig | None = None,
) -> list[str]:
    """A line for each sign that the references are not what they are scored as.

    Args:
        texts: sources and references.
        tokenize: BLEU's tokenizer.
        metrics: that are computed.
        src, refs: files that were given for the texts.
        data: of the run that translates them, if there is one.
    """
    signs = [] if data is None else signs_of_swapped_files(src, refs, data)
    sources = {} if texts.sources is None else {"the source": texts.sources}
    for name, lines in zip(texts.names, texts.references, strict=True):
        signs += [*signs_of_pieces(lines, name), *signs_of_copies(name, lines, sources)]
        # An empty line of several is left out where another has text; a single one is scored as a reference.
        is_single = len(texts.names) == 1
        sources_of = lines if texts.sources is None else texts.sources
        num_missing = sum(
            1
            for line, source in zip(lines, sources_of, strict=True)
            if not line.strip() and (not is_single or texts.sources is None or source.strip())
        )
        if num_missing:
            what = "which scores what is translated there as wrong" if is_single else "unless all are empty"
            signs.append(f"{num_missing} of {len(lines)} lines of {name} are empty: missing references, {what}")
    return [*signs, *signs_of_other_words(texts.references[0], tokenize, metrics)]


def signs_in_hypotheses(
    hypotheses: Sequence[str], texts: EvaluationSet, tokenize: str, name: str, *, is_file: bool
) -> Iterator[str]:
    """A line for each sign that translations are not what they are scored as.

    Args:
        hypotheses: a line per sentence.
        texts: that they translate.
        tokenize: BLEU's tokenizer.
        name: of the translations, for messages.
        is_file: they were read, not made here, so that they may be another text.
    """
    yield from signs_of_nothing(hypotheses, name)
    yield from signs_of_pieces(hypotheses, name)
    yield from signs_of_tokenisation(hypotheses, name, tokenize)
    yield from signs_of_other_composition(hypotheses, texts.references[0], name)
    if is_file:
        others = dict(zip(texts.names, texts.references, strict=True))
        others |= {} if texts.sources is None else {"the source": texts.sources}
        yield from signs_of_scores(hypotheses, name)
        yield from signs_of_copies(name, hypotheses, others)

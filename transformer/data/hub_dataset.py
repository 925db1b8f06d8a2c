"""Datasets of the Hugging Face Hub, downloaded and read by `datasets`."""

import errno
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformer.config import DataConfig
from transformer.data.columns import ROWS_PER_READ, check_columns
from transformer.errors import DataError
from transformer.hub import check_home


def hub_pairs(
    data: DataConfig, split: str, cache_dir: Path | None = None
) -> tuple[str, str, Callable[[], Iterator[tuple[str, str]]]]:
    """Name and fingerprint of a split, and a function that reads it.

    Downloads are kept where HF_HOME says, and without `cache_dir` so are converted ones. DataError if it is unknown,
    cannot be downloaded or kept, or lacks a column.
    """
    if cache_dir is None:
        check_home("HF_HOME")
    rows = _load(data, split, cache_dir)
    name = " ".join(part for part in (data.corpus, data.subset, split) if part)
    return (
        name,
        f"{rows._fingerprint} {data.src_lang} {data.tgt_lang}",
        row_reader(name, rows, data.src_lang, data.tgt_lang),
    )


def _load(data: DataConfig, split: str, cache_dir: Path | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            data.corpus,
            data.subset,
            split=split,
            revision=data.revision,
            **({} if cache_dir is None else {"cache_dir": str(cache_dir)}),
        )
    except ValueError as error:  # unknown subset or split; the message lists the available ones
        raise DataError(
            f"data.corpus={data.corpus}, data.subset={data.subset}: cannot load split {split!r}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
            raise DataError(
                f"data.corpus={data.corpus}: {error.filename} cannot be written ({error.strerror}); downloads are "
                "kept in the directory that HF_HOME names"
            ) from None
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataError(
            f"data.corpus={data.corpus}: cannot load {split!r} from the hub ({reason}); without a network, give "
            "local files as data.corpus='path/{split}.{lang}', or data.corpus=builtin"
        ) from None


def row_reader(name: str, rows: Any, src_lang: str, tgt_lang: str) -> Callable[[], Iterator[tuple[str, str]]]:
    """A function that returns the pairs of a `datasets.Dataset`. DataError if it lacks a column."""
    langs, columns = (src_lang, tgt_lang), rows.column_names
    nested = "translation" in columns and not set(langs) <= set(columns)
    if not nested:
        check_columns(name, columns, langs, instead=" or 'translation'")

    def read() -> Iterator[tuple[str, str]]:
        numbers = itertools.count(1)
        try:
            for batch in rows.iter(ROWS_PER_READ):
                for index, number in zip(range(len(batch[columns[0]])), numbers, strict=False):
                    pair = batch["translation"][index] if nested else {lang: batch[lang][index] for lang in langs}
                    texts: list[Any] = [pair.get(lang) for lang in langs] if isinstance(pair, dict) else [None]
                    if not all(isinstance(text, str) for text in texts):
                        shown = json.dumps(pair, ensure_ascii=False, default=str)[:200]
                        problem = f"{src_lang!r} and {tgt_lang!r} must be text, got {shown}"
                        raise DataError(f"{name}, row {number}: {problem}")
                    yield texts[0], texts[1]
        except UnicodeDecodeError:  # Arrow decodes lazily
            raise DataError(f"{name}: contains text that is not UTF-8") from None

    return read

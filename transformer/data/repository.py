"""Local directories with the layout of a dataset repository of the Hugging Face Hub.

Which files belong to a subset and a split is decided as `datasets` decides it: by the `configs` in the header of
README.md, or else by the names of files and directories. The files are read as tables, without a copy.
"""

import filecmp
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from transformer.data.compression import CheckedFile, inner_suffix
from transformer.data.shards import check_shards
from transformer.data.tables import check_table, is_table, swapped_tables, table_pairs
from transformer.data.text_files import SYNONYMS, checked_files
from transformer.errors import DataError

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", *SYNONYMS["validation"]),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATOR = "[-._ 0-9]"
_SHARD = re.compile(r"([\w.]+)-\d{5}-of-\d{5}.*\..*")
_NOT_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
# Keys of a subset that do not change how its files are read. Others, such as `sep`, would have to be obeyed.
_SUBSET_KEYS = {"config_name", "data_files", "data_dir", "default", "version", "description"}


class Repository:
    """The tables of a subset.

    DataError for an unknown subset, an invalid README.md, and files of which it is not clear what they are.

    Args:
        root: the directory.
        subset: a name of README.md; None for the only subset, or the one that README.md calls the default.
    """

    def __init__(self, root: Path, subset: str | None) -> None:
        self.name = f"data.corpus={root}, data.subset={subset}"
        self._found: set[Path] = set()  # by wildcards or by their names; README.md names the others one by one
        configs = self._configs(root / "README.md")
        if configs:
            self.splits = self._of_config(root, self._chosen(configs, subset))
        elif subset in (None, "default"):
            self.splits = self._by_name(root)
        else:
            raise DataError(f"{self.name}: README.md names no subsets; give data.subset=null")
        files = list(itertools.chain.from_iterable(self.splits.values()))
        kinds = sorted({inner_suffix(path) for path in files})
        if len(kinds) > 1 and any(map(is_table, files)):
            raise DataError(f"{self.name}: holds {', '.join(kinds)} files; name those to read in README.md")
        self._check_copies()
        for paths in self.splits.values():
            if not self._found.isdisjoint(paths):
                check_shards(paths, self.name, "keep one complete set, or name the files to read in README.md")

    @property
    def is_readable(self) -> bool:
        """Whether there are files, and all are tables."""
        files = list(itertools.chain.from_iterable(self.splits.values()))
        return bool(files) and all(map(is_table, files))

    def files(self, split: str) -> list[Path]:
        """The files of a split. DataError if there is no such split."""
        if split not in self.splits:
            raise DataError(f"{self.name}: has no split {split!r}, only {', '.join(map(repr, self.splits))}")
        return self.splits[split]

    def check_distinct(self, files: Sequence[CheckedFile], src_lang: str, tgt_lang: str) -> None:
        """DataError if two files of a split are equal, unless they have no pairs or README.md names both."""
        seen: dict[tuple[int, int], list[Path]] = {}
        for file in files:
            others = seen.setdefault((file.size, file.crc), [])
            if others and next(table_pairs(file, src_lang, tgt_lang), None) is None:
                continue
            for other in others:
                if not self._found.isdisjoint((other, file.path)) and filecmp.cmp(other, file.path, shallow=False):
                    raise DataError(
                        f"{self.name}: {other} and {file.path} are equal; remove one, or name both in README.md"
                    )
            others.append(file.path)

    def _configs(self, readme: Path) -> list[dict[str, Any]]:
        """The list `configs` of the header of README.md."""
        try:
            text = readme.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{readme}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        header = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(\n|\Z)", text, re.DOTALL)
        try:
            values = yaml.safe_load(header[1]) if header else None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DataError(f"{readme}: the header is not YAML: {' '.join(str(error).split())[:200]}") from None
        configs = values.get("configs") if isinstance(values, dict) else None
        configs = [] if configs is None else configs
        if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
            raise DataError(f"{readme}: configs must be a list of subsets")
        return configs

    def _chosen(self, configs: list[dict[str, Any]], subset: str | None) -> dict[str, Any]:
        names = [str(config.get("config_name", "default")) for config in configs]
        if subset is None:
            marked = [name for name, config in zip(names, configs, strict=True) if config.get("default") is True]
            subset = next(iter([*marked, *(names if len(names) == 1 else ())]), "default")
        if names.count(subset) != 1:
            raise DataError(f"{self.name}: README.md has the subsets {', '.join(map(repr, names))}; name one of them")
        config = configs[names.index(subset)]
        if unknown := sorted(map(str, config.keys() - _SUBSET_KEYS)):
            raise DataError(f"{self.name}: the option {unknown[0]!r} in README.md is not supported")
        return config

    def _of_config(self, root: Path, config: dict[str, Any]) -> dict[str, list[Path]]:
        base, files = root, config.get("data_files")
        if config.get("data_dir") is not None:
            base = root / self._inside(config["data_dir"])
        if files is None:
            return self._by_name(base)
        entries = files if isinstance(files, list) else [files]
        if all(isinstance(entry, str) for entry in entries):
            entries = [{"split": "train", "path": entries}]
        splits: dict[str, list[Path]] = {}
        for entry in entries:
            if not isinstance(entry, dict) or entry.keys() != {"split", "path"} or str(entry["split"]) in splits:
                raise DataError(f"{self.name}: data_files in README.md must have a split and a path each, once")
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            found = itertools.chain.from_iterable(self._matching(base, self._inside(path)) for path in paths)
            splits[str(entry["split"])] = list(dict.fromkeys(found))
        return splits

    def _inside(self, path: object) -> str:
        if not isinstance(path, str) or PurePath(path).is_absolute() or ".." in PurePath(path).parts or "\0" in path:
            raise DataError(f"{self.name}: README.md names {path!r}, which is not a path in the directory")
        return path

    def _matching(self, base: Path, pattern: str) -> list[Path]:
        if (base / pattern).is_file():
            return [base / pattern]
        # Path.glob would not match files by ** at the end before Python 3.13.
        names = glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207
        found = [base / name for name in sorted(names)]
        files = [path for path in found if path.is_file()]
        if not files:
            raise DataError(f"{self.name}: README.md names {pattern}, which matches no file")
        if "-of-" not in pattern:  # or else it chooses shards
            self._found.update(files)
        return files

    def _by_name(self, base: Path) -> dict[str, list[Path]]:
        """The splits by names: of shards in data/, directories, or files."""
        files = [path for path in _visible(base) if is_table(path) and path.name not in _NOT_DATA]
        self._found.update(files)
        in_data = [path for path in files if path.parent == base / "data"]
        if shards := {path: match[1] for path in in_data if (match := _SHARD.fullmatch(path.name))}:
            names = sorted(set(shards.values()), key=lambda name: (name not in _KEYWORDS, name))
            return {name: [path for path in files if shards.get(path) == name] for name in names}
        directories = {path: path.relative_to(base).parts[:-1] for path in files}
        for parts in (directories, {path: (path.name,) for path in files}):
            found = {
                split: [path for path in files if any(_names(part, words) for part in parts[path])]
                for split, words in _KEYWORDS.items()
            }
            splits = {split: paths for split, paths in found.items() if paths}
            if splits:
                self._check_disjoint(splits)
                return splits
        return {"train": files} if files else {}

    def _check_disjoint(self, splits: dict[str, list[Path]]) -> None:
        owners: dict[Path, str] = {}
        for split, paths in splits.items():
            for path in paths:
                if owners.setdefault(path, split) != split:
                    raise DataError(
                        f"{self.name}: {path} could be of {owners[path]} or of {split}; say so in README.md"
                    )

    def _check_copies(self) -> None:
        """DataError if a table is there twice, plain and compressed."""
        for paths in self.splits.values():
            seen: dict[str, Path] = {}
            for path in paths:
                plain = str(path)[: str(path).rindex(inner_suffix(path))] if inner_suffix(path) else str(path)
                if seen.setdefault(plain, path) != path:
                    raise DataError(f"{self.name}: both {seen[plain]} and {path} are there; remove one of them")


def repository_pairs(
    root: Path, subset: str | None, split: str, src_lang: str, tgt_lang: str
) -> tuple[str, Callable[[], Iterator[tuple[str, str]]]] | None:
    """The fingerprint of a split, and a function that reads it.

    A split may be slices, such as `train[:10%]+test`. None if the repository does not consist of
    tables. DataError as in `Repository` and `table_pairs`.
    """
    repository = Repository(root, subset)
    if not repository.is_readable:
        return None
    names = [part.partition("[")[0].strip() for part in split.split("+")]
    paths = {name: repository.files(name) for name in names}
    digest, files = checked_files(*itertools.chain.from_iterable(paths.values()))
    check_table(files[0].path, src_lang, tgt_lang)
    order = swapped_tables([file.path for file in files], src_lang, tgt_lang)
    by_path = {file.path: file for file in files}
    for chosen in paths.values():
        repository.check_distinct([by_path[path] for path in chosen], src_lang, tgt_lang)

    def read(name: str) -> Iterator[tuple[str, str]]:
        return itertools.chain.from_iterable(table_pairs(by_path[path], src_lang, tgt_lang) for path in paths[name])

    if names == [split]:
        return f"{digest} {src_lang} {tgt_lang}{order}", lambda: read(split)
    slices = _slices(repository.name, split, {name: sum(1 for _ in read(name)) for name in paths})

    def read_slices() -> Iterator[tuple[str, str]]:
        for name, first, last in slices:
            yield from itertools.islice(read(name), first, last)
        for file in files:  # no slice needs to reach the end, where a reading confirms the content
            file.read_again()

    return f"{digest} {split} {src_lang} {tgt_lang}{order}", read_slices


def _slices(place: str, split: str, sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    """Name, first row and end of each slice."""
    import datasets

    try:
        instructions = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    except (ValueError, AssertionError) as error:
        raise DataError(f"{place}: cannot load split {split!r}: {' '.join(str(error).split())[:200]}") from None
    return [(one.splitname, one.from_, one.to) for one in instructions]


def _visible(directory: Path) -> list[Path]:
    """The files below a directory that are not hidden.

    Directories with two underscores are.
    """
    found = []
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith((".", "__"))]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _names(part: str, words: Sequence[str]) -> bool:
    """Whether a name has one of the words, between separators."""
    return any(re.search(f"(^|{_SEPARATOR}){word}($|{_SEPARATOR})", part) for word in words)

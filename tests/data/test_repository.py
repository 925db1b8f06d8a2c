"""Local repositories: the files that `datasets` would choose, read as tables, or an error that names the directory."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from mutators import PACK

from transformer.config import DataConfig
from transformer.data import parquet
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus, load_split
from transformer.data.repository import Repository
from transformer.errors import DataError


def load(corpus: Path | str, split: str = "train", **options: Any) -> Corpus:
    return load_split(DataConfig(corpus=str(corpus), **options), split)


# As wmt/wmt14: a card whose header lists subsets and splits, shards of parquet

SHARDS = {"train": 3, "validation": 1, "test": 1}
SIZES = {"train": 1103, "validation": 13, "test": 17}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`de-en` and `fr-en`, as on the hub; the French is German in capitals."""
    root = tmp_path_factory.mktemp("hub") / "wmt14"
    header = ["---", "configs:"]
    for subset in ("de-en", "fr-en"):
        (root / subset).mkdir(parents=True)
        header += [f"- config_name: {subset}", "  data_files:"]
        for split, num_shards in SHARDS.items():
            header += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
            rows = datasets.Dataset.from_list(
                [
                    {"translation": dict(zip(subset.split("-"), pair, strict=True))}
                    for pair in reversed_pairs(subset, split)
                ],
                features=datasets.Features({"translation": datasets.Translation(subset.split("-"))}),
            )
            for i in range(num_shards):
                shard = rows.shard(num_shards, i, contiguous=True)
                shard.to_parquet(root / subset / f"{split}-{i:05}-of-{num_shards:05}.parquet")
    (root / "README.md").write_text("\n".join([*header, "---", "# Dataset Card"]))
    return root


def reversed_pairs(subset: str, split: str) -> list[tuple[str, str]]:
    """(German or French, English)."""
    pairs = builtin_pairs(split, SIZES[split])
    return [(target if subset == "de-en" else target.upper(), source) for source, target in pairs]


@pytest.mark.parametrize("subset", ["de-en", "fr-en"])
def test_every_split_of_a_repository_is_read_in_either_direction(repository: Path, subset: str) -> None:
    other = subset[:2]
    for split in SHARDS:
        expected = reversed_pairs(subset, split)
        back = load(repository, split, subset=subset, src_lang=other, tgt_lang="en")
        assert list(back) == list(back) == expected
        there = load(repository, split, subset=subset, src_lang="en", tgt_lang=other)
        assert list(there) == [(english, foreign) for foreign, english in expected]
        assert there.fingerprint != back.fingerprint


def test_the_parts_of_a_repository_have_fingerprints_of_their_own(repository: Path) -> None:
    parts = [(repository, split, {"subset": "de-en"}) for split in SHARDS]
    parts.append((repository, "train", {"subset": "fr-en", "tgt_lang": "fr"}))
    fingerprints = [load(path, split, **options).fingerprint for path, split, options in parts]
    assert len(set(fingerprints)) == len(parts)
    assert [load(path, split, **options).fingerprint for path, split, options in parts] == fingerprints


def test_a_slice_of_a_split_can_be_loaded(repository: Path) -> None:
    share = load(repository, "train[:7]", subset="de-en", src_lang="de", tgt_lang="en")
    assert list(share) == reversed_pairs("de-en", "train")[:7]


def test_a_local_repository_ignores_the_revision(repository: Path) -> None:
    plain, pinned = (load(repository, "test", subset="de-en", revision=revision) for revision in (None, "b199e40"))
    assert list(pinned) == list(plain)
    assert pinned.fingerprint == plain.fingerprint


def test_reading_a_repository_takes_no_more_memory_for_more_text(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_READ", 53)

    def memory(split: str) -> int:
        corpus = load(repository, split, subset="de-en")
        held = pyarrow.total_allocated_bytes()
        most = 0
        tracemalloc.start()
        for number, _ in enumerate(corpus):
            if number % 29 == 0:
                most = max(most, pyarrow.total_allocated_bytes() - held)
        most += tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert memory("train") < 1.2 * memory("train[:50%]")


def test_a_subset_that_a_repository_lacks_is_one_line_with_those_it_has(repository: Path) -> None:
    for subset in ("cs-en", None):
        message = (
            rf"^data\.corpus={repository}, data\.subset={subset}: README.md has the subsets 'de-en', 'fr-en'; name"
        )
        with pytest.raises(DataError, match=message) as caught:
            load(repository, subset=subset)
        assert "\n" not in str(caught.value)


def test_a_split_that_a_repository_lacks_is_one_line_with_those_it_has(repository: Path) -> None:
    for split in ("dev", "train+dev", "dev[:3]"):
        with pytest.raises(
            DataError, match=r"data\.subset=de-en: has no split 'dev', only 'train', 'validation', 'tes"
        ):
            load(repository, split, subset="de-en")


@pytest.mark.parametrize("split", ["train[:x]", "train[", "train[:5%", "train[:200%]"])
def test_a_malformed_slice_is_an_error(repository: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"data\.subset=de-en: (cannot load split|has no split) 'train"):
        list(load(repository, split, subset="de-en"))


def test_a_language_that_a_subset_lacks_is_an_error_that_names_the_file(repository: Path) -> None:
    message = r"test-00000-of-00001\.parquet: needs columns 'en' and 'fr' in 'translation', has \['de', 'en'\]$"
    with pytest.raises(DataError, match=message):
        load(repository, "test", subset="de-en", tgt_lang="fr")


# Repositories of csv, tsv and jsonl


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files, by default a csv table of the file's own name."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or f"en,de\n{name},{name}\n", encoding="utf-8")
    return root


def readme(*configs: str) -> str:
    return "\n".join(["---", "license: mit", "configs:", *configs, "---", "# Text", ""])


A_B = readme(
    "- config_name: a",
    "  data_files:",
    "  - split: train",
    "    path: ['x.csv', 'part-*.csv']",
    "  - split: heldout",
    "    path: sub/**",
    "- config_name: b",
    "  default: true",
    "  data_dir: sub",
)
# Each with a subset, and the files by split, which may also be found by `datasets`.
LAYOUTS: list[tuple[list[str], str, str | None]] = [
    (["train.csv", "test.csv"], "", None),
    (["train.csv", "dev.csv", "eval.csv", "other.csv"], "", None),
    (["my_train.csv", "my-test.v2.csv", "valid2.csv"], "", None),
    (["train/x.csv", "train/y.csv", "test/y.csv", "z.csv"], "", None),
    (["en-de/training/x.csv", "en-de/test_2/sub/y.csv"], "", None),
    (["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv", "data/extra-00000-of-00001.csv"], "", None),
    (["data/train.csv", "data/val.csv"], "", None),
    (["corpus.csv", "more/corpus.csv"], "", "default"),
    (["trainer.csv", "latest.csv"], "", None),
    ([".hidden/train.csv", ".train.csv", "__pycache__/test.csv", "train.csv"], "", None),
    (["x.csv", "part-1.csv", "part-2.csv", "sub/q/t.csv", "sub/train.csv", "sub/test.csv", "z.csv"], A_B, "a"),
    (["x.csv", "part-1.csv", "part-2.csv", "sub/q/t.csv", "sub/train.csv", "sub/test.csv", "z.csv"], A_B, "b"),
    (["x.csv", "part-1.csv", "part-2.csv", "sub/q/t.csv", "sub/train.csv", "sub/test.csv", "z.csv"], A_B, None),
    (["x.csv", "y.csv", "z.csv"], readme("- config_name: only", "  data_files: [y.csv, x.csv]"), None),
    (["x.csv", "y.csv"], readme("- config_name: only", "  data_files: '*.csv'"), "only"),
    (["x.csv", "train.csv"], readme("- config_name: only"), "only"),
    (["train.csv"], "# No header", None),
    (["train.csv"], "---\nlicense: mit\n---\n", None),
]


@pytest.mark.parametrize(("names", "card", "subset"), LAYOUTS)
def test_the_files_of_a_split_are_those_that_datasets_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], card: str, subset: str | None
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = write(tmp_path / "repository", dict.fromkeys(names, "") | ({"README.md": card} if card else {}))
    builder = datasets.load_dataset_builder(str(root), subset)
    expected = {str(split): [str(file) for file in files] for split, files in builder.config.data_files.items()}
    found = {split: list(map(str, files)) for split, files in Repository(root, subset).splits.items()}
    assert found == expected
    for split, files in expected.items():
        texts = [str(Path(file).relative_to(root)) for file in files]
        assert list(load(root, split, subset=subset)) == [(text, text) for text in texts]


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".csv.gz"])
def test_a_repository_may_hold_any_table(tmp_path: Path, suffix: str) -> None:
    rows = {".tsv": "en\tde\n007\t1e5\n", ".jsonl": '{"translation": {"en": "007", "de": "1e5"}}\n'}
    content = rows.get(suffix, "en,de\n007,1e5\n").encode()
    (tmp_path / f"train{suffix}").write_bytes(PACK[".gz"](content) if suffix.endswith(".gz") else content)
    corpus = load(tmp_path, subset=None)
    assert list(corpus) == list(corpus) == [("007", "1e5")]
    assert corpus.name == f"{tmp_path} train"
    assert list(load(tmp_path, "train[:50%]+train", subset=None)) == [("007", "1e5")]


def test_slices_are_cut_over_the_files_of_a_split(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path, {f"train-{i}.csv": "en,de\n" + "".join(f"{i}{j},x\n" for j in range(7))})
    write(tmp_path, {"test.csv": "en,de\nt,x\n"})
    everything = [f"{i}{j}" for i in range(3) for j in range(7)]
    for split, expected in {
        "train[5:9]": everything[5:9],
        "train[-3:]": everything[-3:],
        "train[:10%]+test": [*everything[:2], "t"],
        "test+train[20:]": ["t", "26"],
    }.items():
        corpus = load(tmp_path, split, subset=None)
        assert [source for source, _ in corpus] == [source for source, _ in corpus] == expected


def test_the_content_of_a_repository_is_its_fingerprint_not_its_place(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, {"train.csv": "en,de\na,b\n"}) for name in ("one", "two"))
    assert load(first, subset=None).fingerprint == load(second, subset=None).fingerprint
    corpus = load(first, subset=None)
    write(first, {"train.csv": "en,de\na,c\n"})
    assert load(first, subset=None).fingerprint != corpus.fingerprint
    with pytest.raises(DataError, match=r"train\.csv: changed after it was first read"):
        list(corpus)


@pytest.mark.parametrize(
    ("files", "subset", "message"),
    [
        ({"train.csv": ""}, "de-en", r"data\.subset=de-en: README\.md names no subsets; give data\.subset=null$"),
        ({"train.csv": "", "test.jsonl": "{}"}, None, r"holds \.csv, \.jsonl files; name those to read in README\.md$"),
        ({"train.csv": "", "train.csv.gz": ""}, None, r"both .*train\.csv and .*train\.csv\.gz are there; remove one"),
        ({"train-test.csv": ""}, None, r"train-test\.csv could be of train or of test; say so in README\.md$"),
        ({"README.md": "---\nconfigs: [\n---\n", "a.csv": ""}, None, r"README\.md: the header is not YAML: "),
        ({"README.md": "---\nconfigs: 3\n---\n"}, None, r"README\.md: configs must be a list of subsets$"),
        ({"README.md": "---\nconfigs: [3]\n---\n"}, None, r"README\.md: configs must be a list of subsets$"),
        (
            {"README.md": readme("- config_name: a", "  sep: ';'")},
            "a",
            r"the option 'sep' in README\.md is not supported",
        ),
        ({"README.md": readme("- {config_name: a}", "- {config_name: a}")}, "a", "has the subsets 'a', 'a'; name one"),
        ({"README.md": readme("- data_files: {train: x.csv}")}, None, r"must have a split and a path each, once$"),
        (
            {"README.md": readme("- data_files: [{split: a, path: x}, {split: a, path: y}]"), "x": "", "y": ""},
            None,
            "once$",
        ),
        ({"README.md": readme("- data_files: absent.csv")}, None, r"names absent\.csv, which matches no file$"),
        ({"README.md": readme("- data_files: ../x.csv")}, None, r"names '\.\./x\.csv', which is not a path in the dir"),
        ({"README.md": readme("- data_files: /etc/passwd")}, None, "names '/etc/passwd', which is not a path in the"),
        ({"README.md": readme("- data_dir: 3")}, None, "names 3, which is not a path in the directory$"),
    ],
)
def test_a_repository_that_is_malformed_or_ambiguous_is_one_line(
    tmp_path: Path, files: dict[str, str], subset: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path, files), subset=subset)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


SHARD_0, SHARD_1 = "train-00000-of-00003.csv", "train-00001-of-00003.csv"


@pytest.mark.parametrize(
    "files",
    [
        [SHARD_0, "train-00002-of-00003.csv"],
        ["data/" + SHARD_0, "data/" + SHARD_1],
        ["train-00000-of-00001.csv", "train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        ["train/" + SHARD_0],
    ],
)
def test_a_split_without_all_its_shards_or_with_two_sets_is_an_error(tmp_path: Path, files: list[str]) -> None:
    message = (
        rf"^data\.corpus={tmp_path}, data\.subset=None: .*; keep one complete set, or name the files to read in RE"
    )
    for card in ({}, {"README.md": readme("- data_files: '**/*.csv'")}):
        with pytest.raises(DataError, match=message) as caught:
            load(write(tmp_path, dict.fromkeys(files, "") | card), subset=None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", [f"[{SHARD_1}, {SHARD_0}]", "'train-0000[01]-of-*'"])
def test_a_card_may_choose_some_of_the_shards(tmp_path: Path, chosen: str) -> None:
    write(tmp_path, {SHARD_0: "", SHARD_1: "", "README.md": readme(f"- data_files: {chosen}")})
    assert {source for source, _ in load(tmp_path, subset=None)} == {SHARD_0, SHARD_1}


TABLE = "en,de\na,b\n"


@pytest.mark.parametrize("copy", ["train copy.csv", "backup/train.csv", "a-train.csv", "data/train.csv"])
def test_a_table_and_its_copy_in_one_split_are_an_error(tmp_path: Path, copy: str) -> None:
    write(tmp_path, {"train.csv": TABLE, copy: TABLE, "test.csv": TABLE})
    for split in ("train", "train[:1]", "test+train"):
        with pytest.raises(
            DataError, match=r"train.*\.csv and .*\.csv are equal; remove one, or name both in README\.md$"
        ):
            load(tmp_path, split, subset=None)
    assert list(load(tmp_path, "test", subset=None)) == [("a", "b")]
    write(tmp_path, {copy: TABLE.replace("b", "c")})
    assert sorted(load(tmp_path, subset=None)) == [("a", "b"), ("a", "c")]


def test_tables_without_rows_and_those_that_the_card_names_may_be_equal(tmp_path: Path) -> None:
    empty = dict.fromkeys([f"train-0000{i}-of-00003.csv" for i in range(3)], "en,de\n")
    assert list(load(write(tmp_path / "empty", empty), subset=None)) == []
    card = readme("- data_files: [x.csv, y.csv]")
    named = write(tmp_path / "named", {"x.csv": TABLE, "y.csv": TABLE, "README.md": card})
    assert list(load(named, subset=None)) == [("a", "b")] * 2


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (["train.en", "train.de"], "{split}.{lang}"),
        (["train.en.gz", "train.de.gz", "notes.txt"], "{split}.{lang}.gz"),
        (["test_2016.de-en.de", "test_2016.de-en.en"], "{split}.de-en.{lang}"),
        (["train.lang.en.txt", "train.lang.de.txt"], "{split}.lang.{lang}.txt"),
    ],
)
def test_a_directory_of_text_files_is_an_error_with_their_pattern(
    tmp_path: Path, files: list[str], pattern: str
) -> None:
    write(tmp_path, dict.fromkeys(files, "a\n"))
    message = f"{tmp_path}: has no tables; for text files give data.corpus='{tmp_path}/{pattern}'"
    for split in ("train", "train[:3]"):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            load(tmp_path, split, subset=None)


def test_a_card_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\n\xff\n---\n")
    with pytest.raises(DataError, match=r"README\.md: cannot be read: not UTF-8$"):
        load(tmp_path, subset=None)


def test_what_is_no_table_is_left_to_datasets_with_a_cache_in_cache_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.arrow").write_bytes(b"arrow")
    asked: list[dict[str, Any]] = []

    def load_dataset(*_: Any, **options: Any) -> datasets.Dataset:
        asked.append(options)
        return datasets.Dataset.from_list([{"en": "a", "de": "b"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(load(tmp_path, subset=None, cache_dir="mine")) == [("a", "b")]
    assert asked[0]["cache_dir"] == str(Path("mine") / "datasets")


def test_a_change_after_the_end_of_a_slice_is_an_error(tmp_path: Path) -> None:
    rows = [f"{i},x\n" for i in range(101)]
    write(tmp_path, {"train.csv": "en,de\n" + "".join(rows)})
    for split in ("train[:3]", "train[:50%]+train[50%:]", "train[:0]"):
        corpus = load(tmp_path, split, subset=None)
        reader = iter(corpus)
        write(tmp_path, {"train.csv": "en,de\n" + "".join([*rows[:-1], "99,y\n"])})
        with pytest.raises(DataError, match=r"train\.csv: changed after it was first read"):
            list(reader)
        write(tmp_path, {"train.csv": "en,de\n" + "".join(rows)})
        assert len(list(corpus)) == {"train[:3]": 3, "train[:0]": 0}.get(split, 101)


def test_the_order_that_names_give_to_columns_is_in_the_fingerprint(tmp_path: Path) -> None:
    rows = {"one": "a b\tc d\n", "two": "e f\tg h\n"}
    fingerprints = set()
    for names in (("1", "2"), ("1.de-en", "2"), ("1", "2.de-en"), ("1.de-en", "2.de-en")):
        root = tmp_path / "-".join(names)
        write(root, {f"train.{name}.tsv": row for name, row in zip(names, rows.values(), strict=True)})
        corpus = load(root, subset=None)
        pairs = [("a b", "c d"), ("e f", "g h")]
        assert list(corpus) == [pair[::-1] if "de" in name else pair for name, pair in zip(names, pairs, strict=True)]
        fingerprints |= {corpus.fingerprint, load(root, "train[:50%]", subset=None).fingerprint}
    assert len(fingerprints) == 8
    digest = hashlib.sha256(b"a b\tc d\nend of filee f\tg h\nend of file").hexdigest()
    assert {f"{digest} en de", f"{digest} train[:50%] en de", f"{digest} en de target first: 0 1"} < fingerprints

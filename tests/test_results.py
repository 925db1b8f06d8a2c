"""Figures in the documents are those of the kept results, and kept translations have the scores that are claimed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tables
from drawing import kept_results
from sacrebleu.metrics.bleu import BLEU

from transformer.config import load_config
from transformer.data.corpus import load_split
from transformer.errors import ConfigError
from transformer.inference.bleu import score

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def kept(name: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=lambda path: path.name)
def test_tables_of_results_are_those_of_the_kept_results(path: Path) -> None:
    assert tables.with_results(path) == path.read_text(encoding="utf-8"), "run python scripts/tables.py"


def test_every_kind_of_result_is_shown_once() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in tables.DOCUMENTS)
    assert sorted(re.findall(r"<!-- results: ([\w/]+) -->", text)) == sorted(tables.BLOCKS)
    assert text.count("<!-- end of results -->") == len(tables.BLOCKS)


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    right = f"a\n<!-- results: table3 -->\n{kept_results.table3()}<!-- end of results -->\nb\n"
    path.write_text(right.replace("11.88", "12.88"), encoding="utf-8")
    assert tables.with_results(path) == right


def test_an_unknown_name_of_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("<!-- results: table4 -->\n<!-- end of results -->\n")
    with pytest.raises(ConfigError, match=r"^page\.md: table4 is not one of the results quickstart, training_lines, "):
        tables.with_results(path)


@pytest.mark.parametrize(
    ("document", "pattern", "result"),
    [
        ("README.md", r"\*\*([\d.]+) BLEU\*\*", "multi30k_tiny/test_2016_flickr_alpha_1.5.json"),
        ("README.md", r"minutes on two cores \| ([\d.]+) BLEU", "quickstart/evaluate.json"),
        ("docs/MULTI30K.md", r"\*\*([\d.]+) BLEU\*\*", "multi30k_tiny/test_2016_flickr_alpha_1.5.json"),
        ("docs/PERFORMANCE.md", r"bfloat16 scores\s([\d.]+) BLEU", "multi30k_tiny/test_2016_flickr_alpha_1.5.json"),
        ("docs/PERFORMANCE.md", r"in float32 ([\d.]+) and with int8", "multi30k_tiny/test_2016_flickr_fp32.json"),
        ("docs/PERFORMANCE.md", r"with int8 products ([\d.]+) \(", "multi30k_tiny/test_2016_flickr_int8.json"),
        ("docs/FAQ.md", r"BLEU is ([\d.]+) instead", "multi30k_tiny/test_2016_flickr_int8.json"),
        ("docs/FAQ.md", r"instead\s+of ([\d.]+) \(", "multi30k_tiny/test_2016_flickr_alpha_1.5.json"),
    ],
)
def test_scores_in_the_text_are_those_of_the_kept_results(document: str, pattern: str, result: str) -> None:
    stated = re.findall(pattern, (ROOT / document).read_text(encoding="utf-8"))
    assert stated and set(stated) == {f"{kept(result)['bleu']:.2f}"}


def test_the_kept_translations_of_the_quickstart_have_the_stated_score() -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    references = [target for _, target in load_split(config.data, "test")]
    hypotheses = (RESULTS / "quickstart" / "hypotheses.de").read_text(encoding="utf-8").splitlines()
    found = score(hypotheses, references)
    assert f"{found.bleu:.2f}" == f"{kept('quickstart/evaluate.json')['bleu']:.2f}"
    assert found.bleu_signature == kept("quickstart/evaluate.json")["bleu_signature"]


def test_the_kept_translations_of_multi30k_have_the_stated_score() -> None:
    result = kept("multi30k_tiny/test_2016_flickr_alpha_1.5.json")
    hypotheses = (RESULTS / "multi30k_tiny" / "hypotheses.de").read_text(encoding="utf-8").splitlines()
    assert len(hypotheses) == result["sentences"] == 1000
    references = ROOT / "multi30k" / "data" / "task1" / "tok" / "test_2016_flickr.lc.norm.tok.de"
    if not references.is_file():
        pytest.skip("needs Multi30k, as docs/MULTI30K.md describes")
    lines = references.read_text(encoding="utf-8").splitlines()
    assert f"{BLEU(tokenize='none').corpus_score(hypotheses, [lines]).score:.2f}" == f"{result['bleu']:.2f}"


def test_the_kept_configuration_is_the_shipped_one_but_for_the_number_of_threads() -> None:
    ours = load_config(RESULTS / "multi30k_tiny" / "config.yaml", saved=True).flat()
    shipped = load_config(ROOT / "configs" / "multi30k_tiny.yaml").flat()
    # Kept before `train.batching`, whose default is another now; `max_tokens` was what null is in it.
    of_before = {"train.batching", "train.max_tokens"}
    assert {key for key in ours if ours[key] != shipped[key]} <= {"train.num_threads"} | of_before


@pytest.mark.parametrize(("of", "what", "beam"), [("training", "train", None), ("beam search", "decode", 4)])
def test_the_speeds_of_the_readme_are_those_beside_the_fastest_toolkit(of: str, what: str, beam: int | None) -> None:
    rows = [row for row in kept_results.load("peers.json")["rows"] if (row["what"], row["beam"]) == (what, beam)]
    ratios = []
    for size in ("small", "base"):
        speeds = {(row["peer"], row["precision"]): row["median"] for row in rows if row["size"] == size}
        others = (speed for (peer, _), speed in speeds.items() if peer not in ("this", "plain", "ctranslate2"))
        ratios.append(f"{speeds['this', 'bf16'] / max(others):.1f}")
    line = re.search(rf"^\| {of} on a CPU \|.*", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert line and re.findall(r"([\d.]+) times", line[0]) == ratios

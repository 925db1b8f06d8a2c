"""The model card says what the run knows, and no more."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from interop_models import Make

from transformer.config import CorpusEntry
from transformer.errors import ExportError
from transformer.interop.card import CardOptions, read_scores
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.training.integrity import sha256

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def report(checkpoint: str, **others: Any) -> dict[str, Any]:
    scores = {"bleu": 23.45, "bleu_signature": SIGNATURE, "chrf": 51.2, "chrf_signature": "nrefs:1|nc:6"}
    return {"checkpoint": checkpoint, "corpus": "wmt14/full", "sentences": 3003, "beam": 4, **scores, **others}


def card_of(exported: Exported, tmp_path: Path, options: CardOptions | None = None, **given: Any) -> ModelCard:
    export(exported, "own", tmp_path / "model", options=options, **given)
    return ModelCard.load(tmp_path / "model" / "README.md")


def section(card: ModelCard, title: str) -> str:
    found = re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", card.text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].strip()


def test_the_hub_reads_languages_licence_and_scores(trained_run: Path, tmp_path: Path) -> None:
    exported = Exported.load(trained_run)
    options = CardOptions(name="tiny", licence="cc-by-4.0", scores=[report(exported.origin)])
    card = card_of(exported, tmp_path, options)
    data = card.data
    assert (data.language, data.license, data.pipeline_tag) == (["en", "de"], "cc-by-4.0", "translation")
    assert data.library_name == "attention-is-all-you-need"
    assert [(x.metric_type, x.metric_value, x.dataset_name) for x in data.eval_results] == [
        ("bleu", 23.45, "wmt14/full"),
        ("chrf", 51.2, "wmt14/full"),
    ]
    assert data.eval_results[0].metric_args == {"signature": SIGNATURE}
    assert data.model_name == "tiny"


def test_scores_have_their_signatures(trained_run: Path, tmp_path: Path) -> None:
    exported = Exported.load(trained_run)
    text = section(card_of(exported, tmp_path, CardOptions(scores=[report(exported.origin)])), "Scores")
    shown = SIGNATURE.replace("|", "\\|")
    assert f"| wmt14/full | 3003 | BLEU | 23.45 | `{shown}` |" in text
    assert "Translated with beam 4." in text


def test_the_validation_of_the_checkpoint_is_named(trained_run: Path, tmp_path: Path) -> None:
    best = max((trained_run / "best").iterdir())
    text = section(card_of(Exported.load(best), tmp_path), "Scores")
    step = int(best.name.removeprefix("step-"))
    assert re.search(rf"On the validation set, after {step} updates: loss \d\.\d{{4}} nats per piece", text)


def test_without_scores_and_licence_the_card_says_so(make: Make, tmp_path: Path) -> None:
    card = card_of(make(), tmp_path)
    assert section(card, "Scores") == "None were given."
    assert section(card, "Licence").startswith("None was given with the model")
    assert card.data.license is None
    assert not card.data.eval_results


def test_versions_data_and_revision_come_from_the_run(trained_run: Path, tmp_path: Path) -> None:
    card = card_of(Exported.load(trained_run), tmp_path)
    start = json.loads((trained_run / "starts.jsonl").read_text().splitlines()[-1])
    assert f"torch {start['versions']['torch']}" in section(card, "Training")
    assert f"{start['pairs']:,} pairs for training" in section(card, "Data")
    assert f"`{start['data']['train']}`" in section(card, "Data")


def test_the_configuration_is_what_differs_from_the_defaults(trained_run: Path, tmp_path: Path) -> None:
    text = section(card_of(Exported.load(trained_run), tmp_path), "Configuration")
    assert "d_model: 22" in text
    assert "run_dir" not in text
    assert "cache_dir" not in text
    assert str(trained_run.parent) not in text.replace("corpus:", "") or "corpus: " in text


def test_the_checksums_are_those_of_the_files(make: Make, tmp_path: Path) -> None:
    card = card_of(make(), tmp_path)
    rows = re.findall(r"^\| ([\w.]+) \| [\d,]+ \| `(\w{64})` \|$", section(card, "Files"), re.MULTILINE)
    directory = tmp_path / "model"
    assert dict(rows) == {path.name: sha256(path) for path in directory.iterdir() if path.name != "README.md"}


def test_hub_corpora_and_the_model_it_began_with_are_linked(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    began = {"init_from": "org/base", "checkpoint": f"org/base@{'0' * 40}", "sha256": "1" * 64}
    (tmp_path / "run" / "initialization.json").write_text(json.dumps(began))
    exported = Exported.load(tmp_path / "run")
    entries = (CorpusEntry(path="org/corpus", revision="main"), CorpusEntry(path="a/b"))
    data = dataclasses.replace(exported.config.data, corpora=entries)
    exported = dataclasses.replace(exported, config=dataclasses.replace(exported.config, data=data))
    card = card_of(exported, tmp_path)
    assert card.data.datasets == ["org/corpus"], "the other may be a local file"
    assert card.data.base_model == "org/base"
    assert "- trained on `org/corpus` at revision `main`" in section(card, "Data")


def test_damaged_records_of_a_run_are_left_out(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    (tmp_path / "run" / "initialization.json").write_text("{")
    (tmp_path / "run" / "starts.jsonl").write_text('{"pairs": 3}\n[1]\n{"pai')
    (tmp_path / "run" / "metrics.jsonl").unlink()
    card = card_of(Exported.load(tmp_path / "run"), tmp_path)
    assert "3 pairs for training" in section(card, "Data")


def test_tags_are_named(make: Make, tmp_path: Path) -> None:
    exported = make()
    data = dataclasses.replace(exported.config.data, tag="<2de>")
    exported = dataclasses.replace(exported, config=dataclasses.replace(exported.config, data=data))
    assert "Its sources begin with a tag, such as `<2de>`." in card_of(exported, tmp_path).text


# Scores


def test_reports_of_evaluate_are_read_with_those_of_other_sets(tmp_path: Path) -> None:
    other = report("runs/a", corpus="other")
    (tmp_path / "scores").write_text(json.dumps(report("runs/a", also=[other])) + "\n\n" + json.dumps(other) + "\n")
    found = read_scores([tmp_path / "scores"], "runs/a")
    assert [one["corpus"] for one in found] == ["wmt14/full", "other", "other"]


@pytest.mark.parametrize(
    "text",
    [
        "BLEU = 23.4",
        "[1]",
        json.dumps({"checkpoint": "runs/a", "corpus": "x"}),
        json.dumps(report("runs/a", bleu="23")),
        json.dumps(report("runs/a", bleu_signature=None)),
        json.dumps(report("runs/a", also=[3])),
        "[" * 100_000,
    ],
)
def test_other_files_than_reports_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores").write_text(text)
    with pytest.raises(ExportError, match=r"scores: is not the output of transformer evaluate RUN --json$"):
        read_scores([tmp_path / "scores"], "runs/a")


def test_scores_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text(json.dumps(report("runs/b")))
    with pytest.raises(ExportError, match=r"scores: has scores of runs/b, and the model is runs/a$"):
        read_scores([tmp_path / "scores"], "runs/a")


def test_a_model_of_the_hub_is_the_base_of_what_is_made_of_it(make: Make, tmp_path: Path) -> None:
    exported = dataclasses.replace(make(), origin="Helsinki-NLP/opus-mt-en-de@0123456")
    assert card_of(exported, tmp_path).data.base_model == "Helsinki-NLP/opus-mt-en-de"

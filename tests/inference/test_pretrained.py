"""The hub's names for loading, saving and sharing a translator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from transformer.errors import ConfigError, ExportError
from transformer.inference.ensemble import Ensemble
from transformer.inference.translator import Translator
from transformer.interop.card import CardOptions
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import Transformer

TEXTS = ["A man is sleeping.", "Two small dogs are playing."]


@pytest.fixture
def translator(babbler: Path) -> Translator:
    return Translator.load(babbler, precision="fp32", prepack=False)


def test_what_is_saved_loads_and_translates_the_same(translator: Translator, tmp_path: Path) -> None:
    translator.save_pretrained(tmp_path / "model")
    again = Translator.from_pretrained(tmp_path / "model", precision="fp32", prepack=False)
    assert isinstance(again, Translator)
    assert again.translate(TEXTS) == translator.translate(TEXTS)
    assert again.identity() == translator.identity()
    assert (again.languages, again.search) == (translator.languages, translator.search)


def test_the_search_that_was_chosen_is_saved(translator: Translator, tmp_path: Path) -> None:
    import dataclasses

    translator.search = dataclasses.replace(translator.search, beam=7)
    translator.save_pretrained(tmp_path / "model")
    assert Translator.from_pretrained(tmp_path / "model").search.beam == 7


def test_the_card_knows_the_steps_only_while_the_weights_are_those_of_the_run(
    trained_run: Path, tmp_path: Path
) -> None:
    translator = Translator.load(trained_run, precision="fp32", prepack=False)
    translator.save_pretrained(tmp_path / "same")
    assert "- the weights after " in (tmp_path / "same" / "README.md").read_text()
    with torch.no_grad():
        translator.model.embedding.weight[5] += 1
    translator.save_pretrained(tmp_path / "changed")
    assert "- the weights after " not in (tmp_path / "changed" / "README.md").read_text()
    loaded = Translator.from_pretrained(tmp_path / "changed", prepack=False, precision="fp32")
    assert torch.equal(loaded.model.embedding.weight, translator.model.embedding.weight)


def test_a_model_that_was_built_here_can_be_saved(translator: Translator, tmp_path: Path) -> None:
    model = build_model(len(translator.tokenizer), translator.model.config)  # type: ignore[arg-type]
    Translator(model, translator.tokenizer).save_pretrained(tmp_path / "model")
    assert Translator.from_pretrained(tmp_path / "model").origin == str(tmp_path / "model")


def test_weights_that_are_not_as_they_were_trained_are_not_saved(babbler: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the weights are prepacked, not as they were trained: load the model with"):
        Translator.load(babbler, precision="fp32").save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="the weights are in bfloat16"):
        Translator.load(babbler, precision="bf16", prepack=False).save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_of_a_configuration_is_not_saved(translator: Translator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an ensemble cannot be saved as one model"):
        Ensemble([translator, translator]).save_pretrained(tmp_path / "model")
    plain = Transformer(len(translator.tokenizer), 22, 2, 2, 29)
    with pytest.raises(ConfigError, match="the model does not know its configuration"):
        Translator(plain, translator.tokenizer).save_pretrained(tmp_path / "model")


def test_a_model_is_pushed_with_its_card(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Hub:
        def create_repo(self, repo_id: str, **options: Any) -> str:
            asked.append((repo_id, options["private"]))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> None:
            card = (Path(folder_path) / "README.md").read_text(encoding="utf-8")
            asked.append((repo_id, commit_message, sorted(path.name for path in Path(folder_path).iterdir())))
            assert 'Translator.load("org/tiny")' in card
            assert "license: mit" in card

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    options = CardOptions(licence="mit")
    assert translator.push_to_hub("org/tiny", options, message="First") == "https://huggingface.co/org/tiny"
    files = ["README.md", "SHA256SUMS", "config.yaml", "export.json", "model.safetensors", "tokenizer.model"]
    assert asked == [("org/tiny", None), ("org/tiny", "First", files)]
    with pytest.raises(ExportError, match="give owner/name"):
        translator.push_to_hub("tiny")

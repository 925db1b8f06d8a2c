"""The hub's names for loading, saving and sharing a translator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F

from transformer.config import CorpusEntry
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


def gelu(model: Transformer) -> None:
    for layer in model.encoder.layers:
        layer.feed_forward.activation = F.gelu


def wide(model: Transformer) -> None:
    next(iter(model.decoder.layers)).norm_1.eps = 0.1


def half(model: Transformer) -> None:
    model.encoder.half()


def diverged(model: Transformer) -> None:
    with torch.no_grad():
        model.embedding.weight[7] = float("nan")


CHANGES = {
    diverged: r"^embedding\.weight contains non-finite values, and would not be loaded$",
    gelu: "the configuration does not describe the model",
    wide: "the configuration does not describe the model",
    half: "the weights are in float16, not as they were trained",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_computes_otherwise_than_its_configuration_says_is_not_saved(
    translator: Translator, tmp_path: Path, change: Callable[[Transformer], None]
) -> None:
    change(translator.model)
    with pytest.raises(ConfigError, match=CHANGES[change]):
        translator.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_of_a_model_in_memory_no_corpus_and_no_language_is_claimed(translator: Translator, tmp_path: Path) -> None:
    model = build_model(len(translator.tokenizer), translator.model.config)  # type: ignore[arg-type]
    Translator(model, translator.tokenizer).save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "- what it was trained on is not known" in card
    assert "wmt" not in card and "from `und` to `und`" in card
    assert Translator.load(tmp_path / "model").languages == ("und", "und")


def with_tags(translator: Translator, **data: Any) -> Translator:
    """As if the model had been loaded with this section `data`."""
    whole = translator.model.loaded_with  # type: ignore[attr-defined]
    section = dataclasses.replace(whole.data, **data)
    translator.model.loaded_with = dataclasses.replace(whole, data=section)  # type: ignore[assignment]
    translator.tag, translator.tags, translator.needs_tag = section.tag, section.tags, bool(section.target_tags)
    return translator


@pytest.mark.parametrize(
    "data",
    [
        {"target_tags": ("<2de>", "<2fr>")},
        {"tag": "<2de>", "target_tags": ("<2fr>",)},
        {"tag": "<2de>", "corpora": (CorpusEntry(path="builtin", tag="<2fr>"),)},
    ],
    ids=str,
)
def test_the_language_that_was_chosen_is_saved_beside_the_others(
    translator: Translator, tmp_path: Path, data: dict[str, Any]
) -> None:
    with_tags(translator, **data).choose_language("fr")
    translator.save_pretrained(tmp_path / "model")
    again = Translator.from_pretrained(tmp_path / "model")
    assert (again.tag, [*again.tags], again.languages[1]) == ("<2fr>", ["<2de>", "<2fr>"], "fr")


def test_a_language_that_the_configuration_has_no_place_for_is_refused(translator: Translator, tmp_path: Path) -> None:
    entries = (CorpusEntry(path="builtin", tag="<2de>"), CorpusEntry(path="builtin", tag="<2fr>"))
    with_tags(translator, tag="<2de>", corpora=entries, hold_out=("validation",)).choose_language("fr")
    with pytest.raises(ConfigError, match=r"^the model cannot be saved with tag=<2fr>: data\.tag=<2fr> must be "):
        translator.save_pretrained(tmp_path / "model")

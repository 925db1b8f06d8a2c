"""Models exported to Hugging Face: logits, ids and translations of transformers itself, the other implementation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from interop_models import TEXTS, Make, Save, source_ids, with_tag, zero_start
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from transformer.data.tokenizer import Tokenizer
from transformer.errors import ExportError
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.foreign import read_model
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
NORM_EPS = 1e-5  # of transformers
Both = tuple[Any, Any]


def exported_and_loaded(exported: Exported, tmp_path: Path) -> Both:
    directory = tmp_path / "hf"
    export(exported, "hf", directory)
    model, report = AutoModelForSeq2SeqLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval(), AutoTokenizer.from_pretrained(directory)


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "biases": {"attention_bias": True},
    "swish": {"activation": "swish"},
    "gelu": {"activation": "gelu"},
    "decoder tied": {"tie": "decoder"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("is_zero", [False, True])
def test_logits_are_those_of_the_model(make: Make, tmp_path: Path, variant: str, is_zero: bool) -> None:
    exported = make(norm_eps=NORM_EPS, **VARIANTS[variant])
    if is_zero:
        exported = zero_start(exported)
    theirs, tokenizer = exported_and_loaded(exported, tmp_path)
    src, tgt = source_ids(exported), torch.tensor([[2, 5, 19, 11, 7]]).repeat(len(TEXTS), 1)
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    # Their ids of ours, by name.
    names = json.loads((tmp_path / "hf" / "vocab.json").read_text(encoding="utf-8"))
    pieces = ["<pad>", "<unk>", "<pad>" if is_zero else "<s>", "</s>", *exported.tokenizer.pieces(range(4, 307))]
    order = torch.tensor([names[piece] for piece in pieces])
    with torch.no_grad():
        found = theirs(**inputs, decoder_input_ids=order[tgt]).logits[:, :, order[1:]]
        torch.testing.assert_close(found, exported.model(src, tgt)[:, :, 1:], rtol=1e-4, atol=1e-5)


def test_logits_are_those_of_a_model_with_a_vocabulary_for_each_side(
    make: Make, tmp_path: Path, other_tokenizer: Tokenizer
) -> None:
    exported = make(norm_eps=NORM_EPS, tie="decoder", source=other_tokenizer)
    theirs, tokenizer = exported_and_loaded(exported, tmp_path)
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    src, tgt = source_ids(exported), torch.tensor([[2, 5, 19, 11, 7]]).repeat(len(TEXTS), 1)
    assert torch.equal(inputs["input_ids"], src)
    assert tokenizer(text_target=TEXTS)["input_ids"] == [[*ids, 3] for ids in exported.tokenizer.encode(TEXTS)]
    with torch.no_grad():
        found = theirs(**inputs, decoder_input_ids=tgt).logits
        torch.testing.assert_close(found, exported.model(src, tgt), rtol=1e-4, atol=1e-5)
    assert exported.tokenizer.sizes == (307, 83)


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,"


@pytest.mark.parametrize("tag", [">>deu<<", "<2de>"])
def test_a_tag_is_the_same_piece_there_and_when_it_comes_back(make: Make, tmp_path: Path, tag: str) -> None:
    tokenizer = Tokenizer.train([*TEXTS, LETTERS] * 3, 83, symbols=[tag])
    exported = with_tag(make(tie="decoder", source=tokenizer), tag)
    _, theirs = exported_and_loaded(exported, tmp_path)
    text = f"{tag} {TEXTS[1]}"
    ids = [*tokenizer.encode([text])[0], 3]
    assert 1 not in ids
    assert theirs(text)["input_ids"] == ids
    _, back, _ = read_model(tmp_path / "hf").to_checkpoint()
    assert [*back.source.encode([text])[0], 3] == ids


def test_a_tag_of_several_pieces_is_noted(make: Make, tmp_path: Path) -> None:
    *_, note, several = export(with_tag(make(), ">>deu<<"), "hf", tmp_path / "hf")
    assert note == "generate() adds no tag: begin each text with its own, such as >>deu<<"
    assert re.fullmatch(r">>deu<< is one piece for transformers, and \d+ for this model's tokenizer", several)


HARD = ["", "  ", "a  b", "здесь 👍 no", "don't", "▁", "x" * 300, "\t tab", "e\u0301 ﬁ ½"]


def test_token_ids_are_ours(make: Make, tmp_path: Path) -> None:
    exported = make()
    _, tokenizer = exported_and_loaded(exported, tmp_path)
    for text in [*TEXTS, *HARD]:
        assert tokenizer(text)["input_ids"] == [*exported.tokenizer.encode([text])[0], 3], text


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_without_a_length_penalty_are_ours(make: Make, save: Save, tmp_path: Path, beam: int) -> None:
    search = {"beam": beam, "alpha": 0.0, "max_length": 17, "max_length_offset": 20, "allow_unknown": False}
    exported = make(search=search, norm_eps=NORM_EPS)
    ours = Translator.load(save(exported), precision="fp32").translate_nbest(TEXTS, nbest=1)
    theirs, tokenizer = exported_and_loaded(exported, tmp_path)
    for text, (one,) in zip(TEXTS, ours, strict=True):
        ids = theirs.generate(**tokenizer(text, return_tensors="pt"))[0].tolist()
        assert len(ids) <= 18
        if one.ids[-1] == 3 and ids[-1] == 3:  # what is cut at the limit is ranked otherwise there
            assert ids == [2, *one.ids]


def test_the_generation_settings_are_those_of_the_search(make: Make, tmp_path: Path) -> None:
    search = {"beam": 5, "alpha": 0.7, "length_penalty": "power", "min_length": 3, "no_repeat_ngram": 2}
    notes = export(make(search={**search, "allow_unknown": False}, norm_eps=NORM_EPS), "hf", tmp_path / "hf")
    assert notes == []
    settings = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert settings["bad_words_ids"] == [[0], [1], [2]]
    names = ("num_beams", "length_penalty", "min_length", "no_repeat_ngram_size", "early_stopping")
    assert [settings[name] for name in names] == [5, 0.7, 3, 2, False]
    assert settings["decoder_start_token_id"] == 2


def test_what_cannot_be_told_is_noted(make: Make, tmp_path: Path) -> None:
    norm, penalty = export(make(), "hf", tmp_path / "hf")
    assert norm.startswith("model.norm_eps is 1e-06 here, and 1e-05 in transformers")
    assert penalty.startswith("generate() divides log P by |Y|^0.6, not by ((5 + |Y|) / 6)^0.6")


def test_whether_unknown_pieces_are_outputs_comes_back(make: Make, tmp_path: Path) -> None:
    for allowed in (False, True):
        export(make(search={"allow_unknown": allowed}), "hf", tmp_path / f"{allowed}")
        model = read_model(tmp_path / f"{allowed}")
        assert (model.notes, model.search["allow_unknown"]) == ((), allowed)


def test_how_much_another_norm_eps_changes_is_said_as_it_is(make: Make, tmp_path: Path) -> None:
    for norm_eps, said in ((1e-4, "logits differ in the fifth digit"), (0.1, "logits differ, and translations may")):
        notes = export(make(norm_eps=norm_eps), "hf", tmp_path / f"{norm_eps}")
        assert notes[0].endswith(f": {said}")


def test_what_comes_back_has_the_norm_eps_that_transformers_computes_with(make: Make, tmp_path: Path) -> None:
    exported = make(norm_eps=0.01)
    theirs, tokenizer = exported_and_loaded(exported, tmp_path)
    config, _, weights = read_model(tmp_path / "hf").to_checkpoint()
    back = build_model(len(exported.tokenizer), config.model)
    back.load_state_dict(weights)
    assert config.model.norm_eps == NORM_EPS
    src, tgt = source_ids(exported), torch.tensor([[2, 5, 19, 11, 7]]).repeat(len(TEXTS), 1)
    with torch.no_grad():
        found = theirs(**tokenizer(TEXTS, return_tensors="pt", padding=True), decoder_input_ids=tgt).logits
        torch.testing.assert_close(back.eval()(src, tgt), found, rtol=0, atol=1e-5)
        assert (exported.model(src, tgt) - found).abs().max() > 1e-3


def test_a_model_that_starts_from_zero_goes_out_in_the_order_of_marian(make: Make, tmp_path: Path) -> None:
    exported = zero_start(make())
    export(exported, "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    names = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "vocab_size")
    assert [config[name] for name in names] == [0, 305, 305, 306]
    vocabulary = json.loads((tmp_path / "hf" / "vocab.json").read_text(encoding="utf-8"))
    assert (vocabulary["</s>"], vocabulary["<unk>"], vocabulary["<pad>"]) == (0, 1, 305)
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    assert not weights["model.shared.weight"][305].any()


REFUSED: dict[str, dict[str, Any]] = {
    "model.norm=pre": {"norm": "pre"},
    "model.positional=rotary": {"positional": "rotary", "d_k": 12},
    "model.positional=learned": {"positional": "learned"},
    "model.positional=none": {"positional": "none"},
    "model.tie=none": {"tie": "none"},
    "model.attention_score=dot": {"attention_score": "dot"},
    "model.attention_window": {"attention_window": 5},
    "model.num_kv_heads": {"num_kv_heads": 1},
    "model.attention_temperature": {"attention_temperature": 2.0},
    "model.d_k=7 and model.d_v=7": {"d_k": 7},
    "model.d_k=11 and model.d_v=7": {"d_v": 7},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_that_marian_has_no_place_for_is_refused(make: Make, tmp_path: Path, reason: str) -> None:
    with pytest.raises(ExportError, match=f"^Marian has no place for {reason}"):
        export(make(**REFUSED[reason]), "hf", tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


# And back


@pytest.mark.parametrize("options", [{}, {"tie": "decoder"}, {"attention_bias": True, "output_bias": True}])
@pytest.mark.parametrize("is_zero", [False, True])
def test_what_is_read_back_has_the_weights_to_the_bit(
    make: Make, tmp_path: Path, options: dict[str, Any], is_zero: bool
) -> None:
    exported = make(**options)
    if is_zero:
        exported = zero_start(exported)
    export(exported, "hf", tmp_path / "hf")
    config, tokenizer, weights = read_model(tmp_path / "hf").to_checkpoint()
    ours = exported.model.state_dict()
    if not is_zero:
        assert weights.keys() == ours.keys()
        assert all(torch.equal(weights[name], ours[name]) for name in ours)
        assert tokenizer.model == exported.tokenizer.model
    else:  # our padding has no row there, nor has <s> a bias
        for name in ours:
            rows = slice(None) if "embedding" not in name else [1, *range(3, 307)]
            assert torch.equal(weights[name][rows], ours[name][rows]), name
        assert tokenizer.encode(TEXTS) == exported.tokenizer.encode(TEXTS)
    assert config.model.tie == exported.config.model.tie


def test_what_came_from_marian_goes_back_to_the_bit(make: Make, tmp_path: Path) -> None:
    exported = zero_start(make(attention_bias=True, output_bias=True, activation="swish", norm_eps=NORM_EPS))
    export(exported, "hf", tmp_path / "first")
    config, tokenizer, weights = read_model(tmp_path / "first").to_checkpoint()
    save_checkpoint(tmp_path / "ours", config, tokenizer, weights)
    export(Exported.load(tmp_path / "ours"), "hf", tmp_path / "second")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("vocab.json", "source.spm", "target.spm"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

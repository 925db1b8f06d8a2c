"""Models in Marian's own form, read back by CTranslate2's converter where it is installed, and by names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from interop_models import TEXTS, Make, source_ids, zero_start

from transformer.data.tokenizer import Tokenizer
from transformer.errors import ExportError
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.foreign import read_model

TARGETS = [[5, 19, 11, 7], [101, 44], [33, 34, 35, 36, 37, 38, 39], [300]]


def release(exported: Exported, directory: Path) -> dict[str, Any]:
    export(exported, "opus", directory)
    return dict(np.load(directory / "model.npz", allow_pickle=False))


def test_names_and_shapes_are_those_of_marian(make: Make, tmp_path: Path) -> None:
    arrays = release(zero_start(make()), tmp_path / "opus")
    assert arrays["Wemb"].shape == (305, 22)
    assert arrays["decoder_ff_logit_out_b"].shape == (1, 305)
    assert arrays["encoder_l3_ffn_W1"].shape == (22, 29)
    assert arrays["decoder_l2_context_Wo_ln_scale"].shape == (1, 22)
    layer = {*(f"self_{x}{y}" for x in "Wb" for y in "qkvo"), "self_Wo_ln_scale", "self_Wo_ln_bias"}
    layer |= {"ffn_W1", "ffn_b1", "ffn_W2", "ffn_b2", "ffn_ffn_ln_scale", "ffn_ffn_ln_bias"}
    assert {name.removeprefix("encoder_l1_") for name in arrays if name.startswith("encoder_l1_")} == layer
    layer |= {name.replace("self", "context") for name in layer if name.startswith("self")}
    assert {name.removeprefix("decoder_l2_") for name in arrays if name.startswith("decoder_l2_")} == layer
    assert not [name for name in arrays if re.match(r"encoder_l4|decoder_l3", name)]


def test_the_description_is_that_of_the_model(make: Make, tmp_path: Path) -> None:
    arrays = release(zero_start(make(activation="swish", search={"beam": 5, "alpha": 0.7})), tmp_path / "opus")
    found = yaml.safe_load(arrays["special:model.yml"].tobytes().rstrip(b"\0"))
    names = ("dim-emb", "enc-depth", "dec-depth", "transformer-heads", "transformer-dim-ffn", "dim-vocabs")
    assert [found[name] for name in names] == [22, 3, 2, 2, 29, [305, 305]]
    assert (found["transformer-ffn-activation"], found["tied-embeddings-all"]) == ("swish", True)
    decoder = yaml.safe_load((tmp_path / "opus" / "decoder.yml").read_text())
    assert (decoder["models"], decoder["vocabs"]) == (["model.npz"], ["vocab.yml"] * 2)
    assert (decoder["beam-size"], decoder["normalize"]) == (5, 0.7)
    search = read_model(tmp_path / "opus").search
    assert [search[name] for name in ("beam", "alpha", "length_penalty", "allow_unknown")] == [5, 0.7, "power", True]


def test_the_vocabulary_begins_with_the_end_and_lacks_padding_and_start(make: Make, tmp_path: Path) -> None:
    exported = zero_start(make())
    arrays = release(exported, tmp_path / "opus")
    vocabulary = yaml.safe_load((tmp_path / "opus" / "vocab.yml").read_text(encoding="utf-8"))
    assert list(vocabulary)[:2] == ["</s>", "<unk>"]
    assert [*vocabulary.values()] == [*range(305)]
    assert [*vocabulary][2:] == exported.tokenizer.pieces(range(4, 307))
    rows = exported.model.embedding.weight.detach()[[3, 1, *range(4, 307)]]
    # Marian has the sines first, then the cosines.
    torch.testing.assert_close(torch.from_numpy(arrays["Wemb"]), torch.cat((rows[:, 0::2], rows[:, 1::2]), dim=1))


def test_ctranslate2s_converter_reads_it(make: Make, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    converters = pytest.importorskip("ctranslate2.converters")
    exported = zero_start(make(norm_eps=1e-5, attention_bias=True, activation="swish"))
    release(exported, tmp_path / "opus")
    converters.OpusMTConverter(str(tmp_path / "opus")).convert(str(tmp_path / "ct2"))
    engine = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    tokenizer, src = exported.tokenizer, source_ids(exported)
    sources = [tokenizer.pieces(ids) for ids in tokenizer.encode(TEXTS)]
    found = engine.score_batch(sources, [tokenizer.pieces(ids) for ids in TARGETS])
    for i, target in enumerate(TARGETS):
        with torch.no_grad():
            logits = exported.model(src[i : i + 1], torch.tensor([[2, *target]]))[0]
            logits[:, [0, 2]] = -torch.inf  # which have no rows there
        ours = [logits.log_softmax(-1)[place, id_].item() for place, id_ in enumerate([*target, 3])]
        assert found[i].log_probs == pytest.approx(ours, abs=2e-5)


def test_a_model_with_a_learned_start_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"^OPUS-MT starts the decoder from a zero vector; .* in the row of <s>: take --to hf"
    ):
        export(make(), "opus", tmp_path / "opus")


def test_gelu_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^OPUS-MT has no place for model\.activation=gelu"):
        export(zero_start(make(activation="gelu")), "opus", tmp_path / "opus")


def test_separate_vocabularies_are_two_files(make: Make, tmp_path: Path, other_tokenizer: Tokenizer) -> None:
    exported = zero_start(make(tie="decoder", source=other_tokenizer))
    arrays = release(exported, tmp_path / "opus")
    assert (arrays["encoder_Wemb"].shape, arrays["decoder_Wemb"].shape) == ((81, 22), (305, 22))
    decoder = yaml.safe_load((tmp_path / "opus" / "decoder.yml").read_text())
    assert decoder["vocabs"] == ["source.vocab.yml", "target.vocab.yml"]
    assert len(yaml.safe_load((tmp_path / "opus" / "source.vocab.yml").read_text(encoding="utf-8"))) == 81


@pytest.mark.parametrize("name", ['"', "\\", "a: b", "#", "- x", "\u2028", "\x85", "ﬁ", "é", "'", "{"])
def test_every_piece_is_read_as_it_was_written(name: str) -> None:
    from transformer.interop.opus import _vocabulary

    assert yaml.safe_load(_vocabulary(["</s>", name])) == {"</s>": 0, name: 1}


def test_fixed_constants_are_noted(make: Make, tmp_path: Path) -> None:
    norm, penalty = export(zero_start(make()), "opus", tmp_path / "opus")
    assert norm.startswith("model.norm_eps is 1e-06 here, and fixed in each engine")
    assert penalty == "Marian divides log P by |Y|^0.6, not by ((5 + |Y|) / 6)^0.6"


def test_limits_that_the_decoder_does_not_have_are_noted(make: Make, tmp_path: Path) -> None:
    search = {"length_penalty": "power", "max_length": 31, "no_repeat_ngram": 3}
    notes = export(zero_start(make(norm_eps=1e-5, search=search)), "opus", tmp_path / "opus")
    assert notes == ["decoder.yml has no place for search.max_length=31, search.no_repeat_ngram=3"]


@pytest.mark.parametrize("options", [{}, {"attention_bias": True, "output_bias": True, "activation": "swish"}])
def test_what_is_read_back_has_the_weights_to_the_bit(make: Make, tmp_path: Path, options: dict[str, Any]) -> None:
    exported = zero_start(make(**options))
    release(exported, tmp_path / "opus")
    _, tokenizer, weights = read_model(tmp_path / "opus").to_checkpoint()
    for name, weight in exported.model.state_dict().items():
        rows: Any = [1, *range(3, 307)] if "embedding" in name else slice(None)
        assert torch.equal(weights[name][rows], weight[rows]), name
    assert tokenizer.encode(TEXTS) == exported.tokenizer.encode(TEXTS)

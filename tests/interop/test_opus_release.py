"""OPUS-MT's own releases: what is taken from them, and what is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from marian_files import (
    D_FF,
    D_MODEL,
    HuggingFace,
    make_vocabulary,
    pairs,
    pieces_of,
    random_arrays,
    write_release,
    write_vocabulary,
)

from transformer.errors import CheckpointError
from transformer.inference.translator import Translator
from transformer.interop.export import export
from transformer.interop.exported import Exported
from transformer.interop.foreign import read_model

Models = tuple[bytes, bytes]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_model(path).to_checkpoint()[2]


# What is taken.


def test_the_options_say_what_the_model_is(release: Path) -> None:
    config, tokenizer, weights = read_model(release).to_checkpoint()
    model = config.model
    assert (model.d_model, model.num_layers, model.num_decoder_layers, model.num_heads) == (D_MODEL, 2, None, 2)
    assert (model.d_ff, model.activation, model.tie, model.output_bias) == (D_FF, "swish", "all", True)
    assert (config.search.beam, config.search.alpha, config.search.length_penalty) == (5, 0.7, "power")
    assert config.search.allow_unknown is False
    assert (config.data.src_lang, config.data.tgt_lang) == ("eng", "deu")
    assert len(weights["embedding.weight"]) == len(tokenizer)


def arrays_of(weights: dict[str, torch.Tensor], theirs: HuggingFace) -> dict[str, Any]:
    """The same model in Marian's names, which knows no <pad>, from Hugging Face's."""
    arrays: dict[str, Any] = {"Wemb": weights["model.shared.weight"][:-1].numpy()}
    arrays["decoder_ff_logit_out_b"] = weights["final_logits_bias"][:, :-1].numpy()
    suffixes = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
    attentions = {"self_attn": "self", "encoder_attn": "context"}
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(theirs.model.model, stack).layers):
            to = f"{stack}_l{number + 1}"
            for name, ours in attentions.items():
                if not hasattr(layer, name):
                    continue
                for projection, x in suffixes.items():
                    linear = getattr(getattr(layer, name), projection)
                    arrays[f"{to}_{ours}_W{x}"] = linear.weight.detach().numpy().T
                    arrays[f"{to}_{ours}_b{x}"] = linear.bias.detach().numpy()[None]
                norm = getattr(layer, f"{name}_layer_norm")
                arrays[f"{to}_{ours}_Wo_ln_scale"] = norm.weight.detach().numpy()[None]
                arrays[f"{to}_{ours}_Wo_ln_bias"] = norm.bias.detach().numpy()[None]
            for n, linear in ((1, layer.fc1), (2, layer.fc2)):
                arrays[f"{to}_ffn_W{n}"] = linear.weight.detach().numpy().T
                arrays[f"{to}_ffn_b{n}"] = linear.bias.detach().numpy()[None]
            arrays[f"{to}_ffn_ffn_ln_scale"] = layer.final_layer_norm.weight.detach().numpy()[None]
            arrays[f"{to}_ffn_ffn_ln_bias"] = layer.final_layer_norm.bias.detach().numpy()[None]
    return arrays


def test_a_release_and_hugging_faces_directory_of_one_model_are_the_same(
    make_hugging_face: Any, sentencepiece_models: Models, tmp_path: Path
) -> None:
    theirs = make_hugging_face()
    theirs_weights = {name: weight.detach() for name, weight in theirs.model.state_dict().items()}
    release = write_release(tmp_path / "release", sentencepiece_models, arrays_of(theirs_weights, theirs))
    (_, tokenizer, weights), (_, other, expected) = (
        read_model(path).to_checkpoint() for path in (release, theirs.directory)
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    assert tokenizer.digest == other.digest


def test_log_probabilities_are_those_of_ctranslate2(release: Path, tmp_path: Path) -> None:
    """Its converter for OPUS-MT shares no code with ours."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    ctranslate2.converters.OpusMTConverter(str(release)).convert(str(tmp_path / "ct2"))
    theirs = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32", intra_threads=1)
    translator = Translator.load(release, device="cpu", precision="fp32")
    tokenizer = translator.tokenizer
    sources, targets = (list(side) for side in zip(*pairs("test", 11), strict=True))
    ids = tokenizer.encode(targets)
    scored = theirs.score_batch(tokenizer.source.encode_as_pieces(sources), [tokenizer.pieces(x) for x in ids])
    for source, target, found in zip(sources, ids, scored, strict=True):
        state = translator.model.encode(torch.tensor([[*tokenizer.source.encode([source])[0], 3]]))
        hidden, _ = translator.model.decode(torch.tensor([[2, *target]]), state)
        log_probs = translator.logits(hidden)[0].log_softmax(-1)
        ours = log_probs.gather(1, torch.tensor([*target, 3])[:, None]).flatten()
        assert np.abs(ours.detach().numpy() - np.array(found.log_probs)).max() < 1e-5


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (4, 0.0), (4, 1.0)])
def test_what_is_exported_again_translates_as_ctranslate2s_own_conversion(
    release: Path, tmp_path: Path, beam: int, alpha: float
) -> None:
    """From the release to ours to CTranslate2, against its converter, by the same search."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    ctranslate2.converters.OpusMTConverter(str(release)).convert(str(tmp_path / "theirs"))
    imported = Exported.load(release)
    export(imported, "ct2", tmp_path / "ours")
    sources = imported.tokenizer.source.encode_as_pieces([source for source, _ in pairs("test", 23)])
    options = {"beam_size": beam, "length_penalty": alpha, "max_decoding_length": 29, "return_scores": True}
    ours, theirs = (
        ctranslate2.Translator(str(tmp_path / name), compute_type="float32").translate_batch(sources, **options)
        for name in ("ours", "theirs")
    )
    assert [one.hypotheses for one in ours] == [one.hypotheses for one in theirs]
    assert [one.scores[0] for one in ours] == pytest.approx([one.scores[0] for one in theirs], abs=1e-4)


def test_two_vocabularies_are_read(sentencepiece_models: Models, tmp_path: Path) -> None:
    ids = [make_vocabulary(pieces_of(model)) for model in sentencepiece_models]
    for of_side in ids:
        del of_side["<pad>"]
    arrays = random_arrays([len(of_side) for of_side in ids], is_shared=False)
    release = write_release(tmp_path / "release", sentencepiece_models, arrays)
    for name, of_side in zip(("src", "trg"), ids, strict=True):
        write_vocabulary(release / f"{name}.vocab.yml", of_side)
    decoder = yaml.safe_load((release / "decoder.yml").read_text()) | {"vocabs": ["src.vocab.yml", "trg.vocab.yml"]}
    (release / "decoder.yml").write_text(yaml.safe_dump(decoder))
    config, tokenizer, weights = read_model(release).to_checkpoint()
    assert config.data.separate_vocabularies
    assert tokenizer.sizes == (len(ids[1]) + 2, len(ids[0]) + 2)
    assert weights["embedding.target_weight"].shape == (len(ids[1]) + 2, D_MODEL)
    translator = Translator.load(release, device="cpu")
    assert len(translator.translate(["A man is sleeping."], max_length=5)) == 1


def test_a_model_without_an_output_bias_has_zeros(sentencepiece_models: Models, tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", sentencepiece_models)
    with np.load(release / "opus.npz") as file:
        arrays = dict(file)
    del arrays["decoder_ff_logit_out_b"]
    np.savez(release / "opus.npz", **arrays)
    bias = weights_of(release)["embedding.output_bias"]
    assert bias[[0, 2]].tolist() == [-100, -100]
    assert not bias[3:].any()


def change_decoder(release: Path, **values: Any) -> None:
    decoder = yaml.safe_load((release / "decoder.yml").read_text()) | values
    kept = {key: value for key, value in decoder.items() if value != "absent"}
    (release / "decoder.yml").write_text(yaml.safe_dump(kept))


def test_what_our_search_does_not_have_is_named(release: Path) -> None:
    change_decoder(release, **{"word-penalty": 0.2, "allow-unk": True})
    model = read_model(release)
    assert model.search["allow_unknown"] is True
    assert model.notes == ("decoder.yml: word-penalty=0.2 is not taken over",)
    values = {"word-penalty": 0, "output-sampling": True, "beam-size": "4", "normalize": "0.6", "max-length-factor": 2}
    change_decoder(release, **values)
    model = read_model(release)
    del values["word-penalty"]
    assert {*model.notes} == {f"decoder.yml: {name}={value!r} is not taken over" for name, value in values.items()}
    assert (model.search["beam"], model.search["alpha"]) == (12, 0.0)


def test_what_the_decoder_file_leaves_out_is_as_marian_has_it(release: Path) -> None:
    change_decoder(release, **dict.fromkeys(("beam-size", "normalize", "word-penalty"), "absent"))
    model = read_model(release)
    assert (model.search["beam"], model.search["alpha"], model.notes) == (12, 0.0, ())


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        ("* source language(s): eng deu\n* target language(s): nld\n", ("und", "nld")),
        ("* source languages: en\n* target languages: de\n", ("en", "de")),
        ("nothing", ("und", "und")),
        (None, ("und", "und")),
    ],
)
def test_languages_are_those_of_the_readme(release: Path, text: str | None, languages: tuple[str, str]) -> None:
    (release / "README.md").unlink()
    if text is not None:
        (release / "README.md").write_text(text)
    assert read_model(release).languages == languages


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "s2s"}, r"opus\.npz: type='s2s': only models with 'transformer' are read"),
        ({"transformer-preprocess": "n"}, "transformer-preprocess='n': only models with ''"),
        ({"transformer-postprocess": "da"}, "transformer-postprocess='da': only models with 'dan'"),
        ({"transformer-postprocess-emb": "nd"}, "transformer-postprocess-emb='nd': only models with 'd'"),
        ({"transformer-decoder-autoreg": "rnn"}, "transformer-decoder-autoreg='rnn': only models with"),
        ({"transformer-ffn-depth": 3}, "transformer-ffn-depth=3: only models with 2"),
        ({"transformer-train-position-embeddings": True}, "train-position-embeddings=True: only models with False"),
        ({"transformer-tied-layers": [1, 1]}, r"transformer-tied-layers=\[1, 1\]: only models with \[\]"),
        ({"transformer-pool": True}, "transformer-pool=True: only models with False"),
        ({"right-left": True}, "right-left=True: only models with False are read"),
        ({"input-types": ["class", "sequence"]}, "input-types=.* only models with"),
        ({"ulr": True}, "ulr=True: only models with False"),
        ({"transformer-ffn-activation": "gelu"}, "transformer-ffn-activation='gelu' is not one of relu, swish"),
        ({"transformer-decoder-dim-ffn": 31}, "transformer-decoder-dim-ffn differs from transformer-dim-ffn"),
        ({"dim-emb": "22"}, "dim-emb='22' must be a whole number"),
        ({"enc-depth": 10**9}, r"model\.num_layers=1000000000"),
        ({"enc-depth": 3}, r"the weight model\.encoder\.layers\.2\.\S+ is missing"),
        ({"transformer-heads": 3}, r"model\.d_model=22 is not a multiple of model\.num_heads=3"),
    ],
)
def test_a_model_that_ours_cannot_be_is_refused(
    sentencepiece_models: Models, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    release = write_release(tmp_path / "release", sentencepiece_models, **options)
    with pytest.raises(CheckpointError, match=message):
        weights_of(release)


def changed_arrays(release: Path, **arrays: Any) -> None:
    with np.load(release / "opus.npz") as file:
        kept = {name: array for name, array in file.items() if name not in arrays}
    added = {name: array for name, array in arrays.items() if array is not None}
    np.savez(release / "opus.npz", **kept, **added)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"special:model.yml": None}, r"opus\.npz: has no special:model\.yml: not a model of Marian"),
        ({"special:model.yml": np.frombuffer(b"\xff", np.int8)}, r"special:model\.yml: not YAML"),
        ({"special:model.yml": np.frombuffer(b"a: *b", np.int8)}, r"special:model\.yml: not YAML: .*aliases"),
        ({"special:model.yml": np.frombuffer(b"[]", np.int8)}, "expected `key: value` lines"),
        ({"decoder_ff_logit_out_W": np.zeros((22, 7), np.float32)}, "has the weight decoder_ff_logit_out_W, which no"),
        ({"encoder_l0_ffn_W1": np.zeros((22, 7), np.float32)}, "has the weight encoder_l0_ffn_W1, which no model"),
        ({"Wpos": np.zeros((22, 7), np.float32)}, "has the weight Wpos, which no model of this kind has"),
        ({"Wemb": np.zeros((22, 7), np.int32)}, "Wemb is an array of int32 with 2 dimensions"),
        ({"Wemb": np.zeros((22, 7), ">f4")}, "Wemb is an array of >f4 with 2 dimensions"),
        ({"Wemb": np.zeros((22, 7), np.longdouble)}, r"Wemb is an array of float\d+ with 2 dimensions"),
        ({"Wemb": np.zeros((2, 2, 7), np.float32)}, "Wemb is an array of float32 with 3 dimensions"),
        ({"Wemb": None}, r"the weight model\.encoder\.embed_tokens\.weight is missing|has the weight"),
        ({"encoder_l1_ffn_W1": None}, r"the weight model\.encoder\.layers\.0\.fc1\.weight is missing"),
    ],
)
def test_damaged_weights_are_refused(release: Path, arrays: dict[str, Any], message: str) -> None:
    changed_arrays(release, **arrays)
    with pytest.raises(CheckpointError, match=message):
        weights_of(release)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_arrays_of_objects_are_not_unpickled(release: Path, tmp_path: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = Payload(tmp_path / "marker")
    changed_arrays(release, Wemb=array)
    with pytest.raises(CheckpointError, match=r"opus\.npz: cannot be read: Object arrays"):
        weights_of(release)
    (release / "opus.npz").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(CheckpointError, match=r"opus\.npz: cannot be read: "):
        weights_of(release)
    assert not (tmp_path / "marker").exists()


def test_a_file_that_is_no_array_is_refused(release: Path) -> None:
    with zipfile.ZipFile(release / "opus.npz", "a") as file:
        file.writestr("other", "text")
    with pytest.raises(CheckpointError, match=r"opus\.npz: other is not an array"):
        weights_of(release)


def test_arrays_to_fill_the_memory_are_refused(release: Path) -> None:
    np.savez_compressed(release / "opus.npz", Wemb=np.zeros((1 << 20, 22), np.float32))
    with pytest.raises(CheckpointError, match=r"opus\.npz: Wemb\.npy would have 92,274,\d+ bytes, more than"):
        weights_of(release)


def test_a_single_array_is_no_model(release: Path) -> None:
    with (release / "opus.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(CheckpointError, match=r"opus\.npz: (cannot be read|not an \.npz archive)"):
        weights_of(release)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, r"decoder\.yml: models must be a list of files, got \[\]"),
        ({"models": "opus.npz"}, "models must be a list of files, got 'opus.npz'"),
        ({"models": ["opus.npz", "b.npz"]}, "names 2 models; only single ones are read"),
        ({"models": ["../opus.npz"]}, r"models: \.\./opus\.npz is not a file beside it"),
        ({"vocabs": ["/etc/passwd"]}, "vocabs: /etc/passwd is not a file beside it"),
        ({"vocabs": ["source.spm"]}, r"the vocabulary source\.spm is not in YAML \(\.yml\)"),
        ({"vocabs": ["other.yml"]}, r"other\.yml: is missing"),
        ({"models": ["other.npz"]}, r"other\.npz: is missing"),
    ],
)
def test_a_damaged_decoder_file_is_refused(release: Path, change: dict[str, Any], message: str) -> None:
    decoder = yaml.safe_load((release / "decoder.yml").read_text()) | change
    (release / "decoder.yml").write_text(yaml.safe_dump(decoder))
    with pytest.raises(CheckpointError, match=message):
        weights_of(release)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!python/object/apply:os.system [ls]", "not YAML: .*tags are not supported"),
        (b"a: &a [x]\nb: [*a, *a]", "not YAML: .*anchors, aliases"),
        (b"[]", "expected `key: value` lines"),
        (b"\xff", "not text in UTF-8"),
    ],
)
def test_a_decoder_file_with_more_than_plain_yaml_is_refused(release: Path, content: bytes, message: str) -> None:
    (release / "decoder.yml").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"decoder\.yml: {message}"):
        weights_of(release)


def test_vocabularies_that_differ_are_refused_if_the_matrix_is_of_both(release: Path) -> None:
    decoder = yaml.safe_load((release / "decoder.yml").read_text())
    name = decoder["vocabs"][0]
    lines = (release / name).read_text().splitlines(keepends=True)
    (release / "other.yml").write_text("".join([*lines[:-1], lines[-1].replace('": ', 'x": ')]))
    (release / "decoder.yml").write_text(yaml.safe_dump(decoder | {"vocabs": [name, "other.yml"]}))
    with pytest.raises(CheckpointError, match=r"differ, but the model has one matrix for both"):
        weights_of(release)

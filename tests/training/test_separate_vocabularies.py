"""A vocabulary per side: through model, checkpoint, average, translation and figures."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from transformer.commands import average
from transformer.config import Config, DataConfig, ModelConfig, load_config
from transformer.data.builtin import builtin_pairs
from transformer.data.corpus import Corpus
from transformer.data.dataset import encode_corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.hub import check_links
from transformer.inference.translator import Translator
from transformer.inspection.attention import sentence_attention
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import load_checkpoint, load_model, save_model
from transformer.training.trainer import Trainer

PAIRS = list(builtin_pairs("train", 97))
TEXTS = [source for source, _ in PAIRS[:7]]
SMALL = ModelConfig(d_model=14, num_layers=1, num_heads=2, d_ff=11, tie="decoder")


def two_tokenizers(source_size: int = 149, target_size: int = 163) -> Tokenizer:
    tokenizer = Tokenizer.train([target for _, target in PAIRS], target_size)
    tokenizer.source = Tokenizer.train([source for source, _ in PAIRS], source_size)
    return tokenizer


def as_separate(joint: Tokenizer) -> Tokenizer:
    """The same tokenizer as one of each side."""
    separate = Tokenizer(joint.model)
    separate.source = Tokenizer(joint.model)
    return separate


def built(tokenizer: Tokenizer, config: ModelConfig = SMALL, seed: int = 3) -> Any:
    torch.manual_seed(seed)
    return build_model(len(tokenizer), config, source_vocab_size=tokenizer.sizes[1])


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 updates with two vocabularies, validated by BLEU."""
    directory = tmp_path_factory.mktemp("separate")
    values = ("data.separate_vocabularies=true", "data.source_vocab_size=211", "model.tie=none", "train.max_steps=5")
    places = (f"run_dir={directory / 'run'}", f"data.cache_dir={directory / 'cache'}")
    config = load_config(trained_run / "config.yaml", [*values, *places, "train.save_steps=2"])
    Trainer.from_config(config).fit()
    return directory / "run"


def test_each_side_has_a_matrix_of_its_size() -> None:
    model = built(two_tokenizers())
    assert (len(model.embedding.weight), len(model.embedding.output_weight)) == (149, 163)
    untied = built(two_tokenizers(), dataclasses.replace(SMALL, tie="none"))
    assert [len(weight) for weight in untied.embedding.parameters()] == [149, 163, 163]


def test_a_model_that_ties_all_matrices_cannot_have_two_vocabularies() -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.tie=all is for a joint vocabulary: .* set model\.tie=decoder or none$"
    ):
        build_model(163, dataclasses.replace(SMALL, tie="all"), source_vocab_size=163)
    message = (
        r"^data\.separate_vocabularies=true leaves nothing that model\.tie=all could share .* set model\.tie=decoder"
    )
    with pytest.raises(ConfigError, match=message):
        Config(data=DataConfig(separate_vocabularies=True))


def test_a_joint_tokenizer_used_as_two_gives_the_same_ids_and_with_the_same_weights_the_same_translations(
    tmp_path: Path,
) -> None:
    joint = Tokenizer.train([side for pair in PAIRS for side in pair], 163)
    separate = as_separate(joint)
    datasets = [
        encode_corpus(Corpus("pairs", "pairs", lambda: iter(PAIRS)), tokenizer, tmp_path / "cache")
        for tokenizer in (joint, separate)
    ]
    assert datasets[0].fingerprint != datasets[1].fingerprint
    for side in ("src", "tgt"):
        assert_close(*(torch.from_numpy(getattr(dataset, side).ids.astype("int64")) for dataset in datasets))
    shared, own = built(joint), built(separate)
    own.load_state_dict(shared.state_dict())
    found = [Translator(model, tokenizer).translate(TEXTS) for model, tokenizer in ((shared, joint), (own, separate))]
    assert found[0] == found[1]
    assert any(found[0])


def test_source_ids_beyond_the_target_vocabulary_are_kept(tmp_path: Path) -> None:
    """The sides are checked each against its own size."""
    dataset = encode_corpus(Corpus("pairs", "pairs", lambda: iter(PAIRS)), two_tokenizers(199, 89), tmp_path)
    assert dataset.src.ids.max() > 89 > dataset.tgt.ids.max()


def test_a_translator_needs_both_tokenizers_of_its_model() -> None:
    tokenizer = two_tokenizers()
    model = built(tokenizer)
    assert len(Translator(model, tokenizer).translate(TEXTS)) == len(TEXTS)
    message = "^the tokenizer of the source has 163 pieces, and the model 149: take the tokenizers that the model was "
    with pytest.raises(DataError, match=message):
        Translator(model, Tokenizer(tokenizer.model))
    with pytest.raises(DataError, match=r"^the tokenizer has 149 pieces, and the model 163: "):
        Translator(model, tokenizer.source)


@pytest.mark.parametrize("tie", ["decoder", "none"])
@pytest.mark.parametrize("sizes", [(149, 163), (163, 163)])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_saved_model_comes_back_with_both_tokenizers(
    tmp_path: Path, tie: Any, sizes: tuple[int, int], is_whole: bool
) -> None:
    tokenizer, config = two_tokenizers(*sizes), dataclasses.replace(SMALL, tie=tie)
    model = built(tokenizer, config)
    whole = Config(model=config, data=DataConfig(separate_vocabularies=True, src_lang="de")) if is_whole else None
    save_model(model, tmp_path / "saved", whole, tokenizer)
    assert (tmp_path / "saved" / "source_tokenizer.model").read_bytes() == tokenizer.source.model
    found, loaded, weights = load_checkpoint(tmp_path / "saved")
    assert found.data.separate_vocabularies
    assert (loaded.model, loaded.source.model) == (tokenizer.model, tokenizer.source.model)
    for other in (weights, load_model(tmp_path / "saved")):
        assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    expected = Translator(model, tokenizer).translate(TEXTS)
    assert Translator.load(tmp_path / "saved", device="cpu", precision="fp32").translate(TEXTS) == expected


def test_a_model_is_saved_without_tokenizers_and_with_a_joint_one(tmp_path: Path) -> None:
    save_model(built(two_tokenizers()), tmp_path / "bare")
    assert len(load_model(tmp_path / "bare").embedding.weight) == 149
    separate = as_separate(Tokenizer.train([side for pair in PAIRS for side in pair], 163))
    save_model(built(separate), tmp_path / "two", tokenizer=separate)
    again = load_model(tmp_path / "two")  # which knows that its vocabularies are separate
    save_model(again, tmp_path / "one", tokenizer=Tokenizer(separate.model))
    assert not (tmp_path / "one" / "source_tokenizer.model").exists()
    assert load_checkpoint(tmp_path / "one")[1].sizes == (163, None)


def test_every_checkpoint_of_a_run_has_both_tokenizers_with_checksums(run: Path) -> None:
    places = [run, *(run / "checkpoints").iterdir(), *(run / "best").iterdir()]
    assert len({(place / "source_tokenizer.model").read_bytes() for place in places}) == 1
    for place in places[1:]:
        assert "source_tokenizer.model" in (place / "SHA256SUMS").read_text()
        assert load_checkpoint(place)[1].sizes == (307, 211)


def test_a_run_is_averaged_translated_and_looked_into(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert average.main([str(tmp_path / "run"), "--last", "2"]) == 0
    translator = Translator.load(tmp_path / "run", device="cpu", precision="fp32")
    assert str(translator.origin).endswith("averaged")
    assert translator.tokenizer.sizes == (307, 211)
    assert len(translator.translate(TEXTS)) == len(TEXTS)
    uses = sentence_attention(translator, TEXTS[0], PAIRS[0][1])
    (src,) = translator.tokenizer.source.encode(TEXTS[:1])
    assert uses[0].keys == [*translator.tokenizer.source.pieces(src), "</s>"]
    assert uses[1].queries == ["<s>", *translator.tokenizer.pieces(translator.tokenizer.encode([PAIRS[0][1]])[0])]


def test_a_run_with_two_vocabularies_resumes(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    config = load_config(run / "config.yaml", [f"run_dir={tmp_path / 'run'}", "train.max_steps=7"], saved=True)
    trainer = Trainer.from_config(config)
    trainer.fit()
    assert trainer.progress.step == 7
    assert "vocabularies: 211 pieces of the source, 307 of the target" in trainer.summary()


def test_a_changed_source_tokenizer_is_noticed(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    other = Tokenizer.train([source for source, _ in PAIRS], 211).model
    (tmp_path / "run" / "source_tokenizer.model").write_bytes(other)
    config = load_config(run / "config.yaml", [f"run_dir={tmp_path / 'run'}", "train.max_steps=7"], saved=True)
    with pytest.raises(CheckpointError, match=r"the train data have changed since"):
        Trainer.from_config(config)


def saved(directory: Path) -> Path:
    tokenizer = two_tokenizers()
    save_model(built(tokenizer), directory / "saved", tokenizer=tokenizer)
    return directory / "saved"


def test_a_damaged_or_missing_source_tokenizer_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    path = directory / "source_tokenizer.model"
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    with pytest.raises(CheckpointError, match=r"source_tokenizer\.model: is damaged or of another checkpoint"):
        load_checkpoint(directory)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"source_tokenizer\.model: is missing"):
        load_checkpoint(directory)
    (directory / "SHA256SUMS").unlink()
    with pytest.raises(
        CheckpointError, match=r"source_tokenizer\.model is missing: config\.yaml has data\.separate_vo"
    ):
        load_checkpoint(directory)
    path.write_bytes(content)
    text = (directory / "config.yaml").read_text()
    (directory / "config.yaml").write_text(text.replace("separate_vocabularies: true", "separate_vocabularies: false"))
    with pytest.raises(
        CheckpointError, match=r"does not belong to it: config\.yaml has data\.separate_vocabularies=false$"
    ):
        load_checkpoint(directory)


def test_a_source_tokenizer_of_another_size_does_not_fit_the_weights(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / "SHA256SUMS").unlink()
    (directory / "source_tokenizer.model").write_bytes(two_tokenizers(139).source.model)
    with pytest.raises(
        CheckpointError, match=r"embedding\.weight has shape \(149, 14\), but the configuration and tokenizer"
    ):
        load_checkpoint(directory)


def test_a_source_tokenizer_that_is_a_link_out_of_the_model_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path) / "source_tokenizer.model"
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match=r"source_tokenizer\.model: a link out of the model's directory"):
        check_links(path.parent)

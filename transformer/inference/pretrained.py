"""The names by which users of the Hugging Face hub load, save and share models, for `Translator`."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from transformer.config import Config, DataConfig, ModelConfig
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.prepacked import PrepackedLinear
from transformer.interop.card import CardOptions
from transformer.interop.export import export
from transformer.interop.exported import Exported, run_of
from transformer.interop.marian_model import UNKNOWN_DATA
from transformer.interop.publishing import check_repository, upload
from transformer.model.transformer import Transformer
from transformer.training.description import check_described
from transformer.training.integrity import load_tensors

if TYPE_CHECKING:
    from typing_extensions import Self


class Pretrained:
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub`, and has what they say of languages."""

    languages: tuple[str, str] = ("", "")
    tag: str | None = None
    tags: Sequence[str] = ()
    needs_tag: bool = False

    def _take_languages(self, data: DataConfig) -> None:
        """Languages and tags of a configuration; with a single tag there is nothing to choose."""
        self.languages, self.tag, self.tags = (data.src_lang, data.tgt_lang), data.tag, data.tags
        self.needs_tag = len(data.target_tags) > 1

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Self:
        """`Translator.load`: of a run, a directory that `save_pretrained` wrote, or a hub id."""
        found: Self = cls.load(path, **options)  # type: ignore[attr-defined]
        return found

    def save_pretrained(self, directory: str | Path, options: CardOptions | None = None) -> None:
        """Write model, tokenizer, search and a model card into a new directory, which loads without a network.

        Languages and tag are those of the translator. ConfigError unless the weights are there as they were trained,
        and the model computes with them what its configuration says: load with `precision="fp32"` and `prepack=False`.
        ExportError if the directory exists.

        Args:
            options: what the card says that the model does not know of itself: name, licence, scores.
        """
        export(self._exported(), "own", Path(directory), options=options)

    def push_to_hub(
        self,
        repo_id: str,
        options: CardOptions | None = None,
        *,
        private: bool | None = None,
        message: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to `owner/name` of the hub; returns its address.

        ConfigError as of `save_pretrained`, ExportError if the hub cannot be reached or refuses.

        Args:
            options: as of `save_pretrained`.
            private: whether a new repository is; None: as the hub's settings of its owner say.
            message: of the commit.
        """
        check_repository(repo_id)
        name = repo_id.partition("/")[2]
        options = options or CardOptions()
        options = dataclasses.replace(options, name=options.name or name)
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary) / name
            export(self._exported(), "own", directory, options=options, place=repo_id)
            return upload(directory, repo_id, private=private, message=message)

    def _exported(self) -> Exported:
        translator: Any = self
        if len(translator.members) > 1:
            raise ConfigError("an ensemble cannot be saved as one model: save its members")
        model: Transformer | None = getattr(translator, "model", None)
        if model is None:
            raise ConfigError("the weights are another engine's: save the model that was exported to it")
        _check_as_trained(model, translator)
        checkpoint = _unchanged(model, translator.origin)
        run = None if checkpoint is None else run_of(checkpoint)
        origin = str(translator.origin or "a model in memory")
        return Exported(_config(translator), translator.tokenizer, model.eval(), origin, checkpoint, run)


def _check_as_trained(model: Transformer, translator: Any) -> None:
    """ConfigError unless a model's weights, and what it computes with them, are as its configuration says."""
    weights = [weight for weight in model.state_dict().values() if isinstance(weight, Tensor)]
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in weights}
    others = ["prepacked"] if isinstance(translator.logits, PrepackedLinear) else []
    others += [f"in {dtype}" for dtype in sorted(dtypes - {"float32"})]
    if others:
        raise ConfigError(
            f"the weights are {others[-1]}, not as they were trained: load the model with precision='fp32' and "
            "prepack=False to save it"
        )
    config: ModelConfig | None = getattr(model, "config", None)
    if config is None:
        raise ConfigError("the model does not know its configuration: make it by build_model or load_model")
    try:
        check_described(model, translator.tokenizer.sizes, config)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _config(translator: Any) -> Config:
    """The configuration with which a model was loaded, or as much as is known of one that was not."""
    model: Any = translator.model
    whole: Config | None = getattr(model, "loaded_with", None)
    if whole is None:
        longest = min(UNKNOWN_DATA.max_length, max(2, model.max_length or UNKNOWN_DATA.max_length))
        is_separate = translator.tokenizer.is_separate
        data = dataclasses.replace(UNKNOWN_DATA, max_length=longest, separate_vocabularies=is_separate)
        whole = Config(model=model.config, data=data)
    return dataclasses.replace(whole, data=_chosen(whole.data, translator), search=translator.search)


def _chosen(data: DataConfig, translator: Any) -> DataConfig:
    """The section `data` with the languages and the tag that a translator was given since."""
    languages = zip(("src_lang", "tgt_lang"), translator.languages, strict=True)
    changed: dict[str, Any] = {key: value for key, value in languages if value}
    try:
        chosen = dataclasses.replace(data, tag=translator.tag, **changed)
        if others := sorted({*data.tags, *translator.tags} - {*chosen.tags}):
            chosen = dataclasses.replace(chosen, target_tags=(*chosen.target_tags, *others))
    except ConfigError as error:
        raise ConfigError(f"the model cannot be saved with tag={translator.tag}: {error}") from None
    return chosen


def _unchanged(model: Transformer, origin: str | None) -> Path | None:
    """The checkpoint from which a model was loaded, if it still has its weights."""
    if origin is None or not (Path(origin) / "model.safetensors").is_file():
        return None
    weights = model.state_dict()
    try:
        there = load_tensors(Path(origin) / "model.safetensors", weights.keys())
    except CheckpointError:  # of a model in another format than ours
        return None
    if there.keys() != weights.keys():
        return None
    is_same = all(torch.equal(x.float(), weights[name].cpu()) for name, x in there.items())
    return Path(origin) if is_same else None

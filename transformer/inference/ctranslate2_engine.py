"""Translation by CTranslate2, behind the interface of `Translator`.

The engine searches; texts are read, limited, split and joined as everywhere. It differs from this project where
CTranslate2 does: a sentence is over as soon as `beam` hypotheses have finished, and pieces that are no outputs are left
out before the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from transformer.config import SearchConfig, load_config
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError, DeviceError, one_line
from transformer.inference.arguments import path_of
from transformer.inference.penalties import PENALTIES
from transformer.inference.sampling import Sampling
from transformer.inference.search_requests import Request
from transformer.inference.translation import Translation
from transformer.inference.translator import Translator
from transformer.interop.export import read_description
from transformer.interop.tokenizer_files import SPECIAL_PIECES, piece_names
from transformer.model.transformer import Transformer
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.integrity import sha256

NAME = "ctranslate2"
_COMPUTE_TYPES = {"auto": "default", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


class CTranslate2Translator(Translator):
    """Translates text with a directory that `transformer export RUN --to ct2` wrote.

    Args:
        directory: of the export.
        device: `auto`, `cpu` or `cuda`.
        precision: `fp32`, `bf16`, `fp16`, `int8`, or `auto`: as it was exported.

    Raises:
        CheckpointError: the directory is no such export.
        DataError: the package is not installed, or the tokenizer is damaged.
        DeviceError: CTranslate2 does not have the device or precision.
    """

    def __init__(self, directory: str | Path, *, device: str = "auto", precision: str = "auto") -> None:
        directory = Path(directory)
        described = check_export(directory)
        config = load_config(directory / "config.yaml", saved=True)
        self.tokenizer = load_tokenizer(directory, is_separate=config.data.separate_vocabularies)
        self.search, self.origin, self._directory = config.search, str(directory), directory
        self._take_languages(config.data)
        self.context = SINGLE_PROCESS
        limit = described.get("max_positions")
        self._max_length = limit if isinstance(limit, int) else config.search.max_source_length
        self._engine = _open(directory, device, precision)
        source, target = self.tokenizer.source, self.tokenizer
        self._source_names = piece_names(source, range(len(source)))
        self._ids = {name: id_ for id_, name in enumerate(piece_names(target, range(len(target))))}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        prepack: bool = True,  # noqa: ARG003
    ) -> CTranslate2Translator:
        """Load an export; arguments and errors as of the class. `prepack` changes nothing, as `prepack()`."""
        return cls(path_of(path), device=str(device), precision=precision)

    @property
    def model(self) -> Transformer:
        """AttributeError: the weights are CTranslate2's."""
        raise AttributeError("a translator of CTranslate2 has no model of this project")

    @model.setter
    def model(self, model: Transformer) -> None:  # noqa: ARG002
        raise AttributeError("a translator of CTranslate2 has no model of this project")

    def prepack(self, *, quantize: bool = False) -> None:
        """Does nothing: CTranslate2 packs its weights as it loads them."""

    @property
    def device(self) -> torch.device:
        return torch.device(self._engine.device)

    @property
    def precision(self) -> str:
        """What it computes in, such as `float32` or `int8_float32`."""
        return str(self._engine.compute_type)

    @property
    def max_length(self) -> int:
        return self._max_length

    def identity(self) -> dict[str, object]:
        """Fingerprints and settings on which the translations of a text depend."""
        weights = sha256(self._directory / "model.bin")
        return {"engine": NAME, "weights": weights, "precision": self.precision} | self._settings()

    def _search(
        self, batch: Sequence[Request], search: SearchConfig, nbest: int, sampling: Sampling | None, token_scores: bool
    ) -> list[list[Translation]]:
        _check_able(batch, search, sampling, token_scores=token_scores)
        sources = [self._named(request.source.ids) for request in batch]
        return self._translate(sources, [request.limit for request in batch], search, nbest)

    def _named(self, ids: Sequence[int]) -> list[str]:
        """The pieces of a source, without </s>, which CTranslate2 adds."""
        return [self._source_names[id_] for id_ in ids[:-1]]

    def _translate(
        self, sources: Sequence[Sequence[str]], limits: Sequence[int], search: SearchConfig, nbest: int
    ) -> list[list[Translation]]:
        """Translations of sources, each with the limit of its outputs."""
        # Without a penalty, more hypotheses than wanted would change when the search is over.
        is_cheap = search.beam == 1 or _has_penalty(search)
        results = self._within(sources, limits, search, search.beam if is_cheap else nbest)
        if not is_cheap:  # those that were cut at the limit come after all that finished, also those not asked for
            cut = [i for i, one in enumerate(results) if not all(map(_is_finished, one))]
            again = self._within([sources[i] for i in cut], [limits[i] for i in cut], search, search.beam)
            for i, one in zip(cut, again, strict=True):
                results[i] = one
        return [_distinct(sorted(one, key=lambda x: (not _is_finished(x), -x.score)))[:nbest] for one in results]

    def _within(
        self, sources: Sequence[Sequence[str]], limits: Sequence[int], search: SearchConfig, num_hypotheses: int
    ) -> list[list[Translation]]:
        """So many hypotheses of each source, none longer than its limit.

        CTranslate2 has one limit for all sources of a call: the largest. A search is the same under any limit that its
        hypotheses do not reach; only sources of which one is longer than its own limit are searched again, under that.
        """
        results: list[list[Translation]] = [[] for _ in sources]
        pending, limit = list(range(len(sources))), max(limits, default=0)
        while pending:
            options = _options(search, limit) | {"num_hypotheses": num_hypotheses}
            found = self._engine.translate_batch([sources[i] for i in pending], **options)
            for i, one in zip(pending, found, strict=True):
                results[i] = self._hypotheses(one, search)
            late = [i for i in range(len(sources)) if any(len(one.ids) > limits[i] for one in results[i])]
            limit = max((limits[i] for i in late), default=0)
            pending = [i for i in late if limits[i] == limit]
        return results

    def _hypotheses(self, found: Any, search: SearchConfig) -> list[Translation]:
        """The hypotheses of a source; scores are CTranslate2's, by this project's penalty for greedy search."""
        ids = [[self._ids[name] for name in names] for names in found.hypotheses]
        penalty, translations = PENALTIES[search.length_penalty], []
        for text, one, score in zip(self._texts(ids), ids, found.scores, strict=True):
            divisor = penalty(len(one), search.alpha)
            log_prob = score if search.beam == 1 else score * divisor
            translations.append(Translation(text, log_prob / divisor, log_prob, tuple(one)))
        return translations


def check_export(directory: Path) -> dict[str, object]:
    """What an export says of itself. CheckpointError if a directory is none for CTranslate2."""
    described = read_description(directory)
    if described.get("format") != "ct2" or not (directory / "model.bin").is_file():
        raise CheckpointError(
            f"{directory}: is not a model for CTranslate2; write one: transformer export RUN --to ct2 --output DIR"
        )
    return described


def _open(directory: Path, device: str, precision: str) -> Any:
    """CTranslate2's own translator."""
    try:
        import ctranslate2
    except ImportError:
        raise DataError(
            "the engine ctranslate2 is not installed: pip install 'attention-is-all-you-need[ctranslate2]'"
        ) from None
    if precision not in _COMPUTE_TYPES:
        raise DeviceError(f"precision={precision}: the engine {NAME} has {', '.join(_COMPUTE_TYPES)}")
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device={device}: the engine {NAME} has auto, cpu and cuda")
    options = {"compute_type": _COMPUTE_TYPES[precision], "inter_threads": 1, "intra_threads": torch.get_num_threads()}
    try:
        return ctranslate2.Translator(str(directory), device=device, **options)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"{directory}: the engine {NAME} cannot load it: {one_line(str(error))}") from None


def check_search(search: SearchConfig) -> None:
    """ConfigError for a search that CTranslate2 does not have."""
    if search.beam > 1 and search.alpha and search.length_penalty == "gnmt":
        raise ConfigError(
            f"length_penalty=gnmt with alpha={search.alpha:g}: the engine {NAME} divides log P by |Y|^alpha: choose "
            "--length-penalty power, or none, or --beam 1"
        )


def _check_able(
    batch: Sequence[Request], search: SearchConfig, sampling: Sampling | None, *, token_scores: bool
) -> None:
    """ConfigError for what only this project's own search does."""
    check_search(search)
    given: Mapping[str, bool] = {
        "samples": sampling is not None,
        "scores of tokens": token_scores,
        "prefixes": any(request.prefix for request in batch),
        "constraints": any(request.phrases for request in batch),
    }
    for what, is_given in given.items():
        if is_given:
            raise ConfigError(f"{what}: the engine {NAME} has none; leave --engine out")


def _options(search: SearchConfig, limit: int) -> dict[str, Any]:
    """The search in CTranslate2's words."""
    forbidden: dict[str, Any] = {}
    if not search.allow_unknown:
        forbidden = {"disable_unk": True, "suppress_sequences": [[SPECIAL_PIECES[id_]] for id_ in (PAD_ID, BOS_ID)]}
    return {
        "beam_size": search.beam,
        "length_penalty": search.alpha if _has_penalty(search) else 0.0,
        "max_decoding_length": limit,  # with </s>, as here
        "min_decoding_length": max(0, min(search.min_length, limit) - 1),  # without
        "no_repeat_ngram_size": search.no_repeat_ngram,
        "max_input_length": 0,  # which would cut the source without a word
        "return_end_token": True,  # so that the length of a hypothesis counts it
        "return_scores": True,
        **forbidden,
    }


def _has_penalty(search: SearchConfig) -> bool:
    return search.beam > 1 and search.length_penalty == "power" and search.alpha > 0


def _is_finished(translation: Translation) -> bool:
    return translation.ids[-1:] == (EOS_ID,)


def _distinct(translations: Sequence[Translation]) -> list[Translation]:
    """The first of each text."""
    found: dict[str, Translation] = {}
    for one in translations:
        found.setdefault(one.text, one)
    return list(found.values())

"""A model of Marian as one of ours, whatever format it was read from.

Ids of ours are 0 for padding, 1 unknown, 2 <s>, 3 </s>, then all others in Marian's order. Marian's `<pad>` starts the
decoder, so it is our <s>; our padding is a row of zeros that Marian does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from transformer.config import Config, DataConfig, ModelConfig, SearchConfig
from transformer.data.languages import UNKNOWN_LANGUAGE
from transformer.data.sentencepiece_model import read_pieces
from transformer.data.tokenizer import BOS_ID, PAD_ID, Tokenizer, load_processor
from transformer.data.vocabulary_tokenizer import VocabularyTokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.interop.marian_weights import (
    OUTPUT_BIAS,
    SHARED,
    SOURCE,
    TARGET,
    Sizes,
    layer_names,
    to_marian,
    to_ours,
)
from transformer.model.alternatives.build import build_model
from transformer.sections.types import NormalizationRule, TokenizerType

UNKNOWN_CORPUS = "unknown"  # `data.corpus` of imported models: no format says what they were trained on
# The section `data` of a model of which nothing else is known: its defaults would say that it is of WMT 2014.
UNKNOWN_DATA = DataConfig(corpus=UNKNOWN_CORPUS, subset=None, src_lang=UNKNOWN_LANGUAGE, tgt_lang=UNKNOWN_LANGUAGE)
NORM_EPS = 1e-5  # in all of Marian's models, by Hugging Face and CTranslate2; no format says it
LONGEST_SOURCE = 512  # pieces of input, </s> included, of all of OPUS-MT's models
_SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
# The output bias of ids that are never an output. Marian leaves them out of the softmax; its exponential is 0 there,
# and it is small enough for the mean logit of label smoothing.
_NEVER = -100.0
_CODE = re.compile(r">>[^\s<>▁▅]+<<")


class Vocabulary(NamedTuple):
    """The pieces of a side by Marian's ids, and which of them are special."""

    pieces: Sequence[str]
    unknown: int
    end: int
    start: int
    padding: int | None  # None if that is the start

    def order(self) -> list[int]:
        """Marian's id of each of ours; -1 for the padding that it does not have."""
        special = [-1 if self.padding is None else self.padding, self.unknown, self.start, self.end]
        return [*special, *sorted({*range(len(self.pieces))} - {*special})]

    def our_pieces(self) -> list[str]:
        """The pieces by our ids."""
        return [*_SPECIALS, *(self.pieces[id_] for id_ in self.order()[len(_SPECIALS) :])]


@dataclass(frozen=True)
class MarianModel:
    """What a reader finds.

    Attributes:
        name: where it was read, for messages.
        tensors: by Hugging Face's names, with `model.shared.weight` or a matrix per side.
        model: keys of our section `model`, without those that weights tell.
        vocabularies: of source and target; twice the same if the matrix is of both.
        sentencepiece: the models of source and target.
        languages: codes of source and target.
        search: keys of our section `search`.
        notes: what a user should know, such as settings that are not taken over.
    """

    name: str
    tensors: dict[str, Tensor]
    model: dict[str, Any]
    vocabularies: tuple[Vocabulary, Vocabulary]
    sentencepiece: tuple[bytes, bytes]
    languages: tuple[str, str] = (UNKNOWN_LANGUAGE, UNKNOWN_LANGUAGE)
    search: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_shared(self) -> bool:
        """Whether one matrix is of both sides."""
        return SHARED in self.tensors

    @property
    def _codes(self) -> tuple[str, ...]:
        """The codes of languages that its sources may begin with."""
        return tuple(sorted({piece for piece in self.vocabularies[0].pieces if _CODE.fullmatch(piece)}))

    @property
    def messages(self) -> list[str]:
        """What a user should know: the notes, and how the only code of a language is used."""
        codes = self._codes
        if len(codes) != 1:
            return [*self.notes]
        how = f"if the model's card begins texts with it, choose it by --target-language {codes[0].strip('<>')}"
        return [
            *self.notes,
            f"its vocabulary has one code of a language, {codes[0]}, and texts are read without: {how}",
        ]

    def to_checkpoint(self) -> tuple[Config, Tokenizer, dict[str, Tensor]]:
        """The parts of a checkpoint of ours. CheckpointError if the model's parts do not fit each other."""
        try:
            ModelConfig(**self.model)  # its limits, before anything is made of its sizes
            weights = self._weights()
            tokenizer = self._tokenizer()
            config = self._config(weights, tokenizer)
        except (ConfigError, DataError) as error:
            raise CheckpointError(f"{self.name}: {error}") from None
        except KeyError as error:
            raise CheckpointError(f"{self.name}: the weight {error.args[0]} is missing") from None
        return config, tokenizer, weights

    def _weights(self) -> dict[str, Tensor]:
        tensors, num_layers = dict(self.tensors), self.model["num_layers"]
        sizes = Sizes(num_layers, self.model["num_decoder_layers"] or num_layers)
        if others := sorted(tensors.keys() - {*layer_names(sizes).values(), *_matrices(self.is_shared), OUTPUT_BIAS}):
            raise CheckpointError(f"{self.name}: has the weight {others[0]}, which no model of this kind has")
        for name, vocabulary in zip(_matrices(self.is_shared), self.vocabularies, strict=False):
            tensors[name] = self._rows(name, tensors[name], vocabulary)
        target = self.vocabularies[1]
        bias = self._rows(OUTPUT_BIAS, tensors[OUTPUT_BIAS].flatten(), target)  # (V,)
        if target.padding is None:
            bias[[PAD_ID, BOS_ID]] = _NEVER
        tensors[OUTPUT_BIAS] = bias[None]
        self._check(tensors, sizes)
        weights = to_ours(tensors, sizes)
        # Of a model of ours that was exported: what it does not have is zero throughout.
        if not bias.any():
            del weights["embedding.output_bias"]
        biases = [name for name in weights if "attention" in name and name.endswith(".bias")]
        if not any(weights[name].any() for name in biases):
            weights = {name: weight for name, weight in weights.items() if name not in biases}
        return weights

    def _tokenizer(self) -> Tokenizer:
        source, target = self.sentencepiece
        sides = [vocabulary.our_pieces() for vocabulary in self.vocabularies]
        for side, model, pieces in zip(("source", "target"), self.sentencepiece, sides, strict=True):
            load_processor(model)  # DataError if it is none
            own, known = [piece.text for piece in read_pieces(model)], {*pieces}
            if 2 * sum(piece in known for piece in own) < len(own):
                raise DataError(f"most pieces of {side}.spm are not in the vocabulary: it is of another model")
        if self.is_shared:
            return _plain(target, sides[1], source) or VocabularyTokenizer(
                VocabularyTokenizer.pack(target, sides[1], None if source == target else source)
            )
        tokenizers = [
            _plain(model, pieces, model) or VocabularyTokenizer(VocabularyTokenizer.pack(model, pieces))
            for model, pieces in zip(self.sentencepiece, sides, strict=True)
        ]
        tokenizers[1].source = tokenizers[0]
        return tokenizers[1]

    def _config(self, weights: dict[str, Tensor], tokenizer: Tokenizer) -> Config:
        model = ModelConfig(
            **self.model,
            attention_bias="encoder.layers.0.self_attention.w_q.bias" in weights,
            output_bias="embedding.output_bias" in weights,
            norm_eps=NORM_EPS,
            tie="all" if self.is_shared else "decoder",
        )
        values: dict[str, Any] = {"vocab_size": len(tokenizer), "source_vocab_size": tokenizer.sizes[1]}
        kinds = {
            "tokenizer_type": (tokenizer.type, TokenizerType),
            "normalization": (tokenizer.normalization, NormalizationRule),
        }
        values |= {key: value for key, (value, known) in kinds.items() if value in get_args(known)}
        data = DataConfig(
            corpus=UNKNOWN_CORPUS,
            subset=None,
            src_lang=self.languages[0],
            tgt_lang=self.languages[1],
            target_tags=self._codes,
            separate_vocabularies=tokenizer.is_separate,
            **values,
        )
        return Config(run_dir="runs/imported", model=model, data=data, search=SearchConfig(**self.search))

    def _rows(self, name: str, weight: Tensor, vocabulary: Vocabulary) -> Tensor:
        """The rows of a weight in our order; zeros for those that Marian does not have."""
        num_rows = weight.size(0) if weight.dim() else 0
        if num_rows != len(vocabulary.pieces):
            raise CheckpointError(f"{self.name}: {name} has {num_rows} rows for {len(vocabulary.pieces)} pieces")
        index = torch.tensor(vocabulary.order())
        found = weight[index.clamp(min=0)]
        found[index < 0] = 0
        return found

    def _check(self, tensors: dict[str, Tensor], sizes: Sizes) -> None:
        """CheckpointError for a weight of another shape, or one that is not a number; KeyError for a missing one."""
        tie: Any = "all" if self.is_shared else "decoder"
        model = ModelConfig(**self.model, attention_bias=True, output_bias=True, tie=tie)
        source, target = (len(vocabulary.order()) for vocabulary in self.vocabularies)
        with torch.device("meta"):
            empty = build_model(target, model, source_vocab_size=None if self.is_shared else source)
        for name, expected in to_marian(empty.state_dict(), sizes).items():
            found = tensors[name]
            if found.shape != expected.shape:
                raise CheckpointError(
                    f"{self.name}: {name} has shape {tuple(found.shape)}, but its configuration requires "
                    f"{tuple(expected.shape)}"
                )
            if not found.is_floating_point() or not found.isfinite().all():
                raise CheckpointError(f"{self.name}: {name} contains values that are no finite numbers")


def sizes_of(values: Mapping[str, Any], names: Mapping[str, str], file: str) -> dict[str, Any]:
    """Keys of our model from theirs, such as `{"d_model": "dim-emb"}`. CheckpointError for one that is not an int."""
    for name in names.values():
        if type(values.get(name)) is not int:
            raise CheckpointError(f"{file}: {name}={values.get(name)!r} must be a whole number")
    keys = {ours: values[theirs] for ours, theirs in names.items()}
    is_equal = keys["num_decoder_layers"] == keys["num_layers"]
    return keys | {"num_decoder_layers": None} if is_equal else keys


def as_float(number: float) -> float:
    """A float; one out of all ranges for whole numbers that are too large for it."""
    return float(max(-1e300, min(number, 1e300)))


def _matrices(is_shared: bool) -> tuple[str, ...]:
    return (SHARED,) if is_shared else (SOURCE, TARGET)


def _plain(model: bytes, pieces: Sequence[str], other: bytes) -> Tokenizer | None:
    """The SentencePiece model as it is, if its ids are those of the vocabulary: of a model of ours."""
    try:
        tokenizer = Tokenizer(model)
    except DataError:  # with other special ids
        return None
    own = tokenizer.pieces(range(len(tokenizer)))
    is_same = len(own) == len(pieces) and own[len(_SPECIALS) :] == list(pieces[len(_SPECIALS) :])
    return tokenizer if is_same and model == other else None

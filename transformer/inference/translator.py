"""Text in, text out: a trained model with its tokenizer and search."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transformer.config import SearchConfig
from transformer.data.batching import pad
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.errors import CheckpointError, DataError, DeviceError
from transformer.inference.bleu import score
from transformer.inference.prepared import (
    PreparedLinear,
    QuantizedLinear,
    can_prepare,
    can_quantize,
    prepare_linears,
)
from transformer.inference.search import Hypothesis, beam_search, greedy_search
from transformer.model.decoder import DecoderState
from transformer.model.transformer import AttentionMaps, Transformer
from transformer.training.checkpoint import load_checkpoint
from transformer.training.distributed import ALONE, World
from transformer.training.precision import resolve_device, resolve_dtype
from transformer.training.run import find_checkpoint


@dataclass(frozen=True)
class Translation:
    """One translation of a sentence; `score` is log P over the length penalty, in nats."""

    text: str
    score: float
    log_prob: float


class Translator:
    """Translates text with a model.

    Args:
        model: on its device and in its precision; put into `eval` mode.
        tokenizer: the one that the model was trained with.
        search: defaults for the arguments of `translate`.

    Attributes:
        logits: `Transformer.logits` of the model, or the same with prepared weights.
        world: processes that share the batches of each translation; all of them call for it, and all get it.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, search: SearchConfig | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.search = SearchConfig() if search is None else search
        self.logits: Callable[[Tensor], Tensor] = model.logits
        self.world = ALONE

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", precision: str = "auto") -> Translator:
        """Load a run directory, a checkpoint directory or a Hugging Face hub id.

        Of a run, its averaged checkpoint is taken, else its best, else its last.

        Args:
            path: where the model is.
            device: `auto`, `cpu` or `cuda`.
            precision: `fp32`, `bf16` or `auto`: bf16 where the hardware multiplies it; or `int8`, on CPUs only: as
                `auto`, but for products of 8-bit integers.

        Raises:
            CheckpointError: there is no such directory or hub model, or its weights are damaged.
            DataError: its tokenizer is damaged.
            DeviceError: there is no such device, or it has no products of 8-bit integers.
        """
        config, tokenizer, model = load_checkpoint(find_checkpoint(_local_directory(path)))
        where = resolve_device(device)
        translator = cls(model.to(where, resolve_dtype(precision, where)), tokenizer, config.search)
        translator.prepare(quantize=precision == "int8")
        return translator

    def prepare(self, *, quantize: bool = False) -> None:
        """On a CPU, lay the model's weights out for fast products; from then on they must not change or move.

        `load` has done so. Takes the memory of the weights once more; with `quantize`, which multiplies 8-bit integers,
        a byte a weight. DeviceError where there are no products of these.
        """
        output_matrix = self.model.embeddings.output_matrix
        if quantize and not can_quantize(output_matrix):
            raise DeviceError(
                f"precision=int8: not with device={output_matrix.device.type} and torch {torch.__version__}; "
                "use auto, fp32 or bf16"
            )
        if can_prepare(output_matrix):
            linear = QuantizedLinear if quantize else PreparedLinear
            prepare_linears(self.model, linear)
            self.logits = linear(output_matrix)

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam: int | None = None,
        alpha: float | None = None,
        max_extra: int | None = None,
        batch_tokens: int = 4096,
    ) -> list[str]:
        """The best translation of each text, in order; an empty text translates to an empty text.

        Args:
            texts: one sentence each.
            beam: beam size; 1 is greedy. By default the run's `search.beam`, and likewise below.
            alpha: of the length penalty.
            max_extra: a translation, </s> included, may be this many pieces longer than its source.
            batch_tokens: source pieces searched at a time, padding included; changes speed and memory only.

        Raises:
            DataError: a text has more pieces than `search.max_source_length` or than the model has positions.
            TypeError: `texts` is one string.
        """
        found = self.translate_nbest(
            texts, nbest=1, beam=beam, alpha=alpha, max_extra=max_extra, batch_tokens=batch_tokens
        )
        # A model whose weights are no numbers finds nothing.
        return [nbest[0].text if nbest else "" for nbest in found]

    def translate_nbest(
        self,
        texts: Sequence[str],
        *,
        nbest: int,
        beam: int | None = None,
        alpha: float | None = None,
        max_extra: int | None = None,
        batch_tokens: int = 4096,
        first_number: int = 1,
    ) -> list[list[Translation]]:
        """Per text its `nbest` best translations, best first; arguments and errors as of `translate`.

        Fewer come back only where the search found fewer. Errors count the texts from `first_number`. ValueError if
        `nbest` is more than `beam`.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of sentences, not one string")
        beam = self.search.beam if beam is None else beam
        alpha = self.search.alpha if alpha is None else alpha
        max_extra = self.search.max_extra if max_extra is None else max_extra
        if not 1 <= nbest <= beam:
            raise ValueError(f"nbest={nbest} must be between 1 and beam={beam}")
        results = [[Translation("", 0.0, 0.0)] * nbest for _ in texts]
        sources = self._encode(texts, first_number)
        mine: dict[int, list[Translation]] = {}
        for indices in self.world.share(list(_batches(sources, batch_tokens))):
            hypotheses = self._search([sources[i] for i in indices], beam, alpha, max_extra, nbest)
            for i, found in zip(indices, hypotheses, strict=True):
                decoded = self.tokenizer.decode([hypothesis.ids for hypothesis in found])
                mine[i] = [
                    Translation(" ".join(text.split("\n")), hypothesis.score, hypothesis.log_prob)
                    for text, hypothesis in zip(decoded, found, strict=True)
                ]
        for part in self.world.gather(mine):
            for i, nbest_of_text in part.items():
                results[i] = nbest_of_text
        return results

    def check(self, texts: Sequence[str], *, first_number: int = 1) -> None:
        """DataError, as of `translate_nbest`, if there is a text that cannot be translated."""
        self._encode(texts, first_number)

    def fits(self, text: str) -> bool:
        """Whether a text is short enough to be translated."""
        return len(self.tokenizer.encode([text])[0]) < self._source_limit()

    def identity(self) -> dict[str, object]:
        """By name, all that shapes a translation but its text: fingerprints of weights and pieces, and settings."""
        weights = hashlib.sha256()
        for name, weight in self.model.state_dict().items():
            weights.update(name.encode())
            weights.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return {
            "weights": weights.hexdigest(),
            "tokenizer": hashlib.sha256(self.tokenizer.model).hexdigest(),
            "precision": "int8" if isinstance(self.logits, QuantizedLinear) else str(weight.dtype).split(".")[-1],
            "beam": self.search.beam,
            "alpha": self.search.alpha,
            "max_extra": self.search.max_extra,
        }

    @torch.no_grad()
    def attention(self, text: str, translation: str | None = None) -> tuple[list[str], list[str], AttentionMaps]:
        """Source pieces, target pieces (inputs of the decoder, from <s>) and the weights of all heads between them.

        Without `translation`, the model's own is looked at. DataError if the text is empty or has too many pieces.
        """
        (src,) = self._encode([text])
        if not src:
            raise DataError("the sentence is empty: there is nothing to attend to")
        if translation is None:
            (translation,) = self.translate([text])
        tgt = [BOS_ID, *self.tokenizer.encode([translation])[0]][: self._position_limit()]
        maps = self.model.attention_maps(self._tensor([src]), self._tensor([tgt]))
        return self.tokenizer.pieces(src), self.tokenizer.pieces(tgt), maps

    def _search(
        self, sources: list[list[int]], beam: int, alpha: float, max_extra: int, nbest: int
    ) -> list[list[Hypothesis]]:
        with torch.no_grad():
            state = self.model.encode(self._tensor(sources))
        limit = self._position_limit()
        # Without </s>: the input's length is that of its text.
        max_lengths = [max(1, min(len(src) - 1 + max_extra, limit)) for src in sources]
        device = self.model.embeddings.source_weight.device
        if beam == 1:
            greedy = greedy_search(
                self._decode, state, max_lengths, bos_id=BOS_ID, eos_id=EOS_ID, alpha=alpha, device=device
            )
            return [[hypothesis] for hypothesis in greedy]
        return beam_search(
            self._decode,
            state,
            max_lengths,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            beam=beam,
            alpha=alpha,
            nbest=nbest,
            device=device,
        )

    def _decode(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        hidden, state = self.model.decode(tokens[:, None], state)
        return self.logits(hidden[:, -1]), state

    def _encode(self, texts: Sequence[str], first_number: int = 1) -> list[list[int]]:
        """Source ids with </s>; none at all for a text without content."""
        limit = self._source_limit()
        sources = [[*ids, EOS_ID] if ids else [] for ids in self.tokenizer.encode(texts)]
        for number, src in enumerate(sources, start=first_number):
            if len(src) > limit:
                raise DataError(f"sentence {number} has {len(src)} pieces, more than the limit of {limit}: split it")
        return sources

    def _source_limit(self) -> int:
        """The most pieces of a source, </s> included."""
        return min(self.search.max_source_length, self._position_limit())

    def _position_limit(self) -> int:
        return self.model.max_length or 1 << 30

    def _tensor(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        return pad(sentences).to(self.model.embeddings.source_weight.device)


def _batches(sources: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of non-empty sources, longest first, in batches of at most `batch_tokens` padded ids."""
    order = sorted((i for i, src in enumerate(sources) if src), key=lambda i: -len(sources[i]))
    while order:
        size = max(1, batch_tokens // len(sources[order[0]]))
        yield order[:size]
        order = order[size:]


def _local_directory(path: str | Path) -> Path:
    """The path itself, or of a hub id the directory that the model was downloaded to."""
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(path)) and not Path(path).parent.is_dir()
    if not is_hub_id:
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        files = ["config.yaml", "tokenizer.model", "model.safetensors"]
        return Path(snapshot_download(str(path), allow_patterns=files))
    except Exception as error:  # the hub raises whatever its network library raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: no such directory, and no such model on the hub ({type(error).__name__}: {reason})"
        ) from None


def greedy_bleu(
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    references: Sequence[str],
    world: World = ALONE,
) -> float:
    """sacreBLEU of greedy translations, cheap enough to follow training with. Leaves the model in `eval` mode.

    Length limits are the defaults of `SearchConfig`. A source that is too long counts as translated by nothing: it is
    no reason to end a training run.
    """
    translator = Translator(model, tokenizer)
    translator.world = world
    fitting = [source if translator.fits(source) else "" for source in sources]
    return score(translator.translate(fitting, beam=1), references).bleu

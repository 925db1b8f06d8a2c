"""Text in, text out: a trained model with its tokenizer and search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.config import SearchConfig, override
from transformer.data.batching import pad
from transformer.data.tags import language_of, tag_of_language
from transformer.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from transformer.errors import ConfigError
from transformer.inference.arguments import check_count, check_fit, check_precision, device_of, path_of, text_list
from transformer.inference.exchange import to_device
from transformer.inference.hypotheses import Hypothesis
from transformer.inference.phrases import TextConstraints
from transformer.inference.prepacked import PrepackedLinear, precision_of, prepack_model, ready_model
from transformer.inference.pretrained import Pretrained
from transformer.inference.sampling import Sampling
from transformer.inference.search_requests import Request, Wanted, batches_of, search_batch, settings_of
from transformer.inference.sentences import separator
from transformer.inference.sources import InputNotes, SourceReader, TooLong
from transformer.inference.token_scores import token_log_probs
from transformer.inference.translation import Translation, join_best, join_samples
from transformer.model.transformer import Transformer
from transformer.training.checkpoint import load_checkpoint, locate_checkpoint
from transformer.training.device import resolve_dtype
from transformer.training.distributed import SINGLE_PROCESS
from transformer.training.integrity import digest_of_tensors

__all__ = ["Translation", "Translator"]


class Translator(Pretrained):
    """Translates text with a model.

    Args:
        model: on its device and in its precision; put into `eval` mode.
        tokenizer: the one that the model was trained with.
        search: defaults for the arguments of `translate`.

    Attributes:
        logits: `Transformer.logits` of the model, or the same with prepacked weights.
        context: the processes that share the batches of each translation; all call for it, and all get it.
        origin: where `load` found the model: a checkpoint directory, or a hub id with its commit.
        languages: codes of source and target, by which sentences are split and joined.
        tag, tags: the piece before each source, such as `<2de>`, or None; and all that the model was trained with.
        needs_tag: whether each text must have one, as in multilingual models; `choose_language` sets it.
        too_long, split_sentences: defaults for the arguments of `translate`.
        notes: if set, counts the texts that a user should know of, such as copied ones.
        progress: called with the number of texts of each batch that is done, of all processes.

    Raises:
        DataError: model and tokenizer have different numbers of pieces.
    """

    origin: str | None = None
    too_long: TooLong = "error"
    split_sentences: bool = False
    notes: InputNotes | None = None
    progress: Callable[[int], None] | None = None

    def __init__(self, model: Transformer, tokenizer: Tokenizer, search: SearchConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.search = SearchConfig() if search is None else search
        self.context = SINGLE_PROCESS

    @property
    def model(self) -> Transformer:
        """The model. Another one that is set is used as it is; DataError as of the class."""
        return self._model

    @model.setter
    def model(self, model: Transformer) -> None:
        check_fit(model, self.tokenizer)
        self._model = model.eval()
        self.logits: Callable[[Tensor], Tensor] = model.logits

    @classmethod
    def load(
        cls, path: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", prepack: bool = True
    ) -> Translator:
        """Load a run, a checkpoint, a Hugging Face hub id or a Marian model (docs/INTEROP.md).

        Of a run, its averaged checkpoint is preferred, then its best, then its last; of a hub id `owner/name@revision`
        without a revision, the newest commit. `origin` says which it is.

        Args:
            device: `auto`, `cpu`, `cuda`, one of several as `cuda:1`, or `mps`.
            precision: `fp32`, `tf32`, `bf16`, `fp16`, `int8` (on CPUs: 8-bit products, the rest as `auto`), or `auto`:
                bf16 where the hardware multiplies it.
            prepack: on a CPU, pack and freeze the weights (`Translator.prepack`); `load_model` gives a trainable model.

        Raises:
            CheckpointError: there is no such directory or hub model, its weights are damaged, or one of its files is a
                link to elsewhere.
            DataError: its tokenizer is damaged.
            DeviceError: there is no such device or precision, or the device does not multiply 8-bit integers.
        """
        check_precision(precision)
        where = device_of(device)
        checkpoint, origin = locate_checkpoint(path_of(path))
        config, tokenizer, model = load_checkpoint(checkpoint)
        translator = cls(model.to(where, resolve_dtype(precision, where)), tokenizer, config.search)
        if prepack or precision == "int8":
            translator.prepack(quantize=precision == "int8")
        translator.origin = origin
        translator._take_languages(config.data)
        return translator

    def prepack(self, *, quantize: bool = False) -> None:
        """On a CPU, pack the model's weights for fast products, in memory of their own, and freeze them.

        With `quantize` they become 8-bit integers, one byte per weight; DeviceError if this machine cannot.
        RuntimeError if the model is prepacked already, or was compiled before.
        """
        if isinstance(self.logits, PrepackedLinear):
            raise RuntimeError("the model is prepacked already")
        self.logits = prepack_model(self.model, quantize=quantize) or self.logits

    def choose_language(self, language: str) -> None:
        """Translate into one of several languages, such as `deu` or `de`. ConfigError if it is none of the model's.

        A model of one language keeps to it.
        """
        if (tag := tag_of_language(language, self.tags, self.languages[1])) is not None:
            self.tag, self.languages = tag, (self.languages[0], language_of(tag))

    def translate(
        self,
        texts: Iterable[str],
        *,
        beam: int | None = None,
        alpha: float | None = None,
        max_length_offset: int | None = None,
        max_source_length: int | None = None,
        too_long: TooLong | None = None,
        split_sentences: bool | None = None,
        batch_tokens: int = 4096,
        prefixes: Iterable[str] | None = None,
        constraints: TextConstraints | None = None,
        sampling: Sampling | None = None,
        **search: Any,
    ) -> list[str]:
        """The best translation of each text, in order.

        An empty text translates to an empty text. A text of which the tokenizer knows no word is copied.

        Args:
            beam: beam size; 1 is greedy. By default the run's `search.beam`, and likewise below.
            alpha: of the length penalty.
            max_length_offset: a translation, </s> included, may be this many pieces longer than its source.
            max_source_length: the most pieces of a text, </s> included; the model may have fewer positions.
            too_long: what becomes of a longer text: `error`, `truncate` (the rest is lost) or `split`: its parts, cut
                between sentences if possible, are translated and joined.
            split_sentences: translate the sentences of a text one by one and join them; needs the package `sentencex`.
            batch_tokens: source pieces searched at a time, padding included; changes speed and memory only.
            prefixes: for each text the beginning of its translation, possibly empty; it is completed, from its last
                piece on. Texts that are empty or copied have none; in a text of several parts, the first that is
                translated has it, after any that is copied.
            constraints: for each text a list of phrases that its translation must contain, each from the beginning of a
                word; one that is given twice, twice. Where rules leave no such translation, it is empty.
            sampling: draw translations from the model's distribution instead of searching for the best.
            search: other keys of the section `search`, such as `no_repeat_ngram`.

        Raises:
            ConfigError: an argument is out of its range, which is that of the key `search` has for it.
            DataError: a text or a prefix is too long, a prefix has unknown characters, there are more or fewer prefixes
                than texts, constraints cannot be met, or `sentencex` is not installed.
            TypeError: `texts` is one string, or one of them is not text; likewise `prefixes` and phrases.
        """
        found = self.translate_nbest(
            texts,
            nbest=1,
            beam=beam,
            alpha=alpha,
            max_length_offset=max_length_offset,
            max_source_length=max_source_length,
            too_long=too_long,
            split_sentences=split_sentences,
            batch_tokens=batch_tokens,
            prefixes=prefixes,
            constraints=constraints,
            sampling=sampling,
            **search,
        )
        return [nbest[0].text for nbest in found]

    def translate_nbest(
        self,
        texts: Iterable[str],
        *,
        nbest: int,
        max_source_length: int | None = None,
        too_long: TooLong | None = None,
        split_sentences: bool | None = None,
        batch_tokens: int = 4096,
        prefixes: Iterable[str] | None = None,
        constraints: TextConstraints | None = None,
        sampling: Sampling | None = None,
        first_number: int = 1,
        token_scores: bool = False,
        **search: Any,
    ) -> list[list[Translation]]:
        """Per text its `nbest` best distinct translations, best first; otherwise as `translate`.

        Fewer come back only where the search found fewer: of a text that is empty or copied one, with score 0. Scores
        and log P of parts that are translated apart add up, and the best of all combinations are taken. With
        `sampling`, these are always `nbest` samples as drawn, which may repeat. ConfigError if `nbest` is more than
        `beam`.

        Args:
            first_number: of the texts, for errors and for the seed of their samples.
            token_scores: also give log P of each piece, which takes as many more steps.
        """
        texts = text_list(texts, first_number=first_number)
        settings = override(self.search, **search)
        if sampling is not None and constraints is not None:
            raise ConfigError("constraints and sampling exclude each other: samples are not steered to phrases")
        check_count("nbest", nbest, *((settings.beam, "beam") if sampling is None else ()))
        check_count("batch_tokens", batch_tokens)
        reader = self.source_reader(max_source_length, too_long, split_sentences)
        wanted = Wanted(texts, prefixes, constraints, first_number)
        requests_of_texts = wanted.requests(reader, self.tokenizer, settings, self.max_length)
        requests = [request for requests_of_text in requests_of_texts for request in requests_of_text]
        mine: dict[int, list[Translation]] = {}
        # With samples, about as many rows at a time as with a beam of 4.
        budget = batch_tokens if sampling is None else batch_tokens * 4 // max(4, nbest)
        for indices in self.context.shard(list(batches_of(requests, budget))):
            found = self._search([requests[i] for i in indices], settings, nbest, sampling, token_scores)
            mine |= zip(indices, found, strict=True)
            if self.progress is not None:
                self.progress(len(indices) * self.context.size)  # the others have done about as many
        results = {i: found for part in self.context.all_gather(mine) for i, found in part.items()}
        found_of_requests = (results.get(i) or [Translation(x.source.output, 0.0, 0.0)] for i, x in enumerate(requests))
        join, space = (join_best if sampling is None else join_samples), separator(self.languages[1])
        return [join([next(found_of_requests) for _ in x], nbest, space) for x in requests_of_texts]

    def check(
        self,
        texts: Sequence[str],
        prefixes: Sequence[str] | None = None,
        constraints: TextConstraints | None = None,
        *,
        first_number: int = 1,
    ) -> None:
        """Read texts without translating them. DataError for one that `translate` would refuse."""
        wanted = Wanted(text_list(texts, first_number=first_number), prefixes, constraints, first_number)
        wanted.requests(self.source_reader(), self.tokenizer, self.search, self.max_length)

    def source_reader(
        self,
        max_source_length: int | None = None,
        too_long: TooLong | None = None,
        split_sentences: bool | None = None,
    ) -> SourceReader:
        """What `translate` reads texts with, to check them before; arguments and errors as there."""
        chosen = override(self.search, max_source_length=max_source_length).max_source_length
        limit = min(chosen, self.max_length)
        is_split = self.split_sentences if split_sentences is None else split_sentences
        if is_split not in (True, False):  # text such as "no" would count as true
            raise ConfigError(f"split_sentences={is_split!r} must be True or False")
        return SourceReader(
            self.tokenizer.source,
            limit,
            is_raisable=limit == chosen,
            too_long=self.too_long if too_long is None else too_long,
            language=self.languages[0] if is_split else None,
            notes=self.notes,
            tag=self.tag,
            tags=self.tags,
            needs_tag=self.needs_tag,
        )

    def identity(self) -> dict[str, object]:
        """Fingerprints and settings on which the translations of a text depend."""
        own = {"weights": digest_of_tensors(self.model.state_dict()), "precision": precision_of([self.model])}
        return own | self._settings()

    def _settings(self) -> dict[str, object]:
        rules: dict[str, object] = {"split_sentences": True} if self.split_sentences else {}
        rules |= {} if self.tag is None else {"tag": self.tag}
        if self.too_long != "error":
            rules |= {"too_long": self.too_long, "max_source_length": self.search.max_source_length}
        return {"tokenizer": self.tokenizer.digest, **settings_of(self.search), **rules}

    def _search(
        self, batch: Sequence[Request], search: SearchConfig, nbest: int, sampling: Sampling | None, token_scores: bool
    ) -> list[list[Translation]]:
        with torch.no_grad():
            state = self._start(to_device(pad([request.source.ids for request in batch]), self.device))
        found = search_batch(
            self._decode, state, batch, search, nbest, sampling, text=lambda x: self._texts([x])[0], device=self.device
        )
        if not token_scores:
            return [self._translations(x, [()] * len(x)) for x in found]
        outputs = [[one.ids for one in hypotheses] for hypotheses in found]
        scores = token_log_probs(self._decode, state, outputs, bos_id=BOS_ID, device=self.device)
        return list(map(self._translations, found, scores))

    def _texts(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return [" ".join(text.split("\n")) for text in self.tokenizer.decode(ids)]

    def _translations(self, found: Sequence[Hypothesis], scores: Sequence[Sequence[float]]) -> list[Translation]:
        return [
            Translation(text, x.score, x.log_prob, tuple(x.ids), tuple(log_probs))
            for text, x, log_probs in zip(self._texts([x.ids for x in found]), found, scores, strict=True)
        ]

    @property
    def members(self) -> tuple[Translator, ...]:
        """The translators of an ensemble; of a single model itself."""
        return (self,)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    @property
    def max_length(self) -> int:
        """The most pieces of a source or an output, </s> included, for which the model has positions."""
        return self.model.max_length or sys.maxsize

    def _start(self, src: Tensor) -> Any:
        """The state before the first token, from source ids (B, S)."""
        return ready_model(self.model).encode(src)

    def _decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        hidden, state = self.model.decode(tokens[:, None], state)
        return self.logits(hidden[:, -1]), state

    def encode(self, texts: Iterable[str], *, first_number: int = 1) -> list[list[int]]:
        """Source ids with </s>; none for a text without content. DataError as of `translate_nbest`."""
        texts = text_list(texts, first_number=first_number)
        reader = self.source_reader(too_long="error", split_sentences=False)
        sources = [[*ids, EOS_ID] if ids else [] for ids in reader.encode(texts)]
        for number, src in enumerate(sources, start=first_number):
            reader.check_length(len(src), number)
        return sources

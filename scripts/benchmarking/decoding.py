"""How fast translation is: the translator that users run, with its model's calls counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarking.ceiling import forward_rate
from benchmarking.clock import Stopwatch, peak_memory, synchronize
from benchmarking.flops import Product, Work, forward_flops, weight_products
from benchmarking.report import Report
from transformer.config import Config, ModelConfig, load_config
from transformer.data.corpus import load_split
from transformer.data.dataset import corpus_tokenizer
from transformer.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator
from transformer.model.decoder import DecoderState
from transformer.training.checkpoint import build_model
from transformer.training.phases import Phase, untimed
from transformer.training.precision import resolve_device, resolve_dtype
from transformer.training.run import find_checkpoint


class Observer:
    """Stands between a translator and its model: counts what is asked for and, if told to, decides when outputs end.

    It replaces `encode` and `decode` of the model, `logits` of the translator and `decode` of the tokenizer by its own,
    which call them.

    Args:
        translator: to observe.
        length: tokens of every output, </s> included; None lets the model end when it wants to.

    Attributes:
        work: what has been computed; its target tokens are those of all hypotheses, losing ones included.
        output_tokens: of the translations that were returned.
        phase: may be set to time encoder, decoder and logits.
    """

    def __init__(self, translator: Translator, length: int | None = None) -> None:
        model, tokenizer = translator.model, translator.tokenizer
        self.length = length
        self.phase: Phase = untimed
        self._position = 0
        self._mean_source = 0.0
        self.reset()
        self._encode, self._decode, self._logits = model.encode, model.decode, translator.logits
        self._to_text = tokenizer.decode
        for owner, name, method in (
            (model, "encode", self.encode),
            (model, "decode", self.decode),
            (translator, "logits", self.logits),
            (tokenizer, "decode", self.to_text),
        ):
            setattr(owner, name, method)

    def reset(self) -> None:
        """Forget what has been counted."""
        self.work = Work()
        self.output_tokens = 0
        self._num_encodes = self._num_decodes = 0

    def encode(self, src: Tensor) -> DecoderState:
        """`Transformer.encode`, from which a search starts."""
        lengths = (src != PAD_ID).sum(dim=1)
        num_tokens = int(lengths.sum())
        self.work += Work(len(src), num_tokens, source_pairs=int((lengths * lengths).sum()))
        self._num_encodes += 1
        self._position, self._mean_source = 0, num_tokens / len(src)
        with self.phase("encoder"):
            return self._encode(src)

    def decode(self, tgt: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """`Transformer.decode` of the next tokens of all hypotheses."""
        num_new = tgt.numel()
        self._num_decodes += 1
        self._position += tgt.size(1)
        self.work += Work(
            target_tokens=num_new,
            target_pairs=num_new * self._position,
            cross_pairs=round(num_new * self._mean_source),
        )
        with self.phase("decoder"):
            return self._decode(tgt, state)

    def logits(self, hidden: Tensor) -> Tensor:
        """`Translator.logits`, with </s> impossible before the wanted length and nothing else possible at it."""
        with self.phase("logits"):
            logits = self._logits(hidden)
        if self.length is None:
            return logits
        if self._position < self.length:
            logits[..., EOS_ID] = -torch.inf
            return logits
        ending = torch.full_like(logits, -torch.inf)
        ending[..., EOS_ID] = 0.0
        return ending

    @property
    def mean_rows(self) -> tuple[int, int]:
        """Real tokens in a call of the encoder and of the decoder."""
        return (
            round(self.work.source_tokens / self._num_encodes),
            round(self.work.target_tokens / self._num_decodes),
        )

    def to_text(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """`Tokenizer.decode`, of which every translation is made."""
        self.output_tokens += sum(map(len, ids))
        return self._to_text(ids)


def load_translator(path: Path, overrides: Sequence[str], *, device: str, precision: str) -> tuple[Config, Translator]:
    """The model of a run directory, or an untrained one from a configuration file, with its configuration.

    Raises:
        ConfigError: overrides for a run, whose configuration is what it was trained with; or a bad configuration.
        UserError: the run, its corpus or the device is not there.
    """
    if path.is_dir():
        if overrides:
            raise ConfigError(f"{path} is a run: {overrides[0]} cannot change it; give overrides to a YAML file only")
        checkpoint = find_checkpoint(path)
        config = load_config(checkpoint / "config.yaml", allow_base=False)
        return config, Translator.load(checkpoint, device=device, precision=precision)
    where = resolve_device(device)
    config = load_config(path, overrides)
    corpus = load_split(config.data, config.data.train_split)
    tokenizer = corpus_tokenizer(corpus, config.data.vocab_size, config.data.cache_dir)
    torch.manual_seed(config.seed)
    model = build_model(config, len(tokenizer)).to(where, resolve_dtype(precision, where))
    translator = Translator(model, tokenizer, config.search)
    translator.prepare(quantize=precision == "int8")
    return config, translator


def benchmark_decoding(
    translator: Translator,
    model: ModelConfig,
    texts: Sequence[str],
    *,
    length: int | None = None,
    beam: int | None = None,
    batch_sentences: int | None = None,
    batch_tokens: int | None = None,
    repeat: int = 3,
    ceiling_s: float = 0.3,
) -> Report:
    """Translate the same texts a few times, text to text, after a first batch to warm up.

    Args:
        translator: whose model will be observed from now on.
        model: its sizes.
        texts: to translate; empty ones are left out.
        length: of every output; None for free ones.
        beam: 1 is greedy; by default the translator's.
        batch_sentences, batch_tokens: sentences or padded source pieces at a time; by default the translator's.
        repeat: how often; speeds are the median.
        ceiling_s: seconds spent on each matrix product by itself; 0 leaves the ceiling out.

    Raises:
        DataError: there is no text with content.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError("there is nothing to translate")
    device = translator.model.embeddings.source_weight.device
    observer, stopwatch = Observer(translator, length), Stopwatch(device)
    beam = translator.search.beam if beam is None else beam
    batches = [list(texts)] if batch_sentences is None else _batches(translator.tokenizer, texts, batch_sentences)
    # The bounds of the search leave room for the wanted length and for the wanted batches.
    max_extra = max(length or 0, translator.search.max_extra)
    options = {"batch_tokens": 1 << 30} if batch_sentences else {"batch_tokens": batch_tokens} if batch_tokens else {}

    def translate(batch: Sequence[str]) -> None:
        translator.translate(batch, beam=beam, max_extra=max_extra, **options)

    def translate_all() -> float:
        began = time.perf_counter()
        for batch in batches:
            translate(batch)
        synchronize(device)
        return time.perf_counter() - began

    translate(batches[0][: batch_sentences or 64])
    observer.reset()
    is_cpu = device.type == "cpu"
    # Elsewhere, waiting for the device at every phase would slow the search down: that has a pass of its own.
    observer.phase = stopwatch if is_cpu else untimed
    seconds = [translate_all() for _ in range(repeat)]
    work, output_tokens, total_s = observer.work, observer.output_tokens, sum(seconds)
    observer.phase = stopwatch
    phased_s = total_s if is_cpu else translate_all()
    flops = forward_flops(model, translator.model.vocab_size, work)
    sentences_per_s = len(texts) / statistics.median(seconds)
    report: dict[str, Any] = {
        "sentences": len(texts),
        "beam": beam,
        "source_tokens_per_sentence": work.source_tokens / work.sentences,
        "output_tokens_per_sentence": output_tokens / work.sentences,
        "sentences_per_s": sentences_per_s,
        "slowest_sentences_per_s": len(texts) / max(seconds),
        "fastest_sentences_per_s": len(texts) / min(seconds),
        "tokens_per_s": sentences_per_s * output_tokens / work.sentences,
        "gflop_per_sentence": flops / work.sentences / 1e9,
        "gflops": flops / total_s / 1e9,
        "peak_memory_gib": peak_memory(device) / 2**30,
        "phases": stopwatch.shares(phased_s, rest="search and text"),
    }
    if ceiling_s:
        products = weight_products(model, translator.model.vocab_size)
        dtype = translator.model.embeddings.source_weight.dtype
        ceiling = decoding_ceiling(products, work, observer.mean_rows, dtype, device, ceiling_s)
        report |= {
            "ceiling_sentences_per_s": ceiling,
            "fraction_of_ceiling": work.sentences / total_s / ceiling,
        }
    return report


def decoding_ceiling(
    products: Sequence[Product],
    work: Work,
    rows: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    seconds: float,
) -> float:
    """Sentences per second of a search that did nothing but the weight products of `work`.

    Args:
        products: of the model.
        work: of some sentences.
        rows: source tokens in an encoder call and target tokens in a decoder call, at which the products are measured.
        dtype, device: of the model.
        seconds: for each product.
    """
    total = 0.0
    for product in products:
        flops = 2 * product.inputs * product.outputs
        uses = (product.per_source * work.source_tokens, product.per_target * work.target_tokens)
        for num_rows, num_uses in zip(rows, uses, strict=True):
            if num_uses:
                rate = forward_rate(num_rows, product.inputs, product.outputs, dtype, device, seconds)
                total += flops * num_uses / rate
    return work.sentences / total


def _batches(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> list[list[str]]:
    """The texts, longest first, as many at a time."""
    ordered = [text for _, text in sorted(zip(map(len, tokenizer.encode(texts)), texts, strict=True), reverse=True)]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]

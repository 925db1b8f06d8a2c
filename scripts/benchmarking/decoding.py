"""Decoding speed of the real translator, with the calls of its model counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarking.clock import Stopwatch, peak_memory, synchronize
from benchmarking.flops import Product, Work, forward_flops, weight_products
from benchmarking.peak_flops import forward_rate
from benchmarking.report import Report
from transformer.config import Config, ModelConfig, load_config
from transformer.data.corpus import load_split
from transformer.data.dataset import corpus_tokenizer
from transformer.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.model.transformer import DecoderState
from transformer.training.device import resolve_device, resolve_dtype
from transformer.training.run_directory import find_checkpoint
from transformer.training.train_step import Timer, no_timer


class Observer:
    """Wraps a translator's model, counts its work and, if requested, forces the length of outputs.

    Replaces `encode` and `decode` of the model, `logits` of the translator, `decode` of the tokenizer.

    Args:
        translator: the translator to observe.
        length: tokens of every output, </s> included; None lets the model decide.

    Attributes:
        work: the work done; its target tokens are those of all hypotheses, including those not returned.
        output_tokens: number of tokens of the returned translations.
        phase: may be set to time encoder, decoder and logits.
    """

    def __init__(self, translator: Translator, length: int | None = None) -> None:
        model, tokenizer = translator.model, translator.tokenizer
        self.length = length
        self.phase: Timer = no_timer
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
        """Reset the counters."""
        self.work = Work()
        self.output_tokens = 0
        self._num_encodes = self._num_decodes = 0

    def encode(self, src: Tensor) -> DecoderState:
        """Wraps `Transformer.encode`, with which a search starts."""
        lengths = (src != PAD_ID).sum(dim=1)
        num_tokens = int(lengths.sum())
        self.work += Work(len(src), num_tokens, source_pairs=int((lengths * lengths).sum()))
        self._num_encodes += 1
        self._position, self._mean_source = 0, num_tokens / len(src)
        with self.phase("encoder"):
            return self._encode(src)

    def decode(self, tgt: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Wraps `Transformer.decode`, of the next tokens of all hypotheses."""
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
        """Wraps `Translator.logits`: </s> is impossible before the forced length and certain at it."""
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
        """Mean number of tokens per call of the encoder and of the decoder."""
        return (
            round(self.work.source_tokens / self._num_encodes),
            round(self.work.target_tokens / self._num_decodes),
        )

    def to_text(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Wraps `Tokenizer.decode`, which makes the text of every translation."""
        self.output_tokens += sum(map(len, ids))
        return self._to_text(ids)


def load_translator(path: Path, overrides: Sequence[str], *, device: str, precision: str) -> tuple[Config, Translator]:
    """Load the model of a run directory, or build an untrained one from a configuration file.

    Raises:
        ConfigError: overrides for a run, whose configuration is fixed; or a bad configuration.
        UserError: the run, its corpus or the device is missing.
    """
    if path.is_dir():
        if overrides:
            raise ConfigError(f"{path} is a run: {overrides[0]} cannot change it; give overrides to a YAML file only")
        checkpoint = find_checkpoint(path)
        config = load_config(checkpoint / "config.yaml", saved=True)
        return config, Translator.load(checkpoint, device=device, precision=precision)
    where = resolve_device(device)
    config = load_config(path, overrides)
    corpus = load_split(config.data, config.data.train_split)
    tokenizer = corpus_tokenizer(
        corpus, config.data.vocab_size, config.data.cache_dir, **config.data.tokenizer_settings
    )
    torch.manual_seed(config.seed)
    model = build_model(len(tokenizer), config.model).to(where, resolve_dtype(precision, where))
    translator = Translator(model, tokenizer, config.search)
    translator.prepack(quantize=precision == "int8")
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
    peak_s: float = 0.3,
) -> Report:
    """Time the translation of texts, repeatedly, after a warm-up batch.

    Args:
        translator: the translator; its model stays wrapped.
        model: the sizes of its model.
        texts: the texts; blank ones are left out.
        length: forced length of every output; None does not force it.
        beam: beam size, 1 is greedy; by default the translator's.
        batch_sentences, batch_tokens: batch size in sentences or padded source pieces; by default the translator's.
        repeat: number of repetitions; speeds are the median.
        peak_s: seconds per matrix product to measure the peak throughput; 0 omits it.

    Raises:
        DataError: all texts are blank.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError("there is nothing to translate")
    device = translator.model.embedding.weight.device
    observer, stopwatch = Observer(translator, length), Stopwatch(device)
    beam = translator.search.beam if beam is None else beam
    batches = [list(texts)] if batch_sentences is None else _batches(translator.tokenizer, texts, batch_sentences)
    # The limits of the search must allow the forced length and the batch size.
    max_length_offset = max(length or 0, translator.search.max_length_offset)
    options: dict[str, Any] = {"batch_tokens": batch_tokens} if batch_tokens else {}
    if batch_sentences:
        options = {"batch_tokens": 1 << 30}

    def translate(batch: Sequence[str]) -> None:
        translator.translate(batch, beam=beam, max_length_offset=max_length_offset, **options)

    def translate_all() -> tuple[float, float]:
        """Seconds, and CPU seconds of all threads."""
        began, cpu_began = time.perf_counter(), time.process_time()
        for batch in batches:
            translate(batch)
        synchronize(device)
        return time.perf_counter() - began, time.process_time() - cpu_began

    translate(batches[0][: batch_sentences or 64])
    observer.reset()
    is_cpu = device.type == "cpu"
    # On CUDA, synchronizing at every phase would slow the search down: phases are timed in an extra pass.
    observer.phase = stopwatch if is_cpu else no_timer
    seconds, cpu_seconds = zip(*(translate_all() for _ in range(repeat)), strict=True)
    work, output_tokens, total_s = observer.work, observer.output_tokens, sum(seconds)
    observer.phase = stopwatch
    phased_s = total_s if is_cpu else translate_all()[0]
    flops = forward_flops(model, len(translator.model.embedding.output_weight), work)
    sentences_per_s = len(texts) / statistics.median(seconds)
    report: dict[str, Any] = {
        "sentences": len(texts),
        "beam": beam,
        "source_tokens_per_sentence": work.source_tokens / work.sentences,
        "output_tokens_per_sentence": output_tokens / work.sentences,
        "sentences_per_s": sentences_per_s,
        "slowest_sentences_per_s": len(texts) / max(seconds),
        "fastest_sentences_per_s": len(texts) / min(seconds),
        "sentences_per_cpu_s": len(texts) / statistics.median(cpu_seconds),
        "tokens_per_s": sentences_per_s * output_tokens / work.sentences,
        "gflop_per_sentence": flops / work.sentences / 1e9,
        "gflops": flops / total_s / 1e9,
        "peak_memory_gib": peak_memory(device) / 2**30,
        "phases": stopwatch.shares(phased_s, rest="search and text"),
    }
    if peak_s:
        products = weight_products(model, len(translator.model.embedding.output_weight))
        dtype = translator.model.embedding.weight.dtype
        peak = peak_decoding_speed(products, work, observer.mean_rows, dtype, device, peak_s)
        report |= {
            "peak_sentences_per_s": peak,
            "fraction_of_peak": work.sentences / total_s / peak,
        }
    return report


def peak_decoding_speed(
    products: Sequence[Product],
    work: Work,
    rows: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    seconds: float,
) -> float:
    """Sentences per second if decoding consisted only of the weight products of `work`.

    Args:
        products: weight products of the model.
        work: the work of some sentences.
        rows: tokens per call of the encoder and of the decoder, at which the products are measured.
        dtype, device: dtype and device of the model.
        seconds: time per product.
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
    """Batches of `size` texts, longest first."""
    ordered = [text for _, text in sorted(zip(map(len, tokenizer.encode(texts)), texts, strict=True), reverse=True)]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]

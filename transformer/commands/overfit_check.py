"""Overfit one batch: a dry run that shows in seconds whether data, model, loss and search work together."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from transformer.config import Config
from transformer.data.batching import Batch, pad
from transformer.data.corpus import load_split
from transformer.data.mixture import training_text
from transformer.data.pairs import Corpus
from transformer.data.run_tokenizer import trial_tokenizer
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, TARGET_FILE, UNK_ID, Tokenizer
from transformer.data.vocabulary_tokenizer import load_tokenizer
from transformer.errors import DataError, TrainingError
from transformer.inference.translator import Translator
from transformer.model.alternatives.build import build_model
from transformer.training.checkpoint import locate_checkpoint
from transformer.training.data import Update
from transformer.training.device import resolve_device, resolve_dtype
from transformer.training.optimizer import MasterWeights
from transformer.training.train_step import NonfiniteGuard, accumulate_gradients

# How many pairs of a large corpus are read, and how many pieces these are enough to train.
_NUM_READ = 20_000
_VOCAB_SIZE = 8_000
_NUM_PAIRS = 8
_MAX_LENGTH = 40
_MAX_STEPS = 600
_STEPS_BETWEEN_SEARCHES = 20
_WARMUP_STEPS = 40


def overfit_check(config: Config, log: Callable[[str], None] = print) -> None:
    """Overfit one batch of a run's corpus and translate it back; the run is not touched.

    Without dropout and with its own learning rate: this checks how the parts fit together, not the recipe. `log` gets
    the report line by line. UserError if corpus, device or configuration are at fault or the batch is not learned.
    """
    began = time.monotonic()
    whole = training_text(config.data)
    train = dataclasses.replace(whole, read=lambda: itertools.islice(whole.read(), _NUM_READ))
    tokenizer = _tokenizer(config, train)
    pairs = _pairs(config, train, tokenizer)
    texts = [[*tokenizer.source.decode([src]), *tokenizer.decode([tgt])] for src, tgt in pairs]
    log(f"data: {train.name}: {texts[0][0]!r} is {texts[0][1]!r}")
    validation = itertools.islice(load_split(config.data, config.data.validation_split), 1000)
    sides = zip((tokenizer.source, tokenizer), zip(*validation, strict=True), strict=False)
    ids = [id_ for of_side, lines in sides for ids_of_text in of_side.encode(lines) for id_ in ids_of_text]
    log(f"tokenizer: {len(tokenizer):,} pieces; {ids.count(UNK_ID) / max(1, len(ids)):.2%} unknown in validation")
    step, nll, num_right = _overfit(config, tokenizer, _batch(pairs), texts, log)
    result = (
        f"after {step} updates the loss is {nll:.2f}, and of {len(texts)} overfitted pairs {num_right['greedy']} are "
        f"translated back by greedy search, {num_right['beam']} by beam search ({time.monotonic() - began:.0f} s)"
    )
    if min(num_right.values()) < len(texts):
        raise TrainingError(f"overfit check: {result}: data, model, loss or search do not work together")
    log(f"search: {result}")


def _overfit(
    config: Config, tokenizer: Tokenizer, batch: Batch, texts: list[list[str]], log: Callable[[str], None]
) -> tuple[int, float, dict[str, int]]:
    """Train until both searches translate all texts; returns updates, loss, and translations right by search."""
    device = resolve_device(config.train.device)
    torch.manual_seed(config.seed)
    options = dataclasses.replace(config.model, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    model = build_model(len(tokenizer), options, source_vocab_size=tokenizer.sizes[1]).to(device)
    dtype = resolve_dtype(config.train.precision, device)
    weights = MasterWeights(model, dtype, recompute=config.train.gradient_checkpointing)
    guard = NonfiniteGuard(weights.loss_scale)
    batch = batch.to(device)
    # Without the rules that a reference may break.
    search = dataclasses.replace(config.search, max_length=None, min_length=0, no_repeat_ngram=0)
    translator = Translator(weights.model, tokenizer, search=search)
    optimizer = torch.optim.AdamW(weights.master.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    num_right = {"greedy": 0, "beam": 0}
    for step in range(1, _MAX_STEPS + 1):
        weights.model.train()
        optimizer.param_groups[0]["lr"] = 0.02 / math.sqrt(config.model.d_model) * min(1.0, step / _WARMUP_STEPS)
        nll = accumulate_gradients(weights, [batch], config.train.label_smoothing)[1].item() / batch.num_tokens
        if step == 1:
            chance = math.log(len(tokenizer))
            log(f"loss: {nll:.2f} nats per piece at first; chance is log {len(tokenizer)} = {chance:.2f}")
        if not math.isfinite(nll):
            raise TrainingError(f"overfit check: the loss is not finite at step {step}")
        if weights.loss_scale is None:
            optimizer.step()
        else:  # it is found in the first updates, which overflow
            guard.step(optimizer, list(weights.master.parameters()), Update(step, 1, step, []))
        optimizer.zero_grad(set_to_none=True)
        weights.refresh()
        if step % _STEPS_BETWEEN_SEARCHES == 0:
            weights.model.eval()
            for name, beam in (("greedy", 1), ("beam", config.search.beam)):
                found = translator.translate([source for source, _ in texts], beam=beam)
                num_right[name] = sum(text == target for text, (_, target) in zip(found, texts, strict=True))
            if min(num_right.values()) == len(texts):
                break
    return step, nll, num_right


def _tokenizer(config: Config, corpus: Corpus) -> Tokenizer:
    """The run's tokenizer, or that of the checkpoint with which it begins, or one trained on a part of its corpus."""
    run = Path(config.run_dir)
    if (run / TARGET_FILE).is_file():
        return load_tokenizer(run, is_separate=config.data.separate_vocabularies)
    if config.train.init_from is not None and config.data.tokenizer is None:
        checkpoint, _ = locate_checkpoint(config.train.init_from)
        return load_tokenizer(checkpoint, is_separate=config.data.separate_vocabularies)
    is_whole = sum(1 for _ in corpus) < _NUM_READ
    return trial_tokenizer(corpus, config.data, None if is_whole else _VOCAB_SIZE)


def _pairs(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """Ids, without </s>, of the first pairs with distinct sources that search could translate."""
    found: dict[tuple[int, ...], list[int]] = {}
    longest = min(_MAX_LENGTH, config.data.max_length) - 1
    for source, target in corpus:
        (src,), (tgt,) = tokenizer.source.encode([source]), tokenizer.encode([target])
        fits = 0 < len(src) <= longest and 0 < len(tgt) <= min(longest, len(src) + config.search.max_length_offset - 1)
        if fits and UNK_ID not in (*src, *tgt):
            found.setdefault(tuple(src), tgt)
        if len(found) == _NUM_PAIRS:
            break
    if not found:
        raise DataError(f"overfit check: {corpus.name} begins without a pair of 1 to {longest} pieces on each side")
    return [(list(src), tgt) for src, tgt in found.items()]


def _batch(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    src = pad([[*src, EOS_ID] for src, _ in pairs])
    tgt_out = pad([[*tgt, EOS_ID] for _, tgt in pairs])
    tgt_in = torch.cat((torch.full((len(pairs), 1), BOS_ID), tgt_out[:, :-1]), dim=1)
    return Batch(src, tgt_in, tgt_out, (tgt_out.flatten() != PAD_ID).nonzero().flatten())

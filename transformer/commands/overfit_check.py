"""Do data, model, loss and search fit together? A model that does will learn a handful of pairs by heart in seconds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from transformer.config import Config
from transformer.data.batching import Batch, pad
from transformer.data.corpus import Corpus, load_split
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from transformer.errors import DataError, TrainingError
from transformer.inference.translator import Translator
from transformer.training.checkpoint import build_model
from transformer.training.precision import MasterWeights, resolve_device, resolve_dtype
from transformer.training.step import train_step

# What is read of a large corpus, and the pieces that surely can be learned from it.
_NUM_READ = 20_000
_VOCAB_SIZE = 8_000
_NUM_LEARNED = 8
_MAX_LENGTH = 40
_MAX_STEPS = 600
_STEPS_BETWEEN_LOOKS = 20
_WARMUP_STEPS = 40


def self_check(config: Config, say: Callable[[str], None] = print) -> None:
    """Overfit a few pairs of a run's corpus with its model and loss, and translate them with its search.

    Dropout is off and the learning rate its own: what is checked is that the parts fit, not how well the recipe
    learns. The run directory is not touched.

    Args:
        config: the run.
        say: gets the lines of the report, as they come.

    Raises:
        UserError: the corpus, the device or the configuration are at fault; TrainingError if the pairs are not learned.
    """
    began = time.monotonic()
    train = _beginning(load_split(config.data, config.data.train_split))
    tokenizer = _tokenizer(config, train)
    pairs = _pairs(config, train, tokenizer)
    _report_data(config, train, tokenizer, pairs, say)

    device = resolve_device(config.train.device)
    weights = _untrained(config, tokenizer, device)
    batch = _batch(pairs).to(device)
    texts = [tuple(tokenizer.decode(pair)) for pair in pairs]
    translator = Translator(weights.model, tokenizer, search=config.search)
    optimizer = torch.optim.AdamW(weights.master.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    num_right = {"greedy": 0, "beam": 0}
    for step in range(1, _MAX_STEPS + 1):
        weights.model.train()
        optimizer.param_groups[0]["lr"] = 0.02 / math.sqrt(config.model.d_model) * min(1.0, step / _WARMUP_STEPS)
        nll = train_step(weights, [batch], config.train.label_smoothing)[1].item() / batch.num_tokens
        if step == 1:
            chance = math.log(len(tokenizer))
            say(f"loss: {nll:.2f} nats per piece at first; chance is log {len(tokenizer)} = {chance:.2f}")
        if not math.isfinite(nll):
            raise TrainingError(f"self-check: the loss is not finite at step {step}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        weights.refresh()
        if step % _STEPS_BETWEEN_LOOKS == 0:
            weights.model.eval()
            for name, beam in (("greedy", 1), ("beam", config.search.beam)):
                found = translator.translate([source for source, _ in texts], beam=beam)
                num_right[name] = sum(text == target for text, (_, target) in zip(found, texts, strict=True))
            if min(num_right.values()) == len(texts):
                break
    result = (
        f"after {step} updates the loss is {nll:.2f}, and of {len(texts)} pairs learned by heart {num_right['greedy']} "
        f"are translated so by greedy search, {num_right['beam']} by beam search ({time.monotonic() - began:.0f} s)"
    )
    if min(num_right.values()) < len(texts):
        raise TrainingError(f"self-check: {result}: data, model, loss or search do not fit together")
    say(f"search: {result}")


def _beginning(corpus: Corpus) -> Corpus:
    def read() -> Iterator[tuple[str, str]]:
        return itertools.islice(corpus.read(), _NUM_READ)

    return dataclasses.replace(corpus, read=read)


def _tokenizer(config: Config, corpus: Corpus) -> Tokenizer:
    """The run's tokenizer, or one of the beginning of its corpus."""
    path = Path(config.run_dir) / "tokenizer.model"
    if path.is_file():
        return Tokenizer.load(path)
    is_whole = sum(1 for _ in corpus) < _NUM_READ
    vocab_size = config.data.vocab_size if is_whole else min(config.data.vocab_size, _VOCAB_SIZE)
    return Tokenizer.train(itertools.chain.from_iterable(corpus), vocab_size, corpus.symbols())


def _pairs(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """Ids, without </s>, of the first pairs with sources of their own that search could translate."""
    found: dict[tuple[int, ...], list[int]] = {}
    longest = min(_MAX_LENGTH, config.data.max_length) - 1
    for pair in corpus:
        src, tgt = tokenizer.encode(pair)
        fits = 0 < len(src) <= longest and 0 < len(tgt) <= min(longest, len(src) + config.search.max_extra - 1)
        if fits and UNK_ID not in (*src, *tgt):
            found.setdefault(tuple(src), tgt)
        if len(found) == _NUM_LEARNED:
            break
    if not found:
        raise DataError(f"self-check: {corpus.name} begins with no pair of 1 to {longest} pieces on each side")
    return [(list(src), tgt) for src, tgt in found.items()]


def _report_data(
    config: Config,
    train: Corpus,
    tokenizer: Tokenizer,
    pairs: list[tuple[list[int], list[int]]],
    say: Callable[[str], None],
) -> None:
    source, target = tokenizer.decode(pairs[0])
    say(f"data: {train.name}: {source!r} is {target!r}")
    validation = itertools.islice(load_split(config.data, config.data.validation_split), 1000)
    ids = [id_ for side in tokenizer.encode(list(itertools.chain.from_iterable(validation))) for id_ in side]
    share = ids.count(UNK_ID) / max(1, len(ids))
    say(f"tokenizer: {len(tokenizer):,} pieces; of the validation text {share:.2%} are unknown")


def _untrained(config: Config, tokenizer: Tokenizer, device: torch.device) -> MasterWeights:
    torch.manual_seed(config.seed)
    model = dataclasses.replace(config.model, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    master = build_model(dataclasses.replace(config, model=model), len(tokenizer)).to(device)
    return MasterWeights(master, resolve_dtype(config.train.precision, device))


def _batch(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    src = pad([[*src, EOS_ID] for src, _ in pairs])
    tgt_out = pad([[*tgt, EOS_ID] for _, tgt in pairs])
    tgt_in = torch.cat((torch.full((len(pairs), 1), BOS_ID), tgt_out[:, :-1]), dim=1)
    return Batch(src, tgt_in, tgt_out, (tgt_out.flatten() != PAD_ID).nonzero().flatten())

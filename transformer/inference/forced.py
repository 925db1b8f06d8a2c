"""Scores of given translations, by teacher forcing: log P(Y|X) of section 6.1 without a search."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from transformer.config import override
from transformer.data.batching import pad
from transformer.data.normalization import surrogates_error
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from transformer.errors import ConfigError, DataError
from transformer.inference.arguments import check_count, text_list
from transformer.inference.ensemble import mean_log_probs
from transformer.inference.penalties import PENALTIES
from transformer.inference.prepacked import ready_model
from transformer.inference.sources import list_numbers
from transformer.inference.translator import Translator

TooLongPair = Literal["error", "skip"]
TOO_LONG_PAIR: tuple[TooLongPair, ...] = get_args(TooLongPair)
# Logits at a time: all of a batch with a vocabulary of 37k would take gigabytes.
_CHUNK_NUMEL = {"cpu": 1 << 22, "cuda": 1 << 27}


@dataclass(frozen=True)
class ForcedScore:
    """The probability of a given translation; all logarithms are in nats."""

    ids: list[int]  # of the translation, with </s>; none if it was not scored
    log_probs: list[float]  # of each id, given the source and the ids before it
    ranks: list[int]  # of each id among the vocabulary, 1 the most probable; empty unless asked for
    log_prob: float  # log P(Y|X), their sum; -inf of a pair that could not be scored
    score: float  # log P over length penalty, as a search ranks it

    @property
    def perplexity(self) -> float:
        """exp(-log P / |Y|), per piece, </s> included. NaN if nothing was scored."""
        return perplexity(self.log_prob, len(self.ids))


class EncodedPair(NamedTuple):
    """Ids of a pair, </s> included. None of either side if it is not scored."""

    src: list[int]
    tgt: list[int]
    is_empty: bool  # both sides are: the model translates an empty line so


@dataclass
class PairNotes:
    """Numbers of pairs that a user should know of."""

    no_source: list[int] = field(default_factory=list)  # a translation of nothing
    skipped: list[int] = field(default_factory=list)  # too long
    unknown_source: list[int] = field(default_factory=list)  # with characters that no piece has
    unknown_target: list[int] = field(default_factory=list)
    no_candidate: list[int] = field(default_factory=list)  # sources of an n-best list
    other_tag: list[int] = field(default_factory=list)  # with what looks like a tag, and is none of the model's

    def add(self, kind: str, number: int, is_so: bool = True) -> None:
        """Note a pair, once, if it is of this kind."""
        numbers: list[int] = getattr(self, kind)
        if is_so and numbers[-1:] != [number]:
            numbers.append(number)

    def messages(self) -> list[str]:
        """A line for each kind that occurred."""
        kinds = (
            (self.no_source, "with nothing to translate", "not scored: a model gives an empty line for an empty one"),
            (self.skipped, "beyond the limit", "not scored"),
            (self.unknown_source, "with unknown characters in what is translated", "scored as if they were one piece"),
            (self.unknown_target, "with unknown characters in the translation", "scored by the piece for all of them"),
            (
                self.other_tag,
                "with something in angle brackets at the beginning",
                "scored with it as text, as it is not one of the model's tags and a space",
            ),
        )
        found = [f"{_lines(numbers, what)} {end}: {list_numbers(numbers)}" for numbers, what, end in kinds if numbers]
        if numbers := self.no_candidate:
            what = "1 source has" if len(numbers) == 1 else f"{len(numbers)} sources have"
            found.append(f"{what} no candidate: {list_numbers(numbers)}")
        return found


def score_translations(
    translator: Translator,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    alpha: float | None = None,
    with_ranks: bool = False,
    too_long: TooLongPair = "error",
    batch_tokens: int = 4096,
    numbers: Sequence[int] | None = None,
    notes: PairNotes | None = None,
) -> list[ForcedScore]:
    """How probable each target is as the translation of its source.

    Texts are encoded as training does. A search may have found the same text by other pieces, with another log P:
    `score_ids` takes the pieces themselves. Sources get their tag as in `translate`. An empty target is scored as </s>
    alone. An empty source is not: the model gives an empty line for it, so that an empty target has log P 0 and any
    other -inf.

    Args:
        translator: with its model, search settings and processes; an `Ensemble` gives each piece its mean probability.
        alpha: of the length penalty; by default the run's `search.alpha`.
        with_ranks: also compute the rank of each piece.
        too_long: whether a pair beyond the limits of `translate` is an error or not scored.
        batch_tokens: ids computed at a time on either side, padding included; changes speed and memory only.
        numbers: of the pairs, for messages and notes; by default from 1.
        notes: counts pairs that a user should know of.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: a text is too long, or has surrogates.
        TypeError: an argument is one string, or has something that is not text.
        ValueError: there are more sources than targets, or fewer.
    """
    notes = PairNotes() if notes is None else notes
    pairs = encode_pairs(translator, sources, targets, too_long=too_long, numbers=numbers, notes=notes)
    scored = [pair for pair in pairs if pair.tgt]
    found = iter(
        score_ids(
            translator,
            [pair.src for pair in scored],
            [pair.tgt for pair in scored],
            alpha=alpha,
            with_ranks=with_ranks,
            batch_tokens=batch_tokens,
        )
    )
    nothing, impossible = ForcedScore([], [], [], 0.0, 0.0), ForcedScore([], [], [], -math.inf, -math.inf)
    return [next(found) if pair.tgt else nothing if pair.is_empty else impossible for pair in pairs]


def encode_pairs(
    translator: Translator,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    too_long: TooLongPair = "error",
    numbers: Sequence[int] | None = None,
    notes: PairNotes,
) -> list[EncodedPair]:
    """The ids of each pair that `score_translations` scores. Arguments and errors as there."""
    if too_long not in TOO_LONG_PAIR:
        raise ConfigError(f"too_long={too_long!r} must be one of {', '.join(TOO_LONG_PAIR)}")
    sources, targets = text_list(sources, "sources"), text_list(targets, "targets")
    check_same_number(sources, targets)
    numbers = range(1, len(sources) + 1) if numbers is None else list(numbers)
    reader = translator.source_reader()
    for number, source in zip(numbers, sources, strict=True):
        notes.add("other_tag", number, reader.has_other_tag(source))
    encoded = zip(
        numbers,
        _encode(reader.encode, sources, "source", numbers),
        _encode(translator.tokenizer.encode, targets, "target", numbers),
        strict=True,
    )
    pairs = []
    for number, src, tgt in encoded:
        if not src:
            pairs.append(EncodedPair([], [], is_empty=not tgt))
            notes.add("no_source", number, bool(tgt))
        elif _is_too_long(translator, len(src) + 1, len(tgt) + 1, number, too_long):
            pairs.append(EncodedPair([], [], is_empty=False))
            notes.add("skipped", number)
        else:
            pairs.append(EncodedPair([*src, EOS_ID], [*tgt, EOS_ID], is_empty=False))
            notes.add("unknown_source", number, UNK_ID in src)
            notes.add("unknown_target", number, UNK_ID in tgt)
    return pairs


def score_ids(
    translator: Translator,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    alpha: float | None = None,
    with_ranks: bool = False,
    batch_tokens: int = 4096,
) -> list[ForcedScore]:
    """Score translations given as ids.

    Those of a `Hypothesis` have its log P.

    Args:
        sources: ids of each source, with </s>.
        targets: ids of each translation, with </s> unless it was cut.
        translator, alpha, with_ranks, batch_tokens: as for `score_translations`.

    Raises:
        ConfigError: an argument is out of its range.
        ValueError: a side has no ids, ids outside the vocabulary or more than the model has positions; a source has
            padding; or there are more sources than targets, or fewer.
    """
    search = override(translator.search, alpha=alpha)
    check_count("batch_tokens", batch_tokens)
    check_same_number(sources, targets)
    limit, tokenizer = _max_length(translator), translator.tokenizer
    for name, side, size in (("source", sources, len(tokenizer.source)), ("target", targets, len(tokenizer))):
        for number, ids in enumerate(side, start=1):
            if not 1 <= len(ids) <= limit or min(ids) < 0 or max(ids) >= size:
                raise ValueError(f"{name} {number} must have 1 to {limit} ids, each below {size}: {list(ids)[:20]}")
            if name == "source" and PAD_ID in ids:  # it is masked, but moves the positions of what follows
                raise ValueError(f"source {number} has the id of padding, {PAD_ID}: leave padding out")
    mine: dict[int, tuple[list[float], list[int]]] = {}
    for indices in translator.context.shard(list(length_batches(sources, targets, batch_tokens))):
        found = _log_probs(translator, [sources[i] for i in indices], [targets[i] for i in indices], with_ranks)
        mine |= zip(indices, found, strict=True)
        if translator.progress is not None:
            translator.progress(len(indices) * translator.context.size)  # the others have done about as many
    results = {i: found for part in translator.context.all_gather(mine) for i, found in part.items()}
    scores = []
    for i, ids in enumerate(targets):
        log_probs, ranks = results[i]
        log_prob = math.fsum(log_probs)
        score = log_prob / PENALTIES[search.length_penalty](len(ids), search.alpha)
        scores.append(ForcedScore(list(map(int, ids)), log_probs, ranks, log_prob, score))
    return scores


def length_batches(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[list[int]]:
    """Batch pairs by length, longest first.

    Returns their indices. Each side of a batch has at most `batch_tokens` ids, padding included, unless it is one pair.
    """
    lengths = [max(len(src), len(tgt)) for src, tgt in zip(sources, targets, strict=True)]
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], len(sources[i]) - len(targets[i])))
    while order:
        size = max(1, batch_tokens // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def perplexity(log_prob: float, number: int) -> float:
    """exp(-log P / number). Infinity where that is too large, NaN of nothing."""
    if not number:
        return math.nan
    try:
        return math.exp(-log_prob / number)
    except OverflowError:
        return math.inf


@torch.no_grad()
def _log_probs(
    translator: Translator, sources: list[Sequence[int]], targets: list[Sequence[int]], with_ranks: bool
) -> list[tuple[list[float], list[int]]]:
    """Log-probability and rank of each target id, of one batch."""
    device = translator.device
    src, tgt_in = pad(sources).to(device), pad([[BOS_ID, *ids[:-1]] for ids in targets]).to(device)  # (B, S), (B, T)
    # By lengths: the id of padding is none that a search could not find.
    lengths = torch.tensor([len(ids) for ids in targets], device=device)
    is_piece = torch.arange(tgt_in.size(1), device=device) < lengths[:, None]  # (B, T)
    models = [ready_model(member.model) for member in translator.members]
    rows = [model.decode(tgt_in, model.encode(src))[0][is_piece] for model in models]  # (N, D) of each
    target = torch.tensor([id_ for ids in targets for id_ in ids], device=device)  # (N,)
    num_rows = max(1, _CHUNK_NUMEL["cuda" if device.type == "cuda" else "cpu"] // len(translator.tokenizer))
    chunks = zip(*(part.split(num_rows) for part in rows), target.split(num_rows), strict=True)
    log_probs, ranks = zip(*(_of_rows(_logits(translator, x), ids, with_ranks) for *x, ids in chunks), strict=True)
    of_each, counts = iter(torch.cat(log_probs).tolist()), iter(torch.cat(ranks).tolist())
    return [([next(of_each) for _ in ids], [next(counts) for _ in ids] if with_ranks else []) for ids in targets]


def _logits(translator: Translator, rows: Sequence[Tensor]) -> Tensor:
    """Logits (n, V) from rows (n, D) of each model; of several, the log of their mean probabilities."""
    logits = [member.logits(x) for member, x in zip(translator.members, rows, strict=True)]
    return logits[0] if len(logits) == 1 else mean_log_probs(logits)


def _of_rows(logits: Tensor, target: Tensor, with_ranks: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ranks of target ids. In float32 at least; (n,) each, from logits (n, V)."""
    index = target[:, None]  # (n, 1)
    log_p = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    ranks = (logits > logits.gather(1, index)).sum(dim=1) + 1 if with_ranks else target[:0]
    return log_p.gather(1, index).squeeze(1), ranks


def _encode(
    encode: Callable[[list[str]], list[list[int]]], texts: list[str], side: str, numbers: Sequence[int]
) -> list[list[int]]:
    try:
        encoded = encode(texts)
    except DataError:
        is_wrong = [any("\ud800" <= character <= "\udfff" for character in text) for text in texts]
        raise surrogates_error(f"{side} {numbers[is_wrong.index(True)]}") from None
    # Some tokenizers have pieces for rare white space.
    return [ids if text.strip() else [] for text, ids in zip(texts, encoded, strict=True)]


def check_same_number(sources: Sequence[object], targets: Sequence[object]) -> None:
    """ValueError unless there are as many targets as sources."""
    if len(sources) != len(targets):
        raise ValueError(f"there are {len(sources)} sources and {len(targets)} targets; give a target for each source")


def _is_too_long(translator: Translator, num_src: int, num_tgt: int, number: int, too_long: TooLongPair) -> bool:
    """Whether a pair exceeds what `translate` reads and writes. DataError if that is an error."""
    search, most = translator.search, _max_length(translator)
    limits = (search.max_source_length, search.max_source_length + search.max_length_offset)
    for name, length, limit in zip(("source", "target"), (num_src, num_tgt), limits, strict=True):
        if length > min(limit, most):
            if too_long == "skip":
                return True
            way = " or raise the limit (--max-source-length)" * (limit <= most)
            raise DataError(
                f"{name} {number} has {length} pieces, more than the limit of {min(limit, most)}: shorten it{way}, or "
                "choose --too-long skip"
            )
    return False


def _max_length(translator: Translator) -> float:
    return math.inf if translator.max_length == sys.maxsize else translator.max_length


def _lines(numbers: Sequence[int], kind: str) -> str:
    return f"1 pair {kind} is" if len(numbers) == 1 else f"{len(numbers)} pairs {kind} are"

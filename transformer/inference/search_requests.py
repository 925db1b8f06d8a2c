"""From texts and settings to what is searched: sources, prefixes, phrases, limits and rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from transformer.config import SearchConfig
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Tokenizer
from transformer.errors import DataError
from transformer.inference.arguments import text_list
from transformer.inference.constraints import constrained_beam_search
from transformer.inference.decoding import Decode, Device, State
from transformer.inference.feasibility import check_phrases
from transformer.inference.hypotheses import Hypothesis
from transformer.inference.penalties import PENALTIES
from transformer.inference.phrases import PhraseIds, TextConstraints, encode_constraints
from transformer.inference.rules import Forbidden, ForcedPrefix, MinLength, NoRepeatNgram, Rule
from transformer.inference.sampling import Sampling, sample
from transformer.inference.search import beam_search, greedy_search
from transformer.inference.sources import Source, SourceReader


class Request(NamedTuple):
    """A source to search, with all on which its outputs depend."""

    source: Source
    prefix: list[int]  # ids with which they begin
    limit: int  # their most pieces, </s> included
    number: int  # of the text
    part: int  # of the text, from 0
    phrases: PhraseIds  # ids that they contain


class Wanted(NamedTuple):
    """Texts, and what the translation of each begins with and contains."""

    texts: Sequence[str]
    prefixes: Iterable[str] | None
    constraints: TextConstraints | None
    first_number: int  # of the texts

    def requests(
        self, reader: SourceReader, tokenizer: Tokenizer, search: SearchConfig, model_limit: int
    ) -> list[list[Request]]:
        """The requests for each text; errors as of `Translator.translate`.

        Args:
            tokenizer: of the target.
            model_limit: the most pieces that the model can put out.
        """
        prefixes = encode_prefixes(tokenizer, self.prefixes, len(self.texts), self.first_number)
        phrases = encode_constraints(tokenizer, self.constraints, len(self.texts), self.first_number)
        sources = reader.read(self.texts, first_number=self.first_number)
        return search_requests(sources, prefixes, search, model_limit, self.first_number, phrases)


def encode_prefixes(
    tokenizer: Tokenizer, prefixes: Iterable[str] | None, num_texts: int, first_number: int
) -> list[list[int]]:
    """The ids of the prefix of each text; none at all without prefixes.

    DataError for another number of them than of texts, and for one with unknown characters, by its number counted from
    `first_number`; TypeError as of `text_list`.
    """
    if prefixes is None:
        return []
    prefixes = text_list(prefixes, "prefixes", first_number=first_number)
    if len(prefixes) != num_texts:
        raise DataError(f"there are {len(prefixes)} prefixes for {num_texts} texts: give one per text, possibly empty")
    encoded = tokenizer.encode(prefixes)
    for number, (prefix, ids) in enumerate(zip(prefixes, encoded, strict=True), start=first_number):
        if UNK_ID in ids:
            raise DataError(
                f"prefix {number} ({prefix!r}) has characters that the tokenizer does not know, so no translation can "
                "begin with it"
            )
    return encoded


def search_requests(
    sources: Sequence[Sequence[Source]],
    prefixes: Sequence[list[int]],
    search: SearchConfig,
    model_limit: int,
    first_number: int,
    constraints: Sequence[PhraseIds] = (),
) -> list[list[Request]]:
    """The requests for the sources of each text; its prefix is for the first source that is searched.

    DataError if outputs cannot begin with a prefix and end after it within their limit, or cannot contain their
    phrases: as of `check_phrases`, or because a text is copied or split.

    Args:
        prefixes: as `encode_prefixes` returns them.
        model_limit: the most pieces that the model can put out.
        first_number: of the texts.
        constraints: as `encode_constraints` returns them.
    """
    found = []
    for i, sources_of_text in enumerate(sources):
        number, prefix = first_number + i, prefixes[i] if prefixes else []
        requests = []
        for part, source in enumerate(sources_of_text):
            limit = _output_limit(search, len(source.ids) - 1, model_limit)
            begins = prefix if source.ids else []
            if begins:
                if len(begins) >= limit:
                    raise DataError(
                        f"prefix {number} has {len(begins)} pieces, too many for a translation of at most {limit}, "
                        "</s> included: shorten it, or raise max_length_offset or max_length"
                    )
                prefix = []
            requests.append(Request(source, begins, limit, number, part, []))
        found.append(_with_phrases(requests, constraints[i], search) if constraints and constraints[i] else requests)
    return found


def _with_phrases(requests: Sequence[Request], phrases: PhraseIds, search: SearchConfig) -> list[Request]:
    request, *others = requests
    if others:
        raise DataError(
            f"sentence {request.number} has constraints and is split into {len(requests)} parts; split it by hand"
        )
    if not request.source.ids:
        raise DataError(
            f"sentence {request.number} has constraints and is not translated: it is empty or of unknown words"
        )
    check_phrases(phrases, request.prefix, request.limit, search, request.number)
    return [request._replace(phrases=phrases)]


def batches_of(requests: Sequence[Request], batch_tokens: int) -> Iterator[list[int]]:
    """Batches of the requests that are searched, as indices, longest first.

    Each has at most `batch_tokens` padded ids, or one request.
    """
    sources = [request.source.ids for request in requests]
    order = sorted((i for i, src in enumerate(sources) if src), key=lambda i: -len(sources[i]))
    while order:
        size = max(1, batch_tokens // len(sources[order[0]]))
        yield order[:size]
        order = order[size:]


def _output_limit(search: SearchConfig, num_source_pieces: int, model_limit: int) -> int:
    """The most pieces of an output, </s> included; the source's number is without </s>."""
    longest = num_source_pieces + search.max_length_offset
    return max(1, min(longest, model_limit, longest if search.max_length is None else search.max_length))


def rules_of(search: SearchConfig, limits: Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[Rule]:
    """The rules that the settings ask for; none by default.

    Args:
        limits: per sentence, the most pieces of its output.
        prefixes: per sentence, the ids with which its output begins; possibly none.
    """
    rules: list[Rule] = []
    if not search.allow_unknown:
        rules.append(Forbidden((UNK_ID, PAD_ID, BOS_ID)))
    if search.min_length > 1:
        rules.append(MinLength([min(search.min_length, limit) for limit in limits], (EOS_ID,)))
    if search.no_repeat_ngram:
        rules.append(NoRepeatNgram(search.no_repeat_ngram))
    return [ForcedPrefix(prefixes, rules)] if any(prefixes) else rules


def search_batch(
    decode: Decode[State],
    state: State,
    batch: Sequence[Request],
    search: SearchConfig,
    nbest: int,
    sampling: Sampling | None,
    *,
    text: Callable[[list[int]], str],
    device: Device,
) -> list[list[Hypothesis]]:
    """Search for the outputs of each request, or sample them, as the settings say.

    Args:
        state: after the sources of the batch are encoded.
        text: of ids; of hypotheses with the same text an n-best list has one.
    """
    limits = [request.limit for request in batch]
    options: Any = {
        "bos_id": BOS_ID,
        "eos_id": EOS_ID,
        "alpha": search.alpha,
        "penalty": PENALTIES[search.length_penalty],
        "rules": rules_of(search, limits, [request.prefix for request in batch]),
        "device": device,
    }
    if sampling is not None:
        options |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        generators = [sampling.generator(request.number, request.part) for request in batch]
        return sample(decode, state, limits, num_samples=nbest, generator=generators, **options)
    phrases = [request.phrases for request in batch]
    if search.beam == 1 and not any(phrases):
        return [[found] for found in greedy_search(decode, state, limits, **options)]
    # Different pieces may spell the same text.
    options |= {"beam": search.beam, "nbest": nbest, "key": None if nbest == 1 else text}
    if any(phrases):
        return constrained_beam_search(decode, state, limits, phrases, **options)
    return beam_search(decode, state, limits, **options)


def settings_of(search: SearchConfig) -> dict[str, object]:
    """The settings on which translations depend.

    Those that earlier versions did not have are there only if they are set.
    """
    default = SearchConfig()
    later = ("length_penalty", "max_length", "min_length", "no_repeat_ngram", "allow_unknown")
    set_ones = {name: getattr(search, name) for name in later if getattr(search, name) != getattr(default, name)}
    return {"beam": search.beam, "alpha": search.alpha, "max_length_offset": search.max_length_offset, **set_ones}

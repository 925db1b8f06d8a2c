"""What is searched for each input text, and what the user should hear about the input.

A text is one source, or several that are translated apart. A source without a single known word is not searched: the
model would make a sentence up. It is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from transformer.data.normalization import is_blank, text_error
from transformer.data.tags import begins_with_other_tag, list_languages, split_tag
from transformer.data.tokenizer import EOS_ID, UNK_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.sentences import has_several_sentences, split_sentences, split_to_fit

TooLong = Literal["error", "truncate", "split"]
TOO_LONG: tuple[TooLong, ...] = get_args(TooLong)
_Kind = Literal["copied", "doubtful", "unknown", "truncated", "several", "other_tag"]
_NUM_LISTED = 10


class Source(NamedTuple):
    """A text or a part of one: ids to search, </s> included, or none and the output."""

    ids: list[int]
    output: str = ""


@dataclass
class InputNotes:
    """Numbers of input lines that a user should know of, counted by `Translator`."""

    copied: list[int] = field(default_factory=list)  # with a part of which no word is known
    doubtful: list[int] = field(default_factory=list)  # more unknown than known words
    unknown: list[int] = field(default_factory=list)  # with unknown characters, but fewer than that
    truncated: list[int] = field(default_factory=list)
    several: list[int] = field(default_factory=list)  # seem to have several sentences, and are not split
    num_lines: int = 0
    other_tag: list[int] = field(default_factory=list)  # begin with what looks like a tag, and is none of the model's

    def messages(self) -> list[str]:
        """A line for each kind that occurred."""
        lines = []
        if self.copied:
            lines.append(
                f"{_lines(self.copied, 'without a known word', 'is', 'are')} copied: {list_numbers(self.copied)}"
            )
        if self.doubtful:
            what = _lines(self.doubtful, "of mostly unknown words", "has", "have")
            lines.append(f"{what} a doubtful translation: {list_numbers(self.doubtful)}")
        if self.unknown:
            what = _lines(self.unknown, "with unknown characters", "is", "are")
            lines.append(f"{what} translated with the unknown piece for them: {list_numbers(self.unknown)}")
        if self.truncated:
            lines.append(
                f"{_lines(self.truncated, 'beyond the limit', 'is', 'are')} cut: {list_numbers(self.truncated)}"
            )
        if self.other_tag:
            what = _lines(self.other_tag, "with something in angle brackets at the beginning", "is", "are")
            lines.append(
                f"{what} translated as text, as it is not one of the model's tags and a space: "
                f"{list_numbers(self.other_tag)}"
            )
        if self.several:
            lines.append(
                f"{len(self.several)} of {self.num_lines} lines seem to have several sentences; a model trained on "
                "single sentences drops all but the first: --split-sentences"
            )
        return lines


@dataclass(frozen=True)
class SourceReader:
    """Turns texts into sources.

    Args:
        limit: pieces of a source, </s> included.
        is_raisable: whether the limit is a setting, and not the model's.
        too_long: what becomes of a longer text: an error, cut at the limit, or split into several sources.
        language: split texts into sentences by this language's rules; None: each is one.
        notes: count what a user should know of here.
        tag: a piece before each source, such as `<2de>`; one of the `tags` that begins a text comes first.
        tags: that the model was trained with.
        needs_tag: whether each text must have one, as in a multilingual model.

    Raises:
        ConfigError: `too_long` is none of these, or would cut every text to nothing; or the tag is not one of `tags`.
    """

    tokenizer: Tokenizer
    limit: int
    is_raisable: bool
    too_long: TooLong = "error"
    language: str | None = None
    notes: InputNotes | None = None
    tag: str | None = None
    tags: Sequence[str] = ()
    needs_tag: bool = False

    def __post_init__(self) -> None:
        if self.tag is not None and self.tag not in self.tags:
            known = ", ".join(self.tags) or "none"
            raise ConfigError(f"tag={self.tag} is not one of the model's tags, which are: {known}")
        if self.too_long not in TOO_LONG:
            raise ConfigError(f"too_long={self.too_long!r} must be one of {', '.join(TOO_LONG)}")
        if self.too_long == "truncate" and self.limit < 2 + self._longest_tag():
            includes = f"{'a tag and ' * bool(self.tags)}</s>"
            raise ConfigError(
                f"too_long=truncate would leave nothing of any text: the limit of {self.limit} "
                f"piece{'s' * (self.limit > 1)} includes "
                f"{includes}{'; raise max_source_length' * self.is_raisable}"
            )

    def _longest_tag(self) -> int:
        return max(map(len, self.tokenizer.source.encode([*self.tags])), default=0)

    def read(self, texts: Sequence[str], *, first_number: int = 1) -> list[list[Source]]:
        """The sources of each text, at least one.

        DataError for one that is too long, by its number counted from `first_number`, for surrogates, or if sentences
        are to be split and `sentencex` is not installed.
        """
        for number, text in enumerate(texts, start=first_number):
            if self.has_other_tag(text):
                self._note("other_tag", number)
        tags, texts = zip(*map(self._tag_and_text, texts), strict=True) if texts else ((), ())
        parts = [[text] if self.language is None else split_sentences(text, self.language) for text in texts]
        try:
            tagged = zip(tags, parts, strict=True)
            encoded = iter(self._encode([(tag, part) for tag, parts_of_text in tagged for part in parts_of_text]))
        except (DataError, TypeError):
            raise text_error(("".join(parts_of_text) for parts_of_text in parts), first_number) from None
        sources = []
        for number, (tag, parts_of_text) in enumerate(zip(tags, parts, strict=True), start=first_number):
            sources.append([x for part in parts_of_text for x in self._sources(part, next(encoded), number, tag)])
        if self.notes is not None:
            self.notes.num_lines += len(parts)
        return sources

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole texts with their tags, without </s>; none for a text without content."""
        split = [self._tag_and_text(text) for text in texts]
        # Some tokenizers have pieces for rare white space.
        return [ids if text.strip() else [] for (_, text), ids in zip(split, self._encode(split), strict=True)]

    def encode_words(self, text: str) -> tuple[list[int], list[list[int]]]:
        """Ids of a text's tag, if it has one, and of each of its words, split at white space.

        A tag that begins the text itself is a word without ids.
        """
        tag, rest = self._tag_and_text(text)
        source, words = self.tokenizer.source, rest.split()
        ids = source.encode_words(rest) if tag is None else source.encode_inside(words)
        return self._prefix(tag), [[] for _ in range(len(text.split()) - len(words))] + ids

    def _tag_and_text(self, text: str) -> tuple[str | None, str]:
        """The tag at the beginning of a text and what follows, or the reader's tag and the text.

        ConfigError if there is none and the model needs one.
        """
        own, text = split_tag(text, self.tags) if self.tags and isinstance(text, str) else (None, text)
        tag = own or self.tag
        if tag is None and self.needs_tag and isinstance(text, str) and not is_blank(text):
            raise ConfigError(
                "the model translates into several languages: choose one by --target-language (or begin each text with "
                f"its tag), of {list_languages(self.tags)}"
            )
        return tag, text

    def has_other_tag(self, text: str) -> bool:
        """Whether it begins with what looks like a tag, and is none of the model's."""
        return isinstance(text, str) and begins_with_other_tag(text, self.tags)

    def _prefix(self, tag: str | None) -> list[int]:
        return [] if tag is None else self.tokenizer.source.encode([tag])[0]

    def _encode(self, texts: Sequence[tuple[str | None, str]]) -> list[list[int]]:
        """Ids of tags with their texts, each as one text as in training; none for a text without content.

        A text may have other pieces after a tag than alone, where the tokenizer marks no beginning of a text.
        """
        is_tagged = [tag is not None and isinstance(text, str) and not is_blank(text) for tag, text in texts]
        shown = [f"{tag} {text}" if flag else text for (tag, text), flag in zip(texts, is_tagged, strict=True)]
        alone = {tag: self._prefix(tag) for tag in {tag for tag, _ in texts}}
        encoded = zip(texts, is_tagged, self.tokenizer.source.encode(shown), strict=True)
        # Normalisation may leave nothing but the tag.
        return [[] if flag and ids == alone[tag] else ids for (tag, _), flag, ids in encoded]

    def check_length(self, num_pieces: int, number: int) -> None:
        """DataError if text `number` has more pieces, </s> included, than the limit."""
        if num_pieces > self.limit:
            way = ", raise the limit (--max-source-length)" * self.is_raisable
            ways = f"split it{way}, or choose --too-long truncate or split"
            raise DataError(f"sentence {number} has {num_pieces} pieces, more than the limit of {self.limit}: {ways}")

    def _sources(self, text: str, ids: list[int], number: int, tag: str | None) -> list[Source]:
        if not text.strip():  # some tokenizers have pieces for rare white space
            return [Source([])]
        if len(ids) >= self.limit:
            if self.too_long == "error":
                self.check_length(len(ids) + 1, number)
            if self.too_long == "truncate":
                self._note("truncated", number)
                ids = ids[: self.limit - 1]
            else:
                parts = self._split(text, number, tag)
                encoded = zip(parts, self._encode([(tag, part) for part in parts]), strict=True)
                return [x for part, ids in encoded for x in self._sources(part, ids, number, tag)]
        if UNK_ID in ids and self._is_unknown(ids[len(self._prefix(tag)) :], number):
            return [Source([], " ".join(text.split("\n")))]
        if self.notes is not None and self.language is None and has_several_sentences(text):
            self._note("several", number)
        return [Source([*ids, EOS_ID] if ids else [])]  # normalisation may leave nothing

    def _split(self, text: str, number: int, tag: str | None) -> list[str]:
        size = len(self._prefix(tag))  # in each part

        def num_pieces(part: str) -> int:
            return max(0, len(self._encode([(tag, part)])[0]) - size)

        try:
            return split_to_fit(text, num_pieces, self.limit - size - 1)
        except DataError as error:
            raise DataError(f"sentence {number} cannot be split: {error}") from None

    def _is_unknown(self, ids: list[int], number: int) -> bool:
        """Whether nothing but punctuation is known of a source with unknown pieces."""
        known = self.tokenizer.source.pieces(id_ for id_ in ids if id_ != UNK_ID)
        num_words = sum(any(map(str.isalnum, piece)) for piece in known)
        if not num_words:
            self._note("copied", number)
        else:
            self._note("doubtful" if ids.count(UNK_ID) > num_words else "unknown", number)
        return not num_words

    def _note(
        self, kind: Literal["copied", "doubtful", "unknown", "truncated", "several", "other_tag"], number: int
    ) -> None:
        if self.notes is not None and getattr(self.notes, kind)[-1:] != [number]:
            getattr(self.notes, kind).append(number)


def _lines(numbers: Sequence[int], kind: str, one: str, many: str) -> str:
    return f"1 line {kind} {one}" if len(numbers) == 1 else f"{len(numbers)} lines {kind} {many}"


def list_numbers(numbers: Sequence[int]) -> str:
    """The first numbers, separated by commas, and how many more there are."""
    listed = ", ".join(map(str, numbers[:_NUM_LISTED]))
    return listed if len(numbers) <= _NUM_LISTED else f"{listed} and {len(numbers) - _NUM_LISTED} more"

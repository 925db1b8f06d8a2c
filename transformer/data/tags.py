"""Tags: a piece before the source sentence that says what the target should be, or where a pair comes from.

`<2de>`, or `>>deu<<` in models of OPUS-MT, asks for a language (Johnson et al. 2017), `<bt>` marks back-translated text
(Caswell et al. 2019).
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from transformer.data.languages import UNKNOWN_LANGUAGE, is_same_language
from transformer.data.normalization import is_blank
from transformer.data.pairs import Corpus
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError

_TAG_LIKE = re.compile(r"\s*(<[^<>\s]+>|>>[^<>\s]+<<)")
_CODE = re.compile(r"\s*(>>[^<>\s]+<<)")
_OF_LANGUAGE = re.compile(r"<2[^<>\s]+>|>>[^<>\s]+<<")


def split_tag(text: str, tags: Sequence[str]) -> tuple[str | None, str]:
    """The tag with which a text begins, if it does, and the rest of the text."""
    first, *rest = text.split(maxsplit=1)[:2] or [""]
    if first in tags:
        return first, "".join(rest)
    # As Hugging Face has it, no space need follow a code.
    code = _CODE.match(text)
    return (code[1], text[code.end() :]) if code and code[1] in tags else (None, text)


def begins_with_other_tag(text: str, tags: Sequence[str]) -> bool:
    """Whether a text begins with what looks like a tag, but is none of these or no word of its own.

    Where a model has no tags, only a code such as `>>deu<<` does: `<b>` is text.
    """
    return split_tag(text, tags)[0] is None and (_TAG_LIKE if tags else _CODE).match(text) is not None


def tagged(corpus: Corpus, tag: str | None, tags: Sequence[str]) -> Corpus:
    """The corpus with a tag before each source.

    A source without text gets none, nor does one that begins with one of the `tags` itself.
    """
    if tag is None:
        return corpus

    def read() -> Iterator[tuple[str, str]]:
        for source, target in corpus.read():
            own, text = split_tag(source, tags)
            yield ("" if is_blank(text) else f"{own or tag} {text}"), target

    return dataclasses.replace(corpus, fingerprint=f"{corpus.fingerprint} tag {tag} of {' '.join(tags)}", read=read)


def num_tag_pieces(tokenizer: Tokenizer, tag: str | None) -> int:
    """How many pieces a tag has before a source; 0 without one.

    It is 1 with a tokenizer of this project. One from elsewhere may add the mark of a space.
    """
    return 0 if tag is None else len(tokenizer.source.encode([tag])[0])


def changes_text(tokenizer: Tokenizer, tag: str) -> bool:
    """Whether a source has other pieces after a tag than alone, as with tokenizers that mark no beginning of a text."""
    tagged_text, alone, text = tokenizer.source.encode([f"{tag} a", tag, "a"])
    return tagged_text != alone + text


def tag_of_language(language: str, tags: Sequence[str], only: str = "") -> str | None:
    """The tag that asks for a language, as `>>deu<<` or `<2deu>` for `deu` and for `de`.

    None where no tag asks for any, and the language is that of all translations. ConfigError if it is none of them.

    Args:
        only: into which a model without tags of languages translates.
    """
    for tag in tags:
        if language in (tag, language_of(tag)):
            return tag
    alike = [tag for tag in tags if is_same_language(language, language_of(tag))]
    if len(alike) == 1:
        return alike[0]
    if any(map(_OF_LANGUAGE.fullmatch, tags)) or not only:
        known = list_languages(alike or tags)
        raise ConfigError(f"the target language {language!r} is not one of the model's, which are: {known}")
    if is_same_language(language, only):
        return None
    if only == UNKNOWN_LANGUAGE:
        raise ConfigError(f"the target language {language!r} cannot be chosen: the model has no tags of languages")
    raise ConfigError(f"the target language {language!r} is not that of the model, {only}, which has no tag for others")


def list_languages(tags: Sequence[str]) -> str:
    """What may be given for `--target-language`, separated by commas; `none` if there is nothing."""
    return ", ".join(sorted(map(language_of, tags))) or "none"


def language_of(tag: str) -> str:
    """`deu` for `>>deu<<` and for `<2deu>`."""
    return re.sub(r"^2", "", tag.strip("<>")) if tag.startswith("<") else tag.strip("<>")

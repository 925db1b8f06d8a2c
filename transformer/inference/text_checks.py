"""Signs that text is not what it is scored as, which would give a wrong score without an error."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

# Thai, Lao, Tibetan, Myanmar, Khmer, kana and Han: scripts written without spaces.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\uaa60-\uaa7f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002fa1f]"
)
_NUM_CHECKED = 1000  # lines
# Characters between spaces, on average; text of these scripts that was split into words has about 2, Thai 4.
_LONGEST_WORD = 5.0
_PIECES = {
    "▁": re.compile(r"▁\w"),  # SentencePiece
    "@@": re.compile(r"\S@@(\s|$)"),  # subword-nmt
}
_SCORED = re.compile(r"(-?\d+\.\d+|-inf)\t")
# BLEU's tokenizers that split words at spaces and punctuation only.
_SPLIT_AT_SPACES = ("13a", "intl", "none")


def needs_other_tokenizer(lines: Sequence[str]) -> bool:
    """Whether most characters belong to scripts without spaces, and no spaces were put between their words."""
    text = " ".join(lines[:_NUM_CHECKED])
    words = text.split()
    num_characters = sum(map(len, words))
    return num_characters > _LONGEST_WORD * len(words) and 2 * len(_UNSPACED.findall(text)) > num_characters


def signs_of_other_words(references: Sequence[str], tokenize: str, metrics: Sequence[str]) -> Iterator[str]:
    """A line for BLEU, and one for chrF++ and TER, if they would take whole sentences for words."""
    if not needs_other_tokenizer(references):
        return
    if "bleu" in metrics and tokenize in _SPLIT_AT_SPACES:
        yield (
            f"the references are written without spaces, and {tokenize} does not split them: take the tokenizer of "
            "their language (zh, ja-mecab, ko-mecab), or char"
        )
    at_spaces = [name for name in ("chrf++", "ter") if name in metrics and (name, tokenize) != ("ter", "zh")]
    if at_spaces:
        names = " and ".join(at_spaces)
        yield f"the references are written without spaces, between which {names} count words: take chrf"


def signs_of_pieces(lines: Sequence[str], name: str) -> Iterator[str]:
    """A line for each kind of subword mark in the text called `name`."""
    for mark, pattern in _PIECES.items():
        if found := sum(1 for line in lines if pattern.search(line)):
            yield (
                f"{found} of {len(lines)} lines of {name} have {mark!r}, which marks subword pieces: "
                "join the pieces to words before scoring"
            )


def signs_of_tokenisation(lines: Sequence[str], name: str, tokenize: str) -> Iterator[str]:
    """A line if text is tokenised, by its full stops, and would be tokenised again."""
    if tokenize == "none":
        return
    found = sum(1 for line in lines if line.endswith(" ."))
    if found and 2 * found >= len(lines):
        yield (
            f"{found} of {len(lines)} lines of {name} end in ' .', as tokenised text does: detokenise it, or if the "
            "references are tokenised likewise, score with --tokenize none"
        )


def signs_of_other_composition(lines: Sequence[str], references: Sequence[str], name: str) -> Iterator[str]:
    """A line if one text has its accents in one code point with the letter (NFC), and the other has not."""
    composed, composed_references = (
        [unicodedata.is_normalized("NFC", line) for line in side[:_NUM_CHECKED]] for side in (lines, references)
    )
    if all(composed) != all(composed_references):
        where = "the references" if all(composed) else name
        number = max(composed.count(False), composed_references.count(False))
        yield (
            f"{number} of {len(composed)} lines of {where} are not in Unicode's composed form (NFC), unlike "
            "the other text: letters that look alike count as different"
        )


def signs_of_scores(lines: Sequence[str], name: str) -> Iterator[str]:
    """A line if each line begins with a score and a tab, which would be compared with words."""
    if any(lines) and all(_SCORED.match(line) for line in lines if line):
        yield f"every line of {name} begins with a number and a tab, as translate --scores writes: cut it off"


def signs_of_nothing(lines: Sequence[str], name: str) -> Iterator[str]:
    """A line if all lines are empty."""
    if not any(map(str.strip, lines)):
        yield f"every line of {name} is empty"


def signs_of_copies(name: str, lines: Sequence[str], others: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line for each of the other texts, by name, that a text repeats from the first line to the last."""
    for other, copied in others.items():
        if any(lines) and list(lines) == list(copied):
            yield f"every line of {name} is equal to that of {other}: is it the right file?"

"""Which of sacreBLEU's tokenizers scores a language."""

import re
from collections.abc import Callable

from sacrebleu.metrics.bleu import BLEU

from transformer.errors import DataError

TOKENIZERS = tuple(sorted(BLEU.TOKENIZERS))

# As sacreBLEU's own command chooses, which knows the tags zh, ja and ko only. `cn` and `jp` are countries, but common.
_CHINESE = "zh zho chi zhs zht cmn yue nan wuu hak gan lzh hsn cdo cjy cpx czh czo mnp cn chinese mandarin cantonese"
_JAPANESE = "ja jpn jp japanese"
_KOREAN = "ko kor korean"
# Languages whose words no tokenizer of sacreBLEU splits, and no space either.
_UNSPACED = (
    "th tha thai nod sou tts lo lao km khm kxm khmer my mya bur burmese rki shn mnw khb "
    "bo bod tib tibetan adx khg dz dzo dzongkha"
)
_BY_LANGUAGE = {
    name: tokenizer
    for names, tokenizer in (
        (_CHINESE, "zh"),
        (_JAPANESE, "ja-mecab"),
        (_KOREAN, "ko-mecab"),
        (_UNSPACED, "char"),
    )
    for name in names.split()
}
# ISO 15924 codes, which decide for languages that are not listed above.
_UNSPACED_SCRIPTS = "thai laoo khmr mymr tibt lana talu java bali bugi jpan hira kana hrkt"
_BY_SCRIPT = {
    **dict.fromkeys(("hans", "hant", "hani", "hanb"), "zh"),
    **dict.fromkeys(_UNSPACED_SCRIPTS.split(), "char"),
}
# Writing with spaces, even of the languages above: romanisations, Dungan, Chinese in Arabic letters.
_SPACED_SCRIPTS = {"latn", "cyrl", "arab", "deva"}

_EXTRAS = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}


def tokenizer_of(lang: str) -> str:
    """The BLEU tokenizer of a language; 13a unless it is written without spaces.

    `lang` is a tag as ISO 639, BCP 47, POSIX, FLORES or OPUS write it: zh, cmn, zh-Hans, zh_CN.UTF-8, zho_Hans,
    jpn_Jpan; or an English name in lower case.
    """
    language, *subtags = re.split(r"[-_.@\s]+", lang.strip().lower())
    if not _SPACED_SCRIPTS.isdisjoint(subtags):
        return "13a"
    if language in _BY_LANGUAGE:
        return _BY_LANGUAGE[language]
    return next((_BY_SCRIPT[subtag] for subtag in subtags if subtag in _BY_SCRIPT), "13a")


def make_bleu(tokenize: str, *, lowercase: bool = False) -> BLEU:
    """sacreBLEU's BLEU, its tokenizer tried on a line. DataError if the tokenizer is unknown or cannot be used."""
    if tokenize not in TOKENIZERS:
        raise DataError(f"the BLEU tokenizer {tokenize!r} is not one of {', '.join(TOKENIZERS)} of this sacreBLEU")
    try:
        bleu = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
        bleu.tokenizer("a b")
    except (Exception, SystemExit) as error:  # missing libraries, other dictionaries, failed downloads
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the BLEU tokenizer {tokenize!r} cannot be used: {reason}") from None
    return bleu


def resolve_tokenizer(tokenize: str, lang: str, warn: Callable[[str], None]) -> str:
    """Resolve `auto` to the tokenizer of a language; any other name is only tried.

    If the tokenizer that `auto` means is not installed, characters are compared, and `warn` gets one line.

    Raises:
        DataError: the tokenizer that was asked for by name cannot be used.
    """
    chosen = tokenizer_of(lang) if tokenize == "auto" else tokenize
    try:
        make_bleu(chosen)
    except DataError as error:
        if tokenize != "auto":
            raise
        reason = f"needs pip install '{_EXTRAS[chosen]}'" if "pip install" in str(error) else str(error)
        warn(f"BLEU of {lang} compares characters (char): the usual tokenizer, {chosen}, {reason}")
        return "char"
    return chosen

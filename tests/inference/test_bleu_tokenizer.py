"""The BLEU tokenizer of a language, and what happens if it is not installed."""

from __future__ import annotations

import typing

import pytest
from sacrebleu.metrics.bleu import BLEU

from transformer.errors import DataError
from transformer.inference import bleu_tokenizer
from transformer.inference.bleu_tokenizer import TOKENIZERS, make_bleu, resolve_tokenizer, tokenizer_of
from transformer.sections.types import BleuTokenizer

TAGS = {
    "zh": "zh ZH zh-Hans zh_CN zh_CN.UTF-8 zh-TW zht zho zho_Hans yue_Hant cmn yue lzh nan zh-min-nan chi cn chinese",
    "ja-mecab": "ja ja_JP jpn jpn_Jpan JA-jp jp japanese",
    "ko-mecab": "ko ko-KR kor kor_Hang korean",
    "char": "th tha tha_Thai lo lao_Laoo km khm_Khmr my mya_Mymr bur bo bod_Tibt dz dzo_Tibt ryu_Jpan jav_Java",
    "13a": "de en en_US deu_Latn vi vie_Latn srp_Cyrl hi_Deva ar jav_Latn zh-Latn zh_Latn_pinyin ja-Latn test tgt",
}


@pytest.mark.parametrize(("tag", "tokenizer"), [(tag, name) for name, tags in TAGS.items() for tag in tags.split()])
def test_language_tags_of_all_kinds_lead_to_a_tokenizer(tag: str, tokenizer: str) -> None:
    assert tokenizer_of(tag) == tokenizer


def test_sacrebleus_own_choices_are_taken() -> None:
    assert {lang: tokenizer_of(lang) for lang in BLEU._TOKENIZER_MAP} == BLEU._TOKENIZER_MAP
    assert tokenizer_of("xx") == BLEU.TOKENIZER_DEFAULT


def test_the_configuration_accepts_the_tokenizers_of_sacrebleu_and_auto() -> None:
    assert set(TOKENIZERS) <= {*typing.get_args(BleuTokenizer)} - {"auto"}


def missing(library_error: BaseException):  # type: ignore[no-untyped-def]
    """Stands in for BLEU where the libraries of MeCab are absent."""

    def make(*, tokenize: str, **options: object) -> BLEU:
        if "mecab" in tokenize:
            raise library_error
        return BLEU(tokenize=tokenize, **options)

    return make


@pytest.mark.parametrize("error", [ImportError, RuntimeError, AssertionError, SystemExit])
def test_a_tokenizer_asked_for_by_name_that_cannot_be_used_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing(error("Please install\n  mecab")))
    message = r"^the BLEU tokenizer 'ja-mecab' cannot be used: Please install mecab$"
    with pytest.raises(DataError, match=message):
        make_bleu("ja-mecab")
    with pytest.raises(DataError, match=message):
        resolve_tokenizer("ja-mecab", "ja", pytest.fail)


def test_an_error_without_a_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing(RuntimeError()))
    with pytest.raises(DataError, match=r"'ko-mecab' cannot be used: RuntimeError$"):
        make_bleu("ko-mecab")


def test_an_unknown_tokenizer_is_an_error_that_names_all() -> None:
    with pytest.raises(DataError, match=r"^the BLEU tokenizer 'auto' is not one of 13a, char, .*zh of this sacreBLEU$"):
        make_bleu("auto")


@pytest.mark.parametrize(("lang", "tokenizer"), [("jpn_Jpan", "ja-mecab"), ("ko", "ko-mecab")])
def test_auto_falls_back_to_characters_and_says_once_how_to_get_better(
    monkeypatch: pytest.MonkeyPatch, lang: str, tokenizer: str
) -> None:
    extra = tokenizer[:2]
    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing(RuntimeError(f"... pip install sacrebleu[{extra}]\n")))
    warnings: list[str] = []
    assert resolve_tokenizer("auto", lang, warnings.append) == "char"
    assert warnings == [
        f"BLEU of {lang} compares characters (char): the usual tokenizer, {tokenizer}, "
        f"needs pip install 'sacrebleu[{extra}]'"
    ]


def test_auto_says_why_an_installed_tokenizer_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu_tokenizer, "BLEU", missing(AssertionError("another dictionary")))
    warnings: list[str] = []
    assert resolve_tokenizer("auto", "ja", warnings.append) == "char"
    assert warnings[0].endswith("ja-mecab, the BLEU tokenizer 'ja-mecab' cannot be used: another dictionary")


@pytest.mark.parametrize(("tokenize", "lang"), [("auto", "de"), ("auto", "th"), ("auto", "zh"), ("none", "ja")])
def test_what_works_is_said_nothing_about(tokenize: str, lang: str) -> None:
    assert resolve_tokenizer(tokenize, lang, pytest.fail) == (tokenizer_of(lang) if tokenize == "auto" else tokenize)

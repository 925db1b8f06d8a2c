"""Phrases as text: they occur in the translation as the tokenizer writes them."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from transformer.config import ModelConfig, SearchConfig
from transformer.data.builtin import builtin_pairs
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference import search_requests
from transformer.inference.ensemble import Ensemble
from transformer.inference.phrases import ConstraintFile, encode_phrases, unmet_messages
from transformer.inference.rules import Forbidden
from transformer.inference.sampling import Sampling
from transformer.inference.sources import SourceReader
from transformer.inference.translator import Translation, Translator
from transformer.model.alternatives.build import build_model

TEXTS = ["A man is eating an apple.", "Two dogs.", "Is the cat sleeping?", "The children are not playing.", "We"]
PHRASES: list[list[str]] = [["Hunde"], [], ["eine Katze", "Mann isst"], ["rot", "rot", "Ball"], []]


@pytest.fixture(scope="module")
def translator(tokenizer: Tokenizer) -> Translator:
    """A random model, which never says by itself what it is asked to."""
    torch.manual_seed(2)
    model = build_model(len(tokenizer), ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29))
    return Translator(model, tokenizer, SearchConfig(beam=3, max_length_offset=23))


def assert_same(found: Sequence[Sequence[Translation]], wanted: Sequence[Sequence[Translation]]) -> None:
    assert [[x.text for x in nbest] for nbest in found] == [[x.text for x in nbest] for nbest in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert [x.score for x in one] == pytest.approx([x.score for x in other], abs=1e-4)


def test_phrases_that_can_be_read_once_are_in_their_translations(translator: Translator) -> None:
    wanted = translator.translate_nbest(TEXTS, nbest=2, constraints=PHRASES)
    once: Any = (map(str.strip, phrases) for phrases in PHRASES)
    assert translator.translate_nbest((text for text in TEXTS), nbest=2, constraints=once) == wanted
    once = (iter(phrases) for phrases in [["Hunde", "漢"], [], [], [], []])
    with pytest.raises(DataError, match=r"^sentence 1: the phrase '漢' has characters that the model cannot write$"):
        translator.check((text for text in TEXTS), constraints=once)  # type: ignore[arg-type]


@pytest.mark.parametrize("beam", [1, 2, 7])
def test_every_phrase_is_in_its_translation(translator: Translator, beam: int) -> None:
    found = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, constraints=PHRASES)
    for phrases, nbest in zip(PHRASES, found, strict=True):
        for x in nbest:
            assert all(x.text.count(phrase) >= phrases.count(phrase) for phrase in phrases)
    assert [x.text for (x, *_) in found] == translator.translate(TEXTS, beam=beam, constraints=PHRASES)


@pytest.mark.parametrize("beam", [1, 3])
def test_texts_without_constraints_are_translated_as_before(translator: Translator, beam: int) -> None:
    plain = translator.translate_nbest(TEXTS, nbest=beam, beam=beam)
    found = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, constraints=PHRASES)
    assert_same([found[1], found[4]], [plain[1], plain[4]])
    assert translator.translate_nbest(TEXTS, nbest=beam, beam=beam, constraints=[[]] * 5) == plain


@pytest.mark.parametrize("batch_tokens", [1, 17, 4096])
def test_batches_of_any_size_give_the_same(translator: Translator, batch_tokens: int) -> None:
    alone = [
        translator.translate_nbest([text], nbest=3, constraints=[phrases])[0]
        for text, phrases in zip(TEXTS, PHRASES, strict=True)
    ]
    assert_same(translator.translate_nbest(TEXTS, nbest=3, constraints=PHRASES, batch_tokens=batch_tokens), alone)


def test_phrases_are_normalised_as_the_tokenizer_does(translator: Translator, tokenizer: Tokenizer) -> None:
    (text,) = translator.translate(TEXTS[:1], constraints=[["  eine \u2028 Katze "]])
    assert "eine Katze" in text
    assert encode_phrases([["  eine \u2028 Katze "]], tokenizer) == encode_phrases([["eine Katze"]], tokenizer)


def test_the_length_of_a_translation_may_be_used_up(translator: Translator, tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(TEXTS[1:2])
    phrase = "Hunde " * 40
    num_pieces = len(tokenizer.encode([phrase])[0])
    offset = num_pieces - len(ids)
    assert translator.translate(TEXTS[1:2], constraints=[[phrase]], max_length_offset=offset) == [phrase.strip()]
    message = (
        rf"^the constraints of sentence 1 have {num_pieces} pieces, and its translation at most {num_pieces - 1}; "
    )
    with pytest.raises(DataError, match=message):
        translator.translate(TEXTS[1:2], constraints=[[phrase]], max_length_offset=offset - 1)


@pytest.mark.parametrize(
    ("texts", "constraints", "message"),
    [
        (
            ["We"],
            [["Wörter здесь"]],
            "sentence 1: the phrase 'Wörter здесь' has characters that the model cannot write",
        ),
        (["We", "We"], [["Hund"], ["Hund", " "]], "sentence 2 has an empty phrase; a tab must separate two"),
        (["We"], [["a\ud800"]], "the constraints of sentence 1: text 1 contains surrogates, which UTF-8 cannot encode"),
        (
            ["We", ""],
            [[], ["Hund"]],
            "sentence 2 has constraints and is not translated: it is empty or of unknown words",
        ),
        (["здесь"], [["Hund"]], "sentence 1 has constraints and is not translated: it is empty or of unknown words"),
        (["We. " * 9], [["Hund"]], "sentence 1 has constraints and is split into 3 parts; split it by hand"),
    ],
)
def test_constraints_that_cannot_be_met_are_an_error(
    translator: Translator, texts: list[str], constraints: list[list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^{re.escape(message)}"):
        translator.translate(texts, constraints=constraints, too_long="split", max_source_length=13)


def test_errors_count_from_the_first_number(translator: Translator) -> None:
    for phrase, message in (("здесь", "^sentence 43: "), (" ", "^sentence 43 "), ("Hund " * 200, "of sentence 43 ")):
        with pytest.raises(DataError, match=message):
            translator.translate_nbest(["We", "We"], nbest=1, constraints=[[], [phrase]], first_number=42)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([], r"constraints must be 1 lists of phrases, one per sentence"),
        ([[], []], r"constraints must be 1 lists of phrases, one per sentence"),
        ("a", r"constraints must be 1 lists of phrases, one per sentence"),
        (["Hund"], r"the constraints of sentence 1 must be a list of texts, got 'Hund'"),
        ([[3]], r"the constraints of sentence 1 must be a list of texts, got \[3\]"),
    ],
)
def test_constraints_must_be_a_list_of_texts_per_text(translator: Translator, constraints: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        translator.translate(["We"], constraints=constraints)


def test_a_phrase_is_a_word_of_its_own_where_the_first_word_is_written_otherwise() -> None:
    made = io.BytesIO()
    sentences = iter([side for pair in builtin_pairs("train", 199) for side in pair])
    ids: Any = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "user_defined_symbols": ["<2de>"]}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=sentences, model_writer=made, vocab_size=211, add_dummy_prefix=False, minloglevel=2, **ids
    )
    tokenizer = Tokenizer(made.getvalue())
    whole, before = tokenizer.encode(["Zwei Hunde", "Zwei"])
    ((phrase,),) = encode_phrases([["Hunde"]], tokenizer)
    assert [*before, *phrase] == whole
    assert tokenizer.pieces(phrase)[0].startswith("▁")
    # And so is all of a source after its tag.
    reader = SourceReader(tokenizer, limit=97, is_raisable=True, tag="<2de>", tags=["<2de>"])
    (wanted,) = tokenizer.encode(["<2de> A man is here."])
    assert reader.read(["A man is here."])[0][0].ids[:-1] == wanted == reader.encode(["<2de> A man is here."])[0]
    tag, words = reader.encode_words("A man is here.")
    assert [*tag, *itertools.chain(*words)] == wanted


# With other options

PREFIXES = ["Zwei Hunde", "Zwei", "eine", "der", ""]


def begin_and_contain(found: Sequence[Sequence[Translation]], prefixes: Sequence[str]) -> bool:
    return all(
        x.text.startswith(prefix) and all(x.text.count(phrase) >= phrases.count(phrase) for phrase in phrases)
        for prefix, phrases, nbest in zip(prefixes, PHRASES, found, strict=True)
        for x in nbest
    )


@pytest.mark.parametrize("beam", [1, 3])
def test_translations_begin_with_their_prefixes_and_contain_their_phrases(translator: Translator, beam: int) -> None:
    found = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, constraints=PHRASES, prefixes=PREFIXES)
    assert begin_and_contain(found, PREFIXES)
    plain = translator.translate_nbest(TEXTS, nbest=beam, beam=beam, prefixes=PREFIXES)
    assert_same([found[1], found[4]], [plain[1], plain[4]])


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_phrase_that_the_prefix_has_changes_nothing(translator: Translator, beam: int) -> None:
    options: Any = {"nbest": beam, "beam": beam, "prefixes": ["Zwei Hunde spielen"] * 5}
    found = translator.translate_nbest(TEXTS, constraints=[["Hunde"], ["Zwei Hunde"], [], ["spielen"], []], **options)
    assert_same(found, translator.translate_nbest(TEXTS, **options))


def test_the_prefix_takes_room_from_the_phrases(translator: Translator) -> None:
    translator.check(TEXTS[:1], ["Zwei Hunde"], [["eine Katze"] * 2])
    with pytest.raises(
        DataError, match=r"^the constraints of sentence 1 have \d+ pieces, \d+ with the prefix, and its tr"
    ):
        translator.check(TEXTS[:1], ["Zwei Hunde " * 3], [["eine Katze"] * 3])


@pytest.mark.parametrize("beam", [1, 5])
def test_rules_hold_for_translations_with_phrases_too(translator: Translator, beam: int) -> None:
    options: Any = {"beam": beam, "no_repeat_ngram": 2, "min_length": 13, "allow_unknown": False}
    phrases = [["Hunde"], [], ["eine Katze", "Mann isst"], ["rot", "Ball"], []]
    found = translator.translate_nbest(TEXTS, nbest=1, constraints=phrases, **options)
    for wanted, (x,) in zip(phrases, found, strict=True):
        assert all(phrase in x.text for phrase in wanted)
        pairs = list(zip(x.ids, x.ids[1:], strict=False))
        assert len(x.ids) >= 13 and len(set(pairs)) == len(pairs) and UNK_ID not in x.ids
    plain = translator.translate_nbest(TEXTS, nbest=1, **options)
    assert_same([found[1], found[4]], [plain[1], plain[4]])


def test_what_the_rules_forbid_for_certain_is_an_error(translator: Translator) -> None:
    with pytest.raises(DataError, match=r"^the constraints of sentence 1 contain 2 pieces in a row twice"):
        translator.translate(TEXTS[:1], constraints=[["eine Katze"] * 2], no_repeat_ngram=2)
    with pytest.raises(
        DataError, match=r"^the constraints of sentence 2 have \d+ pieces, and its translation at most 3;"
    ):
        translator.translate(TEXTS[:2], constraints=[[], ["eine Katze im Garten"]], max_length=3)


def test_where_rules_leave_no_translation_it_is_empty(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    (hund,) = translator.tokenizer.encode(["Hund"])
    rules_of = search_requests.rules_of
    monkeypatch.setattr(search_requests, "rules_of", lambda *given: [*rules_of(*given), Forbidden(hund)])
    options: Any = {"constraints": [["Hund"], ["rot"]], "token_scores": True}
    ((nothing,), (found,)) = translator.translate_nbest(TEXTS[:2], nbest=1, **options)
    assert (nothing.text, nothing.score, nothing.ids) == ("", -math.inf, ())
    assert "rot" in found.text
    message = "1 line is left empty, as no translation with the phrases was found: 5; a larger --beam may find one"
    assert unmet_messages([["Hund"], ["rot"]], [[nothing], [found]], first_number=5) == [message]
    many = unmet_messages([["Hund"]] * 11, [[nothing]] * 11, first_number=1)
    assert many[0].startswith("11 lines are left empty, ") and ": 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 1 more;" in many[0]
    assert unmet_messages([[], ["rot"]], [[nothing], [found]], first_number=5) == []
    assert unmet_messages(None, [[nothing]], first_number=5) == []


def test_samples_are_not_constrained(translator: Translator) -> None:
    with pytest.raises(ConfigError, match=r"^constraints and sampling exclude each other: "):
        translator.translate(TEXTS, constraints=PHRASES, sampling=Sampling())


def test_ensembles_write_the_phrases(translator: Translator, tokenizer: Tokenizer) -> None:
    torch.manual_seed(3)
    model = build_model(len(tokenizer), ModelConfig(d_model=14, num_layers=1, num_heads=2, d_ff=19))
    ensemble = Ensemble([translator, Translator(model, tokenizer)])
    found = ensemble.translate_nbest(TEXTS, nbest=3, constraints=PHRASES)
    assert begin_and_contain(found, [""] * 5)
    twice = Ensemble([translator, translator]).translate_nbest(TEXTS, nbest=3, constraints=PHRASES)
    assert_same(twice, translator.translate_nbest(TEXTS, nbest=3, constraints=PHRASES))


def test_a_tag_before_the_source_is_no_obstacle() -> None:
    tokenizer = Tokenizer.train((side for pair in builtin_pairs("train", 199) for side in pair), 211, ["<2de>"])
    torch.manual_seed(2)
    model = build_model(len(tokenizer), ModelConfig(d_model=22, num_layers=2, num_heads=2, d_ff=29))
    tagged = Translator(model, tokenizer, SearchConfig(beam=3, max_length_offset=23))
    tagged.tag, tagged.tags = "<2de>", ["<2de>"]
    assert begin_and_contain(tagged.translate_nbest(TEXTS, nbest=3, constraints=PHRASES), [""] * 5)


def test_phrases_are_pieces_of_the_target() -> None:
    pairs = list(builtin_pairs("train", 97))
    tokenizer = Tokenizer.train([target for _, target in pairs], 163)
    tokenizer.source = Tokenizer.train([source for source, _ in pairs], 149)
    torch.manual_seed(2)
    config = ModelConfig(d_model=14, num_layers=1, num_heads=2, d_ff=11, tie="decoder")
    separate = Translator(build_model(163, config, source_vocab_size=149), tokenizer, SearchConfig(beam=3))
    assert tokenizer.source.encode(["eine Katze"]) != tokenizer.encode(["eine Katze"])
    assert begin_and_contain(separate.translate_nbest(TEXTS, nbest=3, constraints=PHRASES), [""] * 5)


# Files


def test_a_file_has_the_phrases_of_each_line_between_tabs(tmp_path: Path) -> None:
    path = tmp_path / "phrases"
    path.write_bytes(b"\xef\xbb\xbfHund\teine Katze\n\n \r\nrot\r\n")
    constraints = ConstraintFile.read(path)
    assert constraints.of(1, 4) == [("Hund", "eine Katze"), (), (), ("rot",)]
    assert constraints.of(4, 1) == [("rot",)]
    constraints.finish(4)
    for error, number in (
        (lambda: constraints.of(3, 3), "more; leave lines empty"),
        (lambda: constraints.finish(5), 5),
    ):
        with pytest.raises(DataError, match=rf"phrases: has 4 lines, and the input has {number}$"):
            error()
    (other := tmp_path / "other").write_text("Hund\teine Katze\n\n\nKatze\n")
    assert constraints.settings() != ConstraintFile.read(other).settings()


def test_without_a_file_there_are_none(tokenizer: Tokenizer) -> None:
    constraints = ConstraintFile.read(None)
    constraints.check(tokenizer)
    assert constraints.of(1, 3) is None
    constraints.finish(3)
    assert constraints.settings() == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Hund\n\tHund\n", "phrases: line 2 has an empty phrase; a tab must separate two"),
        ("\n\nHund\t\tHund\n", "phrases: line 3 has an empty phrase; a tab must separate two"),
        ("Hund\t👍\n", "phrases: line 1: the phrase '👍' has characters that the model cannot write"),
        (b"\xff\xfe", "phrases: is UTF-16; save it as UTF-8"),
        (None, "phrases: cannot be read: No such file or directory"),
    ],
)
def test_a_file_is_checked_before_the_work(
    tokenizer: Tokenizer, tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "phrases"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"{re.escape(message)}$"):
        ConstraintFile.read(path).check(tokenizer)

"""Each language, from text to BLEU: trained by the ordinary command and scored by the ordinary command."""

from __future__ import annotations

import itertools
import json
import unicodedata
from pathlib import Path

import corpora
import pytest

from transformer.commands.evaluate import main as evaluate
from transformer.commands.train import main as train
from transformer.data.tokenizer import UNK_ID, Tokenizer

RECIPE = Path(__file__).with_name("tiny.yaml")


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


# Words without spaces, from right to left, with combining marks, of composed syllables: 15 seconds each.
@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("language", ["zh", "ar", "hi", "ko"])
def test_a_model_learns_to_write_the_language_exactly(
    tmp_path: Path, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = corpora.write_corpus(tmp_path, language)
    run, output = tmp_path / "run", tmp_path / "output"
    places = [f"run_dir={run}", f"data.cache_dir={tmp_path / 'cache'}", f"data.corpus={corpus}"]
    assert train([str(RECIPE), *places, f"data.tgt_lang={language}"]) == 0
    summary = capsys.readouterr().out
    assert "unknown pieces: 0 of " in summary
    assert "warning" not in summary
    assert evaluate([str(run), "--json", "--output", str(output)]) == 0
    report = json.loads(capsys.readouterr().out)
    references = read_lines(tmp_path / f"test.{language}")
    num_right = sum(map(str.__eq__, read_lines(output), references))
    assert (num_right, report["sentences"]) == (100, 100)
    assert report["bleu"] >= 99


@pytest.mark.parametrize("language", corpora.LANGUAGES)
def test_every_sentence_comes_back_from_its_pieces(language: str) -> None:
    sentences = [text for pair in corpora.pairs(language) for text in pair]
    tokenizer = Tokenizer.train(sentences, 300)
    ids = tokenizer.encode(sentences)
    assert not any(UNK_ID in sequence for sequence in ids)
    assert tokenizer.decode(ids) == sentences


@pytest.mark.parametrize("language", ["zh", "ja", "th", "fa", "hi", "ru"])
def test_the_default_of_sentencepiece_would_change_the_corpora(language: str) -> None:
    sentences = [target for _, target in corpora.pairs(language)]
    tokenizer = Tokenizer.train(sentences, 200, normalization="nmt_nfkc")
    lost = sum(map(str.__ne__, tokenizer.decode(tokenizer.encode(sentences)), sentences))
    assert lost >= len(sentences) / 5


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("language", ["ko", "ja", "hi", "ru", "ar"])
def test_composed_text_stays_composed_and_decomposed_text_decomposed(language: str, form: str) -> None:
    sentences = [unicodedata.normalize(form, target) for _, target in itertools.islice(corpora.pairs(language), 100)]
    tokenizer = Tokenizer.train(sentences, 140)
    assert tokenizer.decode(tokenizer.encode(sentences)) == sentences


@pytest.mark.parametrize("language", corpora.LANGUAGES)
def test_the_splits_of_a_corpus_are_disjoint_and_unambiguous(tmp_path: Path, language: str) -> None:
    corpora.write_corpus(tmp_path, language)
    seen = [line for split in corpora.SIZES for line in read_lines(tmp_path / f"{split}.en")]
    assert len(set(seen)) == len(seen) == sum(corpora.SIZES.values())
    targets = [target for _, target in corpora.pairs(language)]
    assert len(set(targets)) == len(targets)

"""scripts/senses.py: sentences of a word by the sense that their translation has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import senses

from transformer.data.builtin import builtin_pairs
from transformer.errors import ConfigError


@pytest.mark.parametrize("word", senses.SENSES)
def test_sentences_have_the_word_once_and_the_translation_of_their_sense(word: str) -> None:
    found = senses.sentences_by_sense(word, 3, "train")
    german = dict(builtin_pairs("train", 3000))
    assert [len(sentences) for sentences in found.values()] == [3, 3]
    for sense, sentences in found.items():
        other = next(name for name in found if name != sense)
        for sentence in sentences:
            assert len(re.findall(rf"\b{word}\b", sentence, re.IGNORECASE)) == 1
            assert re.search(senses.SENSES[word][sense], german[sentence], re.IGNORECASE)
            assert not re.search(senses.SENSES[word][other], german[sentence], re.IGNORECASE)


def test_looking_for_is_suchen_and_looking_at_is_ansehen() -> None:
    found = dict(senses._with_sense("looking", "test", 20_000))
    assert len(found) > 600
    behind = {text: re.search(r"\blooking\W+(\w+)", text, re.IGNORECASE) for text in found}
    assert {(sense, match[1]) for text, sense in found.items() if (match := behind[text])} == {
        ("suchen", "for"),
        ("ansehen", "at"),
    }


def test_there_is_a_file_for_each_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert senses.main(["--out", str(tmp_path / "new"), "--number", "2", "--split", "train"]) == 0
    files = sorted((tmp_path / "new").iterdir())
    names = [path.name for path in files]
    assert names == ["eating.essen.en", "eating.fressen.en", "looking.ansehen.en", "looking.suchen.en"]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) == 2 for path in files)
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in files]
    with pytest.raises(ConfigError, match=r"^--number 0 must be at least 1$"):
        senses.main(["--number", "0"])

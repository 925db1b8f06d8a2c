"""Models of OPUS-MT are served as they are: the target of a request chooses the tag of a multilingual one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from marian_files import LANGUAGES, HuggingFace, pairs, train_sentencepiece, write_release

from transformer.commands import serve
from transformer.inference.translator import Translator
from transformer.serving.models import served
from transformer.serving.service import Service

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from loopback import Client, serving

TEXT = "A man is sleeping."


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache of converted models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sentencepiece_models() -> tuple[bytes, bytes]:
    """Of source and target."""
    sources, targets = zip(*pairs(), strict=True)
    return train_sentencepiece(sources, 113), train_sentencepiece(targets, 131)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, sentencepiece_models: tuple[bytes, bytes]) -> Path:
    """A multilingual model."""
    path = tmp_path_factory.mktemp("hugging_face") / "opus-mt-en-gmw"
    return HuggingFace(path, sentencepiece_models, languages=LANGUAGES).directory


@pytest.fixture(scope="module")
def translator(directory: Path) -> Translator:
    translator = Translator.load(directory, device="cpu", precision="fp32")
    translator.search = dataclasses.replace(translator.search, max_length=9)
    return translator


@pytest.fixture(scope="module")
def client(directory: Path, translator: Translator) -> Iterator[Client]:
    with serving(Service(served([(str(directory), translator)]))) as client:
        yield client


def test_languages_are_those_of_the_tags(client: Client) -> None:
    assert client.get("/languages").json == [
        {"code": "en", "name": "English", "targets": ["de", "nl"]},
        {"code": "de", "name": "German", "targets": []},
        {"code": "nl", "name": "Dutch", "targets": []},
    ]
    names = [(one["name"], one["source"], one["target"]) for one in client.get("/models").json]
    assert names == [("opus-mt-en-gmw", "en", "de"), ("opus-mt-en-gmw", "en", "nl")]


def test_the_target_of_a_request_chooses_the_tag(client: Client, translator: Translator) -> None:
    expected = {}
    for code in ("deu", "nld"):
        own = copy.copy(translator)
        own.choose_language(code)
        (expected[code],) = own.translate([TEXT])
    assert expected["deu"] != expected["nld"]
    for source, target, code in (("en", "de", "deu"), ("eng", "deu", "deu"), ("auto", "nl", "nld"), ("", "NLD", "nld")):
        answer = client.post("/translate", q=TEXT, source=source, target=target)
        assert answer.json == {"translatedText": expected[code]}
    answer = client.post("/translate", q=TEXT, source="en", target="fr")
    assert (answer.status, answer.json["error"]) == (
        400,
        "en to fr is not supported; the models translate en to de, en to nl",
    )
    drawn = client.post("/attention", q=TEXT, target="nl").json["uses"][0]
    assert drawn["keys"][0].strip("\u2581") == ">>nld<<"


@pytest.mark.parametrize("option", [("--target-language", "nld"), ("--tag", ">>nld<<")])
def test_one_target_language_can_be_chosen_for_all_requests(
    directory: Path, option: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: list[Service] = []
    monkeypatch.setattr(serve, "_run", lambda service, _: run.append(service))
    assert serve.main([str(directory), "--port", "0", "--device", "cpu", *option]) == 0
    (only,) = run[0].directions()
    assert (only.source, only.target) == ("en", "nl")
    assert "opus-mt-en-gmw: English to Dutch\n" in capsys.readouterr().err


def test_all_target_languages_are_named_in_a_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "_run", lambda *_: None)
    assert serve.main([str(directory), "--port", "0", "--device", "cpu"]) == 0
    assert "opus-mt-en-gmw: English to German, Dutch\n" in capsys.readouterr().err


def test_a_release_is_served_like_a_run(tmp_path: Path, sentencepiece_models: tuple[bytes, bytes]) -> None:
    release = write_release(tmp_path / "opus-2020-02-26", sentencepiece_models)
    translator = Translator.load(release, device="cpu", precision="fp32")
    translator.search = dataclasses.replace(translator.search, max_length=7)
    with serving(Service(served([(str(release), translator)]))) as client:
        answer = client.post("/translate", q=TEXT, source="en", target="de")
    assert answer.json == {"translatedText": translator.translate([TEXT])[0]}

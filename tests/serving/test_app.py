"""The API over HTTP: LibreTranslate's form, and errors of one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from transformer.errors import ConfigError, DataError
from transformer.inference.translator import Translator
from transformer.serving import app
from transformer.serving.models import Translate, served
from transformer.serving.service import Limits, Service

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from loopback import Client, serving

LINES = ["A man is sleeping.", "Two small dogs are playing.", "The women are singing."]
LIMITS = Limits(max_texts=3, max_characters=1000)
Set = Callable[[Any], None]


@pytest.fixture(scope="module")
def service(translator: Translator) -> Service:
    return Service(served([("/runs/my", translator)]), LIMITS)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with serving(service) as client:
        yield client


# What LibreTranslate has


def test_a_translation_has_the_form_of_libretranslate(client: Client, translator: Translator) -> None:
    expected = translator.translate(LINES)
    answer = client.post("/translate", q=LINES[0], source="en", target="de", format="text", api_key="x")
    assert (answer.status, answer.json) == (200, {"translatedText": expected[0]})
    assert answer.headers["Content-Type"] == "application/json"
    assert client.post("/translate", q=LINES, source="auto", target="de").json == {"translatedText": expected}
    (found,) = translator.translate_nbest(LINES[:1], nbest=3)
    first, *others = [one.text for one in found]
    answer = client.post("/translate", q=LINES[0], source="en", target="de", alternatives=2)
    assert answer.json == {"translatedText": first, "alternatives": others}


def test_html_keeps_its_tags(client: Client) -> None:
    pytest.importorskip("sentencex")
    answer = client.post("/translate", q="<p>A <b>man</b>.</p>", source="en", target="de", format="html")
    assert answer.status == 200
    assert re.fullmatch(r"<p>.*<b>.*</b>.*</p>", answer.json["translatedText"])


def test_a_form_is_answered_as_json_is(client: Client, translator: Translator) -> None:
    body = b"q=A+man+is+sleeping.&source=en&target=de&format=text&alternatives=0&api_key="
    answer = client.post_body("/translate", body, "application/x-www-form-urlencoded")
    assert answer.json == {"translatedText": translator.translate(LINES[:1])[0]}


def test_languages_and_health_have_the_form_of_libretranslate(client: Client) -> None:
    languages = [
        {"code": "en", "name": "English", "targets": ["de"]},
        {"code": "de", "name": "German", "targets": []},
    ]
    assert client.get("/languages").json == languages
    assert client.get("/health").json == {"status": "ok"}


# What else there is


def test_models_are_listed(client: Client) -> None:
    (model,) = client.get("/models").json
    assert model["name"] == "my"
    assert (model["source"], model["target"], model["has_attention"]) == ("en", "de", True)


def test_translations_have_only_what_was_asked_for(client: Client) -> None:
    (text,) = client.post("/translations", q=LINES[0], model="my").json["texts"]
    assert [*text["lines"][0]["translations"][0]] == ["text", "score", "log_prob", "tokens"]
    (text,) = client.post("/translations", q=LINES[0], alignment=True, token_scores=True).json["texts"]
    (translation,) = text["lines"][0]["translations"]
    assert len(translation["token_log_probs"]) == len(translation["tokens"])
    assert all(len(link) == 2 for link in translation["alignment"])


def test_attention_has_a_row_for_each_piece(client: Client) -> None:
    answer = client.post("/attention", q=LINES[0], translation="Ein Hund.")
    encoder, _, cross = answer.json["uses"]
    assert (encoder["name"], cross["name"]) == ("encoder self-attention", "encoder-decoder attention")
    assert [len(cross["weights"]), len(cross["weights"][0])] == [2, 2]
    assert len(cross["weights"][0][0]) == len(cross["queries"])
    assert {len(row) for row in cross["weights"][0][0]} == {len(cross["keys"])}


def test_openapi_describes_every_path_and_error(client: Client) -> None:
    described = client.get("/openapi.json").json
    posted, got = {"/translate", "/translations", "/attention"}, {"/languages", "/models", "/health"}
    assert {*described["paths"]} == posted | got
    for path in posted:
        responses = described["paths"][path]["post"]["responses"]
        assert {*responses} == {"200", "400", "408", "413", "422", "429", "503"}
        assert responses["422"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
    assert "AttentionAnswer" in described["components"]["schemas"]


def test_the_page_comes_with_its_policy(client: Client) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert b"<textarea" in answer.body


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_that_load_programs_from_elsewhere_are_not_there(client: Client, path: str) -> None:
    assert client.get(path).status == 404


# Errors


def test_a_server_without_its_packages_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ConfigError, match=r"pip install 'attention-is-all-you-need\[serve\]'"):
        app.check_installed()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Field required|required"),
        (b"{", "the body of the request is not JSON"),
        (b"[]", "body: .*valid (dictionary|object)"),
        (b"null", "required|valid dictionary"),
        (b"{}", "q: Field required"),
        (b'{"q": 5}', "q.*valid string; q.*valid list"),
        (b'{"q": null}', "q.*valid string"),
        (b'{"q": ["a", 5]}', r"q.*1.*valid string"),
        (b'{"q": {"a": "b"}}', "q.*valid"),
        (b'{"q": "a", "alternatives": -1}', "alternatives: .*greater than or equal to 0"),
        (b'{"q": "a", "alternatives": 101}', "alternatives: .*less than or equal to 100"),
        (b'{"q": "a", "alternatives": 1e999}', "alternatives|JSON"),
        (b'{"q": "a", "alternatives": NaN}', "alternatives|JSON"),
        (b'{"q": "a", "alternatives": %s}' % (b"9" * 5000), "alternatives|JSON|parsing"),
        (b'{"q": "a", "format": "docx"}', "format: .*'text'.*'html'"),
        (b'{"q": "a", "source": ["en"]}', "source: .*valid string"),
        (b'{"q": "\\ud800"}', "string|JSON|surrogate"),
        (b'{"q": "\xff"}', "not UTF-8"),
        (b"[" * 15_000, "JSON|parsing"),
        (b'{"q": "a"}{', "JSON"),
    ],
)
def test_malformed_requests_are_errors_of_one_line(client: Client, body: bytes, message: str) -> None:
    answer = client.post_body("/translate", body)
    assert answer.status in (400, 422)
    assert [*answer.json] == ["error"]
    assert re.search(message, answer.json["error"]), answer.json["error"]
    assert answer.json["error"].isprintable()


@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        (
            "/translate",
            {"q": "a", "source": "fr"},
            400,
            "fr to any language is not supported; the models translate en to de",
        ),
        ("/translations", {"q": "a", "model": "x"}, 400, "model 'x' is not one of my"),
        ("/translations", {"q": "a", "alignmnet": True}, 422, "alignmnet: Extra inputs are not permitted"),
        ("/translate", {"q": ["a"] * 4}, 413, "4 texts in a request; at most 3 are accepted"),
        ("/translate", {"q": "a" * 1001}, 413, "1001 characters in a request; at most 1000 are accepted: send parts"),
        ("/translate", {"q": "a" * 50_000}, 413, "the body of the request has more than 16288 bytes"),
        ("/attention", {"q": " "}, 422, "the sentence is empty: there is nothing to attend to"),
        ("/attention", {"q": "a " * 101}, 422, "the sentence has 102 pieces; at most 100 can be drawn: shorten it"),
        ("/nowhere", {}, 404, "Not Found"),
        ("/languages", {}, 405, "Method Not Allowed"),
    ],
)
def test_what_cannot_be_answered_has_its_status(
    client: Client, path: str, fields: dict[str, Any], status: int, message: str
) -> None:
    answer = client.post(path, **fields)
    assert (answer.status, answer.json) == (status, {"error": message})


def test_text_that_is_no_json_is_not_read_as_such(client: Client) -> None:
    """A page elsewhere can send text without being asked, but no JSON."""
    assert client.post_body("/translate", b'{"q": "a"}', "text/plain").status == 422


def test_an_error_of_the_model_is_that_of_the_request(client: Client, set_work: Set) -> None:
    def refuse(_: Sequence[str]) -> None:
        raise DataError("sentence 1\nis odd")

    set_work(refuse)
    assert client.post("/translate", q="a").json == {"error": r"sentence 1\nis odd"}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_short_memory_is_503(client: Client, set_work: Set, error: Exception) -> None:
    def fail(_: Sequence[str]) -> None:
        raise error

    set_work(fail)
    answer = client.post("/translate", q="a")
    assert (answer.status, answer.json, answer.headers["Retry-After"]) == (503, {"error": "out of memory"}, "10")


def test_a_bug_is_500_and_the_server_goes_on(client: Client, set_work: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Translate, "__call__", None)
        answer = client.post("/translate", q="a")
        assert (answer.status, answer.json) == (500, {"error": "internal error; the server's standard error has more"})
    set_work(lambda texts: [[] for _ in texts])
    assert client.get("/health").status == 200


def test_the_example_of_the_documentation_makes_an_application(
    babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "SERVING.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "my").symlink_to(babbler)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program, names)
    assert "/translate" in names["app"].openapi()["paths"]

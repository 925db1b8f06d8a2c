"""Models are found by languages and names; multilingual ones have a direction for each target language."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from transformer.data.languages import language_name, short_code
from transformer.serving.models import NoSuchModelError, language_of, served


def translator(source: str, target: str, *tags: str, tag: str | None = None) -> Any:
    search = SimpleNamespace(beam=3)
    return SimpleNamespace(
        languages=(source, target), tags=tags, tag=tag, needs_tag=False, search=search, members=[None]
    )


@pytest.fixture
def models() -> Any:
    given = [
        ("/runs/first", translator("en", "de")),
        ("/runs/second", translator("en", "de")),
        ("/other/back", translator("de", "en")),
        ("/runs/many", translator("en", "fr", "<2fr>", "<2pt-BR>", "<bt>", tag="<2fr>")),
    ]
    return served(given)


def directions(models: Any) -> list[tuple[str, str, str]]:
    return [(model.name, model.source, model.target) for model in models]


def test_a_multilingual_model_has_a_direction_for_each_target_language(models: Any) -> None:
    many = [("many", "en", "fr"), ("many", "en", "pt-BR")]
    assert directions(models) == [("first", "en", "de"), ("second", "en", "de"), ("back", "de", "en"), *many]
    assert [model.translator.tag for model in models][-2:] == ["<2fr>", "<2pt-BR>"]
    assert [model.translator.languages for model in models][-2:] == [("en", "fr"), ("en", "pt-BR")]


def test_a_tag_that_is_chosen_is_the_only_one() -> None:
    for tag, target in (("<2de>", "de"), ("<2fr>", "fr"), (">>pol<<", "pl")):
        given = [("/runs/many", translator("en", "fr", "<2fr>", "<2de>", ">>pol<<", tag=tag))]
        (model,) = served(given, is_tag_chosen=True)
        assert (model.source, model.target, model.translator.tag) == ("en", target, tag)
        assert model.translator.languages == ("en", target)
    for tag in ("<bt>", None):
        given = [("/runs/many", translator("en", "fr", "<2fr>", "<2de>", "<bt>", tag=tag))]
        assert directions(served(given, is_tag_chosen=True)) == [("many", "en", "fr")]


def test_codes_of_opus_become_those_of_clients() -> None:
    many = translator("eng", "und", ">>deu<<", ">>por_BR<<", ">>cmn_Hans<<", ">>tlh<<", ">>ca@valencia<<")
    models = served([("/runs/opus", many)])
    targets = ["de", "pt-BR", "zh-Hans", "tlh", "ca@valencia"]
    assert directions(models) == [("opus", "en", target) for target in targets]
    for wanted in ("de", "deu", "DEU"):
        assert models.find("eng", wanted).translator.tag == ">>deu<<"
    for wanted in ("pt-BR", "por_BR", "pt_br"):
        assert models.find(target=wanted).translator.tag == ">>por_BR<<"


def test_a_model_that_may_do_without_its_only_tag_does() -> None:
    one = translator("eng", "und", ">>lit<<")
    (model,) = served([("/runs/opus", one)])
    assert (model.source, model.target, model.translator.tag) == ("en", "lt", None)
    one.needs_tag = True
    (model,) = served([("/runs/opus", one)])
    assert (model.target, model.translator.tag) == ("lt", ">>lit<<")


def test_languages_with_the_same_short_code_keep_their_own() -> None:
    models = served([("/runs/opus", translator("en", "und", ">>ara<<", ">>arb<<", ">>deu<<"))])
    assert directions(models) == [("opus", "en", code) for code in ("ara", "arb", "de")]
    assert models.find(target="arb").translator.tag == ">>arb<<"
    with pytest.raises(NoSuchModelError, match="the models translate en to ara, en to arb, en to de"):
        models.find(target="ar")


@pytest.mark.parametrize("source", ["mul", "und", ""])
def test_a_model_of_many_source_languages_reads_any_but_is_not_preferred(source: str) -> None:
    models = served([("/runs/any", translator(source, "en")), ("/runs/own", translator("fr", "en"))])
    assert models.find("sw", "en").name == "any"
    assert models.find("fr", "en").name == "own"
    assert models.find("fra", "en").name == "own"
    with pytest.raises(NoSuchModelError, match="sw to de is not supported"):
        models.find("sw", "de")


@pytest.mark.parametrize(
    ("tag", "code"),
    [("<2de>", "de"), ("<2zh_Hans>", "zh_Hans"), (">>deu<<", "deu"), (">>a b<<", None), ("<bt>", None), ("<2>", None)],
)
def test_languages_are_read_from_tags(tag: str, code: str | None) -> None:
    assert language_of(tag) == code


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "first"),
        ({"source": "en", "target": "de"}, "first"),
        ({"source": "EN", "target": "De"}, "first"),
        ({"source": "", "target": "en"}, "back"),
        ({"source": "de"}, "back"),
        ({"source": "auto", "target": "pt-br"}, "many"),
        ({"name": "second"}, "second"),
        ({"source": "en", "target": "fr", "name": "many"}, "many"),
    ],
)
def test_the_first_model_with_the_languages_and_the_name_is_taken(
    models: Any, wanted: dict[str, str], expected: str
) -> None:
    assert models.find(**wanted).name == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"target": "es"},
            "any language to es is not supported; the models translate en to de, de to en, en to fr, en to pt-BR",
        ),
        ({"source": "fr"}, "fr to any language is not supported; the models translate en to de"),
        ({"name": "third"}, "model 'third' is not one of first, second, back, many"),
        ({"name": "back", "source": "en"}, "en to any language is not supported; model 'back' translates de to en"),
        ({"source": "auto"}, "source auto: languages are not detected; give one of en, de"),
    ],
)
def test_models_that_are_not_there_are_named(models: Any, wanted: dict[str, str], message: str) -> None:
    with pytest.raises(NoSuchModelError, match=message):
        models.find(**wanted)


def test_runs_of_the_same_name_are_told_apart_by_their_paths() -> None:
    given = [(f"/{room}/my", translator("en", "de")) for room in ("a", "b")] + [("/c/other", translator("en", "de"))]
    assert [model.name for model in served(given)] == ["/a/my", "/b/my", "other"]


def test_a_hub_id_is_its_own_name() -> None:
    assert [model.name for model in served([("owner/name@v1", translator("en", "de"))])] == ["owner/name@v1"]


def test_a_model_without_languages_has_undetermined_ones() -> None:
    assert directions(served([("run", translator("", ""))])) == [("run", "und", "und")]


def test_there_are_as_many_translations_as_the_beam_holds(models: Any) -> None:
    (model, *_) = models
    assert [model.nbest(number) for number in (0, 1, 2, 7)] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *[("de", "German"), ("DE", "German"), ("deu", "German"), ("pt-BR", "Portuguese (BR)")],
        *[("por_BR", "Portuguese (BR)"), ("zh_Hans", "Chinese (Hans)"), ("tlh", "tlh"), ("und", "an unknown language")],
    ],
)
def test_languages_have_english_names(code: str, name: str) -> None:
    assert language_name(code) == name


@pytest.mark.parametrize(
    ("code", "short"),
    [("deu", "de"), ("DEU", "de"), ("de", "de"), ("arb", "ar"), ("por_BR", "pt-BR"), ("zh_Hant_TW", "zh-Hant-TW")],
)
def test_codes_of_three_letters_become_those_of_two(code: str, short: str) -> None:
    assert short_code(code) == short


def test_unknown_codes_stay_as_they_are() -> None:
    assert [short_code(code) for code in ("tlh", "ROMANCE", "")] == ["tlh", "ROMANCE", ""]

"""The page is one file that asks its own server only, runs its own programs only, and names what it uses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from transformer.serving.page import content_security_policy, page
from transformer.serving.schemas import Direction


def direction(name: str = "my") -> Direction:
    return Direction(
        name=name, source="en", source_name="English", target="de", target_name="German", beam=4, has_attention=True
    )


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its scripts, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def text() -> str:
    return page([direction()], 10_007)


@pytest.fixture(scope="module")
def found(text: str) -> Elements:
    return Elements(text)


def test_the_page_is_self_contained(text: str) -> None:
    assert "//" not in re.sub(r"^\s*// .*$|; // .*$", "", text, flags=re.MULTILINE), "an address, but for comments"
    assert not re.search(r"src=|url\(|@import|\b(import|XMLHttpRequest|WebSocket|innerHTML|eval)\b", text)
    assert re.findall(r'href="([^"]*)"', text) == ["data:,"]
    assert "{{" not in text


def test_the_page_asks_the_paths_of_its_server(text: str) -> None:
    assert {*re.findall(r'post\("(\w+)"', text)} == {"translations", "attention"}
    assert text.count("fetch(") == 1


def test_only_the_programs_of_the_page_run(text: str, found: Elements) -> None:
    policy = dict(part.split(" ", maxsplit=1) for part in content_security_policy(text).split("; "))
    (_, program) = found.scripts
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert policy["script-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", '"', "{{style}}"])
def test_names_of_models_are_data(name: str) -> None:
    scripts = Elements(page([direction(name)], 10_007)).scripts
    assert len(scripts) == 2
    data = json.loads(scripts[0])
    assert data == {"directions": [direction(name).model_dump()], "maxCharacters": 10_007}


def test_the_elements_that_the_program_names_are_there_once(found: Elements) -> None:
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len({*ids})
    named = {*re.findall(r"\bui\.(\w+)", found.scripts[1])}
    assert named <= {*ids}


def test_every_field_has_a_name_for_screen_readers(found: Elements) -> None:
    labelled = {attributes["for"] for tag, attributes in found.elements if tag == "label" and "for" in attributes}
    by_name: dict[str, Any] = {str(attributes.get("id")): (tag, attributes) for tag, attributes in found.elements}
    assert labelled == {"text", "translation"}
    assert by_name["text"][0] == "textarea"
    assert by_name["translation"][1]["aria-live"] == "polite"
    assert by_name["status"][1]["role"] == "status"
    assert by_name["alternatives"][1]["aria-label"] == "Alternatives"
    assert [attributes["lang"] for tag, attributes in found.elements if tag == "html"] == ["en"]

"""Sources in the reference are the lines of their files, with their numbers; private names have no links."""

from __future__ import annotations

import html
import inspect
import re

import pdoc.doc
import pytest
from website.api import _highlight, _link

from transformer.model import attention


@pytest.mark.parametrize("name", ["", "masked_softmax", "DotProductAttention", "DotProductAttention.scores"])
def test_the_source_of_a_name_has_the_lines_and_numbers_of_its_file(name: str) -> None:
    described = pdoc.doc.Module(attention)
    for part in filter(None, name.split(".")):
        described = described.get(part)
    source, first = inspect.getsourcelines(described.obj)
    code = _highlight(described)
    shown = html.unescape(re.sub(r"<[^>]*>", "", code)).rstrip("\n").split("\n")
    found = [re.fullmatch(r" *(\d+)(.*)", line) for line in shown]
    numbered = [(int(line[1]), line[2]) for line in found if line is not None]
    assert numbered == [*enumerate((line.rstrip("\n") for line in source), start=max(1, first))]
    assert f'id="{name or "L"}-{max(1, first)}"' in code


@pytest.mark.parametrize("name", ["_private", "Public._private", "_Private.public"])
def test_a_private_name_is_text(name: str) -> None:
    assert _link({}, ("transformer.model", name)) == name

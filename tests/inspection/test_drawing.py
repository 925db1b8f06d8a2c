"""The program of the drawings, run by Node where it is installed: it parses, and merges pieces into words."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from typing import Any

import pytest

from transformer.inspection.attention import word_starts

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node")
# As much of a browser as is asked when the program starts.
BROWSER = """
const document = {
  documentElement: {},
  createElement: () => ({ getContext: () => ({ measureText: (text) => ({ width: 7 * text.length }) }) }),
};
const getComputedStyle = () => ({ getPropertyValue: (name) => (Number(name.slice(9)) < 8 ? "#123456" : "") });
"""


def program(*names: str) -> str:
    directory = resources.files("transformer.inspection")
    return "\n".join(directory.joinpath(name).read_text(encoding="utf-8") for name in names)


def run(expression: str) -> Any:
    code = f"{BROWSER}{program('drawing.js', 'attention.js')}\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([str(NODE), "-"], input=code, capture_output=True, text=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def words(pieces: Sequence[str], *, merge: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(f"wordsOf({json.dumps(list(pieces))}, {json.dumps(merge)})")
    return found


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["<s>", "▁Zwei", "▁Hun", "de", ".", "</s>"], ["<s>", "Zwei", "Hunde.", "</s>"]),
        (["<s>", "x", "▁a"], ["<s>", "x", "a"]),
        (["▁", "Käse", "▁"], ["Käse", "▁"]),
        (["▁今天", "天气", "很", "好", "。"], ["今天", "天气", "很", "好。"]),
        (["▁", "今天", "▁は"], ["今天", "は"]),
        (["▁" + "w" * 30], ["w" * 30]),
        (["</s>"], ["</s>"]),
    ],
)
def test_pieces_are_merged_into_words(pieces: list[str], expected: list[str]) -> None:
    found = words(pieces)
    assert [word["text"] for word in found] == expected
    ends = [0, *(word["end"] for word in found)]
    assert [word["first"] for word in found] == ends[:-1]
    assert ends[-1] == len(pieces)
    assert all(len(word["label"]) <= 24 for word in found)


def test_pieces_that_are_not_merged_keep_the_starts_of_words() -> None:
    pieces = ["<s>", "▁Zwei", "▁Hun", "de", ".", "▁", "</s>"]
    found = words(pieces, merge=False)
    assert [word["text"] for word in found] == ["<s>", "Zwei", "Hun", "de", ".", "▁", "</s>"]
    assert [i for i, word in enumerate(found) if word["starts"]] == word_starts(pieces)


def test_there_are_as_many_colours_as_the_palette_has() -> None:
    assert run("[numColours, headColour(9), headDash(9), headDash(7)]") == [8, "var(--colour-1)", "4 3", "none"]

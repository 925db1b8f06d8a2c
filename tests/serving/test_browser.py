"""The pages as Chromium shows them, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from transformer.inference.translator import Translator
from transformer.inspection.attention import page, sentence_attention
from transformer.serving.models import served
from transformer.serving.service import Service

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from loopback import Client, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
LINES = ["A man is sleeping.", "Two small dogs are playing."]


@pytest.fixture(scope="module")
def client(translator: Translator) -> Iterator[Client]:
    with serving(Service(served([("/runs/my", translator)]))) as client:
        yield client


def shown(address: str, profile: Path) -> str:
    """The document after its programs have run."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={profile}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=120).stdout


def words(text: str) -> list[str]:
    """The words beside the lines of a drawing."""
    return [unescape(word) for word in re.findall(r'<text class="word[^>]*>([^<]*)</text>', text)]


def test_the_page_translates_what_its_address_has(client: Client, translator: Translator, tmp_path: Path) -> None:
    query = "%0A".join(line.replace(" ", "+") for line in LINES)
    text = shown(f"http://127.0.0.1:{client.port}/?q={query}&source=en&target=de", tmp_path)
    output = re.findall(r"<output[^>]*>([^<]*)</output>", text)
    assert [unescape(one) for one in output] == ["\n".join(translator.translate(LINES))]
    assert text.count('type="radio" name="alternative"') == 3, "all that the beam holds"
    assert re.findall(r'<option value="\d">(\d: [^<]*)</option>', text) == [f"{i}: {x}" for i, x in enumerate(LINES, 1)]
    assert words(text)[-len(LINES[0].split()) - 1 :] == [*LINES[0].split(), "</s>"]
    assert '<line class="link"' in text


def test_the_page_of_a_file_draws_its_words(translator: Translator, tmp_path: Path) -> None:
    path = tmp_path / "attention.html"
    path.write_text(page(sentence_attention(translator, LINES[0], "Ein Mann schläft.")), encoding="utf-8")
    text = shown(path.as_uri(), tmp_path / "profile")
    assert words(text) == ["Ein", "Mann", "schläft.", "</s>", *LINES[0].split(), "</s>"]
    assert '<th scope="row">Ein</th>' in text

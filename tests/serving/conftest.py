"""A translator, and what stands in for its translations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transformer.inference.translator import Translator
from transformer.serving.models import Translate


@pytest.fixture(scope="module")
def translator(babbler: Path) -> Translator:
    return Translator.load(babbler, device="cpu", precision="fp32")


@pytest.fixture
def set_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Replaces the translation of texts."""
    return lambda work: monkeypatch.setattr(Translate, "__call__", lambda _, texts, _number: work(texts))

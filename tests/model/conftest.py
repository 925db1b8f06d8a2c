"""Fixtures of the model's tests: either implementation of equation 1, and local attention in several blocks."""

from __future__ import annotations

import pytest

from transformer.model import kernels
from transformer.model.alternatives import local


@pytest.fixture(params=["written out", "fused"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with either implementation of equation 1, at all sizes."""
    monkeypatch.setattr(kernels, "prefers_fused", lambda *_: request.param == "fused")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of as few queries as the window has positions, so that short sentences have several."""
    monkeypatch.setattr(local, "_MIN_BLOCK", 1)

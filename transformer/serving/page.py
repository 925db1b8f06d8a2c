"""The page of the server: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources

from transformer.inspection.attention import fill_page
from transformer.serving.schemas import Direction


def page(directions: Sequence[Direction], max_characters: int) -> str:
    """Type, see the translation, its alternatives, and where its words looked.

    Args:
        directions: of the models, the preferred ones first.
        max_characters: of a text.
    """
    data = {"directions": [one.model_dump() for one in directions], "maxCharacters": max_characters}
    template = resources.files("transformer.serving").joinpath("page.html").read_text(encoding="utf-8")
    return fill_page(template, json.dumps(data, ensure_ascii=False))


def content_security_policy(html: str) -> str:
    """The header by which a page runs its own programs only, and asks its own server only."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()}'"
        for program in re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    ]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

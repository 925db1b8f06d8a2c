"""A notebook with its kept outputs as a page."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from website.pages import Heading, Places, Rendered, code_block, render


def render_notebook(path: Path, places: Places) -> Rendered:
    """Its text, its code, and what that printed and drew when it was last executed."""
    parts: list[str] = []
    headings: list[Heading] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            rendered = render(source, places)
            headings += rendered.headings
            parts.append(rendered.content)
        else:
            parts += [code_block(source, "python"), *map(_output, cell["outputs"])]
    return Rendered(next((heading.text for heading in headings), path.stem), "".join(parts), headings)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        return f'<figure><img src="data:image/png;base64,{picture}" alt="picture drawn by the code above"></figure>\n'
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f'<pre class="output">{html.escape(text)}</pre>\n'

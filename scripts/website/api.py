"""The reference of the API from docstrings, by pdoc: a page per module, with search, complete in itself."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pdoc
import pdoc.render
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from pdoc.render_helpers import formatter, lexer, link
from pygments import highlight
from pygments.formatters import HtmlFormatter

import transformer
from transformer.inspection.canvas import THEMES

_TEMPLATES = Path(__file__).parent / "templates" / "pdoc"


def write_api(directory: Path) -> list[str]:
    """Write the pages of all modules; returns pdoc's warnings."""
    for name in transformer.__all__:
        getattr(transformer, name)  # those that are imported when they are first used
    excluded = [r"!.*\.__main__$"]
    if importlib.util.find_spec("triton") is None:  # comes with torch's CUDA builds
        excluded.append(r"!.*_triton$")
    pdoc.render.configure(docformat="google", template_directory=_TEMPLATES)
    pdoc.render.env.globals |= {
        "light": THEMES["light"],
        "dark": THEMES["dark"],
        "dark_code": HtmlFormatter(style="github-dark").get_style_defs(".pdoc-code"),
        "version": transformer.__version__,
    }
    pdoc.render.env.filters |= {"link": _link, "highlight": _highlight}
    # The index as documents, not compiled by Node.js where there is one: a quarter of the size, the same everywhere.
    as_documents = patch("pdoc.render.precompile_index", lambda documents, _: json.dumps(documents))
    with as_documents, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc("transformer", *_unlisted(transformer), *excluded, output_directory=directory)
    lines = [text.strip().splitlines()[0] for warning in caught if (text := str(warning.message).strip())]
    # An annotation that pdoc cannot evaluate is shown as it is written; and it tries modules that are excluded, too.
    return [line for line in lines if not re.search(r"Error parsing type annotation|_triton|__main__", line)]


@pass_context
def _link(context: Context, spec: tuple[str, str], text: str | None = None) -> Markup:
    """As pdoc's, but for private names, such as a base class, which the reference does not describe."""
    name = spec[1]
    if re.search(r"(^|\.)_(?!_)", name):
        return Markup.escape(text or name)
    return link(context, spec, text)


def _highlight(described: Any) -> Markup:
    """The source of a module, class or function in colours, from that of its file.

    pdoc colours a method three times, as part of its module and of its class, too, and counts its lines from one more.
    """
    if described.source_file is None or described.source_lines is None:
        return Markup("")
    start, end = described.source_lines
    lines = _coloured(described.source_file)[max(0, start - 1) : end + (start == 0)]
    name = described.qualname or "L"
    code = "".join(lines).replace('<span id="L-', f'<span id="{name}-').replace('<a href="#L-', f'<a href="#{name}-')
    return Markup(f'<div class="{formatter.cssclass}"><pre><span></span>{code}</pre></div>\n')


@cache
def _coloured(file: Path) -> list[str]:
    """The lines of a file, each with its number as an anchor such as L-1."""
    options = {"linenos": "inline", "linespans": "L", "anchorlinenos": True}
    code = highlight(file.read_text("utf-8"), lexer, HtmlFormatter(**options)).removesuffix("</pre></div>\n")
    return re.split(r'(?=<span id="L-\d+">)', code)[1:]


def _unlisted(package: ModuleType) -> Iterator[str]:
    """The modules that pdoc leaves out because the __all__ of their package lists names only."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if hasattr(package, "__all__"):
            yield module.name
        if module.ispkg:
            yield from _unlisted(importlib.import_module(module.name))

"""Pages of Markdown as HTML: anchors as GitHub makes them, links within the site, code and equations.

Beyond CommonMark and tables: a block ```math is an equation in LaTeX, which becomes MathML, and a paragraph of links
[`NAME`](PATH/transformer/FILE.py "source"), between commas, becomes the source of these names. Without a site, as on
GitHub, both are readable too.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from latex2mathml.converter import convert as to_mathml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from website.executed import SUFFIXES, Output
from website.sources import api_address, code_of

_SOURCE = re.compile(r'\[`([\w.]+)`\]\([./]*(transformer/[\w/]+)\.py "source"\)')
_SOURCES = re.compile(rf"{_SOURCE.pattern}(?:,\s+{_SOURCE.pattern})*")
_ATTRIBUTE = re.compile(r'\b(href|src|srcset)="([^"]+)"')


class Heading(NamedTuple):
    """A heading of a page."""

    level: int
    anchor: str
    text: str


class Rendered(NamedTuple):
    """The content of a page."""

    title: str
    content: str  # HTML
    headings: list[Heading]


class Places(NamedTuple):
    """Where a page finds what it refers to."""

    link: Callable[[str], str]  # from a link of the page to one within the site
    api: str  # from the page to the reference of the API
    pictures: str = ""  # and to those of its blocks


def render(text: str, places: Places, outputs: Sequence[Output] = ()) -> Rendered:
    """A page of Markdown.

    Args:
        text: its Markdown.
        places: where links lead.
        outputs: of its Python blocks, each shown below its block.
    """
    parser = MarkdownIt("commonmark", {"highlight": code_block}).enable(["table", "strikethrough"])
    # Wide tables scroll inside of the page, by keys too.
    parser.add_render_rule("table_open", lambda *_: '<div class="table" tabindex="0"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(text)
    headings = list(_anchored(tokens))
    for token in tokens:
        for part in (token, *(token.children or ())):
            _lead(part, places.link)
    tokens = list(_completed(tokens, places, iter(outputs)))
    title = next((heading.text for heading in headings), "")
    return Rendered(title, parser.renderer.render(tokens, parser.options, {}), headings)


def code_block(code: str, language: str, _attributes: str = "") -> str:
    """Code in colours, if the language is known."""
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    return f'<pre class="code"><code>{highlight(code, lexer, HtmlFormatter(nowrap=True))}</code></pre>\n'


def slug(heading: str) -> str:
    """The anchor that GitHub makes of the text of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sources_of(text: str) -> list[str]:
    """The full names, such as transformer.model.layers.Layer.forward, of which Markdown wants the source."""
    return [f"{file.replace('/', '.')}.{name}" for name, file in _SOURCE.findall(text)]


def _anchored(tokens: Sequence[Token]) -> Iterator[Heading]:
    """Give every heading its anchor; of equal ones, the second has -1."""
    counts: dict[str, int] = {}
    for opening, inline in itertools.pairwise(tokens):
        if opening.type != "heading_open":
            continue
        parts = [child.content if child.type in ("text", "code_inline") else "" for child in inline.children or ()]
        text = "".join(parts)
        anchor, number = slug(text), counts.get(slug(text), 0)
        counts[anchor] = number + 1
        anchor = f"{anchor}-{number}" if number else anchor
        opening.attrSet("id", anchor)
        yield Heading(int(opening.tag[1:]), anchor, text)


def _lead(token: Token, link: Callable[[str], str]) -> None:
    """Make the links of a token lead to places of the site."""
    for name in ("href", "src"):
        if (value := token.attrGet(name)) is not None:
            token.attrSet(name, link(str(value)))
    if token.type in ("html_inline", "html_block"):
        token.content = _ATTRIBUTE.sub(lambda found: f'{found[1]}="{link(found[2])}"', token.content)


def _completed(tokens: Sequence[Token], places: Places, outputs: Iterator[Output]) -> Iterator[Token]:
    """Equations and sources in their places, outputs below their blocks."""
    for number, token in enumerate(tokens):
        if token.type == "fence" and token.info.strip() == "math":
            yield _html(equation(token.content))
        elif token.type == "inline" and _SOURCES.fullmatch(token.content):
            for end in (tokens[number - 1], tokens[number + 1]):  # of the paragraph, which cannot hold a figure
                end.hidden = True
            yield _html("".join(_source(name, places.api) for name in sources_of(token.content)))
        else:
            yield token
            if token.type == "fence" and token.info == "python" and (output := next(outputs, None)) is not None:
                yield _html(_output(output, places.pictures))


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content)


def equation(latex: str) -> str:
    """LaTeX as MathML, which browsers draw and screen readers read; its own text for search and copying."""
    return f'<div class="equation">{to_mathml(" ".join(latex.split()), display="block")}</div>\n'


def _source(name: str, api: str) -> str:
    link = f'<a href="{api}{api_address(name)}">{html.escape(name.removeprefix("transformer."))}</a>'
    return f'<figure class="source"><figcaption>{link}</figcaption>{code_block(code_of(name), "python")}</figure>\n'


def _output(output: Output, pictures: str) -> str:
    parts = []
    if output.text:
        parts.append(f'<pre class="output">{html.escape(output.text)}</pre>\n')
    if output.picture is not None:
        light, dark = (f"{pictures}{output.picture}{suffix}" for suffix in (SUFFIXES["light"], SUFFIXES["dark"]))
        caption = html.escape(output.caption)
        parts.append(
            f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>\n'
        )
    return "".join(parts)

"""Markdown becomes HTML with GitHub's anchors, with links within the site, equations, sources and outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from website.executed import Output
from website.notebook import render_notebook
from website.pages import Heading, Places, render, slug, sources_of

PLACES = Places(lambda link: f"<{link}>", "../api/", "pictures/")


def content(text: str, *outputs: Output) -> str:
    return render(text, PLACES, outputs).content


def test_headings_have_the_anchors_of_github() -> None:
    page = render("# `a.b` of C++: 50 %\n\n## x\n\n### x\n\n## A_b-c *d*\n", PLACES)
    assert page.title == "a.b of C++: 50 %"
    assert page.headings == [
        Heading(1, "ab-of-c-50-", "a.b of C++: 50 %"),
        Heading(2, "x", "x"),
        Heading(3, "x-1", "x"),
        Heading(2, "a_b-c-d", "A_b-c d"),
    ]
    assert re.findall(r'<h\d id="([^"]*)"', page.content) == [heading.anchor for heading in page.headings]


def test_a_slug_keeps_letters_of_all_languages() -> None:
    assert slug("Größe über alles, 中文!") == "größe-über-alles-中文"


def test_links_and_pictures_are_led_to_their_places_also_in_html() -> None:
    text = (
        '[a](b.md "t") ![c](d.svg)\n\n<picture><source srcset="e.svg"><img src="f.svg"></picture> <a href="g">h</a>\n'
    )
    assert re.findall(r'(?:href|src|srcset)="([^"]*)"', content(text)) == [
        *("&lt;b.md&gt;", "&lt;d.svg&gt;"),
        *("<e.svg>", "<f.svg>", "<g>"),
    ]


def test_a_table_scrolls_and_its_cells_hold_bars_and_code() -> None:
    html = content("| a | b |\n|---|---|\n| `x \\| y` | **z** |\n")
    assert '<div class="table" tabindex="0"><table>' in html
    assert "<td><code>x | y</code></td>" in html
    assert html.count("<div") == html.count("</div>") == 1


def test_code_is_escaped_and_coloured_if_its_language_is_known() -> None:
    assert '<span class="k">def</span>' in content("```python\ndef f(): return '<b>'\n```\n")
    assert "&lt;b&gt;" in content("```python\ndef f(): return '<b>'\n```\n")
    assert '<pre class="code"><code>a &lt; b\n</code></pre>' in content("```no_such\na < b\n```\n")
    assert '<pre class="code"><code>\n  a\n</code></pre>' in content("```\n\n  a\n```\n"), "blank lines stay"


def test_an_equation_becomes_mathml_for_a_line_of_its_own() -> None:
    html = content("```math\n\\frac{Q K^T}{\\sqrt{d_k}}\n```\n")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
    assert {"<mfrac>", "<msqrt>", "<msup>", "<msub>"} <= set(re.findall(r"<m\w+>", html))


def test_a_source_is_shown_with_a_link_to_its_description() -> None:
    mask = '[`padding_mask`](../transformer/model/attention.py "source")'
    text = f'{mask},\n[`noam_lr`](transformer/training/schedule.py "source")\n'
    html = content(text)
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', html)
    assert links == [
        ("../api/transformer/model/attention.html#padding_mask", "model.attention.padding_mask"),
        ("../api/transformer/training/schedule.html#noam_lr", "training.schedule.noam_lr"),
    ]
    assert html.count('<pre class="code">') == 2
    assert "Mask out padding keys" not in html
    assert "<p>" not in html, "a paragraph cannot hold a figure"
    assert sources_of(text) == ["transformer.model.attention.padding_mask", "transformer.training.schedule.noam_lr"]


def test_other_links_to_files_stay() -> None:
    link = "[`padding_mask`](../transformer/model/attention.py)"
    titled = '[`padding_mask`](../transformer/model/attention.py "source")'
    for text in (link, f"See {titled}", f"{titled} {titled}", f"{titled}, {link}"):
        assert "figure" not in content(text) and content(text).startswith("<p>")


def test_other_comments_stay() -> None:
    assert content("<!-- results: x -->\n") == "<!-- results: x -->\n"


def test_outputs_stand_below_their_blocks() -> None:
    text = "```python\na\n```\n\n```\nb\n```\n\n```python\nc\n```\n"
    html = content(text, Output("<1>\n"), Output("", "2", 'a "b"'))
    assert re.findall(r'<pre class="(\w+)">|<(figure)>', html) == [
        ("code", ""), ("output", ""), ("code", ""), ("code", ""), ("", "figure"),
    ]  # fmt: skip
    assert '<pre class="output">&lt;1&gt;\n</pre>' in html
    assert 'srcset="pictures/2-dark.svg"><img src="pictures/2.svg" alt="a &quot;b&quot;">' in html
    assert "<figcaption>a &quot;b&quot;</figcaption>" in html


def test_a_notebook_has_its_text_its_code_and_its_outputs(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# First\n", "\n", "[x](y.md)"]},
        {
            "cell_type": "code",
            "source": ["1 < 2"],
            "outputs": [
                {"output_type": "stream", "text": ["a\n", "<b>\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["True"]}},
                {"output_type": "display_data", "data": {"image/png": "QUJD\nREU=\n", "text/plain": "<Figure>"}},
            ],
        },
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    page = render_notebook(tmp_path / "n.ipynb", PLACES)
    assert (page.title, [heading.anchor for heading in page.headings]) == ("First", ["first"])
    assert 'href="&lt;y.md&gt;"' in page.content
    assert re.findall(r'<pre class="output">([^<]*)</pre>', page.content) == ["a\n&lt;b&gt;\n", "True"]
    assert 'src="data:image/png;base64,QUJDREU="' in page.content

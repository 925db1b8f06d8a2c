"""The page of a comparison: its text is text, its numbers are those of the systems, and its size has a limit."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from transformer.inference.by_length import score_by_length, text_lengths
from transformer.inference.evaluation_set import EvaluationSet
from transformer.inference.scoring import Scorer
from transformer.inference.sentence_scores import sentence_scores
from transformer.inference.significance import PairedScores, paired_bootstrap
from transformer.inference.suspicious import find_suspicious
from transformer.inspection.length_svg import charts
from transformer.inspection.report import MAX_CHARACTERS, Report, ReportedSystem, escape, page

SOURCES = ["a dog", "two cats", "مرحبا بالعالم", "a <b>house</b>", "我喜欢这只小猫", "x " * 3000]
REFERENCES = ["ein Hund", "zwei Katzen", "Hallo Welt", "ein <b>Haus</b>", "ich mag diese Katze", "x"]
BASELINE = ["ein Hund", "zwei Hunde", "", "ein <script>alert(1)</script> Haus", "ich mag {{scores}}", "y " * 3000]
OTHER = ["ein Mund", "zwei Katzen", "Hallo \u202eWelt\x00\x1b", "</article></main>&amp;", "ich mag mag mag", "x"]
EVIL = '"><img src=x onerror=alert(1)>'


def report(names: tuple[str, ...] = ("A", "B"), times: int = 1) -> Report:
    texts = EvaluationSet(f"texts {EVIL}", SOURCES * times, [REFERENCES * times], ["ref"])
    systems = dict(zip(names, (side * times for side in (BASELINE, OTHER, REFERENCES)), strict=False))
    scorer, (unit, lengths) = Scorer("13a", ("bleu", "chrf")), text_lengths(SOURCES * times)
    shown = [
        ReportedSystem(
            name,
            lines,
            sentence_scores(lines, texts.references),
            score_by_length(scorer, lines, texts.references, lengths),
            find_suspicious(lines, texts.references, texts.sources),
            f"made by {name}",
        )
        for name, lines in systems.items()
    ]
    results = paired_bootstrap(systems, texts.references, num_samples=7) if len(systems) > 1 else {}
    return Report(texts, shown, results, f"source {unit}", "test")


class Reader(HTMLParser):
    """Collects elements with their attributes, and checks that they are closed in order."""

    VOID = frozenset(("meta", "input", "wbr", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def content(article: str) -> str:
    return " ".join("".join(text for _, text in read(article).texts).split())


def articles(text: str) -> list[str]:
    return re.findall(r"<article.*?</article>", text, re.DOTALL)


@pytest.mark.parametrize("names", [("A", "B"), (EVIL, "B"), ("A", "B", "C")])
def test_no_text_becomes_markup_or_code(names: tuple[str, ...]) -> None:
    reader = read(page(report(names)))
    known = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "li",
        "div",
        "table",
    }
    known |= {
        "caption",
        "code",
        "wbr",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "bdi",
        "strong",
        "small",
        "details",
        "summary",
    }
    known |= {"form", "label", "select", "option", "input", "article", "dl", "dt", "dd", "span", "i", "script"}
    known |= {"svg", "path", "rect", "circle", "text", "g"}
    assert {tag for tag, _ in reader.elements} <= known
    assert [tag for tag, _ in reader.elements].count("script") == 1
    assert all(not name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert {"src", "href", "srcset", "action"}.isdisjoint(
        name for _, attributes in reader.elements for name in attributes
    )


def test_nothing_is_loaded_from_elsewhere_and_no_other_script_runs() -> None:
    text = page(report())
    assert not re.search(r"https?:|url\(|@import|//cdn", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_sentences_are_shown_as_they_are() -> None:
    shown = {re.search(r'data-line="(\d+)"', one)[1]: content(one) for one in articles(page(report()))}  # type: ignore[index]
    assert "ein <script>alert(1)</script> Haus" in shown["4"]
    assert "</article></main>&amp;" in shown["4"]
    assert "ich mag {{scores}}" in shown["5"]
    assert "我喜欢这只小猫" in shown["5"]
    assert "مرحبا بالعالم" in shown["3"]
    assert r"\x00\x1b" in shown["3"]
    assert "A chrF2 0.0 empty empty" in shown["3"]


def test_each_sentence_has_its_own_direction() -> None:
    attributes = [found for tag, found in read(page(report())).elements if tag == "dd"]
    assert len(attributes) == 4 * 6
    assert all(found == {"dir": "auto"} for found in attributes)


def test_the_largest_differences_come_first() -> None:
    one = report()
    baseline, other = one.systems
    order = sorted(range(6), key=lambda i: -abs(other.scores[i] - baseline.scores[i]))
    found = [int(number) - 1 for number in re.findall(r'data-line="(\d+)"', page(one))]
    assert found == order
    keys = dict(re.findall(r'data-line="(\d+)" data-keys="(\S+ \S+)"', page(one)))
    for i in order:
        values = [baseline.scores[i], other.scores[i] - baseline.scores[i]]
        assert [float(key) for key in keys[str(i + 1)].split()] == pytest.approx(values, rel=1e-5)


def test_words_are_marked_against_the_reference_and_the_other_system() -> None:
    one = next(article for article in articles(page(report())) if 'data-line="2"' in article)
    assert 'zwei <span class="wrong differs">Hunde</span>' in one
    assert 'zwei <span class="differs">Katzen</span>' in one
    one = next(article for article in articles(page(report())) if 'data-line="5"' in article)
    assert 'ich mag <span class="wrong differs">mag mag</span>' in one


@pytest.mark.parametrize("num_examples", [1, 2, 50])
def test_the_number_of_sentences_is_limited(num_examples: int) -> None:
    text = page(report(("A", "B", "C"), times=31), num_examples)
    assert num_examples < text.count("<article ") <= 4 * num_examples
    assert len(text) < 60_000 + 4 * num_examples * 5 * 4 * MAX_CHARACTERS


def test_long_sentences_are_cut() -> None:
    one = next(article for article in articles(page(report())) if 'data-line="6"' in article)
    assert f"{('x ' * 3000)[:MAX_CHARACTERS]}…" in one
    assert len(one) < 3 * MAX_CHARACTERS


def test_tables_have_headers_and_can_be_scrolled_by_keyboard() -> None:
    elements = read(page(report())).elements
    headers = [found for tag, found in elements if tag == "th"]
    assert {found["scope"] for found in headers} == {"row", "col"}
    scrolled = [found for tag, found in elements if found.get("class") == "wide"]
    assert len(scrolled) == [tag for tag, _ in elements].count("table") == 5
    assert all(found["tabindex"] == "0" and found["role"] == "region" and found["aria-label"] for found in scrolled)


def test_a_single_system_shows_its_worst_sentences() -> None:
    text = page(report(("A",)), 2)
    assert "Errors of a translation" in text
    assert "difference" not in text
    scores = report(("A",)).systems[0].scores
    found = [int(number) - 1 for number in re.findall(r'data-line="(\d+)"', text)]
    assert found == sorted(range(6), key=lambda i: scores[i])[:2]
    assert 'class="differs"' not in text


def test_a_significant_difference_is_marked_and_less_is_better_is_said() -> None:
    one = report()
    rows = [replace(row, p=None if row.p is None else 0.0123) for row in one.results["bleu"].systems]
    results = {"ter": PairedScores("TER", "x|y", rows)}
    text = page(replace(one, results=results))
    assert "<strong>0.0123&nbsp;*</strong>" in text
    assert "TER (less is better) <code>x|<wbr>y</code>" in text
    rows = [replace(row, p=None if row.p is None else 0.0512) for row in rows]
    assert "<td>0.0512</td>" in page(replace(one, results={"ter": PairedScores("TER", "x", rows)}))


def test_without_suspicious_translations_that_is_said() -> None:
    one = report()
    systems = [replace(system, suspicious=[[] for _ in SOURCES]) for system in one.systems]
    assert "No translation is empty, looping, copied, or far too long or short." in page(replace(one, systems=systems))


def test_without_sources_there_are_none() -> None:
    one = report()
    assert "<dt>source</dt>" not in page(replace(one, texts=replace(one.texts, sources=None)))


def test_surrogates_of_file_names_can_be_written() -> None:
    assert escape("a\udcff<\x7f") == r"a\udcff&lt;\x7f"
    page(report(("\udcff", "B"))).encode()


def test_the_same_comparison_is_the_same_page() -> None:
    assert page(report()) == page(report())


def test_charts_are_well_formed_and_have_a_point_per_bucket() -> None:
    systems = {name: system.by_length for name, system in zip((EVIL, "B"), report().systems, strict=True)}
    drawn = [ElementTree.fromstring(chart) for chart in charts(systems, "source <words>")]
    labels = [root.attrib["aria-label"] for root in drawn]
    assert labels == [f"{title} by source <words>" for title in ("BLEU", "chrF2", "sentences")]
    buckets = next(iter(systems.values()))
    filled = [bucket for bucket in buckets if bucket.sentences]
    assert len(buckets) > len(filled) > 1
    for root, metric in zip(drawn[:2], ("bleu", "chrf"), strict=True):
        titles = [title.text for title in root.iter("title")]
        assert len(titles) == 2 * len(filled)
        score = filled[0].scores[metric]
        assert f"{filled[0].name}: {score.name} {score.score:.2f}" in titles
    bars = list(drawn[2].iter("rect"))
    heights = [float(bar.attrib["height"]) for bar in bars]
    counts = [bucket.sentences for bucket in buckets]
    assert [height / max(heights) for height in heights] == pytest.approx([n / max(counts) for n in counts], abs=0.01)


def test_charts_of_nothing_but_zeros_have_an_axis() -> None:
    buckets = score_by_length(Scorer("13a", ("bleu",)), ["x"], [["y"]], [3])
    bleu, counts = (ElementTree.fromstring(chart) for chart in charts({"A": buckets}, "words"))
    assert [text.text for text in bleu.iter("text")][:3] == ["0", "0.2", "1-10"]
    assert [text.text for text in counts.iter("text")][:2] == ["0", "1"]

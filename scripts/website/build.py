"""The whole site in a directory: every page of the documentation, the files that they name, and the API."""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

import transformer
from transformer.errors import ConfigError, DataError
from transformer.inspection.canvas import THEMES
from website.api import write_api
from website.executed import execute
from website.links import dead_links, loaded_from_elsewhere, parse
from website.notebook import render_notebook
from website.pages import Places, Rendered, code_block, render
from website.search import write_search

ROOT = Path(__file__).parents[2]
_GENERATOR = "scripts/build_site.py of attention-is-all-you-need"
_WALKTHROUGH = "docs/WALKTHROUGH.md"  # the page whose blocks are run
_PICTURES = "walkthrough"  # their pictures, beside it
# Pages in their order of reading. Those that are named nowhere come last; a test wants a place for each.
GROUPS = {
    "Begin": ["README", "docs/first_steps", "docs/FAQ"],
    "Train": ["docs/TRAINING", "docs/DATA", "docs/TOKENIZERS", "docs/CONFIGURATION", "docs/LOGGING", "docs/GPU"],
    "Translate and score": ["docs/SEARCH", "docs/DOCUMENTS", "docs/SERVING", "docs/SCORING", "docs/EVALUATION"],
    "With other tools": ["docs/INTEROP", "docs/PORTING", "docs/RECIPES"],
    "Look into it": ["docs/INSPECTION", "docs/CONCEPTS", "docs/EXAMPLES"],
    "The paper": [_WALKTHROUGH[:-3], "docs/PAPER", "docs/MULTI30K", "docs/WMT14", "docs/TABLE3", "docs/FIGURES"],
    "The project": ["docs/CODE", "CONTRIBUTING", "docs/PERFORMANCE", "docs/RELIABILITY", "CHANGELOG"],
}
_MAX_BYTES = 1 << 20  # of a file that is shown


class _Entry(NamedTuple):
    """A page in the list of pages."""

    address: str
    title: str


def build(output: Path) -> list[str]:
    """Write the site; returns what pdoc warned of.

    It is built beside `output` and takes its place when it is whole. DataError for links that lead nowhere and for
    anything that would be loaded from elsewhere, ConfigError if `output` holds something else than such a site.
    """
    _check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as parent:
        directory = Path(parent, "site")
        directory.mkdir()
        warned = write_api(directory / "api")
        _Site(directory).write()
        files = parse(directory)
        if problems := [*dead_links(files), *loaded_from_elsewhere(files)]:
            raise DataError(f"{len(problems)} links lead nowhere or elsewhere: {'; '.join(problems)}")
        if output.exists():
            output.rename(Path(parent, "former"))
        directory.rename(output)
    return warned


def _check_replaceable(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ConfigError(f"--output {output}: is not a directory")
    if output.is_dir() and any(output.iterdir()):
        index = output / "index.html"
        if not index.is_file() or _GENERATOR not in index.read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"--output {output}: is neither empty nor a site that this command has built")


class _Site:
    """Its pages by the files that they are made from, and the files that these name, as far as they are known."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        sources = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
        sources += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*.ipynb"))]
        self.targets = {path.relative_to(ROOT).as_posix(): _target(path) for path in sources}
        self.shown: dict[str, str] = {}  # files and directories of the repository: their pages
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
        )

    def write(self) -> None:
        """Write all pages, then those of the files that they name, and the style."""
        rendered = {source: self._render(source) for source in self.targets}
        titles = {self.targets[source]: page.title for source, page in rendered.items()}
        for source, page in rendered.items():
            self._write(self.targets[source], page, titles)
        for name, target in self.shown.items():
            self._write(target, Rendered(name, f"<h1>{html.escape(name)}</h1>\n{_shown(ROOT / name)}", []), titles)
        write_search(self.directory, {self.targets[source]: page for source, page in rendered.items()})
        options = {theme: THEMES[theme] for theme in THEMES}
        code = {f"{theme}_code": HtmlFormatter(style=style).get_style_defs("pre.code")
                for theme, style in (("light", "default"), ("dark", "github-dark"))}  # fmt: skip
        style = self.environment.get_template("style.css.jinja2").render(**options, **code)
        (self.directory / "style.css").write_text(style, encoding="utf-8")

    def _render(self, source: str) -> Rendered:
        target = self.targets[source]
        places = Places(lambda link: self.link(link, source), f"{_up(target)}api/", f"{_PICTURES}/")
        path = ROOT / source
        if path.suffix == ".ipynb":
            return render_notebook(path, places)
        if source == _WALKTHROUGH:
            pictures = (self.directory / target).parent / _PICTURES
            pictures.mkdir(parents=True)
            return render(path.read_text(encoding="utf-8"), places, execute(path, pictures).outputs)
        return render(path.read_text(encoding="utf-8"), places)

    def link(self, link: str, source: str) -> str:
        """Where a link of a page leads within the site; a picture is copied, a file of the repository gets a page."""
        address, mark, anchor = link.partition("#")
        if not address or ":" in address or address.startswith("//"):
            return link
        name = os.path.normpath(Path(source).parent / address).replace(os.sep, "/")
        path = ROOT / name
        if name.startswith("..") or not path.exists():
            return link  # and it will be found dead
        if path.suffix in (".svg", ".png"):
            copied = self.directory / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
            return link
        return f"{_between(self.targets[source], self._target_of(name))}{mark}{anchor}"

    def _target_of(self, name: str) -> str:
        """The page of a file or directory of the repository."""
        if name in self.targets:
            return self.targets[name]
        if name.split("/")[0] == "transformer" and name.endswith(".py" if (ROOT / name).is_file() else ""):
            return f"api/{name.removesuffix('.py').removesuffix('/__init__')}.html"
        return self.shown.setdefault(name, f"files/{name}.html")

    def _write(self, target: str, page: Rendered, titles: dict[str, str]) -> None:
        here = Path(target).name
        text = self.environment.get_template("page.html.jinja2").render(
            title=page.title,
            content=Markup(page.content),
            headings=[heading for heading in page.headings if heading.level == 2],
            groups={
                group: [_Entry(_between(target, at), titles[at]) for at in pages] for group, pages in self._groups()
            },
            here=here,
            root=_up(target),
            generator=f"{_GENERATOR}, {transformer.__version__}",
        )
        path = self.directory / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _groups(self) -> Iterator[tuple[str, list[str]]]:
        *_, last = GROUPS
        stems = {str(Path(source).with_suffix("")): target for source, target in self.targets.items()}
        listed = {stem for group in GROUPS.values() for stem in group}
        for group, members in GROUPS.items():
            pages = [stems[stem] for stem in members if stem in stems]
            yield group, pages + ([stems[stem] for stem in stems if stem not in listed] if group == last else [])


def _target(source: Path) -> str:
    name = source.relative_to(ROOT).with_suffix(".html").as_posix()
    return "index.html" if name == "README.html" else name


def _up(target: str) -> str:
    """From a page to the top of the site."""
    return "../" * target.count("/")


def _between(start: str, end: str) -> str:
    """The address of one page on another."""
    return os.path.relpath(end, Path(start).parent).replace(os.sep, "/")


def _shown(path: Path) -> str:
    """A file in colours by its suffix, or the names in a directory, as HTML."""
    if path.is_dir():
        items = (f"{entry.name}/" if entry.is_dir() else entry.name for entry in sorted(path.iterdir()))
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items if item[0] not in "._") + "</ul>"
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES).decode(errors="replace")
    language = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".json": "json"}.get(path.suffix, "text")
    return code_block(text, language)

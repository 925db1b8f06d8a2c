"""What `import transformer` offers, and what it must not do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import transformer

# Slow to import, and of no use to someone who wants a layer or a translation.
LAZY = ("datasets", "tensorboard", "torch.utils.tensorboard", "pandas")


def test_all_is_sorted_and_without_repetition() -> None:
    # Constants come first.
    assert transformer.__all__ == sorted(set(transformer.__all__), key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("name", transformer.__all__)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    doc = getattr(transformer, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}("), "dataclass and NamedTuple write such a docstring when there is none"


def test_importing_is_silent_and_leaves_slow_libraries_alone(tmp_path: Path) -> None:
    program = f"import sys, transformer; print([name for name in {LAZY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_type_information_ships_with_the_package() -> None:
    assert transformer.__file__ is not None
    package = Path(transformer.__file__).parent
    assert (package / "py.typed").is_file()
    pyproject = (package.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert 'transformer = ["py.typed"]' in pyproject


def test_the_version_is_that_of_the_changelog_and_the_citation() -> None:
    root = Path(__file__).parents[1]
    assert f"\nversion: {transformer.__version__}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    first = re.search(r"^## \[(\d.*)\]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None and first[1] == transformer.__version__, "what comes before it is not released"

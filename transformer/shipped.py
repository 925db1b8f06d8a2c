"""The configurations that come with the package, by name: `quickstart`, `table3/c_n2`."""

import difflib
import re
import sys
from pathlib import Path

# In the installed package beside this file, in a checkout at its top. The schema tells it from other people's configs/.
_PLACES = (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs")
DIRECTORY = next((place for place in _PLACES if (place / "schema.json").is_file()), _PLACES[0])


def shipped_configs() -> dict[str, Path]:
    """The file of each name."""
    return {path.relative_to(DIRECTORY).with_suffix("").as_posix(): path for path in sorted(DIRECTORY.rglob("*.yaml"))}


def find_config(path: str | Path) -> Path:
    """A path, or the file of a shipped configuration if nothing but its name is given and no file has that name."""
    shipped = shipped_config(str(path))
    if shipped is None or not Path(path).exists() or Path(path).is_dir():
        return shipped or Path(path)
    print(f"note: the file {path} is used, not the configuration of the package", file=sys.stderr)
    return Path(path)


def shipped_config(name: str) -> Path | None:
    """The file of this name, None if there is none."""
    file = DIRECTORY / f"{name}.yaml"
    return file if re.fullmatch(r"\w+(/\w+)?", name) and file.is_file() else None


def hint(path: Path) -> str:
    """What to add to the message that a file does not exist."""
    name = path.with_suffix("").as_posix().removeprefix("configs/").lower()
    nearest = difflib.get_close_matches(name, shipped_configs(), n=1, cutoff=0.7)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return "" if path.suffix else "; `transformer configs` lists those of the package"

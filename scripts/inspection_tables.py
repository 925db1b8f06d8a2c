"""Tables of docs/INSPECTION.md, from the kept results of `transformer inspect --json` and of norm_depth.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from norm_depth import initial_table, trained_table

from transformer.inspection.section_tables import TABLES
from transformer.inspection.sections import CHEAP

Load = Callable[[str], Any]

# By the name of a block: the kept file and the section.
_SECTIONS = {
    **{f"inspection_{name}": ("layers", name) for name in CHEAP},
    "inspection_ablation": ("ablation", "ablation"),
    "inspection_probe_looking": ("probe_looking", "probe"),
    "inspection_probe_eating": ("probe_eating", "probe"),
}


def blocks(load: Load) -> dict[str, Callable[[], str]]:
    """Blocks by name; `load` reads a file of docs/results by its name."""

    def of_section(file: str, section: str) -> Callable[[], str]:
        return lambda: TABLES[section](load(f"inspection/{file}.json")[section])

    return {
        **{name: of_section(*place) for name, place in _SECTIONS.items()},
        "norm_depth_initial": lambda: initial_table(load("norm_depth.json")["initial"]),
        "norm_depth_trained": lambda: trained_table(load("norm_depth.json")["trained"]),
    }

"""Names of a package whose modules are imported when they are first used."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562).

    Args:
        package: its name.
        modules: for each module, its names in the package, separated by spaces.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if any(module.startswith(f"{package}.{name}.") for module in modules):  # a package in it, as transformer.model
            for module in modules:
                importlib.import_module(module)
            return sys.modules[f"{package}.{name}"]
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)  # next time without this function
        return value

    return get

"""Names of a package whose modules are imported when they are first used."""

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

# Threads that import modules of a cycle from different ends deadlock, or see them half made; torch has such cycles.
_LOCK = threading.RLock()


def lazy_names(package: str, modules: Mapping[str, str], *, first: str | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562); threads may use it together.

    Args:
        package: its name.
        modules: for each module, its names in the package, separated by spaces.
        first: a module to import before any of them: a library that another thread may be importing from its top.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        is_package = any(module.startswith(f"{package}.{name}.") for module in modules)  # as transformer.model
        if not is_package and name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with _LOCK:
            if first is not None:
                importlib.import_module(first)
            if is_package:
                for module in modules:
                    importlib.import_module(module)
                return sys.modules[f"{package}.{name}"]
            value = getattr(importlib.import_module(module_of[name]), name)
            setattr(sys.modules[package], name, value)  # next time without this function
            return value

    return get

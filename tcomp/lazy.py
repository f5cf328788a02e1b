"""Modules that are costly to import and not always needed load on first use."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from .errors import MissingPackageError


class LazyModule(ModuleType):
    """Stands for a package until an attribute of it is asked for."""

    def __getattr__(self, attribute: str) -> Any:
        module = needed_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, attribute)


def needed_module(name: str, package: str | None = None) -> ModuleType:
    """Import a module.

    Raises:
        MissingPackageError: it needs a package that is not there, as where tcomp alone was installed to run exported models.
    """
    try:
        return importlib.import_module(name, package)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "tcomp"):
            raise
        raise MissingPackageError(
            f"this needs the package {missing}, which is not installed",
            why="exported models run without it, compiling does not",
            hint="pip install tcomp, with all that it depends on",
        ) from error


def lazy_module(name: str) -> Any:
    """The module of that name, imported when first touched."""
    return LazyModule(name)


def lazy_attributes(package: str, table: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of a package whose public names live in `table[name]`, a submodule.

    A name that maps to `"."` is itself a submodule.
    """

    def get(name: str) -> Any:
        home = table.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(table))}")
        if home == ".":
            return importlib.import_module(f"{package}.{name}")
        return getattr(needed_module(home, package), name)

    return get, lambda: sorted(table)

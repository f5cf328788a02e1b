"""IRModule: named functions, the constants they use, and what passes have established."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .graph import Function
from .node import Node, atom, identity_node, with_fields
from .primfunc import PrimFunc


@identity_node
class IRModule(Node):
    """The unit of compilation.

    Attributes:
        functions: graph Functions and PrimFuncs by name; "main" is the entry.
        constants: NumPy arrays by name, never changed in place.
        facts: what has been established ("typed", "fused", "planned", ...); passes require and ensure facts.
    """

    functions: Mapping[str, Function | PrimFunc] = atom()
    constants: Mapping[str, Any] = atom(default_factory=dict)
    facts: frozenset[str] = atom(default=frozenset())

    @property
    def main(self) -> Function:
        main = self.functions["main"]
        assert isinstance(main, Function)
        return main

    def with_main(self, main: Function, constants: Mapping[str, Any] | None = None) -> IRModule:
        """The module with another entry function (and, where given, other constants)."""
        changes: dict[str, Any] = {"functions": {**self.functions, "main": main}}
        if constants is not None:
            changes["constants"] = constants
        return with_fields(self, **changes)

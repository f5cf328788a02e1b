"""IRModule: named functions, the constants they use, and what passes have established."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .expr import Const, Expr
from .graph import Binding, Cond, FuncCall, Function, Scan, TensorType, Value
from .names import unique_name
from .node import Node, atom, identity_node, with_fields
from .primfunc import PrimFunc


@identity_node
class IRModule(Node):
    """The unit of compilation.

    Attributes:
        functions: graph Functions and PrimFuncs by name.
        constants: NumPy arrays by name, never changed in place.
        facts: what has been established ("typed", "fused", "planned", ...); passes require and ensure facts.
        entry: the name of the function that runs the model.
    """

    functions: Mapping[str, Function | PrimFunc] = atom()
    constants: Mapping[str, Any] = atom(default_factory=dict)
    facts: frozenset[str] = atom(default=frozenset())
    entry: str = "main"

    @property
    def main(self) -> Function:
        """The entry function."""
        main = self.functions[self.entry]
        assert isinstance(main, Function)
        return main

    @property
    def kernels(self) -> dict[str, PrimFunc]:
        """The PrimFuncs by name."""
        return {name: f for name, f in self.functions.items() if isinstance(f, PrimFunc)}

    @property
    def graphs(self) -> tuple[Function, ...]:
        """The entry function and those that its scans and conds run, each before the one that runs it."""
        found: dict[str, Function] = {}

        def visit(f: Function) -> None:
            for b in f.bindings:
                if isinstance(b.call, (Scan, Cond)):
                    for name in b.call.bodies:
                        if name not in found:
                            visit(self.graph(name))
            found[f.name] = f

        visit(self.main)
        return tuple(found.values())

    def graph(self, name: str) -> Function:
        """The graph function of a name."""
        f = self.functions[name]
        assert isinstance(f, Function)
        return f

    def entered_at(self, name: str) -> IRModule:
        """The module with the function of another name as its entry."""
        return self if name == self.entry else with_fields(self, entry=name)

    def with_main(self, main: Function, constants: Mapping[str, Any] | None = None) -> IRModule:
        """The module with another entry function (and, where given, other constants)."""
        changes: dict[str, Any] = {"functions": {**self.functions, self.entry: main}}
        if constants is not None:
            changes["constants"] = constants
        return with_fields(self, **changes)


def module_of_kernel(func: PrimFunc) -> IRModule:
    """A model of one call: that of a kernel, whose symbolic extents are the model's."""

    def values(buffers: Any) -> tuple[Value, ...]:
        return tuple(Value(b.name, TensorType(tuple(map(_plain, b.shape)), b.dtype)) for b in buffers)

    params, results = values(func.inputs), values(func.outputs)
    entry = unique_name("main", {func.name})
    call = FuncCall(func.name, params, func.dims)
    main = Function(entry, params, (Binding(results, call),), results, dims=func.dims)
    return IRModule({entry: main, func.name: func}, facts=frozenset({"typed"}), entry=entry)


def _plain(extent: Expr) -> int | Expr:
    return int(extent.value) if isinstance(extent, Const) else extent

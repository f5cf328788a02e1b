"""Graph functions: an ordered dataflow of operator calls on typed tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, cast

from ..dtype import DType
from .arith import simplify
from .expr import Const, Expr, Var, const
from .node import Node, atom, identity_node, node, substitute
from .query import int_of
from .stmt import Attrs


@node
class TensorType(Node):
    """Shape (ints, or int64 expressions where an extent is symbolic) and element type."""

    shape: tuple[int | Expr, ...]
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(str(s) if isinstance(s, int) else repr(s) for s in self.shape)}]"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def extents(self) -> tuple[int, ...]:
        """The integers of a static shape."""
        return tuple(map(int_of, self.shape))

    @property
    def size(self) -> int:
        """Number of elements of a static shape."""
        found: Any = prod(cast("tuple[int, ...]", self.shape))
        return found

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_static(self) -> bool:
        """Whether all extents are integers."""
        return all(isinstance(e, int) for e in self.shape)

    @property
    def row(self) -> TensorType:
        """The type of a slice along the first axis."""
        return TensorType(self.shape[1:], self.dtype)

    def at(self, sizes: Mapping[Var, int]) -> TensorType:
        """The type with numbers for symbolic extents."""
        if self.is_static or not sizes:
            return self
        return TensorType(tuple(extent_at(e, sizes) for e in self.shape), self.dtype)


def extent_at(e: int | Expr, sizes: Mapping[Var, int]) -> int | Expr:
    """An extent with numbers for some symbolic ones: an integer, where that decides it."""
    if isinstance(e, int):
        return e
    found = simplify(substitute(e, {v: const(n) for v, n in sizes.items()}))
    return int(found.value) if isinstance(found, Const) else found


@identity_node
class Value(Node):
    """A tensor in a graph: a parameter, or what one binding defines. Equal to itself alone."""

    name: str
    type: TensorType


@node
class ConstRef(Node):
    """A constant tensor, by its name in `IRModule.constants`."""

    name: str
    type: TensorType


Operand = Value | ConstRef


@identity_node
class OpCall(Node):
    """An operator applied to tensors; `tcomp.ops` knows what the name means."""

    op: str
    args: tuple[Operand, ...] = atom()
    attrs: Attrs = Attrs()


@identity_node
class FuncCall(Node):
    """A call of another function of the module (a fused group, or the PrimFunc it was lowered to).

    Attributes:
        dims: the values of the callee's symbolic extents, in terms of those of the caller.
    """

    callee: str
    args: tuple[Operand, ...] = atom()
    dims: tuple[Expr, ...] = ()


@identity_node
class Scan(Node):
    """A loop over rows: body(*carried, *rows, *captured) -> (*carried, *new rows), once a trip.

    The first trip gets the initial carried tensors, each later one those that the trip before made. Rows are slices of the scanned
    tensors along their first axis; new rows are stacked along the first axis of results. What all trips read is captured.

    Attributes:
        body: the name of a function of the module.
        args: initial carried tensors, scanned ones, captured ones; with `has_count`, an int64 tensor without axes as the last.
        length: the first extent of scanned and stacked tensors.
        reverse: whether the first trip is at the last row.
        has_count: whether the last argument tells how many rows, from the first, have a trip (as many as there are, at most): new rows
            of the others are zeros.

    Results: the carried tensors after the last trip, then the stacked rows.
    """

    body: str
    args: tuple[Operand, ...] = atom()
    num_carried: int
    num_scanned: int
    length: int | Expr
    reverse: bool = False
    has_count: bool = False

    @property
    def bodies(self) -> tuple[str, ...]:
        return (self.body,)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The arguments that the body's parameters stand for."""
        return self.args[:-1] if self.has_count else self.args

    @property
    def scanned(self) -> tuple[Operand, ...]:
        return self.args[self.num_carried : self.num_carried + self.num_scanned]

    @property
    def captured(self) -> tuple[Operand, ...]:
        return self.inputs[self.num_carried + self.num_scanned :]


@identity_node
class Cond(Node):
    """One of two functions of the module, each of which takes all arguments but the first.

    Attributes:
        args: a bool tensor without axes, and what both functions take.
    """

    then: str
    orelse: str
    args: tuple[Operand, ...] = atom()

    @property
    def bodies(self) -> tuple[str, ...]:
        return (self.then, self.orelse)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        return self.args[1:]


Control = Scan | Cond
"""Calls that run other graph functions."""


@identity_node
class Binding(Node):
    """results = call.

    Attributes:
        origin: the node of the source model that the call comes from, by its name there.
    """

    results: tuple[Value, ...] = atom()
    call: OpCall | FuncCall | Scan | Cond
    origin: str = ""

    @property
    def result(self) -> Value:
        return self.results[0]


@identity_node
class Function(Node):
    """A dataflow function: parameters, bindings in an order that respects data flow, results.

    Attributes:
        dims: the symbolic extents that its types mention; the attribute `dim_max` holds their largest values.
    """

    name: str
    params: tuple[Value, ...] = atom()
    bindings: tuple[Binding, ...] = ()
    results: tuple[Operand, ...] = atom(default=())
    attrs: Attrs = Attrs()
    dims: tuple[Var, ...] = atom(default=())

    @property
    def bounds(self) -> dict[Var, int]:
        """The largest value of each symbolic extent that has one."""
        return dict(zip(self.dims, self.attrs.get("dim_max", ())))

    @property
    def num_calls(self) -> int:
        return len(self.bindings)


def users(func: Function) -> dict[Value, list[Binding]]:
    """Which bindings read each value; results of the function do not count."""
    table: dict[Value, list[Binding]] = {}
    for b in func.bindings:
        for arg in dict.fromkeys(a for a in b.call.args if isinstance(a, Value)):
            table.setdefault(arg, []).append(b)
    return table


def definitions(func: Function) -> dict[Value, Binding]:
    """The binding that defines each value."""
    return {r: b for b in func.bindings for r in b.results}

"""Graph functions: an ordered dataflow of operator calls on typed tensors."""

from __future__ import annotations

from math import prod

from ..dtype import DType
from .expr import Expr, Var
from .node import Node, atom, identity_node, node
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
    def size(self) -> int:
        """Number of elements of a static shape."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


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
class Binding(Node):
    """results = call.

    Attributes:
        origin: the node of the source model that the call comes from, by its name there.
    """

    results: tuple[Value, ...] = atom()
    call: OpCall | FuncCall
    origin: str = ""

    @property
    def result(self) -> Value:
        return self.results[0]


@identity_node
class Function(Node):
    """A dataflow function: parameters, bindings in an order that respects data flow, results.

    Attributes:
        dims: the symbolic extents that its types mention.
    """

    name: str
    params: tuple[Value, ...] = atom()
    bindings: tuple[Binding, ...] = ()
    results: tuple[Operand, ...] = atom(default=())
    attrs: Attrs = Attrs()
    dims: tuple[Var, ...] = atom(default=())

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

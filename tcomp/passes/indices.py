"""Which inputs of a graph are places in tensors, and what range they must keep to."""

from __future__ import annotations

from dataclasses import dataclass

from ..dtype import DType, dtype
from ..ir.graph import Binding, OpCall, Operand, Value, definitions
from ..ir.module import IRModule

_SAME_ELEMENTS = {"reshape", "transpose", "broadcast_to", "concat", "slice", "flip", "after"}
"""Operators whose result holds elements of their arguments and nothing else."""


@dataclass(frozen=True, slots=True)
class IndexRange:
    """All elements of an input or constant must lie in low <= element <= high.

    Attributes:
        reader: the operator that uses them as places, for the message.
    """

    source: Operand
    low: int
    high: int
    reader: str


def _read_by(call: OpCall) -> tuple[Operand, int] | None:
    """The operand of a call that holds places, and how many there are to choose from."""
    extent: object
    match call.op:
        case "take":
            axis = call.attrs["axis"]
            extent = call.args[0].type.shape[axis]
        case "cross_entropy":
            extent = call.args[0].type.shape[1]
        case _:
            return None
    return (call.args[1], extent) if isinstance(extent, int) else None


def _sources(x: Operand, defined: dict[Value, Binding]) -> list[Operand]:
    """The inputs and constants that an operand's elements come from unchanged."""
    found: list[Operand] = []
    stack, seen = [x], set()
    while stack:
        a = stack.pop()
        if a in seen:
            continue
        seen.add(a)
        b = defined.get(a) if isinstance(a, Value) else None
        if b is None:
            found.append(a)
        elif isinstance(b.call, OpCall):
            call = b.call
            widens = call.op == "cast" and call.args[0].type.dtype.is_int and _holds(call)
            if call.op in _SAME_ELEMENTS or widens:
                stack.extend(call.args[:1] if call.op == "after" else call.args)
    return found


def _holds(call: OpCall) -> bool:
    """Whether a cast between integers keeps every value."""
    source, target = call.args[0].type.dtype, dtype(call.attrs["dtype"])
    return target.is_int and _range(target)[0] <= _range(source)[0] and _range(source)[1] <= _range(target)[1]


def _range(d: DType) -> tuple[float, float]:
    return d.lowest, d.highest


def index_ranges(module: IRModule) -> tuple[IndexRange, ...]:
    """What the inputs and constants of the module's entry that serve as places must keep to.

    Negative places count from the end, as in NumPy. Places that the graph itself computes are not listed: kernels move them to the
    nearest end, so that they never leave the tensor.
    """
    defined = definitions(module.main)
    found: dict[IndexRange, None] = {}
    for b in module.main.bindings:
        used = _read_by(b.call) if isinstance(b.call, OpCall) else None
        if used is not None and isinstance(b.call, OpCall):
            index, extent = used
            for source in _sources(index, defined):
                found[IndexRange(source, -extent, extent - 1, b.call.op)] = None
    return tuple(found)

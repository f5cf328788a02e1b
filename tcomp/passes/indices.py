"""Which inputs of a graph are places in tensors, and what range they must keep to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from ..dtype import DType, dtype
from ..ir.graph import Binding, Cond, ConstRef, FuncCall, Function, OpCall, Operand, Scan, Value, definitions
from ..ir.module import IRModule

_SAME_ELEMENTS = {"reshape", "transpose", "broadcast_to", "concat", "slice", "flip", "optimization_barrier"}
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
        case "take" | "scatter" | "scatter_add":
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
                stack.extend(call.args[:1] if call.op == "optimization_barrier" else call.args)
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
    return tuple(dict.fromkeys(_ranges(module, module.main)))


def _ranges(module: IRModule, func: Function) -> Iterator[IndexRange]:
    """Those of a function's parameters, and of constants."""
    defined = definitions(func)
    for b in func.bindings:
        match b.call:
            case OpCall():
                used = _read_by(b.call)
                needs = [] if used is None else [(used[0], IndexRange(used[0], -used[1], used[1] - 1, b.call.op))]
            case Scan() | Cond():
                needs = [need for name in b.call.bodies for need in _of_body(module, module.graph(name), b.call)]
            case FuncCall():
                needs = []
            case _:
                assert_never(b.call)
        for operand, need in needs:
            yield from (replace(need, source=source) for source in _sources(operand, defined))


def _of_body(module: IRModule, body: Function, call: Scan | Cond) -> Iterator[tuple[Operand, IndexRange]]:
    """What the body of a scan demands of the arguments that reach it unchanged: rows, and what is captured. What is carried is computed,
    and inputs need not fit what perhaps never runs."""
    if isinstance(call, Cond) or call.has_count:
        return
    number = {p: i for i, p in enumerate(body.params)}
    first = call.num_carried
    for need in _ranges(module, body):
        if isinstance(need.source, ConstRef):
            yield need.source, need
        elif number[need.source] >= first:
            yield call.inputs[number[need.source]], need

"""The NumPy reference of whole graphs: the oracle of graph passes and of compiled models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from ..ir.expr import Expr, Var
from ..ir.graph import Binding, Cond, ConstRef, FuncCall, Function, OpCall, Operand, Scan, Value, extent_at
from ..ir.interp import run
from ..ir.module import IRModule
from ..ir.node import with_fields
from ..ir.primfunc import PrimFunc
from ..ir.stmt import Attrs
from .registry import as_tuple, get


def evaluate_call(call: OpCall, args: Sequence[Any]) -> tuple[Any, ...]:
    """The results of one operator on arrays."""
    return as_tuple(get(call.op).reference(*args, **call.attrs))


def evaluate(
    module: IRModule,
    inputs: Sequence[Any],
    exact: bool = False,
    entry: str | None = None,
    known: Mapping[Var, int] | None = None,
) -> list[np.ndarray]:
    """The results of a graph function.

    Args:
        inputs: one array a parameter.
        entry: the function; by default the module's entry.
        known: symbolic extents, besides those that the inputs' shapes tell.
        exact: compute floating point in float64, whatever the types say, and return float64.
    """
    func = module.functions[module.entry if entry is None else entry]
    if isinstance(func, PrimFunc):
        return [widen(x, exact) for x in _run_kernel(func, inputs)]
    assert isinstance(func, Function)

    sizes = {**(known or {}), **_sizes([p.type.shape for p in func.params], [np.shape(x) for x in inputs])}
    values: dict[Value, Any] = {p: widen(x, exact) for p, x in zip(func.params, inputs)}

    def operand(a: Operand) -> Any:
        return widen(module.constants[a.name], exact) if isinstance(a, ConstRef) else values[a]

    with np.errstate(all="ignore"):
        for b in func.bindings:
            args = [operand(a) for a in b.call.args]
            match b.call:
                case FuncCall():
                    results = evaluate(module, args, exact, b.call.callee, sizes)
                case Scan():
                    results = run_scan(b, args, lambda xs, f=b.call.body: evaluate(module, xs, exact, f, sizes), sizes)
                case Cond():
                    chosen = b.call.then if args[0] else b.call.orelse
                    results = evaluate(module, args[1:], exact, chosen, sizes)
                case OpCall():
                    call = with_fields(b.call, attrs=_known(b.call.attrs, sizes)) if sizes else b.call
                    results = list(_call(call, args, exact))
                case _:
                    assert_never(b.call)
            values.update(zip(b.results, results))
    return [np.asarray(operand(r)) for r in func.results]


def run_scan(
    b: Binding, args: Sequence[Any], body: Callable[[list[Any]], list[Any]], sizes: Mapping[Var, int] | None = None
) -> list[Any]:
    """The results of a scan on arrays.

    Args:
        body: runs its body.
    """
    call = b.call
    assert isinstance(call, Scan)
    length = extent_at(call.length, sizes or {})
    assert isinstance(length, int)
    trips = min(max(int(args[-1]), 0), length) if call.has_count else length
    end = call.num_carried + call.num_scanned
    carried, scanned = list(args[: call.num_carried]), args[call.num_carried : end]
    stacked: list[Any] = [None] * (len(b.results) - call.num_carried)
    for at in reversed(range(trips)) if call.reverse else range(trips):
        made = body([*carried, *(x[at] for x in scanned), *args[end : end + len(call.captured)]])
        carried = made[: call.num_carried]
        for i, row in enumerate(made[call.num_carried :]):
            if stacked[i] is None:
                stacked[i] = np.zeros((length, *np.shape(row)), np.asarray(row).dtype)
            stacked[i][at] = row
    for i, r in enumerate(b.results[call.num_carried :]):
        if stacked[i] is None:
            shape: Any = r.type.at(sizes or {}).shape
            stacked[i] = np.zeros(shape, r.type.dtype.numpy)
    return [*carried, *stacked]


def widen(x: Any, exact: bool = True) -> Any:
    """An array, floating point in float64 where that is asked for."""
    x = np.asarray(x)
    is_float = x.dtype.kind == "f" or x.dtype.name == "bfloat16"
    return x.astype(np.float64) if exact and is_float else x


def _run_kernel(func: PrimFunc, inputs: Sequence[Any]) -> list[np.ndarray]:
    """A kernel by the interpreter, which computes in the kernel's own types."""
    arrays = [np.asarray(x).astype(b.dtype.numpy) for x, b in zip(inputs, func.inputs)]
    return run(func, arrays, _sizes([b.shape for b in func.inputs], [a.shape for a in arrays]))


def _sizes(wanted: Sequence[Sequence[Any]], given: Sequence[Sequence[int]]) -> dict[Var, int]:
    """The symbolic extents that arrays' shapes tell."""
    return {e: n for w, g in zip(wanted, given) for e, n in zip(w, g) if isinstance(e, Var)}


def _known(x: Any, sizes: Mapping[Var, int]) -> Any:
    """Attributes with numbers for symbolic extents."""
    if isinstance(x, Expr):
        return extent_at(x, sizes)
    if isinstance(x, Attrs):
        return Attrs.of({k: _known(v, sizes) for k, v in x.items()})
    return tuple(_known(v, sizes) for v in x) if isinstance(x, tuple) else x


def _call(call: OpCall, args: Sequence[Any], exact: bool) -> tuple[Any, ...]:
    if exact and call.op == "cast":
        target = call.attrs["dtype"]
        if "float" in str(target):
            return (args[0].astype(np.float64),)
    return evaluate_call(call, args)

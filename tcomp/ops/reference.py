"""The NumPy reference of whole graphs: the oracle of graph passes and of compiled models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.expr import Expr, Var
from ..ir.graph import ConstRef, FuncCall, Function, OpCall, Operand, Value, extent_at
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
    module: IRModule, inputs: Sequence[Any], exact: bool = False, entry: str | None = None
) -> list[np.ndarray]:
    """The results of a graph function.

    Args:
        inputs: one array a parameter.
        entry: the function; by default the module's entry.
        exact: compute floating point in float64, whatever the types say, and return float64.
    """
    func = module.functions[module.entry if entry is None else entry]
    if isinstance(func, PrimFunc):
        return [widen(x, exact) for x in _run_kernel(func, inputs)]
    assert isinstance(func, Function)

    sizes = _sizes([p.type.shape for p in func.params], [np.shape(x) for x in inputs])
    values: dict[Value, Any] = {p: widen(x, exact) for p, x in zip(func.params, inputs)}

    def operand(a: Operand) -> Any:
        return widen(module.constants[a.name], exact) if isinstance(a, ConstRef) else values[a]

    with np.errstate(all="ignore"):
        for b in func.bindings:
            args = [operand(a) for a in b.call.args]
            if isinstance(b.call, FuncCall):
                results = evaluate(module, args, exact, b.call.callee)
            else:
                call = with_fields(b.call, attrs=_known(b.call.attrs, sizes)) if sizes else b.call
                results = list(_call(call, args, exact))
            values.update(zip(b.results, results))
    return [np.asarray(operand(r)) for r in func.results]


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

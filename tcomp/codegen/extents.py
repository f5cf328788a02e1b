"""Symbolic extents as data, as the runtime computes them when a model is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import UnsupportedError
from ..ir.expr import Add, Call, Const, Expr, FloorDiv, FloorMod, Max, Min, Mul, Sub, Var
from ..ir.printer import text
from ..runtime.extents import Code, Extent

_ARITHMETIC: dict[type, str] = {Add: "+", Sub: "-", Mul: "*", FloorDiv: "//", FloorMod: "%", Min: "min", Max: "max"}


def extent_of(e: Expr, dims: Sequence[Var]) -> int | Extent:
    """An extent as data.

    Args:
        dims: the symbolic extents, in the order in which a call gives them.

    Raises:
        UnsupportedError: it cannot be computed when the model is called.
    """
    return int(e.value) if isinstance(e, Const) else Extent(text(e), code_of(e, dims))


def code_of(e: Any, dims: Sequence[Var]) -> Code:
    """An extent's code; arguments and errors as of `extent_of`."""
    match e:
        case Const():
            return int(e.value)
        case Var():
            return ("dim", dims.index(e))
        case Call(op="neg", args=(a,)):
            return ("-", 0, code_of(a, dims))
        case _ if type(e) in _ARITHMETIC:
            return (_ARITHMETIC[type(e)], code_of(e.a, dims), code_of(e.b, dims))
    raise UnsupportedError(
        f"cannot compute the extent {text(e)} when the kernel is called", hint="+, -, *, //, %, min, max"
    )

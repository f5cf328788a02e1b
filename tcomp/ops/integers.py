"""Operators on integers and on the bits of numbers, element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import te
from ..dtype import DType, bool_, dtype
from ..ir.expr import EQ, LT, Expr, FloorDiv, FloorMod, Or, Select, Sub, as_expr, bitcast, call
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import broadcast_shape, same_dtype
from .elementwise import elementwise_compute
from .registry import Operator, mismatch, register


def _register(
    name: str,
    f: Callable[..., Expr],
    reference: Callable[..., Any],
    arity: int,
    accepts: Callable[[DType], bool] = lambda d: d.is_int,
    domain: str = "integers",
    result: DType | None = None,
) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        same_dtype(name, args)
        if not accepts(args[0].dtype):
            raise mismatch(name, f"it takes {domain}", *args, hint="cast the arguments")
        return TensorType(broadcast_shape(name, args), result or args[0].dtype)

    register(Operator(name, infer, elementwise_compute(f), reference, "elementwise", arity))


def truncated_quotient(a: Expr, b: Expr) -> Expr:
    """The quotient toward zero: that of C, where // goes down."""
    down = FloorDiv(a, b)
    if a.dtype.kind == "uint":
        return down
    zero = as_expr(0, a.dtype)
    is_whole = EQ(FloorMod(a, b), zero)
    same_signs = EQ(LT(a, zero), LT(b, zero))
    return Select(Or(is_whole, same_signs), down, down + 1)


def _truncated_reference(a: Any, b: Any) -> Any:
    safe = np.where(b == 0, b.dtype.type(1), b)
    down = np.floor_divide(a, safe)
    result = down + ((np.remainder(a, safe) != 0) & ((a < 0) != (safe < 0))).astype(a.dtype)
    return np.where(b == 0, np.floor_divide(a, b), result)


def _remainder(a: Expr, b: Expr) -> Expr:
    """What is left of a quotient toward zero, with the sign of a."""
    if a.dtype.is_float:
        return call("fmod", a, b)
    return Sub(a, truncated_quotient(a, b) * b)


_register("truncated_divide", truncated_quotient, _truncated_reference, 2)
_register("floor_mod", lambda a, b: FloorMod(a, b), np.remainder, 2)
_register("fmod", _remainder, np.fmod, 2, lambda d: not d.is_bool, "numbers")
for _name, _op, _f in (
    ("bitwise_and", "bitand", np.bitwise_and),
    ("bitwise_or", "bitor", np.bitwise_or),
    ("bitwise_xor", "bitxor", np.bitwise_xor),
):
    _register(_name, lambda a, b, op=_op: call(op, a, b), _f, 2)


def _all_bits(d: DType) -> int:
    return -1 if d.kind == "int" else int(d.highest)


_register("bitwise_not", lambda a: call("bitxor", a, as_expr(_all_bits(a.dtype), a.dtype)), np.invert, 1)


def _shifted(op: str) -> Callable[[Expr, Expr], Expr]:
    """Shifts by as many bits as there are, or more, or by a negative number of them, leave nothing but, to the right, the sign."""

    def f(a: Expr, b: Expr) -> Expr:
        zero, last = as_expr(0, a.dtype), as_expr(a.dtype.bits - 1, a.dtype)
        is_far = Or(LT(last, b), LT(b, zero)) if a.dtype.kind == "int" else LT(last, b)
        near = call(op, a, Select(is_far, zero, b))
        far = call("shr", a, last) if op == "shr" and a.dtype.kind == "int" else zero
        return Select(is_far, far, near)

    return f


for _name, _op, _f in (("shift_left", "shl", np.left_shift), ("shift_right", "shr", np.right_shift)):
    _register(_name, _shifted(_op), _f, 2)

for _name, _f in (("isnan", np.isnan), ("isinf", np.isinf)):
    _register(_name, lambda a, n=_name: call(n, a), _f, 1, lambda d: d.is_float, "floating-point tensors", bool_)


def _infer_bitcast(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    wanted = dtype(attrs["dtype"])
    if wanted.bits != t.dtype.bits or wanted.is_bool or t.dtype.is_bool:
        raise mismatch("bitcast", f"its elements are not as wide as {wanted}", t)
    return TensorType(t.shape, wanted)


register(
    Operator(
        "bitcast",
        _infer_bitcast,
        lambda args, attrs, out: te.compute(out.shape, lambda *i: bitcast(args[0][i], out.dtype), name="bitcast"),
        lambda x, **attrs: np.ascontiguousarray(x).view(dtype(attrs["dtype"]).numpy),
        "elementwise",
        1,
        {"dtype": ...},
        lambda args, out, attrs: 0,
    )
)

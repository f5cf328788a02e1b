"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import te
from ..dtype import bool_, dtype
from ..ir.convert import convert
from ..ir.expr import Expr, Max, Min, Select, as_expr, binary, call
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import broadcast_shape, element, float_only, rounds_once, same_dtype, whole_scalar
from .registry import Operator, mismatch, register

_SQRT_HALF = math.sqrt(0.5)


def erf(x: Any) -> Any:
    """The error function of an array, in its dtype."""
    x = np.asarray(x)
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return (np.where(x < 0, e, 1) / (1 + e)).astype(x.dtype)


def elementwise_compute(f: Callable[..., Expr]) -> Callable[[Sequence[te.Tensor], Attrs, TensorType], te.Tensor]:
    """The tensor expression of an operator whose element is a function of its arguments' elements there."""

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        return te.compute(out.shape, lambda *i: f(*(element(t, i) for t in args), **attrs), name="elementwise")

    return compute


def _unary(
    name: str,
    expression: Callable[..., Expr],
    reference: Callable[..., Any],
    floats: bool = True,
    bools: bool = True,
    **defaults: Any,
) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if floats:
            float_only(name, args[0])
        if args[0].dtype.is_bool and not bools:
            raise mismatch(name, "it takes numbers", *args, hint="cast the argument")
        return args[0]

    op = Operator(name, infer, elementwise_compute(expression), reference, "elementwise", 1, defaults)
    register(rounds_once(op) if floats else op)


def _gelu(x: Expr, approximate: bool) -> Expr:
    if approximate:
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (call("tanh", inner) + 1.0)
    return call("gelu", x)


def _gelu_reference(x: Any, approximate: bool) -> Any:
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x * x.dtype.type(_SQRT_HALF)))


for _name, _function in (
    ("atan", "arctan"),
    *((n, n) for n in ("exp", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "ceil")),
):
    _unary(_name, lambda x, n=_name: call(n, x), getattr(np, _function))
_unary("round", lambda x: call("round", x), np.rint)
_unary("rsqrt", lambda x: call("rsqrt", x), lambda x: (1 / np.sqrt(x)).astype(x.dtype))
_unary("erf", lambda x: call("erf", x), erf)
_unary("sigmoid", lambda x: call("sigmoid", x), _sigmoid)
_unary("silu", lambda x: x * call("sigmoid", x), lambda x: x * _sigmoid(x))
_unary("gelu", _gelu, _gelu_reference, approximate=False)
_unary("negative", lambda x: -x, np.negative, floats=False, bools=False)
_unary("abs", lambda x: call("abs", x), np.abs, floats=False)
_unary("relu", lambda x: Max(x, as_expr(0, x.dtype)), lambda x: np.maximum(x, x.dtype.type(0)), floats=False)
register(
    Operator(
        "logical_not",
        lambda args, attrs: TensorType(args[0].shape, bool_),
        elementwise_compute(lambda x: ~x if x.dtype.is_bool else te.equal(x, as_expr(0, x.dtype))),
        np.logical_not,
        "elementwise",
    )
)


def _binary(
    name: str,
    expression: Callable[[Expr, Expr], Expr],
    reference: Callable[..., Any],
    result: Any = None,
    accepts: Callable[[Any], bool] = lambda d: True,
    domain: str = "",
) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        same_dtype(name, args)
        if not accepts(args[0].dtype):
            raise mismatch(name, f"it takes {domain}", *args)
        return TensorType(broadcast_shape(name, args), result or args[0].dtype)

    op = Operator(name, infer, elementwise_compute(expression), reference, "elementwise", 2)
    register(rounds_once(op) if name == "power" else op)


_binary("add", lambda a, b: a + b, np.add)
_binary("subtract", lambda a, b: a - b, np.subtract, accepts=lambda d: not d.is_bool, domain="numbers")
_binary("multiply", lambda a, b: a * b, np.multiply)
_binary("divide", lambda a, b: a / b, np.divide, accepts=lambda d: d.is_float, domain="floating-point tensors")
_binary("floor_divide", lambda a, b: a // b, np.floor_divide, accepts=lambda d: d.is_int, domain="integer tensors")
_binary(
    "power",
    lambda a, b: call("pow", a, b),
    np.power,
    accepts=lambda d: d.is_float,
    domain="floating-point tensors",
)
_binary("maximum", lambda a, b: Max(a, b), np.maximum)
_binary("minimum", lambda a, b: Min(a, b), np.minimum)
_binary("equal", te.equal, np.equal, bool_)
_binary("not_equal", te.not_equal, np.not_equal, bool_)
_binary("less", lambda a, b: a < b, np.less, bool_)
_binary("less_equal", lambda a, b: a <= b, np.less_equal, bool_)
_binary("greater", lambda a, b: a > b, np.greater, bool_)
_binary("greater_equal", lambda a, b: a >= b, np.greater_equal, bool_)
_binary("logical_and", lambda a, b: a & b, np.logical_and, bool_, lambda d: d.is_bool, "bool tensors")
_binary("logical_or", lambda a, b: a | b, np.logical_or, bool_, lambda d: d.is_bool, "bool tensors")


def _infer_where(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    if not args[0].dtype.is_bool:
        raise mismatch("where", "the condition must be bool", *args)
    same_dtype("where", args[1:])
    return TensorType(broadcast_shape("where", args), args[1].dtype)


register(
    Operator("where", _infer_where, elementwise_compute(lambda c, a, b: Select(c, a, b)), np.where, "elementwise", 3)
)


def _infer_cast(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(args[0].shape, dtype(attrs["dtype"]))


register(
    Operator(
        "cast",
        _infer_cast,
        lambda args, attrs, out: te.compute(out.shape, lambda *i: te.cast(args[0][i], out.dtype), name="cast"),
        lambda x, **attrs: convert(np.asarray(x), dtype(attrs["dtype"]).numpy),
        "elementwise",
        1,
        {"dtype": ...},
    )
)


def _scalar(
    name: str,
    cls: Callable[[Expr, Expr], Expr],
    reference: Callable[..., Any],
    floats: bool = False,
    bools: bool = False,
) -> None:
    """A tensor with a number from the attributes: a constant that needs no memory. The result has the tensor's dtype, which must be
    able to hold the number."""

    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if floats:
            float_only(name, args[0])
        if args[0].dtype.is_bool and not bools:
            raise mismatch(name, "it takes numbers", *args, hint="cast the argument")
        whole_scalar(name, attrs["scalar"], args[0])
        if name == "power_scalar" and args[0].dtype.is_int and attrs["scalar"] < 0:
            raise mismatch(name, "an integer has no negative power", *args, hint="cast the argument")
        return args[0]

    def expression(x: Expr, scalar: float) -> Expr:
        return cls(x, as_expr(scalar, x.dtype))

    def apply(x: Any, scalar: float) -> Any:
        return reference(x, x.dtype.type(scalar))

    op = Operator(name, infer, elementwise_compute(expression), apply, "elementwise", 1, {"scalar": ...})
    register(rounds_once(op) if name == "power_scalar" else op)


_scalar("add_scalar", lambda a, b: a + b, np.add)
_scalar("multiply_scalar", lambda a, b: a * b, np.multiply)
_scalar("divide_scalar", lambda a, b: a / b, np.divide, floats=True)
_scalar("power_scalar", lambda a, b: _power(a, b), np.power)
_scalar("maximum_scalar", lambda a, b: binary(Max, a, b), np.maximum, bools=True)
_scalar("minimum_scalar", lambda a, b: binary(Min, a, b), np.minimum, bools=True)


def _power(a: Expr, b: Expr) -> Expr:
    """Small whole powers are products, and so are all of integers."""
    if a.dtype.is_int:
        result: Expr = as_expr(1, a.dtype)
        for bit in f"{int(b.value):b}":
            result = result * result
            result = result * a if bit == "1" else result
        return result
    if b.value == 2:
        return a * a
    if b.value == 3:
        return a * a * a
    return call("sqrt", a) if b.value == 0.5 else call("pow", a, b)

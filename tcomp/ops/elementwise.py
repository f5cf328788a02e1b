"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import te
from ..dtype import bool_, dtype
from ..ir.expr import Expr, Max, Min, Select, as_expr, binary, call
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import broadcast_shape, element, float_only, same_dtype
from .registry import Operator, mismatch, register

_SQRT_HALF = math.sqrt(0.5)


def erf(x: Any) -> Any:
    """The error function of an array, in its dtype."""
    x = np.asarray(x)
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return (np.where(x < 0, e, 1) / (1 + e)).astype(x.dtype)


def _map(f: Callable[..., Expr]) -> Callable[[Sequence[te.Tensor], Attrs, TensorType], te.Tensor]:
    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        return te.compute(out.shape, lambda *i: f(*(element(t, i) for t in args), **attrs), name="elementwise")

    return compute


def _unary(
    name: str, expression: Callable[..., Expr], reference: Callable[..., Any], floats: bool = True, **defaults: Any
) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if floats:
            float_only(name, args[0])
        return args[0]

    register(Operator(name, infer, _map(expression), reference, "elementwise", 1, defaults))


def _gelu(x: Expr, approximate: bool) -> Expr:
    if approximate:
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (call("tanh", inner) + 1.0)
    return x * 0.5 * (call("erf", x * _SQRT_HALF) + 1.0)


def _gelu_reference(x: Any, approximate: bool) -> Any:
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x * x.dtype.type(_SQRT_HALF)))


for _name in ("exp", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "ceil"):
    _unary(_name, lambda x, n=_name: call(n, x), getattr(np, _name))
_unary("round", lambda x: call("round", x), np.rint)
_unary("rsqrt", lambda x: call("rsqrt", x), lambda x: (1 / np.sqrt(x)).astype(x.dtype))
_unary("erf", lambda x: call("erf", x), erf)
_unary("sigmoid", lambda x: call("sigmoid", x), _sigmoid)
_unary("silu", lambda x: x * call("sigmoid", x), lambda x: x * _sigmoid(x))
_unary("gelu", _gelu, _gelu_reference, approximate=False)
_unary("negative", lambda x: -x, np.negative, floats=False)
_unary("abs", lambda x: call("abs", x), np.abs, floats=False)
_unary("relu", lambda x: Max(x, as_expr(0, x.dtype)), lambda x: np.maximum(x, x.dtype.type(0)), floats=False)
_unary("logical_not", lambda x: ~x, np.logical_not, floats=False)


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

    register(Operator(name, infer, _map(expression), reference, "elementwise", 2))


def _power_reference(a: Any, b: Any) -> Any:
    return np.power(a, b)


_binary("add", lambda a, b: a + b, np.add)
_binary("subtract", lambda a, b: a - b, np.subtract, accepts=lambda d: not d.is_bool, domain="numbers")
_binary("multiply", lambda a, b: a * b, np.multiply)
_binary("divide", lambda a, b: a / b, np.divide, accepts=lambda d: d.is_float, domain="floating-point tensors")
_binary("floor_divide", lambda a, b: a // b, np.floor_divide, accepts=lambda d: d.is_int, domain="integer tensors")
_binary(
    "power",
    lambda a, b: call("pow", a, b),
    _power_reference,
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


register(Operator("where", _infer_where, _map(lambda c, a, b: Select(c, a, b)), np.where, "elementwise", 3))


def _infer_cast(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    return TensorType(args[0].shape, dtype(attrs["dtype"]))


register(
    Operator(
        "cast",
        _infer_cast,
        lambda args, attrs, out: te.compute(out.shape, lambda *i: te.cast(args[0][i], out.dtype), name="cast"),
        lambda x, dtype: x.astype(_to_numpy(dtype)),
        "elementwise",
        1,
        {"dtype": ...},
    )
)


def _to_numpy(name: Any) -> Any:
    return dtype(name).numpy


def _scalar(name: str, cls: Callable[[Expr, Expr], Expr], reference: Callable[..., Any]) -> None:
    """A tensor with a number from the attributes: a constant that needs no memory."""

    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        return args[0]

    def expression(x: Expr, scalar: float) -> Expr:
        return cls(x, as_expr(scalar, x.dtype))

    def apply(x: Any, scalar: float) -> Any:
        return reference(x, x.dtype.type(scalar))

    register(Operator(name, infer, _map(expression), apply, "elementwise", 1, {"scalar": ...}))


_scalar("add_scalar", lambda a, b: a + b, np.add)
_scalar("multiply_scalar", lambda a, b: a * b, np.multiply)
_scalar("divide_scalar", lambda a, b: a / b, np.divide)
_scalar("power_scalar", lambda a, b: _power(a, b), np.power)
_scalar("maximum_scalar", lambda a, b: binary(Max, a, b), np.maximum)
_scalar("minimum_scalar", lambda a, b: binary(Min, a, b), np.minimum)


def _power(a: Expr, b: Expr) -> Expr:
    """Small whole powers are products."""
    if b.value == 2:
        return a * a
    if b.value == 3:
        return a * a * a
    return call("sqrt", a) if b.value == 0.5 else call("pow", a, b)

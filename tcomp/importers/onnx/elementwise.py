"""Operators that work element by element."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...ir.graph import Operand
from ..calls import limited
from .node import Node
from .table import MICROSOFT, converts
from .types import dtype_of

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "BitwiseNot": "bitwise_not", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "HardSwish": "hardswish", "IsNaN": "isnan", "Log": "log", "Mish": "mish", "Neg": "negative", "Not": "logical_not",
    "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin",
    "Sinh": "sinh", "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "And": "logical_and", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal",
    "Mul": "multiply", "Or": "logical_or", "PRelu": "prelu", "Sub": "subtract", "Xor": "not_equal",
}  # fmt: skip
_VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


@converts(*_UNARY)
def unary(c: Node) -> Operand:
    return c.g.op(_UNARY[c.op], c[0])


@converts(*_BINARY)
def binary(c: Node) -> Operand:
    a, b = _aligned(c)
    return c.g.op(_BINARY[c.op], a, b)


def _aligned(c: Node) -> tuple[Operand, Operand]:
    """Both arguments; up to version 6 the second may begin at an axis of the first."""
    a, b = c[0], c[1]
    if c.version < 7 and c.attr("broadcast", 0) and "axis" in c.attrs:
        axis = c.axis(0)
        b = c.reshape(b, (*b.type.shape, *(1 for _ in range(a.type.ndim - axis - b.type.ndim))))
    if c.version < 7 and c.op == "PRelu" and b.type.ndim == 1 and a.type.ndim > 1:  # of each channel
        b = c.reshape(b, (*b.type.shape, *(1 for _ in range(a.type.ndim - 2))))
    return a, b


@converts(*_VARIADIC)
def variadic(c: Node) -> Operand:
    return reduce(lambda a, b: c.g.op(_VARIADIC[c.op], a, b), c.all())


@converts("Mean")
def mean(c: Node) -> Operand:
    total = reduce(lambda a, b: c.g.op("add", a, b), c.all())
    return c.g.op("multiply_scalar", total, scalar=1 / len(c.inputs))


@converts("Div")
def divide(c: Node) -> Operand:
    a, b = _aligned(c)
    return c.g.op("divide" if a.type.dtype.is_float else "truncated_divide", a, b)


@converts("Mod")
def mod(c: Node) -> Operand:
    truncates = c.attr("fmod", 0) or c.type_of(0).dtype.is_float
    result: Operand = c.g.op("fmod" if truncates else "floor_mod", c[0], c[1])
    if c.type_of(0).dtype.is_float and not c.attr("fmod", 0):  # of the divisor's sign
        b = c[1]
        zero = c.constant(0, b)
        wrong = c.g.op("less", c.g.op("multiply", result, b), zero)
        result = c.g.op("where", wrong, c.g.op("add", result, b), result)
    return result


@converts("Pow")
def power(c: Node) -> Operand:
    a, b = _aligned(c)
    kind = a.type.dtype
    known = c.known(1)
    if known is not None and known.size == 1 and a.type.ndim >= b.type.ndim:
        scalar = float(known.reshape(-1)[0])
        if kind.is_float or (scalar.is_integer() and scalar >= 0):
            return c.g.op("power_scalar", a, scalar=scalar if kind.is_float else int(scalar))
    wide = kind.name if kind.is_float else "float64"
    return c.cast(c.g.op("power", c.cast(a, wide), c.cast(b, wide)), kind)


@converts("Where")
def where(c: Node) -> Operand:
    return c.g.op("where", c[0], c[1], c[2])


@converts("Cast")
def cast(c: Node) -> Operand:
    return c.cast(c[0], dtype_of(c.needed("to", int)))


@converts("CastLike")
def cast_like(c: Node) -> Operand:
    return c.cast(c[0], c.type_of(1).dtype)


@converts("BitCast")
def bitcast(c: Node) -> Operand:
    wanted = dtype_of(c.needed("to", int))
    if c.type_of(0).dtype.is_bool or wanted.is_bool:
        return c.cast(c[0], wanted)
    return c.g.op("bitcast", c[0], dtype=wanted.name)


@converts("BitShift")
def bit_shift(c: Node) -> Operand:
    name = {"LEFT": "shift_left", "RIGHT": "shift_right"}.get(c.needed("direction", str))
    if name is None:
        raise c.refuse(f"direction {c.attrs['direction']!r} is neither LEFT nor RIGHT")
    return c.g.op(name, c[0], c[1])


@converts("IsInf")
def is_inf(c: Node) -> Operand:
    x, zero = c[0], c.constant(0, c[0])
    result: Operand = c.g.op("isinf", x)
    if not c.attr("detect_negative", 1):
        result = c.g.op("logical_and", result, c.g.op("greater", x, zero))
    if not c.attr("detect_positive", 1):
        result = c.g.op("logical_and", result, c.g.op("less", x, zero))
    return result


@converts("Clip")
def clip(c: Node) -> Operand:
    x = c[0]
    if c.version < 11:
        return limited(c, x, c.attrs.get("min"), c.attrs.get("max"))
    for i, (name, scalar) in ((1, ("maximum", "maximum_scalar")), (2, ("minimum", "minimum_scalar"))):
        known = c.known(i)
        if known is not None and known.size == 1:
            x = c.g.op(scalar, x, scalar=known.reshape(-1)[0].item())
        elif c.has(i):
            x = c.g.op(name, x, c[i])
    return x


@converts("HardSigmoid")
def hard_sigmoid(c: Node) -> Operand:
    return c.g.op("hardsigmoid", c[0], slope=c.attr("alpha", 0.2), offset=c.attr("beta", 0.5))


@converts("LeakyRelu")
def leaky_relu(c: Node) -> Operand:
    return c.g.op("leaky_relu", c[0], slope=c.attr("alpha", 0.01))


@converts("Elu", "Celu")
def elu(c: Node) -> Operand:
    return c.g.op(c.op.lower(), c[0], alpha=c.attr("alpha", 1.0))


@converts("Selu")
def selu(c: Node) -> Operand:
    alpha = c.attr("alpha", 1.6732632423543772 if c.version >= 6 else 1.6732)
    scale = c.attr("gamma", 1.0507009873554805 if c.version >= 6 else 1.0507)
    return c.g.op("selu", c[0], alpha=alpha, scale=scale)


@converts("ThresholdedRelu")
def thresholded_relu(c: Node) -> Operand:
    x = c[0]
    above = c.g.op("greater", x, c.constant(c.attr("alpha", 1.0), x))
    return c.g.op("where", above, x, c.constant(0, x))


@converts("Shrink")
def shrink(c: Node) -> Operand:
    x = c[0]
    limit, bias = c.constant(c.attr("lambd", 0.5), x), c.constant(c.attr("bias", 0.0), x)
    above, below = c.g.op("greater", x, limit), c.g.op("less", x, c.g.op("negative", limit))
    low = c.g.op("where", below, c.g.op("add", x, bias), c.constant(0, x))
    return c.g.op("where", above, c.g.op("subtract", x, bias), low)


@converts("Gelu")
@converts("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain=MICROSOFT)
def gelu(c: Node) -> Operand:
    x = c[0]
    if c.op in ("FastGelu", "BiasGelu") and c.has(1):
        x = c.g.op("add", x, c[1])
    if c.op == "QuickGelu":
        inner = c.g.op("multiply_scalar", x, scalar=c.attr("alpha", 1.702))
        return c.g.op("multiply", x, c.g.op("sigmoid", inner))
    approximate = c.op == "FastGelu" or c.attr("approximate", "none") == "tanh"
    return c.g.op("gelu", x, approximate=approximate)


@converts("Swish")
def swish(c: Node) -> Operand:
    alpha = c.attr("alpha", 1.0)
    x = c[0]
    if alpha == 1.0:
        return c.g.op("silu", x)
    return c.g.op("multiply", x, c.g.op("sigmoid", c.g.op("multiply_scalar", x, scalar=alpha)))


@converts("Constant")
def constant(c: Node) -> Operand:
    for key, kind in (("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32),
                      ("value_ints", np.int64)):  # fmt: skip
        if key in c.attrs:
            return c.constant(np.asarray(c.attrs[key], kind))
    if isinstance(c.attrs.get("value"), np.ndarray):
        return c.constant(c.attrs["value"])
    raise c.refuse("it holds texts, or a sparse tensor")

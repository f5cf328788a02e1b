"""Operators that work element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import limited
from .node import Node, is_tensor
from .table import converts

_UNARY = {
    "abs": "abs", "acos": "acos", "acosh": "acosh", "asin": "asin", "asinh": "asinh", "atan": "atan", "atanh": "atanh",
    "ceil": "ceil", "cos": "cos", "cosh": "cosh", "erf": "erf", "exp": "exp", "expm1": "expm1", "floor": "floor", "log": "log",
    "log1p": "log1p", "neg": "negative", "reciprocal": "reciprocal", "relu": "relu", "round": "round", "rsqrt": "rsqrt",
    "sigmoid": "sigmoid", "sign": "sign", "sgn": "sign", "sin": "sin", "sinh": "sinh", "sqrt": "sqrt", "tan": "tan",
    "tanh": "tanh", "silu": "silu", "mish": "mish", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "isnan": "isnan",
    "isinf": "isinf", "log_sigmoid": "log_sigmoid", "log_sigmoid_forward": "log_sigmoid",
}  # fmt: skip
_SAME = ("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "lift", "dropout", "positive", "native_dropout", "alpha_dropout",
         "feature_dropout", "dropout_")  # fmt: skip


@converts(*_UNARY)
def unary(c: Node, x: Any, *rest: Any) -> Operand:
    name = _UNARY[c.op.split(".")[0]]
    exact = name in ("abs", "negative", "relu", "sign") or x.type.dtype.is_float
    if x.type.dtype.is_int and name in ("ceil", "floor", "round"):
        return c.tensor(x)
    return c.g.op(name, x if exact else c.cast(x, "float32"))


@converts(*_SAME)
def same(c: Node, x: Any, *rest: Any, **how: Any) -> Operand:
    if "dropout" in c.op and rest and len(rest) > 1 and rest[1] is True:
        raise c.refuse("in training mode it draws random numbers", "model.eval()")
    return x


@converts("_to_copy", "to.dtype", "to.dtype_layout", "to.device", "type_as")
def cast(c: Node, x: Any, *rest: Any, **how: Any) -> Operand:
    return c.tensor(x)


@converts("square")
def square(c: Node, x: Any) -> Operand:
    return c.g.op("multiply", x, x)


@converts("log2", "log10")
def log_of_base(c: Node, x: Any) -> Operand:
    base = 2 if c.op.startswith("log2") else 10
    return c.g.op("multiply_scalar", c.g.op("log", c.tensor(x)), scalar=1 / math.log(base))


@converts("logical_not", "bitwise_not")
def negated(c: Node, x: Any) -> Operand:
    return c.g.op("logical_not" if c.dtype.is_bool else "bitwise_not", x)


@converts("trunc")
def trunc(c: Node, x: Any) -> Operand:
    return c.g.op("subtract", x, c.g.op("fmod", x, c.constant(1, x)))


@converts("add", "sub", "rsub")
def add(c: Node, a: Any, b: Any, *, alpha: Any = 1) -> Operand:
    x, y = c.tensor(a), c.tensor(b)
    if alpha != 1:
        y = c.g.op("multiply", y, c.tensor(alpha))
    if c.op.startswith("rsub"):
        x, y = y, x
    return c.g.op("add" if c.op.startswith("add") else "subtract", x, y)


@converts("mul", "maximum", "minimum", "max.other", "min.other")
def binary(c: Node, a: Any, b: Any) -> Operand:
    name = {"mul": "multiply", "max": "maximum", "min": "minimum"}.get(c.op.split(".")[0], c.op.split(".")[0])
    x, y = c.tensor(a), c.tensor(b)
    return c.g.op("logical_and" if name == "multiply" and c.dtype.is_bool else name, x, y)


@converts("div")
def divide(c: Node, a: Any, b: Any, *, rounding_mode: Any = None) -> Operand:
    x, y = c.tensor(a), c.tensor(b)
    if c.dtype.is_int:
        return c.g.op("truncated_divide" if rounding_mode == "trunc" else "floor_divide", x, y)
    q = c.g.op("divide", x, y)
    if rounding_mode == "floor":
        return c.g.op("floor", q)
    return q if rounding_mode is None else c.g.op("subtract", q, c.g.op("fmod", q, c.constant(1, q)))


@converts("floor_divide")
def floor_divide(c: Node, a: Any, b: Any) -> Operand:
    x, y = c.tensor(a), c.tensor(b)
    return c.g.op("floor_divide", x, y) if c.dtype.is_int else c.g.op("floor", c.g.op("divide", x, y))


@converts("fmod", "remainder")
def remainder(c: Node, a: Any, b: Any) -> Operand:
    x, y = c.tensor(a), c.tensor(b)
    if c.op.startswith("fmod"):
        return c.g.op("fmod", x, y)
    if c.dtype.is_int:
        return c.g.op("floor_mod", x, y)
    r = c.g.op("fmod", x, y)
    wrong = c.g.op("less", c.g.op("multiply", r, y), c.constant(0, r))
    return c.g.op("where", wrong, c.g.op("add", r, y), r)


@converts("pow")
def power(c: Node, a: Any, b: Any) -> Operand:
    if not is_tensor(b):
        x = c.tensor(a)
        return c.g.op("power_scalar", x, scalar=float(b) if c.dtype.is_float else int(b))
    wide = c.dtype if c.dtype.is_float else None
    if wide is None:
        x, y = (c.cast(c.tensor(t), "float64") for t in (a, b))
        return c.cast(c.g.op("power", x, y), c.dtype)
    return c.g.op("power", c.tensor(a), c.tensor(b))


_COMPARE = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


@converts(*_COMPARE)
def compare(c: Node, a: Any, b: Any) -> Operand:
    return c.g.op(_COMPARE[c.op.split(".")[0]], *c.both(a, b))


@converts("logical_and", "logical_or", "logical_xor")
def logical(c: Node, a: Any, b: Any) -> Operand:
    x, y = (c.cast(t, "bool") for t in (a, b))
    return c.g.op({"logical_xor": "not_equal"}.get(c.op.split(".")[0], c.op.split(".")[0]), x, y)


@converts("bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__")
def bitwise(c: Node, a: Any, b: Any) -> Operand:
    kind = c.op.split(".")[0].strip("_").replace("bitwise_", "")
    names = {"and": "logical_and", "or": "logical_or", "xor": "not_equal"}
    return c.g.op(names[kind] if c.dtype.is_bool else f"bitwise_{kind}", c.tensor(a), c.tensor(b))


@converts("where")
def where(c: Node, condition: Any, a: Any, b: Any) -> Operand:
    return c.g.op("where", c.cast(condition, "bool"), c.tensor(a), c.tensor(b))


@converts("masked_fill")
def masked_fill(c: Node, x: Any, mask: Any, value: Any) -> Operand:
    return c.g.op("where", mask, c.tensor(value), c.tensor(x))


@converts("addcmul", "addcdiv")
def add_product(c: Node, x: Any, a: Any, b: Any, *, value: Any = 1) -> Operand:
    name = "multiply" if c.op.startswith("addcmul") else "divide"
    y = c.g.op(name, c.tensor(a), c.tensor(b))
    y = y if value == 1 else c.g.op("multiply", y, c.tensor(value))
    return c.g.op("add", c.tensor(x), y)


@converts("lerp")
def lerp(c: Node, a: Any, b: Any, weight: Any) -> Operand:
    return c.g.op("add", a, c.g.op("multiply", c.tensor(weight), c.g.op("subtract", b, a)))


@converts("clamp", "hardtanh", "clip")
def clamp(c: Node, x: Any, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Operand:
    low, high = (min if low is None else low), (max if high is None else high)
    if c.op.startswith("hardtanh"):
        low, high = (-1.0 if low is None else low), (1.0 if high is None else high)
    y = c.tensor(x)
    for name, limit in (("maximum", low), ("minimum", high)):
        if is_tensor(limit):
            y = c.g.op(name, y, c.tensor(limit))
    return limited(c, y, None if is_tensor(low) else low, None if is_tensor(high) else high)


@converts("clamp_min", "clamp_max")
def clamp_one(c: Node, x: Any, limit: Any) -> Operand:
    return clamp(c, x, limit, None) if c.op.startswith("clamp_min") else clamp(c, x, None, limit)


@converts("relu6")
def relu6(c: Node, x: Any) -> Operand:
    return limited(c, x, 0, 6)


@converts("gelu")
def gelu(c: Node, x: Any, *, approximate: str = "none") -> Operand:
    return c.g.op("gelu", x, approximate=approximate == "tanh")


@converts("leaky_relu")
def leaky_relu(c: Node, x: Any, slope: float = 0.01) -> Operand:
    return c.g.op("leaky_relu", x, slope=slope)


@converts("elu", "selu", "celu")
def elu(c: Node, x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Operand:
    name = c.op.split(".")[0]
    if name == "selu":
        return c.g.op("selu", x)
    if name == "celu":
        return c.g.op("celu", x, alpha=alpha)
    if input_scale != 1:
        raise c.refuse("input_scale is not read")
    y = c.g.op("elu", x, alpha=alpha)
    return y if scale == 1 else c.g.op("multiply_scalar", y, scalar=scale)


@converts("prelu", "_prelu_kernel")
def prelu(c: Node, x: Any, weight: Any) -> Operand:
    if weight.type.ndim == 1 and x.type.ndim > 2:
        weight = c.reshape(weight, (weight.type.shape[0], *(1 for _ in range(x.type.ndim - 2))))
    return c.g.op("prelu", x, weight)


@converts("softplus")
def softplus(c: Node, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Operand:
    scaled = x if beta == 1 else c.g.op("multiply_scalar", x, scalar=float(beta))
    y = c.g.op("softplus", scaled)
    y = y if beta == 1 else c.g.op("multiply_scalar", y, scalar=1 / beta)
    return c.g.op("where", c.g.op("greater", scaled, c.constant(threshold, x)), x, y)


@converts("glu")
def glu(c: Node, x: Any, axis: int = -1) -> Operand:
    return c.g.op("glu", x, axis=axis)


@converts("threshold")
def threshold(c: Node, x: Any, limit: float, value: float) -> Operand:
    return c.g.op("where", c.g.op("greater", x, c.constant(limit, x)), x, c.constant(value, x))


@converts("isfinite")
def is_finite(c: Node, x: Any) -> Operand:
    bad = c.g.op("logical_or", c.g.op("isnan", x), c.g.op("isinf", x))
    return c.g.op("logical_not", bad)


@converts("nan_to_num")
def nan_to_num(c: Node, x: Any, nan: Any = None, high: Any = None, low: Any = None) -> Operand:
    limits = np.finfo(c.dtype.numpy)
    y = limited(c, x, float(limits.min) if low is None else low, float(limits.max) if high is None else high)
    return c.g.op("where", c.g.op("isnan", x), c.constant(nan or 0.0, x), y)

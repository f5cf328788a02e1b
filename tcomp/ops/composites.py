"""Operators that need no kernel of their own: activations, statistics and normalisations, in terms of the others."""

from __future__ import annotations

from math import log, prod
from typing import Any

import numpy as np
from ml_dtypes import finfo

from ..errors import ShapeError
from ..ir.graph import Operand
from .common import float_only, normal_axes
from .composite import composite

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _number(g: Any, value: float, like: Operand) -> Operand:
    """A constant of an operand's dtype."""
    number: Operand = g.constant(np.asarray(value, like.type.dtype.numpy))
    return number


@composite
def expm1(g: Any, x: Operand) -> Operand:
    """exp(x) - 1 without cancellation: 2 t / (1 - t) for t = tanh(x / 2); exp(x) - 1 itself where that is large."""
    float_only("expm1", x.type)
    half = g.tanh(g.multiply_scalar(x, scalar=0.5))
    small = g.divide(g.multiply_scalar(half, scalar=2), g.subtract(_number(g, 1, x), half))
    return g.where(g.less(g.abs(x), _number(g, 1, x)), small, g.add_scalar(g.exp(x), scalar=-1))


@composite
def reciprocal(g: Any, x: Operand) -> Operand:
    return g.divide(_number(g, 1, x), x)


@composite
def sign(g: Any, x: Operand) -> Operand:
    """-1, 0 or 1; NaN stays."""
    zero, one = _number(g, 0, x), _number(g, 1, x)
    return g.where(g.greater(x, zero), one, g.where(g.less(x, zero), g.negative(one), x))


@composite
def sinh(g: Any, x: Operand) -> Operand:
    """(e + e / (e + 1)) / 2 for e = expm1(x), which keeps small results exact; large ones from exp(x - log 2)."""
    float_only("sinh", x.type)
    size = g.abs(x)
    e = g.expm1(g.minimum_scalar(size, scalar=2))
    near = g.multiply_scalar(g.add(e, g.divide(e, g.add_scalar(e, scalar=1))), scalar=0.5)
    root = g.exp(g.multiply_scalar(size, scalar=0.5))  # its square, halved, overflows no sooner than the result
    far = g.subtract(
        g.multiply(g.multiply_scalar(root, scalar=0.5), root), g.divide(_number(g, 0.5, x), g.multiply(root, root))
    )
    return g.multiply(g.sign(x), g.where(g.less(size, _number(g, 2, x)), near, far))


@composite
def cosh(g: Any, x: Operand) -> Operand:
    """(exp(x) + exp(-x)) / 2, from exp(|x| / 2), so that it overflows no sooner than the result."""
    root = g.exp(g.multiply_scalar(g.abs(x), scalar=0.5))
    return g.add(
        g.multiply(g.multiply_scalar(root, scalar=0.5), root), g.divide(_number(g, 0.5, x), g.multiply(root, root))
    )


@composite
def tan(g: Any, x: Operand) -> Operand:
    return g.divide(g.sin(x), g.cos(x))


@composite
def asin(g: Any, x: Operand) -> Operand:
    """The angle whose tangent is x / sqrt((1 - x) (1 + x))."""
    one = _number(g, 1, x)
    return g.atan(g.divide(x, g.sqrt(g.multiply(g.subtract(one, x), g.add(one, x)))))


@composite
def acos(g: Any, x: Operand) -> Operand:
    """Twice the angle whose tangent is sqrt((1 - x) / (1 + x)): exact near 1, where the angle is small."""
    one = _number(g, 1, x)
    return g.multiply_scalar(g.atan(g.sqrt(g.divide(g.subtract(one, x), g.add(one, x)))), scalar=2)


@composite
def asinh(g: Any, x: Operand) -> Operand:
    """log1p(t + t^2 / (1 + sqrt(1 + t^2))) of t = |x|; log(t) + log(2) where t^2 might overflow."""
    float_only("asinh", x.type)
    size, one = g.abs(x), _number(g, 1, x)
    is_large = g.greater(size, _number(g, 1e9, x))
    near = g.where(is_large, one, size)
    square = g.multiply(near, near)
    small = g.log1p(g.add(near, g.divide(square, g.add(one, g.sqrt(g.add(one, square))))))
    large = g.add_scalar(g.log(size), scalar=log(2))
    return g.multiply(g.sign(x), g.where(is_large, large, small))


@composite
def acosh(g: Any, x: Operand) -> Operand:
    """log1p(t + sqrt(t (t + 2))) of t = x - 1; log(x) + log(2) where that might overflow; NaN below 1."""
    float_only("acosh", x.type)
    is_large = g.greater(x, _number(g, 1e9, x))
    t = g.where(is_large, _number(g, 1, x), g.add_scalar(x, scalar=-1))
    small = g.log1p(g.add(t, g.sqrt(g.multiply(t, g.add_scalar(t, scalar=2)))))
    return g.where(is_large, g.add_scalar(g.log(x), scalar=log(2)), small)


@composite
def atanh(g: Any, x: Operand) -> Operand:
    """log1p(2 x / (1 - x)) / 2 of |x|, with the sign of x."""
    float_only("atanh", x.type)
    size = g.abs(x)
    ratio = g.divide(g.multiply_scalar(size, scalar=2), g.subtract(_number(g, 1, x), size))
    return g.multiply(g.sign(x), g.multiply_scalar(g.log1p(ratio), scalar=0.5))


@composite
def clip(g: Any, x: Operand, *, low: float, high: float) -> Operand:
    """x, moved to the nearest end of [low, high]; NaN stays."""
    if low > high:
        raise ShapeError(f"clip between {low} and {high}", why="low must not exceed high")
    return g.minimum_scalar(g.maximum_scalar(x, scalar=low), scalar=high)


@composite
def hardsigmoid(g: Any, x: Operand, *, slope: float = 1 / 6, offset: float = 0.5) -> Operand:
    return g.clip(g.add_scalar(g.multiply_scalar(x, scalar=slope), scalar=offset), low=0, high=1)


@composite
def hardswish(g: Any, x: Operand) -> Operand:
    return g.multiply(x, g.hardsigmoid(x))


@composite
def leaky_relu(g: Any, x: Operand, *, slope: float = 0.01) -> Operand:
    return g.where(g.greater(x, _number(g, 0, x)), x, g.multiply_scalar(x, scalar=slope))


@composite
def prelu(g: Any, x: Operand, slope: Operand) -> Operand:
    """x where it is positive, else x * slope; the slope broadcasts."""
    return g.where(g.greater(x, _number(g, 0, x)), x, g.multiply(x, slope))


@composite
def elu(g: Any, x: Operand, *, alpha: float = 1.0) -> Operand:
    below = g.multiply_scalar(g.expm1(g.minimum_scalar(x, scalar=0)), scalar=alpha)
    return g.where(g.greater(x, _number(g, 0, x)), x, below)


@composite
def celu(g: Any, x: Operand, *, alpha: float = 1.0) -> Operand:
    below = g.multiply_scalar(g.expm1(g.multiply_scalar(g.minimum_scalar(x, scalar=0), scalar=1 / alpha)), scalar=alpha)
    return g.where(g.greater(x, _number(g, 0, x)), x, below)


@composite
def selu(g: Any, x: Operand, *, alpha: float = _SELU_ALPHA, scale: float = _SELU_SCALE) -> Operand:
    return g.multiply_scalar(g.elu(x, alpha=alpha), scalar=scale)


@composite
def softplus(g: Any, x: Operand) -> Operand:
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)), which overflows nowhere."""
    return g.add(g.relu(x), g.log1p(g.exp(g.negative(g.abs(x)))))


@composite
def log_sigmoid(g: Any, x: Operand) -> Operand:
    return g.negative(g.softplus(g.negative(x)))


@composite
def softsign(g: Any, x: Operand) -> Operand:
    float_only("softsign", x.type)
    return g.divide(x, g.add_scalar(g.abs(x), scalar=1))


@composite
def mish(g: Any, x: Operand) -> Operand:
    return g.multiply(x, g.tanh(g.softplus(x)))


@composite
def glu(g: Any, x: Operand, *, axis: int = -1) -> Operand:
    """The first half of an axis times the sigmoid of the second."""
    if x.type.ndim == 0 or x.type.shape[axis] % 2:
        raise ShapeError(f"glu of {x.type}", why=f"axis {axis} has no halves")
    value, gate = g.split(x, sections=(x.type.shape[axis] // 2,) * 2, axis=axis)
    return g.multiply(value, g.sigmoid(gate))


@composite
def logsumexp(g: Any, x: Operand, *, axes: Any = None, keepdims: bool = False) -> Operand:
    """log(sum(exp(x))), moved by the maximum; infinities come out as they are."""
    float_only("logsumexp", x.type)
    largest = float(finfo(x.type.dtype.numpy).max)
    top = g.clip(g.max(x, axes=axes, keepdims=True), low=-largest, high=largest)
    total = g.add(g.log(g.sum(g.exp(g.subtract(x, top)), axes=axes, keepdims=True)), top)
    return total if keepdims else _without_axes(g, total, x, axes)


def _without_axes(g: Any, y: Operand, x: Operand, axes: Any) -> Operand:
    gone = normal_axes("reshape", axes, x.type.ndim)
    result: Operand = g.reshape(y, shape=tuple(s for i, s in enumerate(x.type.shape) if i not in gone))
    return result


@composite
def norm(g: Any, x: Operand, *, order: int = 2, axes: Any = None, keepdims: bool = False) -> Operand:
    """The sum of |x| (order 1), or the root of the sum of squares (order 2), over axes."""
    float_only("norm", x.type)
    if order not in (1, 2):
        raise ShapeError(f"norm of order {order!r}", why="the order is 1 or 2")
    if order == 1:
        return g.sum(g.abs(x), axes=axes, keepdims=keepdims)
    return g.sqrt(g.sum(g.multiply(x, x), axes=axes, keepdims=keepdims))


@composite
def var(g: Any, x: Operand, *, axes: Any = None, keepdims: bool = False, correction: float = 0) -> Operand:
    """The mean square deviation from the mean; the count is lessened by `correction`."""
    count = prod(x.type.shape[a] for a in normal_axes("var", axes, x.type.ndim))
    if count <= correction:
        raise ShapeError(f"var of {x.type}", why=f"{count} elements less {correction} leave nothing to divide by")
    centred = g.subtract(x, g.mean(x, axes=axes, keepdims=True))
    spread = g.mean(g.multiply(centred, centred), axes=axes, keepdims=keepdims)
    return g.multiply_scalar(spread, scalar=count / (count - correction)) if correction else spread


@composite
def std(g: Any, x: Operand, *, axes: Any = None, keepdims: bool = False, correction: float = 0) -> Operand:
    return g.sqrt(g.var(x, axes=axes, keepdims=keepdims, correction=correction))


@composite
def group_norm(g: Any, x: Operand, weight: Operand, bias: Operand, *, groups: int, eps: float = 1e-5) -> Operand:
    """Channels (axis 1) in groups, each normalised over its own channels and places, then scaled channel by channel (Y. Wu and K. He,
    Group Normalization, 2018).

    Args:
        x: (N, C, ...); weight, bias: (C,).
    """
    float_only("group_norm", x.type)
    n, c, *places = x.type.shape if x.type.ndim > 1 else (0, 0)
    if x.type.ndim < 2 or groups < 1 or c % groups or weight.type.shape != (c,) or bias.type.shape != (c,):
        raise ShapeError(
            f"group_norm of {x.type} with {weight.type} and {bias.type}",
            why=f"it takes (N, C, ...) with C in {groups} equal groups, and (C,) twice",
        )
    rows = g.reshape(x, shape=(n, groups, c // groups * prod(places)))
    centred = g.subtract(rows, g.mean(rows, axes=(2,), keepdims=True))
    spread = g.mean(g.multiply(centred, centred), axes=(2,), keepdims=True)
    normal = g.reshape(g.multiply(centred, g.rsqrt(g.add_scalar(spread, scalar=eps))), shape=x.type.shape)
    scale, shift = (g.reshape(p, shape=(c, *(1 for _ in places))) for p in (weight, bias))
    return g.add(g.multiply(normal, scale), shift)


@composite
def instance_norm(g: Any, x: Operand, weight: Operand, bias: Operand, *, eps: float = 1e-5) -> Operand:
    """Each channel of each example normalised over its places: as many groups as channels."""
    if x.type.ndim < 2:
        raise ShapeError(f"instance_norm of {x.type}", why="it takes (N, C, ...)")
    return g.group_norm(x, weight, bias, groups=x.type.shape[1], eps=eps)

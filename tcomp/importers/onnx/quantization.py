"""Integers that stand for real numbers."""

from __future__ import annotations

import numpy as np

from ...dtype import DType, dtype
from ...ir.graph import Operand
from .convolution import channels, convolved
from .node import Node
from .table import MICROSOFT, converts
from .types import dtype_of


def along(c: Node, p: Operand, x: Operand, axis: int) -> Operand:
    """A scale or zero point, shaped so that it broadcasts: one number, one for each place of an axis, or one a block of it."""
    if p.type.ndim == 0 or p.type.size == 1:
        return c.reshape(p, ())
    if p.type.ndim == 1:
        return c.reshape(p, [p.type.shape[0] if d == axis else 1 for d in range(x.type.ndim)])
    if p.type.shape == x.type.shape:
        return p
    block = -(-x.type.extents[axis] // p.type.extents[axis])
    places = c.constant(np.arange(x.type.extents[axis]) // block)
    return c.g.op("take", p, places, axis=axis)


def rounded(c: Node, x: Operand, scale: Operand, zero: Operand | None, kind: DType) -> Operand:
    """x / scale, rounded to even, moved by the zero point, saturated."""
    wide = x if x.type.dtype.bits >= 32 else c.cast(x, "float32")
    y = c.g.op("round", c.g.op("divide", wide, c.cast(scale, wide.type.dtype)))
    if zero is not None:
        y = c.g.op("add", y, c.cast(zero, wide.type.dtype))
    return c.cast(y, kind)  # a conversion saturates


@converts("QuantizeLinear")
@converts("QuantizeLinear", domain=MICROSOFT)
def quantize(c: Node) -> Operand:
    x = c[0]
    axis = c.axis(default=1) if x.type.ndim > 1 or c.attr("axis", 1) < x.type.ndim else 0
    given = c.attr("output_dtype", 0)
    kind = c.type_of(2).dtype if c.has(2) else dtype_of(given) if given else dtype("uint8")
    if c.attr("precision", 0):
        scale_kind = dtype_of(c.attrs["precision"])
        x = c.cast(x, scale_kind)
    if x.type.dtype.is_int:
        x = c.cast(x, "float32")
    zero = along(c, c[2], x, axis) if c.has(2) else None
    return rounded(c, x, along(c, c[1], x, axis), zero, kind)


@converts("DequantizeLinear")
@converts("DequantizeLinear", domain=MICROSOFT)
def dequantize(c: Node) -> Operand:
    x = c[0]
    axis = c.axis(default=1) if x.type.ndim > 1 or c.attr("axis", 1) < x.type.ndim else 0
    given = c.attr("output_dtype", 0)
    d = dtype_of(given) if given else c.type_of(1).dtype
    wide = d if d.bits >= 32 else dtype("float32")
    y = c.cast(x, wide)
    if c.has(2):
        y = c.g.op("subtract", y, c.cast(along(c, c[2], x, axis), wide))
    return c.cast(c.g.op("multiply", y, c.cast(along(c, c[1], x, axis), wide)), d)


@converts("DynamicQuantizeLinear")
def dynamic_quantize(c: Node) -> tuple[Operand, ...]:
    return dynamically(c, c[0])


def dynamically(c: Node, x: Operand) -> tuple[Operand, Operand, Operand]:
    """A tensor as uint8 between its own extremes: values, scale, zero point."""
    g, zero = c.g, c.constant(0, x)
    low, high = g.op("minimum", g.op("min", x), zero), g.op("maximum", g.op("max", x), zero)
    scale = g.op("divide_scalar", g.op("subtract", high, low), scalar=255.0)
    safe = g.op("where", g.op("equal", scale, zero), c.constant(1, x), scale)
    point = g.op("round", g.op("divide", g.op("negative", low), safe))
    point = g.op("minimum_scalar", g.op("maximum_scalar", point, scalar=0.0), scalar=255.0)
    y = c.cast(g.op("add", g.op("round", g.op("divide", x, safe)), point), "uint8")
    return y, scale, c.cast(point, "uint8")


def integer_product(c: Node, a: Operand, b: Operand, a_zero: Operand | None, b_zero: Operand | None) -> Operand:
    """(a - a_zero) @ (b - b_zero) in int32: the product of the integers themselves, less what the zero points make of it."""
    if a.type.ndim < 2 or b.type.ndim < 2:
        raise c.refuse(f"a product of {a.type} and {b.type}", "matrices")
    g = c.g
    total: Operand = g.op("matmul", a, b)
    za, zb = (None if z is None or _is_zero(c, z) else c.cast(z, "int32") for z in (a_zero, b_zero))
    depth = a.type.shape[-1]
    if za is not None:
        columns = g.op("sum", c.cast(b, "int32"), axes=(b.type.ndim - 2,), keepdims=True, out_dtype="int32")
        za = c.reshape(za, (*za.type.shape, 1)) if za.type.ndim == 1 and za.type.size > 1 else _single(c, za)
        total = g.op("subtract", total, g.op("multiply", columns, za))
    if zb is not None:
        rows = g.op("sum", c.cast(a, "int32"), axes=(a.type.ndim - 1,), keepdims=True, out_dtype="int32")
        zb = _single(c, zb)
        total = g.op("subtract", total, g.op("multiply", rows, zb))
        if za is not None:
            both = g.op("multiply_scalar", g.op("multiply", za, zb), scalar=int(depth))
            total = g.op("add", total, both)
    return total


def _is_zero(c: Node, z: Operand) -> bool:
    known = c.g.known(z)
    return known is not None and not known.any()


def _single(c: Node, z: Operand) -> Operand:
    return c.reshape(z, ()) if z.type.size == 1 else z


@converts("MatMulInteger")
def matmul_integer(c: Node) -> Operand:
    return integer_product(c, c[0], c[1], c.get(2), c.get(3))


def requantized(c: Node, total: Operand, factor: Operand, zero: Operand, kind: DType) -> Operand:
    """int32 sums times a factor, rounded and saturated to a small integer."""
    y = c.g.op("round", c.g.op("multiply", c.cast(total, factor.type.dtype), factor))
    return c.cast(c.g.op("add", y, c.cast(zero, factor.type.dtype)), kind)


def _factor(c: Node, a: Operand, b: Operand, y: Operand) -> Operand:
    wide = [c.cast(t, "float32") for t in (a, b, y)]
    return c.g.op("divide", c.g.op("multiply", wide[0], wide[1]), wide[2])


@converts("QLinearMatMul")
def qlinear_matmul(c: Node) -> Operand:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (c[i] for i in range(8))
    total = integer_product(c, a, b, a_zero, b_zero)
    a_scale = c.reshape(a_scale, (*a_scale.type.shape, 1)) if a_scale.type.size > 1 else _single(c, a_scale)
    factor = _factor(c, a_scale, _single(c, b_scale), _single(c, y_scale))
    return requantized(c, total, factor, _single(c, y_zero), y_zero.type.dtype)


@converts("ConvInteger")
def conv_integer(c: Node) -> Operand:
    return integer_convolution(c, c[0], c[1], c.get(2), c.get(3))


def integer_convolution(c: Node, x: Operand, w: Operand, x_zero: Operand | None, w_zero: Operand | None) -> Operand:
    """A convolution of what integers stand for, but for the scales, in int32: borders are zero points."""
    if not all(z is None or _is_zero(c, z) for z in (x_zero, w_zero)):
        x, w = _centred(c, x, x_zero, None), _centred(c, w, w_zero, 0)
    return convolved(c, x, w)


def _centred(c: Node, x: Operand, zero: Operand | None, axis: int | None) -> Operand:
    wide = c.cast(x, "int32")
    if zero is None:
        return wide
    shaped = _single(c, zero) if axis is None else along(c, zero, x, axis)
    return c.g.op("subtract", wide, c.cast(shaped, "int32"))


@converts("QLinearConv")
def qlinear_conv(c: Node) -> Operand:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (c[i] for i in range(8))
    total = integer_convolution(c, x, w, x_zero, w_zero)
    if c.has(8):
        total = c.g.op("add", total, channels(c, c[8], total))
    scale = channels(c, w_scale, total) if w_scale.type.size > 1 else _single(c, w_scale)
    factor = _factor(c, _single(c, x_scale), scale, _single(c, y_scale))
    return requantized(c, total, factor, _single(c, y_zero), y_zero.type.dtype)


@converts("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(c: Node) -> Operand:
    a, b = (_real(c, i) for i in (0, 3))
    y = c.g.op("add" if c.op == "QLinearAdd" else "multiply", a, b)
    kind = c.type_of(7).dtype if c.has(7) else c.type_of(0).dtype
    return rounded(c, y, _single(c, c[6]), _single(c, c[7]) if c.has(7) else None, kind)


def _real(c: Node, at: int) -> Operand:
    """What the integers of an input stand for; its scale and zero point are the next two."""
    x = c.cast(c[at], "float32")
    if c.has(at + 2):
        x = c.g.op("subtract", x, c.cast(_single(c, c[at + 2]), "float32"))
    return c.g.op("multiply", x, _single(c, c[at + 1]))


@converts("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_unary(c: Node) -> Operand:
    x = _real(c, 0)
    if c.op == "QLinearSigmoid":
        y = c.g.op("sigmoid", x)
    elif c.op == "QLinearLeakyRelu":
        y = c.g.op("leaky_relu", x, slope=c.attr("alpha", 0.01))
    else:
        axes = tuple(range(1, x.type.ndim - 1)) if c.attr("channels_last", 0) else tuple(range(2, x.type.ndim))
        y = c.g.op("mean", x, axes=axes, keepdims=True)
    kind = c.type_of(4).dtype if c.has(4) else c.type_of(0).dtype
    return rounded(c, y, _single(c, c[3]), _single(c, c[4]) if c.has(4) else None, kind)


@converts("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(c: Node) -> Operand:
    parts = [_real(c, i) for i in range(2, len(c.inputs), 3)]
    y = c.g.op("concat", *parts, axis=c.place(c.needed("axis", int), parts[0].type.ndim))
    return rounded(c, y, _single(c, c[0]), _single(c, c[1]), c.type_of(1).dtype)


@converts("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(c: Node) -> Operand:
    x, b = c[0], c[1]
    y, scale, point = dynamically(c, x)
    total = integer_product(c, y, b, point, c.get(3))
    real = c.g.op("multiply", c.cast(total, "float32"), c.g.op("multiply", scale, _single(c, c[2])))
    return c.g.op("add", real, c[4]) if c.has(4) else real


@converts("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(c: Node) -> Operand:
    total = integer_product(c, c[0], c[1], c.get(4), c.get(5))
    factor = c.g.op("multiply", _single(c, c[2]), _single(c, c[3]))
    y = c.g.op("multiply", c.cast(total, "float32"), factor)
    return c.g.op("add", y, c[6]) if c.has(6) else y

"""Normalisations."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...ir.graph import Operand
from .node import Node
from .table import MICROSOFT, converts


@converts("BatchNormalization")
def batch_normalization(c: Node) -> Any:
    x, scale, bias, mean, var = (c[i] for i in range(5))
    eps = c.attr("epsilon", 1e-5)
    if not c.attr("spatial", 1):
        raise c.refuse("statistics of each element")
    if c.attr("training_mode", 0):
        return _training(c, x, scale, bias, mean, var, eps)
    d = x.type.dtype
    args = [c.cast(p, d) for p in (scale, bias, mean, var)]
    y = c.g.op("batch_norm", x, *args, axis=1 if x.type.ndim > 1 else 0, eps=eps)
    return (y, *(None for _ in range(c.num_outputs - 1)))


def _training(c: Node, x: Operand, scale: Operand, bias: Operand, mean: Operand, var: Operand, eps: float) -> Any:
    g, axes = c.g, tuple(d for d in range(x.type.ndim) if d != 1)
    momentum = c.attr("momentum", 0.9)
    now, spread = g.op("mean", x, axes=axes), g.op("var", x, axes=axes)
    y = g.op("batch_norm", x, scale, bias, now, spread, axis=1, eps=eps)

    def running(old: Operand, new: Operand) -> Operand:
        kept, added = (g.op("multiply_scalar", t, scalar=s) for t, s in ((old, momentum), (new, 1 - momentum)))
        return g.op("add", kept, added)

    return y, running(mean, now), running(var, spread)


@converts("InstanceNormalization")
def instance_normalization(c: Node) -> Operand:
    return c.g.op("instance_norm", c[0], c[1], c[2], eps=c.attr("epsilon", 1e-5))


@converts("GroupNormalization")
def group_normalization(c: Node) -> Operand:
    x, scale, bias = c[0], c[1], c[2]
    groups = c.needed("num_groups", int)
    channels = x.type.shape[1]
    if scale.type.shape == (groups,) and groups != channels:  # of whole groups, in the first version
        each = c.constant(np.arange(channels) // (channels // groups))
        scale, bias = (c.g.op("take", t, each, axis=0) for t in (scale, bias))
    return c.g.op("group_norm", x, scale, bias, groups=groups, eps=c.attr("epsilon", 1e-5))


@converts("LayerNormalization")
@converts("LayerNormalization", domain="com.microsoft")
def layer_normalization(c: Node) -> Any:
    x = c[0]
    axis, eps = c.axis(default=-1), c.attr("epsilon", 1e-5)
    if c.num_outputs == 1:
        return normal_rows(c, x, c[1], c.get(2), axis, eps)
    g, axes = c.g, tuple(range(axis, x.type.ndim))
    wide = c.cast(x, x.type.dtype.accumulator) if x.type.dtype.bits < 32 else x
    mean = g.op("mean", wide, axes=axes, keepdims=True)
    centred = g.op("subtract", wide, mean)
    spread = g.op("mean", g.op("multiply", centred, centred), axes=axes, keepdims=True)
    inverse = g.op("rsqrt", g.op("add_scalar", spread, scalar=eps))
    y = g.op("multiply", c.cast(g.op("multiply", centred, inverse), x.type.dtype), c[1])
    return (y if not c.has(2) else g.op("add", y, c[2])), mean, inverse


def normal_rows(c: Node, x: Operand, weight: Operand, bias: Operand | None, axis: int, eps: float) -> Operand:
    """A layer norm over all axes from one on."""
    shape = x.type.shape
    count: Any = prod(shape[axis:]) if axis < len(shape) - 1 else shape[-1]
    rows = x if axis == len(shape) - 1 else c.reshape(x, (*shape[:axis], count))
    scale = _row(c, weight, count)
    shift = c.zeros((count,), x.type.dtype) if bias is None else _row(c, bias, count)
    return c.reshape(c.g.op("layer_norm", rows, scale, shift, eps=eps), shape)


def _row(c: Node, p: Operand, count: Any) -> Operand:
    """A scale of all elements of a row."""
    if p.type.size == count:
        return c.reshape(p, (count,))
    return c.g.op("broadcast_to", c.reshape(p, (p.type.size,)), shape=(count,))


@converts("RMSNormalization")
@converts("SimplifiedLayerNormalization")
@converts("SimplifiedLayerNormalization", domain=MICROSOFT)
def rms_normalization(c: Node) -> Any:
    x = c[0]
    return rms_rows(c, x, c[1], c.axis(default=-1), c.attr("epsilon", 1e-5))


def rms_rows(c: Node, x: Operand, weight: Operand, axis: int, eps: float) -> Operand:
    """Rows over their root mean square."""
    shape = x.type.shape
    count: Any = prod(shape[axis:]) if axis < len(shape) - 1 else shape[-1]
    rows = x if axis == len(shape) - 1 else c.reshape(x, (*shape[:axis], count))
    return c.reshape(c.g.op("rms_norm", rows, _row(c, weight, count), eps=eps), shape)


@converts("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(c: Node) -> Any:
    if c.op == "EmbedLayerNormalization":
        raise c.refuse("it is not read")
    simple = c.op == "SkipSimplifiedLayerNormalization"
    total = c.g.op("add", c[0], c[1])
    at = 3 if simple else 4
    if c.has(at):
        total = c.g.op("add", total, c[at])
    axis, eps = total.type.ndim - 1, c.attr("epsilon", 1e-12)
    y = rms_rows(c, total, c[2], axis, eps) if simple else normal_rows(c, total, c[2], c.get(3), axis, eps)
    return (y, None, None, total)[: max(c.num_outputs, 1)]


@converts("LpNormalization")
def lp_normalization(c: Node) -> Operand:
    axis = c.axis(default=-1)
    x = c[0]
    size = c.g.op("norm", x, order=c.attr("p", 2), axes=(axis,), keepdims=True)
    zero = c.constant(0, x)
    ratio = c.g.op("divide", x, size)
    return c.g.op("where", c.g.op("equal", size, zero), zero, ratio)


@converts("MeanVarianceNormalization")
def mean_variance_normalization(c: Node) -> Operand:
    x, axes = c[0], tuple(c.ints("axes") or (0, 2, 3))
    centred = c.g.op("subtract", x, c.g.op("mean", x, axes=axes, keepdims=True))
    spread = c.g.op("mean", c.g.op("multiply", centred, centred), axes=axes, keepdims=True)
    return c.g.op("divide", centred, c.g.op("add_scalar", c.g.op("sqrt", spread), scalar=1e-9))


@converts("Dropout")
def dropout(c: Node) -> Any:
    """In training mode it draws random numbers of its own, unless nothing is dropped."""
    x = c[0]
    is_training = c.version >= 12 and c.has(2) and bool(c.value(2).reshape(-1)[0])
    ratio = float(c.value(1).reshape(-1)[0]) if is_training and c.has(1) else 0.5
    if is_training and ratio > 0:
        raise c.refuse("in training mode it draws random numbers")
    everything = c.g.op("broadcast_to", c.constant(True), shape=x.type.shape)
    return (x, everything)[: c.num_outputs]

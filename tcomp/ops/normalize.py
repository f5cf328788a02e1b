"""Normalisations and the losses built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..ir.expr import Expr, Select, as_expr, call
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import (
    extents_of,
    float_only,
    mean_factor,
    mean_scale,
    normal_axis,
    quotient,
    rounds_once,
    same_dtype,
    same_extent,
)
from .reduce import reduce_tensor
from .registry import Operator, mismatch, register


def _infer_rows(name: str) -> Any:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        float_only(name, args[0])
        normal_axis(name, attrs["axis"], args[0].ndim)
        return args[0]

    return infer


def _softmax_stages(x: te.Tensor, axis: int) -> tuple[te.Tensor, te.Tensor]:
    """The maximum of each row, and the sum of exp(x - maximum)."""
    top = reduce_tensor(x, (axis,), True, te.max, "row_max")

    def shifted(*i: Expr) -> Expr:
        return call("exp", x[i] - top[_one(i, axis)])

    total = reduce_tensor(x, (axis,), True, te.sum, "row_sum", shifted)
    return top, total


def _one(index: Sequence[Expr], axis: int) -> tuple[Expr, ...]:
    return tuple(as_expr(0) if d == axis else i for d, i in enumerate(index))


def _softmax(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axis = normal_axis("softmax", attrs["axis"], x.ndim)
    top = reduce_tensor(x, (axis,), True, te.max, "row_max")
    powers = te.compute(out.shape, lambda *i: call("exp", x[i] - top[_one(i, axis)]), name="row_exp")
    total = reduce_tensor(powers, (axis,), True, te.sum, "row_sum")
    return te.compute(out.shape, lambda *i: quotient(powers[i], total[_one(i, axis)]), name="softmax")


def _softmax_reference(x: Any, axis: int) -> Any:
    if x.size == 0:
        return x
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axis = normal_axis("log_softmax", attrs["axis"], x.ndim)
    top, total = _softmax_stages(x, axis)
    return te.compute(
        out.shape, lambda *i: x[i] - top[_one(i, axis)] - call("log", total[_one(i, axis)]), name="log_softmax"
    )


def _log_softmax_reference(x: Any, axis: int) -> Any:
    if x.size == 0:
        return x
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _five(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return 5 * out.size


def _along_axis(types: Sequence[TensorType], attrs: Attrs) -> int:
    return extents_of(types[0], (attrs["axis"],)) if types[0].ndim else 1


def _last_axis(types: Sequence[TensorType], attrs: Attrs) -> int:
    return extents_of(types[0], (-1,))


for _name, _compute, _reference in (
    ("softmax", _softmax, _softmax_reference),
    ("log_softmax", _log_softmax, _log_softmax_reference),
):
    _op = Operator(_name, _infer_rows(_name), _compute, _reference, "row_reduction", 1, {"axis": -1}, _five)
    register(rounds_once(_op, _along_axis))


def _infer_layer_norm(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, *scale = args
    same_dtype("layer_norm", args)
    float_only("layer_norm", x)
    if len(args) != 3 or any(s.ndim != 1 or not same_extent(s.shape[0], x.shape[-1]) for s in scale):
        raise mismatch("layer_norm", "weight and bias must have the extent of the last axis", *args)
    return x


def _layer_norm(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, weight, bias = args
    axis = x.ndim - 1
    scale = mean_scale(x.shape[-1:], x.dtype)
    total = reduce_tensor(x, (axis,), True, te.sum, "row_sum")

    def squared(*i: Expr) -> Expr:
        centred = x[i] - total[_one(i, axis)] * scale
        return centred * centred

    spread = reduce_tensor(x, (axis,), True, te.sum, "row_var", squared)

    def at(*i: Expr) -> Expr:
        centred = x[i] - total[_one(i, axis)] * scale
        inverse = call("rsqrt", spread[_one(i, axis)] * scale + attrs["eps"])
        return centred * inverse * weight[i[-1]] + bias[i[-1]]

    return te.compute(out.shape, at, name="layer_norm")


def _layer_norm_reference(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    if x.size == 0:
        return x
    centred = x - x.mean(axis=-1, keepdims=True)
    return (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias).astype(x.dtype)


register(
    rounds_once(
        Operator("layer_norm", _infer_layer_norm, _layer_norm, _layer_norm_reference, "row_reduction", 3, {"eps": 1e-5},
                 lambda args, out, attrs: 8 * out.size),
        _last_axis,
    )
)  # fmt: skip


def _infer_rms_norm(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, weight = args
    same_dtype("rms_norm", args)
    float_only("rms_norm", x)
    if x.ndim < 1 or weight.ndim != 1 or not same_extent(weight.shape[0], x.shape[-1]):
        raise mismatch("rms_norm", "the weight must have the extent of the last axis", *args)
    return x


def _rms_norm(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, weight = args
    axis = x.ndim - 1
    scale = mean_scale(x.shape[-1:], x.dtype)
    total = reduce_tensor(x, (axis,), True, te.sum, "row_squares", lambda *i: x[i] * x[i])

    def at(*i: Expr) -> Expr:
        return x[i] * call("rsqrt", total[_one(i, axis)] * scale + attrs["eps"]) * weight[i[-1]]

    return te.compute(out.shape, at, name="rms_norm")


def _rms_norm_reference(x: Any, weight: Any, eps: float) -> Any:
    if x.size == 0:
        return x
    return (x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight).astype(x.dtype)


register(
    rounds_once(
        Operator("rms_norm", _infer_rms_norm, _rms_norm, _rms_norm_reference, "row_reduction", 2, {"eps": 1e-6},
                 lambda args, out, attrs: 4 * out.size),
        _last_axis,
    )
)  # fmt: skip
"""x / sqrt(mean(x^2) + eps) * weight, along the last axis: B. Zhang and R. Sennrich, Root Mean Square Layer Normalization, 2019."""


def _infer_batch_norm(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, *params = args
    same_dtype("batch_norm", args)
    float_only("batch_norm", x)
    axis = normal_axis("batch_norm", attrs["axis"], x.ndim)
    if any(p.ndim != 1 or not same_extent(p.shape[0], x.shape[axis]) for p in params):
        raise mismatch("batch_norm", f"weight, bias, mean and variance must have the extent of axis {axis}", *args)
    return x


def _batch_norm(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, weight, bias, mean, var = args
    axis = normal_axis("batch_norm", attrs["axis"], x.ndim)

    def at(*i: Expr) -> Expr:
        c = i[axis]
        return (x[i] - mean[c]) * call("rsqrt", var[c] + attrs["eps"]) * weight[c] + bias[c]

    return te.compute(out.shape, at, name="batch_norm")


def _batch_norm_reference(x: Any, weight: Any, bias: Any, mean: Any, var: Any, axis: int, eps: float) -> Any:
    shape = [1] * x.ndim
    shape[axis] = -1
    w, b, m, v = (p.reshape(shape) for p in (weight, bias, mean, var))
    return ((x - m) / np.sqrt(v + x.dtype.type(eps)) * w + b).astype(x.dtype)


register(
    rounds_once(
        Operator("batch_norm", _infer_batch_norm, _batch_norm, _batch_norm_reference, "elementwise", 5,
                 {"axis": 1, "eps": 1e-5}, lambda args, out, attrs: 2 * out.size)
    )
)  # fmt: skip


def _infer_cross_entropy(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    logits, labels = args
    float_only("cross_entropy", logits)
    if (
        logits.ndim != 2
        or labels.ndim != 1
        or not labels.dtype.is_int
        or not same_extent(labels.shape[0], logits.shape[0])
    ):
        raise mismatch("cross_entropy", "logits must be (rows, classes) and labels (rows,) integers", *args)
    return TensorType((), logits.dtype)


def _cross_entropy(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    logits, labels = args
    rows, classes = logits.shape
    top, total = _softmax_stages(logits, 1)
    k = te.reduce_axis(classes, "k")

    def label(i: Expr) -> Expr:
        """Counted from the end where negative; never out of range."""
        given = te.cast(labels[i], "int64")
        place = te.select(given < 0, given + classes, given)
        return te.maximum(te.minimum(place, classes - 1), 0)

    zero = as_expr(0.0, out.dtype)
    chosen = te.compute(
        (rows,),
        lambda i: te.sum(Select(te.equal(label(i), k), logits[i, k], zero), axis=k),
        name="chosen",
    )
    r = te.reduce_axis(rows, "r")
    loss = te.compute(
        (), lambda: te.sum(call("log", total[r, 0]) + top[r, 0] - chosen[r], axis=r), name="cross_entropy_sum"
    )
    return te.compute((), lambda: loss[()] * mean_scale((rows,), out.dtype), name="cross_entropy")


def _cross_entropy_reference(logits: Any, labels: Any) -> Any:
    rows = _log_softmax_reference(logits, 1)
    classes, wide = logits.shape[1], labels.astype(np.int64)
    places = np.clip(np.where(wide < 0, wide + classes, wide), 0, max(classes - 1, 0))
    chosen = rows[np.arange(len(labels)), places]
    return np.asarray(-chosen.sum() * mean_factor(len(labels))).astype(logits.dtype)


register(
    rounds_once(
        Operator("cross_entropy", _infer_cross_entropy, _cross_entropy, _cross_entropy_reference, "row_reduction", 2, {},
                 lambda args, out, attrs: 5 * args[0].size),
        lambda types, attrs: max(extents_of(types[0], (0,)), extents_of(types[0], (1,))),
    )
)  # fmt: skip

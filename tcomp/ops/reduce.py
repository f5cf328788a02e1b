"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..dtype import int32, int64
from ..ir.expr import Expr, Select, as_expr, call, const
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import float_only, normal_axes, normal_axis
from .registry import Operator, mismatch, register

_DEFAULTS = {"axes": None, "keepdims": False}


def reduced_shape(shape: Sequence[Any], axes: tuple[int, ...], keepdims: bool) -> tuple[Any, ...]:
    if keepdims:
        return tuple(1 if d in axes else s for d, s in enumerate(shape))
    return tuple(s for d, s in enumerate(shape) if d not in axes)


def reduce_tensor(
    x: te.Tensor, axes: tuple[int, ...], keepdims: bool, f: Callable[..., Any], name: str, element: Any = None
) -> Any:
    """f over the axes of a tensor (or of element(index), where given)."""
    ks = [te.reduce_axis(x.shape[a], f"k{i}") for i, a in enumerate(axes)]
    get = element or (lambda *index: x[index])

    def at(*index: Expr) -> Any:
        outer, inner = iter(index), iter(ks)
        full = []
        for d in range(x.ndim):
            if d in axes:
                full.append(next(inner))
                if keepdims:
                    next(outer)
            else:
                full.append(next(outer))
        return f(get(*full), axis=ks)

    return te.compute(reduced_shape(x.shape, axes, keepdims), at, name=name)


def _register(name: str, f: Callable[..., Any], reference: Callable[..., Any]) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        (t,) = args
        if t.dtype.is_bool:
            raise mismatch(name, "it takes numbers", t, hint="cast the argument")
        axes = normal_axes(name, attrs["axes"], t.ndim)
        return TensorType(reduced_shape(t.shape, axes, attrs["keepdims"]), t.dtype)

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        axes = normal_axes(name, attrs["axes"], args[0].ndim)
        if not axes:
            return te.compute(out.shape, lambda *i: args[0][i], name=name)
        return reduce_tensor(args[0], axes, attrs["keepdims"], f, name)

    def apply(x: Any, axes: Any, keepdims: bool) -> Any:
        return np.asarray(reference(x, axis=normal_axes(name, axes, x.ndim), keepdims=keepdims)).astype(x.dtype)

    register(Operator(name, infer, compute, apply, "reduction", 1, _DEFAULTS, lambda args, out, attrs: args[0].size))


_register("sum", te.sum, np.sum)
_register("prod", te.prod, np.prod)
_register("max", te.max, np.max)
_register("min", te.min, np.min)


def _infer_mean(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    float_only("mean", t)
    return TensorType(reduced_shape(t.shape, normal_axes("mean", attrs["axes"], t.ndim), attrs["keepdims"]), t.dtype)


def _mean(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axes = normal_axes("mean", attrs["axes"], x.ndim)
    total = reduce_tensor(x, axes, attrs["keepdims"], te.sum, "mean_sum")
    count = prod(x.shape[a].value for a in axes)
    return te.compute(out.shape, lambda *i: total[i] * as_expr(1.0 / count, x.dtype), name="mean")


register(
    Operator(
        "mean",
        _infer_mean,
        _mean,
        lambda x, axes, keepdims: np.asarray(x.mean(axis=normal_axes("mean", axes, x.ndim), keepdims=keepdims)).astype(
            x.dtype
        ),
        "reduction",
        1,
        _DEFAULTS,
        lambda args, out, attrs: args[0].size,
    )
)


def _register_arg(name: str, f: Callable[..., Any], reference: Callable[..., Any]) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        (t,) = args
        axis = normal_axis(name, attrs["axis"], t.ndim)
        if t.shape[axis] == 0:
            raise mismatch(name, "the axis is empty", t)
        return TensorType(reduced_shape(t.shape, (axis,), attrs["keepdims"]), int64)

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        """The best value, then the first place where it stands: two reductions that run in vectors. A NaN is best."""
        (x,) = args
        axis = normal_axis(name, attrs["axis"], x.ndim)
        best = reduce_tensor(x, (axis,), True, f, f"{name}_best")
        none = const(int32.highest, int32)

        def place(*i: Expr) -> Expr:
            here = te.equal(x[i], best[tuple(as_expr(0) if d == axis else v for d, v in enumerate(i))])
            here = here | call("isnan", x[i]) if x.dtype.is_float else here
            return Select(here, te.cast(i[axis], int32), none)

        first = reduce_tensor(x, (axis,), attrs["keepdims"], te.min, f"{name}_first", place)
        return te.compute(out.shape, lambda *i: te.cast(first[i], int64), name=name)

    def apply(x: Any, axis: int, keepdims: bool) -> Any:
        return np.asarray(reference(x, axis=axis, keepdims=keepdims)).astype(np.int64)

    defaults = {"axis": -1, "keepdims": False}
    register(Operator(name, infer, compute, apply, "rows", 1, defaults, lambda args, out, attrs: args[0].size))


_register_arg("argmax", te.max, np.argmax)
_register_arg("argmin", te.min, np.argmin)

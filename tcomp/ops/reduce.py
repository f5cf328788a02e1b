"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..dtype import dtype, int32, int64
from ..ir.expr import Expr, Select, as_expr, call, const
from ..ir.graph import TensorType
from ..ir.query import as_int
from ..ir.stmt import Attrs
from .common import (
    extents_of,
    float_only,
    in_dtype,
    mean_factor,
    mean_scale,
    normal_axes,
    normal_axis,
    rounds_once,
    summed_in,
)
from .registry import Operator, mismatch, register

_DEFAULTS = {"axes": None, "keepdims": False}
_SUMS = {**_DEFAULTS, "out_dtype": None}


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


def _reduced(name: str, t: TensorType, attrs: Attrs) -> tuple[Any, ...]:
    return reduced_shape(t.shape, normal_axes(name, attrs["axes"], t.ndim), attrs["keepdims"])


def _count(name: str) -> Callable[[Sequence[TensorType], Attrs], int]:
    return lambda types, attrs: extents_of(types[0], normal_axes(name, attrs["axes"], types[0].ndim))


def _register_sum(name: str, f: Callable[..., Any], reference: Callable[..., Any]) -> None:
    """Sums and products: of integers in int64 or uint64, as NumPy has them (`out_dtype` asks for the argument's own dtype, in which
    they wrap)."""

    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        (t,) = args
        if t.dtype.is_bool:
            raise mismatch(name, "it takes numbers", t, hint="cast the argument")
        natural = summed_in(t.dtype, 1) if t.dtype.is_int else t.dtype
        wanted = natural if attrs["out_dtype"] is None else dtype(attrs["out_dtype"])
        if wanted not in (natural, t.dtype):
            raise mismatch(name, f"the result is {natural} or {t.dtype}, not {wanted}", t, hint="cast the result")
        return TensorType(_reduced(name, t, attrs), wanted)

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        x = in_dtype(args[0], out.dtype)
        axes = normal_axes(name, attrs["axes"], x.ndim)
        if not axes:
            return te.compute(out.shape, lambda *i: x[i], name=name)
        return reduce_tensor(x, axes, attrs["keepdims"], f, name)

    def apply(x: Any, axes: Any, keepdims: bool, out_dtype: Any) -> Any:
        kind = dtype(x.dtype)
        result = kind if out_dtype is not None or kind.is_float else summed_in(kind, 1)
        result = dtype(out_dtype) if out_dtype is not None and not kind.is_float else result
        wide = x.astype(result.numpy, copy=False)
        return np.asarray(reference(wide, axis=normal_axes(name, axes, x.ndim), keepdims=keepdims)).astype(result.numpy)

    op = Operator(name, infer, compute, apply, "reduction", 1, _SUMS, lambda args, out, attrs: args[0].size)
    register(_floats_round_once(op, _count(name)))


def _floats_round_once(op: Operator, count: Callable[[Sequence[TensorType], Attrs], int]) -> Operator:
    once = rounds_once(op, count)

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        return (once if out.dtype.is_float else op).compute(args, attrs, out)

    def reference(x: Any, **attrs: Any) -> Any:
        return (once if dtype(x.dtype).is_float else op).reference(x, **attrs)

    return replace(op, compute=compute, reference=reference)


def _register_extreme(name: str, f: Callable[..., Any], reference: Callable[..., Any]) -> None:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        (t,) = args
        if t.dtype.is_bool:
            raise mismatch(name, "it takes numbers", t, hint="cast the argument")
        if _count(name)(args, attrs) == 0:
            raise mismatch(name, "there is no element to choose from along an empty axis", t)
        return TensorType(_reduced(name, t, attrs), t.dtype)

    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        axes = normal_axes(name, attrs["axes"], args[0].ndim)
        if not axes:
            return te.compute(out.shape, lambda *i: args[0][i], name=name)
        return reduce_tensor(args[0], axes, attrs["keepdims"], f, name)

    def apply(x: Any, axes: Any, keepdims: bool) -> Any:
        return np.asarray(reference(x, axis=normal_axes(name, axes, x.ndim), keepdims=keepdims)).astype(x.dtype)

    register(Operator(name, infer, compute, apply, "reduction", 1, _DEFAULTS, lambda args, out, attrs: args[0].size))


_register_sum("sum", te.sum, np.sum)
_register_sum("prod", te.prod, np.prod)
_register_extreme("max", te.max, np.max)
_register_extreme("min", te.min, np.min)


def _infer_mean(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    float_only("mean", t)
    return TensorType(_reduced("mean", t, attrs), t.dtype)


def _mean(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axes = normal_axes("mean", attrs["axes"], x.ndim)
    if not axes:
        return te.compute(out.shape, lambda *i: x[i], name="mean")
    total = reduce_tensor(x, axes, attrs["keepdims"], te.sum, "mean_sum")
    factor = mean_scale([x.shape[a] for a in axes], x.dtype)
    return te.compute(out.shape, lambda *i: total[i] * factor, name="mean")


def _mean_reference(x: Any, axes: Any, keepdims: bool) -> Any:
    axis = normal_axes("mean", axes, x.ndim)
    count = prod(x.shape[a] for a in axis)
    return np.asarray(x.sum(axis=axis, keepdims=keepdims) * x.dtype.type(mean_factor(count)))


register(
    rounds_once(
        Operator("mean", _infer_mean, _mean, _mean_reference, "reduction", 1, _DEFAULTS,
                 lambda args, out, attrs: args[0].size),
        _count("mean"),
    )
)  # fmt: skip


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
        extent = as_int(x.shape[axis])
        narrow = int32 if extent is not None and extent <= int32.highest else int64
        none = const(narrow.highest, narrow)

        def place(*i: Expr) -> Expr:
            here = te.equal(x[i], best[tuple(as_expr(0) if d == axis else v for d, v in enumerate(i))])
            here = here | call("isnan", x[i]) if x.dtype.is_float else here
            return Select(here, te.cast(i[axis], narrow), none)

        first = reduce_tensor(x, (axis,), attrs["keepdims"], te.min, f"{name}_first", place)
        return te.compute(out.shape, lambda *i: te.cast(first[i], int64), name=name)

    def apply(x: Any, axis: int, keepdims: bool) -> Any:
        return np.asarray(reference(x, axis=axis, keepdims=keepdims)).astype(np.int64)

    defaults = {"axis": -1, "keepdims": False}
    register(Operator(name, infer, compute, apply, "row_reduction", 1, defaults, lambda args, out, attrs: args[0].size))


_register_arg("argmax", te.max, np.argmax)
_register_arg("argmin", te.min, np.argmin)

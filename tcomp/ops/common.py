"""Helpers of the operator families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from operator import mul
from typing import Any

import numpy as np

from .. import te
from ..dtype import DType, dtype, float32, float64, int64, uint64
from ..errors import ShapeError
from ..ir.arith import simplify
from ..ir.convert import convert
from ..ir.expr import Const, Expr, as_expr, cast, const
from ..ir.graph import TensorType
from ..ir.query import as_int
from ..ir.stmt import Attrs
from ..te import Tensor
from .registry import Operator, mismatch


def extent(s: int | Expr) -> Expr:
    return const(s) if isinstance(s, int) else s


def plain(e: int | Expr) -> Any:
    """An extent as an integer, where it is known."""
    e = simplify(e, {}) if isinstance(e, Expr) else e
    return int(e.value) if isinstance(e, Const) else e


def same_extent(a: int | Expr, b: int | Expr) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    difference = simplify(extent(a) - extent(b), {})
    return isinstance(difference, Const) and difference.value == 0


def broadcast_shape(name: str, args: Sequence[TensorType]) -> tuple[int | Expr, ...]:
    """The shape that the arguments broadcast to (NumPy's rule).

    Raises:
        ShapeError: they do not.
    """
    ndim = max(t.ndim for t in args)
    shape: list[int | Expr] = []
    for d in range(ndim):
        result: int | Expr = 1
        for t in args:
            at = d - ndim + t.ndim
            if at < 0 or t.shape[at] == 1:
                continue
            if result == 1:
                result = t.shape[at]
            elif not same_extent(result, t.shape[at]):
                raise mismatch(name, f"extents {result} and {t.shape[at]} of dimension {d} do not broadcast", *args)
        shape.append(result)
    return tuple(shape)


def same_dtype(name: str, args: Sequence[TensorType]) -> None:
    """Raises ShapeError unless all arguments have one dtype."""
    if any(t.dtype != args[0].dtype for t in args):
        raise mismatch(name, "the dtypes differ", *args, hint="cast one of them")


def factors(name: str, args: Sequence[TensorType], out_dtype: Any = None) -> DType:
    """The dtype of a sum of products: that of the arguments, int32 for 8-bit integers, or the one asked for.

    Raises:
        ShapeError: the dtypes differ (8-bit integers may differ in their sign), or the result cannot have that dtype.
    """
    kinds = [t.dtype for t in args]
    if not all(d.is_int and d.bits == 8 for d in kinds):
        same_dtype(name, args)
    natural = kinds[0].accumulator
    if out_dtype is None:
        return natural if natural.is_int else kinds[0]
    wanted = dtype(out_dtype)
    if wanted not in (natural, kinds[0]):
        raise mismatch(name, f"the result is {natural} or {kinds[0]}, not {wanted}", *args, hint="cast the result")
    return wanted


def widened(x: Any) -> Any:
    """An array in the type in which its products are summed up."""
    return x.astype(dtype(x.dtype).accumulator.numpy, copy=False)


def reference_product(a: Any, b: Any, out_dtype: Any = None) -> Any:
    """NumPy's product of matrices, summed up in the accumulator's type."""
    exact = np.matmul(widened(a), widened(b))
    if exact.dtype == np.float64 or exact.dtype.kind in "iu":
        return exact
    return exact.astype(a.dtype if out_dtype is None else dtype(out_dtype).numpy)


LONG_SUM = 1 << 16
"""Sums of more float32 elements than these are formed in float64: their rounding errors would grow beyond 1e-6 of the result."""


def summed_in(d: DType, count: int | Expr) -> DType:
    """The dtype in which `count` elements are summed up: int64 or uint64 for integers, float32 for 16-bit floats, float64 for long
    sums of float32."""
    if d.is_int:
        return int64 if d.kind == "int" else uint64
    is_long = isinstance(count, int) and count > LONG_SUM
    return float64 if is_long and d.accumulator == float32 else d.accumulator


def rounds_once(op: Operator, count: Callable[[Sequence[TensorType], Attrs], int] = lambda types, attrs: 1) -> Operator:
    """An operator of floating-point tensors that computes in `summed_in` and rounds its result once.

    Args:
        op: computes everything in the dtype of its floating-point arguments.
        count: (argument types, attributes) -> how many elements it sums up for one of its result.
    """

    def compute(args: Sequence[Tensor], attrs: Attrs, out: TensorType) -> Tensor:
        wide = summed_in(out.dtype, count([_static_type(t) for t in args], attrs))
        if wide == out.dtype:
            return op.compute(args, attrs, out)
        widened_args = [in_dtype(t, wide) if t.dtype.is_float else t for t in args]
        return in_dtype(op.compute(widened_args, attrs, TensorType(out.shape, wide)), out.dtype)

    def reference(*arrays: Any, **attrs: Any) -> Any:
        types = [TensorType(x.shape, dtype(x.dtype)) for x in arrays]
        wide = summed_in(types[0].dtype, count(types, Attrs.of(attrs))).numpy
        if wide == arrays[0].dtype:
            return op.reference(*arrays, **attrs)
        floats = [x.astype(wide) if t.dtype.is_float else x for x, t in zip(arrays, types)]
        return convert(np.asarray(op.reference(*floats, **attrs)), types[0].dtype.numpy)

    return replace(op, compute=compute, reference=reference)


def _static_type(t: Tensor) -> TensorType:
    return TensorType(tuple(plain(e) for e in t.shape), t.dtype)


def extents_of(t: TensorType, axes: Sequence[int]) -> int:
    """How many elements lie along some axes; 1 where an extent is symbolic."""
    extents = [t.shape[a] for a in axes]
    return prod(extents) if all(isinstance(e, int) for e in extents) else 1


def mean_factor(count: int) -> float:
    """1 / count; NaN for the mean of nothing."""
    return 1.0 / count if count else float("nan")


def mean_scale(extents: Sequence[Expr], d: DType) -> Expr:
    """What a sum over axes of these extents is multiplied by to be a mean; of symbolic ones it is computed when the kernel runs."""
    known = [e for e in map(as_int, extents) if e is not None]
    if len(known) == len(extents):
        return as_expr(mean_factor(prod(known)), d)
    return const(1, d) / cast(reduce(mul, extents), d)


def whole_scalar(name: str, value: Any, t: TensorType, what: str = "scalar") -> None:
    """Raises ShapeError unless an integer tensor's dtype can hold a number, and where the tensor is bool and the number is not."""
    d = t.dtype
    if d.is_float:
        return
    if d.is_bool:
        if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
            raise mismatch(name, f"the {what} {value!r} is no bool", t, hint="cast the argument")
    elif not float(value).is_integer() or not d.lowest <= int(value) <= d.highest:
        raise mismatch(name, f"{d} cannot hold the {what} {value!r}", t, hint="cast the argument")


def in_dtype(t: Tensor, wanted: DType) -> Tensor:
    """The tensor, cast where it has another dtype."""
    if t.dtype == wanted:
        return t
    return te.compute(t.shape, lambda *i: te.cast(t[i], wanted), name="cast")


def float_only(name: str, t: TensorType) -> None:
    if not t.dtype.is_float:
        raise mismatch(name, "it takes floating-point tensors", t, hint="cast the argument")


def rank(name: str, t: TensorType, ndim: int, what: str = "argument") -> None:
    if t.ndim != ndim:
        raise mismatch(name, f"the {what} must have {ndim} dimensions, not {t.ndim}", t)


def element(t: Tensor, indices: Sequence[Expr]) -> Expr:
    """The element that broadcasting puts at an index of the (same or larger) result."""
    at = indices[len(indices) - t.ndim :]
    return t[tuple(const(0) if _is_one(e) else i for i, e in zip(at, t.shape))]


def _is_one(e: Expr) -> bool:
    return isinstance(e, Const) and e.value == 1


def normal_axis(name: str, axis: int, ndim: int) -> int:
    """A non-negative axis.

    Raises:
        ShapeError: out of range.
    """
    if not isinstance(axis, int) or not -ndim <= axis < max(ndim, 1):
        raise ShapeError(f"{name}: axis {axis!r} is out of range for {ndim} dimensions")
    return axis % max(ndim, 1)


def normal_axes(name: str, axes: Any, ndim: int) -> tuple[int, ...]:
    """Sorted non-negative axes; None means all."""
    if axes is None:
        return tuple(range(ndim))
    given = (axes,) if isinstance(axes, int) else tuple(axes)
    result = tuple(sorted(normal_axis(name, a, ndim) for a in given))
    if len(set(result)) != len(result):
        raise ShapeError(f"{name}: an axis is named twice in {given}")
    return result


def pair(name: str, value: Any, what: str) -> tuple[int, int]:
    """(v, v) of a number v, or the pair itself."""
    result = (value, value) if isinstance(value, int) else tuple(value)
    if len(result) != 2 or any(not isinstance(v, int) or v < 0 for v in result):
        raise ShapeError(f"{name}: {what} must be one or two non-negative integers, got {value!r}")
    return result


def quotient(a: Expr, total: Expr) -> Expr:
    """a over what a whole row shares: by one reciprocal for the row, at most one ulp off in the type it sums up in. A vector of
    divisions takes as long as a dozen vectors of products."""
    wide = a.dtype.accumulator
    return te.cast(te.cast(a, wide) * (as_expr(1.0, wide) / te.cast(total, wide)), a.dtype)

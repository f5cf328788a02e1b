"""Helpers of the operator families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..dtype import DType, dtype
from ..errors import ShapeError
from ..ir.arith import simplify
from ..ir.expr import Const, Expr, as_expr, const
from ..ir.graph import TensorType
from ..te import Tensor
from .registry import mismatch


def extent(s: int | Expr) -> Expr:
    return const(s) if isinstance(s, int) else s


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

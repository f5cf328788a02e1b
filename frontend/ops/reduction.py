"""Reductions over axes: None for all, an int, or several."""

from __future__ import annotations

import math
from math import nan
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .common import normal_axes, spread
from .promotion import floating, in_float32


class _Reduction(TensorOp):
    name = ""

    def __init__(self, axes: Any = None, keepdims: bool = False) -> None:
        self.axes, self.keepdims = axes, keepdims

    def lower(self, g: Any, a: Any) -> Any:
        return g.op(self.name, a, axes=normal_axes(self.axes, a.type.ndim), keepdims=self.keepdims)


def _wide(a: np.ndarray) -> Any:
    """In what sums and products of an array are: int64 or uint64 of integers."""
    return {"i": np.int64, "u": np.uint64}.get(a.dtype.kind, a.dtype)


class Summation(_Reduction):
    name = "sum"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(a.sum(axis=normal_axes(self.axes, a.ndim), keepdims=self.keepdims, dtype=_wide(a)))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return spread(out_grad, self.axes, node.inputs[0].shape)


@in_float32
def summation(a: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over axes: of integers in int64 or uint64, of truths as a count in int64."""
    a = ops.cast(a, np.int64) if a.dtype == np.bool_ else a
    return Summation(axes, keepdims)(a)


class Prod(_Reduction):
    name = "prod"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(a.prod(axis=normal_axes(self.axes, a.ndim), keepdims=self.keepdims, dtype=_wide(a)))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        """The product of all other elements: where just one is 0, that one alone has a gradient."""
        (a,) = node.inputs
        is_zero = ops.equal(a, 0)
        others = ops.where(is_zero, 1, a)
        product = spread(prod(others, self.axes), self.axes, a.shape)
        zeros = spread(summation(ops.cast(is_zero, np.float32), self.axes), self.axes, a.shape)
        alone = ops.logical_and(is_zero, ops.equal(zeros, 1))
        rest = ops.where(ops.logical_or(alone, ops.equal(zeros, 0)), product / others, 0)
        return spread(out_grad, self.axes, a.shape) * rest


@in_float32
def prod(a: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    """The product over axes: of integers in int64 or uint64."""
    a = ops.cast(a, np.int64) if a.dtype == np.bool_ else a
    return Prod(axes, keepdims)(a)


class _Extremum(_Reduction):
    """Elements that are equally extreme share the gradient."""

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(np, self.name)(a, axis=normal_axes(self.axes, a.ndim), keepdims=self.keepdims))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        # counted in a type that holds the number of elements
        counted = np.float32 if a.dtype.itemsize == 2 else a.dtype
        hits = ops.cast(ops.equal(a, spread(node, self.axes, a.shape)), counted)
        count = spread(summation(hits, self.axes), self.axes, a.shape)
        shared = ops.cast(spread(out_grad, self.axes, a.shape), counted) * (hits / count)
        return ops.cast(shared, a.dtype)


class Max(_Extremum):
    name = "max"


class Min(_Extremum):
    name = "min"


def max(a: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    return Max(axes, keepdims)(a)


def min(a: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    return Min(axes, keepdims)(a)


def _count(a: Tensor, axes: Any) -> int:
    return math.prod(a.shape[i] for i in normal_axes(axes, a.ndim))


@in_float32
def mean(a: Tensor, axes: Any = None, keepdims: bool = False) -> Tensor:
    """The mean; NaN of nothing."""
    return summation(floating(a), axes, keepdims) / (_count(a, axes) or nan)


@in_float32
def var(a: Tensor, axes: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The mean squared distance from the mean.

    Args:
        ddof: what the count is less by; 1 makes the estimate unbiased.
    """
    count = _count(a, axes) - ddof
    centred = a - mean(a, axes, True)
    return summation(centred * centred, axes, keepdims) / (count if count > 0 else nan)


class _Place(TensorOp):
    """Where along an axis the first extreme element is."""

    is_differentiable = False
    name = ""

    def __init__(self, axis: int = -1, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(np, self.name)(a, axis=self.axis, keepdims=self.keepdims)).astype(np.int64)

    def lower(self, g: Any, a: Any) -> Any:
        return g.op(self.name, a, axis=self.axis, keepdims=self.keepdims)


class ArgMax(_Place):
    name = "argmax"


class ArgMin(_Place):
    name = "argmin"


def argmax(a: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """Where along an axis the greatest element is, as int64."""
    return ArgMax(axis, keepdims)(a)


def argmin(a: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """Where along an axis the least element is, as int64."""
    return ArgMin(axis, keepdims)(a)

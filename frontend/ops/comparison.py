"""Comparisons, choices by them, and conversions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp, is_float
from ..registry import ops
from .common import unbroadcast
from .promotion import promoted


class _Compare(TensorOp):
    is_differentiable = False
    name = ""

    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(np, self.name)(a, b))

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.op(self.name, a, b)


class Equal(_Compare):
    name = "equal"


class NotEqual(_Compare):
    name = "not_equal"


class Less(_Compare):
    name = "less"


class LessEqual(_Compare):
    name = "less_equal"


class Greater(_Compare):
    name = "greater"


class GreaterEqual(_Compare):
    name = "greater_equal"


def equal(a: Tensor, b: Any) -> Tensor:
    return Equal()(*promoted(a, b))


def not_equal(a: Tensor, b: Any) -> Tensor:
    return NotEqual()(*promoted(a, b))


def less(a: Tensor, b: Any) -> Tensor:
    return Less()(*promoted(a, b))


def less_equal(a: Tensor, b: Any) -> Tensor:
    return LessEqual()(*promoted(a, b))


def greater(a: Tensor, b: Any) -> Tensor:
    return Greater()(*promoted(a, b))


def greater_equal(a: Tensor, b: Any) -> Tensor:
    return GreaterEqual()(*promoted(a, b))


class Cast(TensorOp):
    """Another dtype. Numbers that become integers or truths lose their gradient."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.is_differentiable = is_float(self.dtype)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return a.astype(self.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return cast(out_grad, node.inputs[0].dtype)

    def lower(self, g: Any, a: Any) -> Any:
        return g.cast(a, dtype=self.dtype.name)


def cast(a: Tensor, dtype: Any) -> Tensor:
    return a if a.dtype == np.dtype(dtype) else Cast(dtype)(a)


class Where(TensorOp):
    """a where the condition holds, else b; all three are broadcast."""

    def compute(self, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(c, a, b)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[None, Tensor, Tensor]:
        c, a, b = node.inputs
        return None, unbroadcast(where(c, out_grad, 0), a.shape), unbroadcast(where(c, 0, out_grad), b.shape)

    def lower(self, g: Any, c: Any, a: Any, b: Any) -> Any:
        return g.where(c, a, b)


def where(condition: Tensor, a: Any, b: Any) -> Tensor:
    """a where the condition holds, else b; one of them may be a number."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        raise TypeError("where takes at least one tensor beside its condition")
    return Where()(condition, *promoted(a, b))


class _Pick(TensorOp):
    """The greater or the lesser of two; where they are equal they share the gradient."""

    name = ""

    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(np, self.name)(a, b))

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        half = out_grad * 0.5
        shares = (where(equal(a, b), half, where(equal(x, node), out_grad, 0)) for x in (a, b))
        to_a, to_b = (unbroadcast(g, x.shape) for g, x in zip(shares, (a, b)))
        return to_a, to_b

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.op(self.name, a, b)


class Maximum(_Pick):
    name = "maximum"


class Minimum(_Pick):
    name = "minimum"


def maximum(a: Tensor, b: Any) -> Tensor:
    return Maximum()(*promoted(a, b))


def minimum(a: Tensor, b: Any) -> Tensor:
    return Minimum()(*promoted(a, b))


def clip(a: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Numbers outside of [low, high] moved to its ends, where the gradient is 0."""
    inside = None
    for bound, compare in ((low, greater_equal), (high, less_equal)):
        if bound is not None:
            inside = compare(a, bound) if inside is None else ops.logical_and(inside, compare(a, bound))
    if inside is None:
        return a
    bounded = a.detach()
    bounded = bounded if low is None else maximum(bounded, low)
    bounded = bounded if high is None else minimum(bounded, high)
    return where(inside, a, bounded)


class LogicalAnd(_Compare):
    name = "logical_and"


class LogicalOr(_Compare):
    name = "logical_or"


class LogicalNot(TensorOp):
    is_differentiable = False

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.logical_not(a)

    def lower(self, g: Any, a: Any) -> Any:
        return g.logical_not(a)


def logical_and(a: Tensor, b: Tensor) -> Tensor:
    return LogicalAnd()(a, b)


def logical_or(a: Tensor, b: Tensor) -> Tensor:
    return LogicalOr()(a, b)


def logical_not(a: Tensor) -> Tensor:
    return LogicalNot()(a)


class StopGradient(TensorOp):
    """The same value, without gradient."""

    is_differentiable = False

    def compute(self, a: np.ndarray) -> np.ndarray:
        return a

    def lower(self, g: Any, a: Any) -> Any:
        return a


def stop_gradient(a: Tensor) -> Tensor:
    return StopGradient()(a)

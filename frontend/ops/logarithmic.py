"""Exponentials of whole rows, without overflow: logsumexp, softmax, logsoftmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .common import normal_axes, normal_axis, spread, without_axes
from .promotion import in_float32


class LogSumExp(TensorOp):
    """log(sum(exp(a))) over axes: None for all."""

    def __init__(self, axes: Any = None) -> None:
        self.axes = axes

    def compute(self, a: np.ndarray) -> np.ndarray:
        axes = normal_axes(self.axes, a.ndim)
        top = a.max(axis=axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(top), top, a.dtype.type(0))
        with np.errstate(divide="ignore"):
            total = np.log(np.exp(a - shift).sum(axis=axes, keepdims=True)) + shift
        return total.reshape(without_axes(a.shape, self.axes)).astype(a.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        return spread(out_grad, self.axes, a.shape) * ops.exp(a - spread(node, self.axes, a.shape))

    def lower(self, g: Any, a: Any) -> Any:
        axes = normal_axes(self.axes, a.type.ndim)
        top = g.max(a, axes=axes, keepdims=True)
        total = g.add(g.log(g.sum(g.exp(g.subtract(a, top)), axes=axes, keepdims=True)), top)
        return g.reshape(total, shape=without_axes(a.type.shape, axes))


@in_float32
def logsumexp(a: Tensor, axes: Any = None) -> Tensor:
    return LogSumExp(axes)(a)


class Softmax(TensorOp):
    """exp(a) / sum(exp(a)) along an axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def compute(self, a: np.ndarray) -> np.ndarray:
        e = np.exp(a - a.max(axis=self.axis, keepdims=True, initial=-np.inf))
        return e / e.sum(axis=self.axis, keepdims=True)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        weighted = out_grad * node
        return weighted - node * ops.summation(weighted, self.axis, True)

    def lower(self, g: Any, a: Any) -> Any:
        return g.softmax(a, axis=self.axis)


@in_float32
def softmax(a: Tensor, axis: int = -1) -> Tensor:
    return Softmax(axis)(a)


class LogSoftmax(TensorOp):
    """a - logsumexp(a) along an axis."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def compute(self, a: np.ndarray) -> np.ndarray:
        shifted = a - a.max(axis=self.axis, keepdims=True, initial=-np.inf)
        return shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad - ops.exp(node) * ops.summation(out_grad, self.axis, True)

    def lower(self, g: Any, a: Any) -> Any:
        return g.log_softmax(a, axis=self.axis)


@in_float32
def logsoftmax(a: Tensor, axis: int = -1) -> Tensor:
    return LogSoftmax(normal_axis(axis, a.ndim))(a)

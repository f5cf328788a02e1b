"""logsumexp and logsoftmax, without overflow."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from .mathematic import broadcast_to, exp, reshape, summation


class LogSumExp(TensorOp):
    """log(sum(exp(a))) over axes: None for all."""

    def __init__(self, axes: Any = None) -> None:
        self.axes = (axes,) if isinstance(axes, int) else None if axes is None else tuple(axes)

    def compute(self, a: np.ndarray) -> np.ndarray:
        top = a.max(axis=self.axes, keepdims=True)
        total = np.log(np.exp(a - top).sum(axis=self.axes, keepdims=True)) + top
        return np.asarray(total.squeeze(self.axes) if self.axes is not None else total.reshape(()))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        axes = range(len(a.shape)) if self.axes is None else [x % len(a.shape) for x in self.axes]
        kept = tuple(1 if i in axes else s for i, s in enumerate(a.shape))
        total = broadcast_to(reshape(logsumexp(a, self.axes), kept), a.shape)
        return broadcast_to(reshape(out_grad, kept), a.shape) * exp(a - total)

    def lower(self, g: Any, a: Any) -> Any:
        top = g.max(a, axes=self.axes, keepdims=True)
        total = g.add(g.log(g.sum(g.exp(g.subtract(a, top)), axes=self.axes, keepdims=True)), top)
        axes = range(a.type.ndim) if self.axes is None else [x % a.type.ndim for x in self.axes]
        return g.reshape(total, shape=tuple(s for i, s in enumerate(a.type.shape) if i not in axes))


def logsumexp(a: Tensor, axes: Any = None) -> Tensor:
    return LogSumExp(axes)(a)


class LogSoftmax(TensorOp):
    """a - logsumexp(a) along the last axis."""

    def compute(self, a: np.ndarray) -> np.ndarray:
        shifted = a - a.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        rows = (*a.shape[:-1], 1)
        total = broadcast_to(reshape(summation(out_grad, len(a.shape) - 1), rows), a.shape)
        return out_grad - exp(logsoftmax(a)) * total

    def lower(self, g: Any, a: Any) -> Any:
        return g.log_softmax(a, axis=-1)


def logsoftmax(a: Tensor) -> Tensor:
    return LogSoftmax()(a)

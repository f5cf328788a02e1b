"""Normalisation with known statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from .mathematic import broadcast_to, power_scalar, reshape, summation


class BatchNormInference(TensorOp):
    """(x - mean) / sqrt(var + eps) * weight + bias along one axis."""

    def __init__(self, axis: int, eps: float) -> None:
        self.axis, self.eps = axis, eps

    def _shape(self, ndim: int, size: int) -> tuple[int, ...]:
        return tuple(size if d == self.axis else 1 for d in range(ndim))

    def compute(self, x: np.ndarray, *params: np.ndarray) -> np.ndarray:
        weight, bias, mean, var = (p.reshape(self._shape(x.ndim, p.size)) for p in params)
        return ((x - mean) / np.sqrt(var + x.dtype.type(self.eps)) * weight + bias).astype(x.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _, mean, var = node.inputs
        others = tuple(d for d in range(len(x.shape)) if d != self.axis)

        def wide(p: Tensor) -> Tensor:
            return broadcast_to(reshape(p, self._shape(len(x.shape), p.shape[0])), x.shape)

        inverse = wide(power_scalar(var + self.eps, -0.5))
        scaled = (x - wide(mean)) * inverse
        return (
            out_grad * wide(weight) * inverse, summation(out_grad * scaled, others), summation(out_grad, others), None, None,
        )  # fmt: skip

    def lower(self, g: Any, *args: Any) -> Any:
        return g.batch_norm(*args, axis=self.axis, eps=self.eps)


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, axis: int = 1, eps: float = 1e-5
) -> Tensor:
    """Batch normalisation with given statistics (mean and var get no gradient)."""
    return BatchNormInference(axis, eps)(x, weight, bias, mean, var)

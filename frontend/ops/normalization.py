"""Normalisation: with given statistics, and of rows by their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .promotion import in_float32


class BatchNormInference(TensorOp):
    """(x - mean) / sqrt(var + eps) * weight + bias along one axis."""

    def __init__(self, axis: int, eps: float) -> None:
        self.axis, self.eps = axis, eps

    def _shape(self, ndim: int, size: int) -> tuple[int, ...]:
        return tuple(size if d == self.axis else 1 for d in range(ndim))

    def compute(self, x: np.ndarray, *params: np.ndarray) -> np.ndarray:
        weight, bias, mean, var = (p.reshape(self._shape(x.ndim, p.size)) for p in params)
        return ((x - mean) / np.sqrt(var + x.dtype.type(self.eps)) * weight + bias).astype(x.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, ...]:
        x, weight, _, mean, var = node.inputs
        others = tuple(d for d in range(x.ndim) if d != self.axis)
        size = x.shape[self.axis]

        def wide(p: Tensor) -> Tensor:
            return ops.reshape(p, self._shape(x.ndim, size))

        inverse = wide(ops.power_scalar(var + self.eps, -0.5))
        centred = x - wide(mean)
        sums, weighted = ops.summation(out_grad, others), ops.summation(out_grad * (centred * inverse), others)
        to_mean = ops.negate(sums * weight) * ops.reshape(inverse, (size,))
        to_var = weighted * weight * ops.power_scalar(var + self.eps, -1) * -0.5
        return out_grad * (wide(weight) * inverse), weighted, sums, to_mean, to_var

    def lower(self, g: Any, *args: Any) -> Any:
        return g.batch_norm(*args, axis=self.axis, eps=self.eps)


@in_float32
def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, axis: int = 1, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias along one axis, in x's dtype; the others are (extent of the axis,)."""
    params = (ops.cast(p, x.dtype) for p in (weight, bias, mean, var))
    return BatchNormInference(axis, eps)(x, *params)


class LayerNorm(TensorOp):
    """Rows with their mean subtracted, divided by their spread, times a weight, plus a bias (J. L. Ba et al., 2016)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def compute(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + x.dtype.type(self.eps))
        return centred / spread * weight + bias

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, _ = node.inputs
        centred = x - ops.mean(x, -1, True)
        inverse = ops.power_scalar(ops.mean(centred * centred, -1, True) + self.eps, -0.5)
        scaled, g, rows = centred * inverse, out_grad * weight, tuple(range(x.ndim - 1))
        to_x = inverse * (g - ops.mean(g, -1, True) - scaled * ops.mean(g * scaled, -1, True))
        return to_x, ops.summation(out_grad * scaled, rows), ops.summation(out_grad, rows)

    def lower(self, g: Any, *args: Any) -> Any:
        return g.layer_norm(*args, eps=self.eps)


@in_float32
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Layer normalisation along the last axis; weight and bias have its extent."""
    return LayerNorm(eps)(x, weight, bias)


class RMSNorm(TensorOp):
    """Rows divided by their root mean square, times a weight (B. Zhang and R. Sennrich, 2019)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def compute(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(self.eps)) * weight

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = node.inputs
        inverse = ops.power_scalar(ops.mean(x * x, -1, True) + self.eps, -0.5)
        scaled, g = x * inverse, out_grad * weight
        to_x = inverse * (g - scaled * ops.mean(g * scaled, -1, True))
        return to_x, ops.summation(out_grad * scaled, tuple(range(x.ndim - 1)))

    def lower(self, g: Any, *args: Any) -> Any:
        return g.rms_norm(*args, eps=self.eps)


@in_float32
def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Root mean square normalisation along the last axis; the weight has its extent."""
    return RMSNorm(eps)(x, weight)

"""Arithmetic and products."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp, is_float
from ..registry import ops
from .common import ProductOp, unbroadcast
from .promotion import floating, for_number, promoted


class EWiseAdd(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad, a.shape), unbroadcast(out_grad, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.add(a, b)


def add(a: Tensor, b: Tensor) -> Tensor:
    return EWiseAdd()(*promoted(a, b))


class EWiseSub(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a - b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad, a.shape), unbroadcast(negate(out_grad), b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.subtract(a, b)


def subtract(a: Tensor, b: Tensor) -> Tensor:
    return EWiseSub()(*promoted(a, b))


class _ScalarOp(TensorOp):
    """An operator with a number."""

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def _number(self, a: np.ndarray) -> Any:
        return a.dtype.type(self.scalar)

    def _attribute(self, a: Any) -> float | int:
        """The number as an attribute of a graph's call."""
        return float(self.scalar) if a.type.dtype.is_float else int(self.scalar)


class AddScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a + self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad

    def lower(self, g: Any, a: Any) -> Any:
        return g.add_scalar(a, scalar=self._attribute(a))


def add_scalar(a: Tensor, scalar: float) -> Tensor:
    return AddScalar(scalar)(for_number(a, scalar))


def sub_scalar(a: Tensor, scalar: float) -> Tensor:
    a = for_number(a, scalar)
    unsigned = a.dtype.kind == "u"  # the same bits as a number that the dtype holds
    return AddScalar(-int(scalar) % (1 << 8 * a.dtype.itemsize) if unsigned else -scalar)(a)


class EWiseMul(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad * b, a.shape), unbroadcast(out_grad * a, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.multiply(a, b)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    return EWiseMul()(*promoted(a, b))


class MulScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a * self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * self.scalar

    def lower(self, g: Any, a: Any) -> Any:
        return g.multiply_scalar(a, scalar=self._attribute(a))


def mul_scalar(a: Tensor, scalar: float) -> Tensor:
    return MulScalar(scalar)(for_number(a, scalar))


class PowerScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.power(a, self._number(a))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor | None:
        (a,) = node.inputs
        if self.scalar == 0:
            return out_grad * 0
        return out_grad if self.scalar == 1 else out_grad * (power_scalar(a, self.scalar - 1) * self.scalar)

    def lower(self, g: Any, a: Any) -> Any:
        return g.power_scalar(a, scalar=self._attribute(a))


def power_scalar(a: Tensor, scalar: float) -> Tensor:
    a = for_number(a, scalar)
    if not is_float(a.dtype) and scalar < 0:
        raise ValueError(f"integers have no power {scalar}: cast the tensor to a floating-point dtype")
    return PowerScalar(scalar)(a)


class EWisePow(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.power(a, b)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        # 0 where the power is constant: beside b = 0 along a, and beside a = 0 along b
        base = ops.where(ops.equal(b, 0), 0, out_grad * power(a, add_scalar(b, -1)) * b)
        exponent = ops.where(ops.equal(a, 0), 0, out_grad * node * ops.log(ops.where(ops.equal(a, 0), 1, a)))
        return unbroadcast(base, a.shape), unbroadcast(exponent, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        if a.type.dtype.is_float:
            return g.power(a, b)
        wide = (g.cast(x, dtype="float64") for x in (a, b))
        return g.cast(g.power(*wide), dtype=a.type.dtype.name)


def power(a: Tensor, b: Tensor) -> Tensor:
    return EWisePow()(*promoted(a, b))


ewise_pow = power


class EWiseDiv(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a / b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad / b, a.shape), unbroadcast(negate(out_grad * a / (b * b)), b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.divide(a, b)


def divide(a: Tensor, b: Tensor) -> Tensor:
    return EWiseDiv()(*map(floating, promoted(a, b)))


class DivScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a / self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return divide_scalar(out_grad, self.scalar)

    def lower(self, g: Any, a: Any) -> Any:
        return g.divide_scalar(a, scalar=float(self.scalar))


def divide_scalar(a: Tensor, scalar: float) -> Tensor:
    return DivScalar(scalar)(floating(for_number(a, scalar)))


class Negate(TensorOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return -a

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return negate(out_grad)

    def lower(self, g: Any, a: Any) -> Any:
        return g.negative(a)


def negate(a: Tensor) -> Tensor:
    return Negate()(a)


class MatMul(ProductOp):
    """The product of matrices; leading axes are broadcast."""

    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        x, y = self.rounded(a, b)
        return (x @ y).astype(a.dtype, copy=False)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return (
            unbroadcast(matmul(out_grad, ops.transpose(b)), a.shape),
            unbroadcast(matmul(ops.transpose(a), out_grad), b.shape),
        )

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        x, y = self.lowered(g, a, b)
        return g.matmul(a, b) if x is a else g.matmul(x, y, out_dtype="float32")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (..., n, k) and (..., k, m), leading axes broadcast; a vector stands for a row, or for a column."""
    if a.ndim == 1 and b.ndim == 1:
        return ops.summation(a * b)
    if a.ndim == 1:
        c = matmul(ops.reshape(a, (1, a.shape[0])), b)
        return ops.reshape(c, (*c.shape[:-2], c.shape[-1]))
    if b.ndim == 1:
        c = matmul(a, ops.reshape(b, (b.shape[0], 1)))
        return ops.reshape(c, c.shape[:-1])
    if a.ndim > 2 and b.ndim == 2:  # one product of all rows, also in the gradients
        rows = prod(a.shape[:-1])
        return ops.reshape(MatMul()(ops.reshape(a, (rows, a.shape[-1])), b), (*a.shape[:-1], b.shape[-1]))
    return MatMul()(a, b)

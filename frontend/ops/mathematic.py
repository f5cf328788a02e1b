"""Arithmetic, reductions, reshaping, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp


def unbroadcast(grad: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient of a broadcast: summed over what was repeated."""
    if tuple(grad.shape) == tuple(shape):
        return grad
    lead = len(grad.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, s in enumerate(shape) if s == 1 and grad.shape[i + lead] != 1)
    return reshape(summation(grad, axes), shape) if axes else reshape(grad, shape)


class EWiseAdd(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad, a.shape), unbroadcast(out_grad, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.add(a, b)


def add(a: Tensor, b: Tensor) -> Tensor:
    return EWiseAdd()(a, b)


class _ScalarOp(TensorOp):
    """An operator with a number."""

    def __init__(self, scalar: float) -> None:
        self.scalar = scalar

    def _number(self, a: np.ndarray) -> Any:
        return a.dtype.type(self.scalar)


class AddScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a + self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad

    def lower(self, g: Any, a: Any) -> Any:
        return g.add_scalar(a, scalar=float(self.scalar))


def add_scalar(a: Tensor, scalar: float) -> Tensor:
    return AddScalar(scalar)(a)


class EWiseMul(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return unbroadcast(out_grad * b, a.shape), unbroadcast(out_grad * a, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.multiply(a, b)


def multiply(a: Tensor, b: Tensor) -> Tensor:
    return EWiseMul()(a, b)


class MulScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a * self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * self.scalar

    def lower(self, g: Any, a: Any) -> Any:
        return g.multiply_scalar(a, scalar=float(self.scalar))


def mul_scalar(a: Tensor, scalar: float) -> Tensor:
    return MulScalar(scalar)(a)


class PowerScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.power(a, self._number(a))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        return out_grad * (power_scalar(a, self.scalar - 1) * self.scalar)

    def lower(self, g: Any, a: Any) -> Any:
        return g.power_scalar(a, scalar=float(self.scalar))


def power_scalar(a: Tensor, scalar: float) -> Tensor:
    return PowerScalar(scalar)(a)


class EWisePow(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.power(a, b)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        base = out_grad * power(a, add_scalar(b, -1)) * b
        exponent = out_grad * node * log(a)
        return unbroadcast(base, a.shape), unbroadcast(exponent, b.shape)

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.power(a, b)


def power(a: Tensor, b: Tensor) -> Tensor:
    return EWisePow()(a, b)


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
    return EWiseDiv()(a, b)


class DivScalar(_ScalarOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return a / self._number(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return divide_scalar(out_grad, self.scalar)

    def lower(self, g: Any, a: Any) -> Any:
        return g.divide_scalar(a, scalar=float(self.scalar))


def divide_scalar(a: Tensor, scalar: float) -> Tensor:
    return DivScalar(scalar)(a)


class Negate(TensorOp):
    def compute(self, a: np.ndarray) -> np.ndarray:
        return -a

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return negate(out_grad)

    def lower(self, g: Any, a: Any) -> Any:
        return g.negative(a)


def negate(a: Tensor) -> Tensor:
    return Negate()(a)


class Transpose(TensorOp):
    """Swaps two axes (the last two by default), or, with as many axes as dimensions, permutes them."""

    def __init__(self, axes: Sequence[int] | None = None) -> None:
        self.axes = axes

    def permutation(self, ndim: int) -> tuple[int, ...]:
        axes = (ndim - 2, ndim - 1) if self.axes is None else tuple(a % ndim for a in self.axes)
        if len(axes) == ndim and ndim != 2:
            return axes
        order = list(range(ndim))
        i, j = axes
        order[i], order[j] = order[j], order[i]
        return tuple(order)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(a.transpose(self.permutation(a.ndim)))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        order = self.permutation(len(node.shape))
        if len(order) == 2:
            return transpose(out_grad, self.axes)
        return transpose(out_grad, tuple(int(i) for i in np.argsort(order)))

    def lower(self, g: Any, a: Any) -> Any:
        return g.transpose(a, axes=self.permutation(a.type.ndim))


def transpose(a: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return Transpose(axes)(a)


class Reshape(TensorOp):
    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return a.reshape(self.shape)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return reshape(out_grad, node.inputs[0].shape)

    def lower(self, g: Any, a: Any) -> Any:
        return g.reshape(a, shape=self.shape)


def reshape(a: Tensor, shape: Sequence[int]) -> Tensor:
    return Reshape(shape)(a)


class BroadcastTo(TensorOp):
    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a, self.shape)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return unbroadcast(out_grad, node.inputs[0].shape)

    def lower(self, g: Any, a: Any) -> Any:
        return g.broadcast_to(a, shape=self.shape)


def broadcast_to(a: Tensor, shape: Sequence[int]) -> Tensor:
    return BroadcastTo(shape)(a)


class Summation(TensorOp):
    """The sum over axes: None for all, an int, or several."""

    def __init__(self, axes: Any = None) -> None:
        self.axes = (axes,) if isinstance(axes, int) else None if axes is None else tuple(axes)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(a.sum(axis=self.axes))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        shape = node.inputs[0].shape
        axes = range(len(shape)) if self.axes is None else [a % len(shape) for a in self.axes]
        kept = tuple(1 if i in axes else s for i, s in enumerate(shape))
        return broadcast_to(reshape(out_grad, kept), shape)

    def lower(self, g: Any, a: Any) -> Any:
        return g.sum(a, axes=self.axes)


def summation(a: Tensor, axes: Any = None) -> Tensor:
    return Summation(axes)(a)


class MatMul(TensorOp):
    def compute(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        a, b = node.inputs
        return (
            unbroadcast(matmul(out_grad, transpose(b)), a.shape),
            unbroadcast(matmul(transpose(a), out_grad), b.shape),
        )

    def lower(self, g: Any, a: Any, b: Any) -> Any:
        return g.matmul(a, b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return MatMul()(a, b)


class _Unary(TensorOp):
    """A function of one tensor with an operator of the same meaning in tcomp."""

    name = ""

    def lower(self, g: Any, a: Any) -> Any:
        return g.op(self.name, a)


class Log(_Unary):
    name = "log"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.log(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad / node.inputs[0]


def log(a: Tensor) -> Tensor:
    return Log()(a)


class Exp(_Unary):
    name = "exp"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.exp(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * exp(node.inputs[0])


def exp(a: Tensor) -> Tensor:
    return Exp()(a)


class Sqrt(_Unary):
    name = "sqrt"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.sqrt(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad / (sqrt(node.inputs[0]) * 2)


def sqrt(a: Tensor) -> Tensor:
    return Sqrt()(a)


class ReLU(_Unary):
    name = "relu"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.maximum(a, a.dtype.type(0))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        a = node.inputs[0].numpy()
        return out_grad * Tensor.make_const((a > 0).astype(a.dtype))


def relu(a: Tensor) -> Tensor:
    return ReLU()(a)


class Tanh(_Unary):
    name = "tanh"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.tanh(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        t = tanh(node.inputs[0])
        return out_grad * (1 - t * t)


def tanh(a: Tensor) -> Tensor:
    return Tanh()(a)


class Sigmoid(_Unary):
    name = "sigmoid"

    def compute(self, a: np.ndarray) -> np.ndarray:
        e = np.exp(-np.abs(a))
        return (np.where(a < 0, e, 1) / (1 + e)).astype(a.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        s = sigmoid(node.inputs[0])
        return out_grad * s * (1 - s)


def sigmoid(a: Tensor) -> Tensor:
    return Sigmoid()(a)

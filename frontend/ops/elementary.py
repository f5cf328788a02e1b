"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .promotion import in_float32

_erf = np.vectorize(math.erf, otypes=[np.float64])


class _Unary(TensorOp):
    """A function with an operator of the same meaning in tcomp."""

    name = ""

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.asarray(getattr(np, self.name)(a))

    def lower(self, g: Any, a: Any) -> Any:
        return g.op(self.name, a)


class Log(_Unary):
    name = "log"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad / node.inputs[0]


@in_float32
def log(a: Tensor) -> Tensor:
    return Log()(a)


class Log1p(_Unary):
    name = "log1p"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad / (node.inputs[0] + 1)


@in_float32
def log1p(a: Tensor) -> Tensor:
    return Log1p()(a)


class Exp(_Unary):
    name = "exp"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * node


@in_float32
def exp(a: Tensor) -> Tensor:
    return Exp()(a)


class Sqrt(_Unary):
    name = "sqrt"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad / (node * 2)


@in_float32
def sqrt(a: Tensor) -> Tensor:
    return Sqrt()(a)


class Sin(_Unary):
    name = "sin"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * cos(node.inputs[0])


@in_float32
def sin(a: Tensor) -> Tensor:
    return Sin()(a)


class Cos(_Unary):
    name = "cos"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return ops.negate(out_grad * sin(node.inputs[0]))


@in_float32
def cos(a: Tensor) -> Tensor:
    return Cos()(a)


class Tanh(_Unary):
    name = "tanh"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * (1 - node * node)


@in_float32
def tanh(a: Tensor) -> Tensor:
    return Tanh()(a)


class Sigmoid(_Unary):
    name = "sigmoid"

    def compute(self, a: np.ndarray) -> np.ndarray:
        e = np.exp(-np.abs(a))
        return (np.where(a < 0, e, 1) / (1 + e)).astype(a.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * node * (1 - node)


@in_float32
def sigmoid(a: Tensor) -> Tensor:
    return Sigmoid()(a)


class Erf(_Unary):
    """The error function."""

    name = "erf"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return _erf(a).astype(a.dtype) if a.size else a

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        return out_grad * (exp(ops.negate(a * a)) * (2 / math.sqrt(math.pi)))


@in_float32
def erf(a: Tensor) -> Tensor:
    return Erf()(a)


class Sign(TensorOp):
    """-1, 0 or 1."""

    is_differentiable = False

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.sign(a)

    def lower(self, g: Any, a: Any) -> Any:
        kind, shape = a.type.dtype.name, a.type.shape
        zero = g.constant(np.zeros((), a.type.dtype.numpy))
        signs = (g.cast(test(a, zero), dtype=kind) for test in (g.greater, g.less))
        return g.reshape(g.subtract(*signs), shape=shape)


def sign(a: Tensor) -> Tensor:
    return Sign()(a)


class _Rounding(_Unary):
    """To whole numbers; the gradient is 0 wherever there is one."""

    is_differentiable = False

    def compute(self, a: np.ndarray) -> np.ndarray:
        return a if a.dtype.kind in "iub" else super().compute(a)

    def lower(self, g: Any, a: Any) -> Any:
        return super().lower(g, a) if a.type.dtype.is_float else a


class Floor(_Rounding):
    name = "floor"


def floor(a: Tensor) -> Tensor:
    """The next whole number below, or the number itself."""
    return Floor()(a)


class Ceil(_Rounding):
    name = "ceil"


def ceil(a: Tensor) -> Tensor:
    """The next whole number above, or the number itself."""
    return Ceil()(a)


class Round(_Rounding):
    name = "round"


def round(a: Tensor) -> Tensor:
    """The nearest whole number; halves go to the even one."""
    return Round()(a)


class Abs(_Unary):
    """The gradient at 0 is 0."""

    name = "abs"

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return out_grad * sign(node.inputs[0])


def abs(a: Tensor) -> Tensor:
    return Abs()(a)


class ReLU(_Unary):
    """The gradient at 0 is 0."""

    name = "relu"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.maximum(a, a.dtype.type(0))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return ops.where(ops.greater(node.inputs[0], 0), out_grad, 0)


def relu(a: Tensor) -> Tensor:
    return ReLU()(a)


@in_float32
def leaky_relu(a: Tensor, slope: float = 0.01) -> Tensor:
    """a where it is positive, else slope * a."""
    return ops.where(ops.greater(a, 0), a, a * slope)


class SiLU(_Unary):
    """a * sigmoid(a) (S. Elfwing et al., 2017)."""

    name = "silu"

    def compute(self, a: np.ndarray) -> np.ndarray:
        return a * Sigmoid().compute(a)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        s = sigmoid(a)
        return out_grad * (s * (1 + a * (1 - s)))


@in_float32
def silu(a: Tensor) -> Tensor:
    return SiLU()(a)


class GELU(TensorOp):
    """a times the normal distribution's share below a (D. Hendrycks and K. Gimpel, 2016).

    Args:
        approximate: by tanh, as in that paper.
    """

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = approximate

    def _share(self, a: Any, tanh: Any, erf: Any) -> Any:
        if self.approximate:
            return (tanh((a + a * a * a * 0.044715) * math.sqrt(2 / math.pi)) + 1) * 0.5
        return (erf(a * math.sqrt(0.5)) + 1) * 0.5

    def compute(self, a: np.ndarray) -> np.ndarray:
        return (a * self._share(a, np.tanh, Erf().compute)).astype(a.dtype)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        (a,) = node.inputs
        share = self._share(a, tanh, erf)
        if self.approximate:
            slope = (1 + a * a * (3 * 0.044715)) * math.sqrt(2 / math.pi)
            density = share * (1 - share) * slope * 2
        else:
            density = exp(a * a * -0.5) / math.sqrt(2 * math.pi)
        return out_grad * (share + a * density)

    def lower(self, g: Any, a: Any) -> Any:
        return g.gelu(a, approximate=self.approximate)


@in_float32
def gelu(a: Tensor, approximate: bool = False) -> Tensor:
    return GELU(approximate)(a)

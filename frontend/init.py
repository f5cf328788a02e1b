"""Tensors to start from. Random ones draw from NumPy's global generator: `np.random.seed` makes a run repeatable."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import ops, random
from .autograd import Tensor


def _tensor(array: np.ndarray, dtype: Any, requires_grad: bool) -> Tensor:
    return Tensor(array.astype(dtype), requires_grad=requires_grad)


def rand(
    *shape: int,
    low: float = 0.0,
    high: float = 1.0,
    device: Any = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [low, high)."""
    return _tensor(np.random.rand(*shape) * (high - low) + low, dtype, requires_grad)


def randn(
    *shape: int,
    mean: float = 0.0,
    std: float = 1.0,
    device: Any = None,
    dtype: Any = "float32",
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers."""
    return _tensor(np.asarray(np.random.randn(*shape)) * std + mean, dtype, requires_grad)


def constant(
    *shape: int, c: float = 1.0, device: Any = None, dtype: Any = "float32", requires_grad: bool = False
) -> Tensor:
    """One value everywhere."""
    return _tensor(np.full(shape, c), dtype, requires_grad)


def ones(*shape: int, device: Any = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    return constant(*shape, c=1.0, dtype=dtype, requires_grad=requires_grad)


def zeros(*shape: int, device: Any = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    return constant(*shape, c=0.0, dtype=dtype, requires_grad=requires_grad)


def randb(*shape: int, p: float = 0.5, device: Any = None, dtype: Any = "bool", requires_grad: bool = False) -> Tensor:
    """True with probability p."""
    return _tensor(np.random.rand(*shape) <= p, dtype, requires_grad)


def one_hot(n: int, i: Any, device: Any = None, dtype: Any = "float32", requires_grad: bool = False) -> Tensor:
    """Rows of the identity matrix of size n, chosen by the integers of a tensor."""
    index = i if isinstance(i, Tensor) else Tensor.make_const(np.asarray(i))
    units = ops.one_hot(n, index, dtype)
    return Tensor.make_const(units.numpy(), requires_grad=True) if requires_grad else units


def uniform(*shape: int, **kwargs: Any) -> Tensor:
    """Another name of `rand`."""
    return rand(*shape, **kwargs)


def normal(*shape: int, **kwargs: Any) -> Tensor:
    """Another name of `randn`."""
    return randn(*shape, **kwargs)


def seed(number: int) -> None:
    """Start all random numbers anew: of this module and of shuffling (NumPy's), and of dropout (`frontend.random`)."""
    np.random.seed(number)
    random.seed(number)


def ones_like(array: Tensor, *, device: Any = None, requires_grad: bool = False) -> Tensor:
    return ones(*array.shape, dtype=array.dtype, requires_grad=requires_grad)


def zeros_like(array: Tensor, *, device: Any = None, requires_grad: bool = False) -> Tensor:
    return zeros(*array.shape, dtype=array.dtype, requires_grad=requires_grad)


def xavier_uniform(fan_in: int, fan_out: int, gain: float = 1.0, shape: Any = None, **kwargs: Any) -> Tensor:
    """X. Glorot and Y. Bengio, 2010: uniform with variance 2 / (fan_in + fan_out), times gain squared."""
    a = gain * math.sqrt(6 / (fan_in + fan_out))
    return rand(*(shape or (fan_in, fan_out)), low=-a, high=a, **kwargs)


def xavier_normal(fan_in: int, fan_out: int, gain: float = 1.0, shape: Any = None, **kwargs: Any) -> Tensor:
    """X. Glorot and Y. Bengio, 2010: normal with variance 2 / (fan_in + fan_out), times gain squared."""
    return randn(*(shape or (fan_in, fan_out)), std=gain * math.sqrt(2 / (fan_in + fan_out)), **kwargs)


_GAINS = {
    "linear": 1.0, "identity": 1.0, "sigmoid": 1.0, "conv": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "gelu": math.sqrt(2),
    "silu": math.sqrt(2), "selu": 3 / 4,
}  # fmt: skip


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """By how much a layer's weights must be larger so that its results keep their variance behind a nonlinearity.

    Args:
        slope: of leaky_relu, below 0.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}: one of {', '.join([*_GAINS, 'leaky_relu'])}")
    return _GAINS[nonlinearity]


def _deviation(fan_in: int, fan_out: int, nonlinearity: str, mode: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"unknown mode {mode!r}: fan_in or fan_out")
    return gain(nonlinearity) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def kaiming_uniform(
    fan_in: int, fan_out: int, shape: Any = None, nonlinearity: str = "relu", mode: str = "fan_in", **kwargs: Any
) -> Tensor:
    """K. He et al., 2015: uniform with variance gain^2 / fan_in.

    Args:
        shape: (fan_in, fan_out) by default.
        mode: fan_out keeps the variance of gradients instead.
    """
    bound = math.sqrt(3) * _deviation(fan_in, fan_out, nonlinearity, mode)
    return rand(*(shape or (fan_in, fan_out)), low=-bound, high=bound, **kwargs)


def kaiming_normal(
    fan_in: int, fan_out: int, shape: Any = None, nonlinearity: str = "relu", mode: str = "fan_in", **kwargs: Any
) -> Tensor:
    """K. He et al., 2015: normal with variance gain^2 / fan_in; see `kaiming_uniform`."""
    std = _deviation(fan_in, fan_out, nonlinearity, mode)
    return randn(*(shape or (fan_in, fan_out)), std=std, **kwargs)

"""Tensors to start from. Random ones draw from NumPy's global generator: `np.random.seed` makes a run repeatable."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

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
    index = np.asarray(i.numpy() if isinstance(i, Tensor) else i).astype("int64")
    return _tensor(np.eye(n)[index], dtype, requires_grad)


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


def _check_relu(nonlinearity: str) -> None:
    if nonlinearity != "relu":
        raise ValueError(f"only the gain of relu is known, got {nonlinearity!r}")


def kaiming_uniform(fan_in: int, fan_out: int, nonlinearity: str = "relu", shape: Any = None, **kwargs: Any) -> Tensor:
    """K. He et al., 2015: uniform with variance 2 / fan_in."""
    _check_relu(nonlinearity)
    bound = math.sqrt(2) * math.sqrt(3 / fan_in)
    return rand(*(shape or (fan_in, fan_out)), low=-bound, high=bound, **kwargs)


def kaiming_normal(fan_in: int, fan_out: int, nonlinearity: str = "relu", shape: Any = None, **kwargs: Any) -> Tensor:
    """K. He et al., 2015: normal with variance 2 / fan_in."""
    _check_relu(nonlinearity)
    return randn(*(shape or (fan_in, fan_out)), std=math.sqrt(2) / math.sqrt(fan_in), **kwargs)

"""Which dtype an operation has: one rule for eager tensors and for traced ones, since it is made of casts.

NumPy 2's rule (NEP 50), with two additions:

- Tensors promote each other as NumPy's arrays do; integer / integer is float64.
- A number (also NumPy's scalars) is weak: beside a floating-point tensor it takes the tensor's dtype, and so does a whole number
  beside an integer tensor that can hold it. A fraction beside integers makes float64.
- A whole number that an integer tensor's dtype cannot hold widens it by value: uint8 * 300 is uint16, uint8 + (-1) is int16. (NumPy 2
  raises OverflowError there, NumPy 1 did the same as we do.)
- 16-bit floats: what sums elements up computes in float32 and rounds once (`in_float32`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..autograd import Tensor, is_float
from ..registry import ops


def dtype_beside(dtype: Any, number: Any) -> np.dtype:
    """The dtype of an operation between a tensor of a dtype and a number.

    Raises:
        TypeError: not a real number, or one that no dtype holds.
    """
    own = np.dtype(dtype)
    if not isinstance(number, (Real, np.bool_)):
        raise TypeError(f"expected a tensor or a real number, got {type(number).__name__}")
    if is_float(own) or isinstance(number, (bool, np.bool_)):
        return own
    if not isinstance(number, Integral):
        return np.dtype(np.float64)
    if own == np.bool_:
        own = np.dtype(np.int64)
    info = np.iinfo(own)
    if info.min <= int(number) <= info.max:
        return own
    least = np.min_scalar_type(int(number))
    if least == np.dtype(object):
        raise TypeError(f"no integer dtype holds {number}")
    return np.result_type(own, least)


def for_number(a: Tensor, number: Any) -> Tensor:
    """A tensor in the dtype that an operation with a number has."""
    return ops.cast(a, dtype_beside(a.dtype, number))


def floating(a: Tensor) -> Tensor:
    """A tensor as floating-point numbers: float64 unless it has a floating-point dtype."""
    return a if is_float(a.dtype) else ops.cast(a, np.float64)


def promoted(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Two operands in their common dtype; one of them may be a number.

    Raises:
        TypeError: neither is a tensor, or one is something else.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype == b.dtype:
            return a, b
        common = np.result_type(a.dtype, b.dtype)
        return ops.cast(a, common), ops.cast(b, common)
    if isinstance(a, Tensor):
        a = for_number(a, b)
        return a, Tensor.make_const(np.asarray(b, a.dtype))
    if isinstance(b, Tensor):
        b = for_number(b, a)
        return Tensor.make_const(np.asarray(a, b.dtype)), b
    raise TypeError("expected at least one tensor")


def in_float32(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of tensors of one dtype that computes 16-bit floats in float32 and rounds its result once."""

    @wraps(f)
    def wide(a: Tensor, *args: Any, **named: Any) -> Tensor:
        if not isinstance(a, Tensor) or not is_float(a.dtype) or np.dtype(a.dtype).itemsize != 2:
            return f(a, *args, **named)
        others = (ops.cast(x, np.float32) if isinstance(x, Tensor) and x.dtype == a.dtype else x for x in args)
        return ops.cast(f(ops.cast(a, np.float32), *others, **named), a.dtype)

    return wide

"""What the operators share: axes, numbers beside tensors, and the ways back from a broadcast and a reduction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp, is_float
from ..modes import PRECISION
from ..registry import ops


def normal_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Axes (None for all, an int, or several) as numbers from 0, in order.

    Raises:
        ValueError: one does not exist, or is named twice.
    """
    given = range(ndim) if axes is None else (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    if any(not -ndim <= a < ndim for a in given):
        raise ValueError(f"axes {axes} are not all among the {ndim} axes of the tensor")
    normal = sorted(int(a) % ndim for a in given)
    if len(set(normal)) < len(normal):
        raise ValueError(f"axes {axes} name an axis twice")
    return tuple(normal)


def normal_axis(axis: int, ndim: int) -> int:
    """An axis as a number from 0."""
    return normal_axes(axis, ndim)[0]


def without_axes(shape: Sequence[int], axes: Any, keepdims: bool = False) -> tuple[int, ...]:
    """A shape after a reduction over axes."""
    gone = normal_axes(axes, len(shape))
    return tuple(1 if i in gone else s for i, s in enumerate(shape) if keepdims or i not in gone)


def spread(reduced: Tensor, axes: Any, shape: Sequence[int]) -> Tensor:
    """A reduced tensor repeated along the axes that were reduced, back to the shape from before."""
    return ops.broadcast_to(ops.reshape(reduced, without_axes(shape, axes, True)), shape)


def unbroadcast(grad: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient of a broadcast: summed over what was repeated."""
    if grad.shape == tuple(shape):
        return grad
    lead = grad.ndim - len(shape)
    axes = (*range(lead), *(i + lead for i, s in enumerate(shape) if s == 1 and grad.shape[i + lead] != 1))
    return ops.reshape(ops.summation(grad, axes) if axes else grad, shape)


class ProductOp(TensorOp):
    """A sum of products of two float tensors, whose operands may be rounded to a shorter type: the one of `autocast` where the
    operator was made. `accumulate_gradients` computes its gradient in the same precision."""

    def __init__(self) -> None:
        self.precision = PRECISION.get()

    def rounded(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The operands as they are multiplied."""
        short = self.precision
        if short is None:  # sums of 16-bit products are float32, whatever NumPy does
            return [a.astype(np.float32) if a.dtype.itemsize == 2 and is_float(a.dtype) else a for a in arrays]
        with np.errstate(over="ignore"):  # what overflows is infinite
            return [a.astype(short).astype(np.float32) if a.dtype == np.float32 else a for a in arrays]

    def lowered(self, g: Any, *args: Any) -> tuple[Any, ...]:
        """The operands as they are multiplied, in a graph."""
        if self.precision is None or any(a.type.dtype.name != "float32" for a in args):
            return args
        return tuple(g.cast(a, dtype=self.precision.name) for a in args)

"""The shape of a tensor, and the order of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .common import normal_axes, unbroadcast


class Transpose(TensorOp):
    """Swaps two axes (the last two by default), or, with as many axes as dimensions, permutes them."""

    def __init__(self, axes: Sequence[int] | None = None) -> None:
        self.axes = axes

    def permutation(self, ndim: int) -> tuple[int, ...]:
        """The input's axes in their new order."""
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
        order = self.permutation(node.ndim)
        return ops.permute(out_grad, tuple(int(i) for i in np.argsort(order)))

    def lower(self, g: Any, a: Any) -> Any:
        return g.transpose(a, axes=self.permutation(a.type.ndim))


def transpose(a: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Two axes swapped, the last two by default; with as many axes as `a` has, if more than two, all in that order."""
    return Transpose(axes)(a)


def permute(a: Tensor, axes: Sequence[int]) -> Tensor:
    """The axes in another order."""
    order = tuple(x % a.ndim for x in axes)
    if sorted(order) != list(range(a.ndim)):
        raise ValueError(f"{tuple(axes)} is no order of {a.ndim} axes")
    if order == tuple(range(a.ndim)):
        return a
    return transpose(a) if a.ndim == 2 else transpose(a, order)


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
    """The same elements in another shape, of which one extent may be -1.

    Raises:
        ValueError: the elements do not fill the shape.
    """
    wanted = (shape,) if isinstance(shape, int) else tuple(int(s) for s in shape)
    if wanted.count(-1) == 1 and prod(wanted) and a.size % prod(wanted) == 0:
        wanted = tuple(a.size // -prod(wanted) if s == -1 else s for s in wanted)
    if min(wanted, default=0) < 0 or prod(wanted) != a.size:
        raise ValueError(f"cannot reshape {a.shape} to {wanted}: {a.size} elements do not fill it")
    return a if wanted == a.shape else Reshape(wanted)(a)


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
    return a if tuple(shape) == a.shape else BroadcastTo(shape)(a)


def squeeze(a: Tensor, axes: Any = None) -> Tensor:
    """Without axes of one element: those given, or all."""
    chosen = normal_axes(axes, a.ndim)
    if axes is not None and any(a.shape[x] != 1 for x in chosen):
        raise ValueError(f"cannot squeeze axes {axes} of shape {a.shape}: only axes of one element can go")
    return reshape(a, tuple(s for i, s in enumerate(a.shape) if i not in chosen or s != 1))


def expand_dims(a: Tensor, axis: int) -> Tensor:
    """With a new axis of one element."""
    place = normal_axes(axis, a.ndim + 1)[0]
    return reshape(a, (*a.shape[:place], 1, *a.shape[place:]))

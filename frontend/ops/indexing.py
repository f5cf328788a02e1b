"""Elements and slices chosen by numbers: Python's indices, tables looked up, classes as unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp
from ..registry import ops
from .common import normal_axis


class Take(TensorOp):
    """Slices of a tensor along an axis, by integers."""

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def compute(self, a: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.take(a, index, self.axis)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, None]:
        a, index = node.inputs
        return add_at(out_grad, index, a.shape[self.axis], self.axis), None

    def lower(self, g: Any, a: Any, index: Any) -> Any:
        return g.take(a, index, axis=self.axis)


def take(a: Tensor, index: Any, axis: int = 0) -> Tensor:
    """Slices of a tensor along an axis, by an integer tensor or array of their places.

    Raises:
        IndexError: a place is out of range.
    """
    place = normal_axis(axis, a.ndim)
    chosen = index if isinstance(index, Tensor) else Tensor.make_const(np.asarray(index))
    if chosen.dtype.kind not in "iu":
        raise TypeError(f"take needs integers, got {chosen.dtype}; cast them")
    return Take(place)(a, chosen)


class AddAt(TensorOp):
    """The transpose of Take: slices added up at the places that they were taken from.

    Args:
        size: the extent of the axis before.
    """

    def __init__(self, size: int, axis: int) -> None:
        self.size, self.axis = size, axis

    def compute(self, a: np.ndarray, index: np.ndarray) -> np.ndarray:
        before, after = a.shape[: self.axis], a.shape[self.axis + index.ndim :]
        out = np.zeros((self.size, *before, *after), a.dtype)
        rows = np.moveaxis(a.reshape(*before, index.size, *after), self.axis, 0)
        np.add.at(out, index.reshape(-1), rows)
        return np.moveaxis(out, 0, self.axis)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, None]:
        return take(out_grad, node.inputs[1], self.axis), None

    def lower(self, g: Any, a: Any, index: Any) -> Any:
        shape = (*a.type.shape[: self.axis], self.size, *a.type.shape[self.axis + index.type.ndim :])
        zeros = g.broadcast_to(g.constant(np.zeros((), a.type.dtype.numpy)), shape=shape)
        return g.scatter_add(zeros, index, a, axis=self.axis)


def add_at(a: Tensor, index: Tensor, size: int, axis: int = 0) -> Tensor:
    """A tensor of `size` slices along an axis: each the sum of the slices of `a` whose integer in `index` names it."""
    return AddAt(size, axis)(a, index)


def _units(g: Any, index: Any, size: int, dtype: str) -> Any:
    """Rows of zeros with a one where the index says; negative ones count from the end."""
    places = g.constant(np.arange(size).astype(index.type.dtype.numpy))
    negative = g.constant(np.arange(-size, 0).astype(index.type.dtype.numpy))
    return g.cast(g.logical_or(g.equal(index, places), g.equal(index, negative)), dtype=dtype)


class OneHot(TensorOp):
    """Integers as rows of the identity matrix."""

    is_differentiable = False

    def __init__(self, size: int, dtype: Any = "float32") -> None:
        self.size, self.dtype = size, np.dtype(dtype)

    def compute(self, index: np.ndarray) -> np.ndarray:
        return np.eye(self.size, dtype=self.dtype)[index]

    def lower(self, g: Any, index: Any) -> Any:
        return _units(g, g.reshape(index, shape=(*index.type.shape, 1)), self.size, self.dtype.name)


def one_hot(size: int, index: Tensor, dtype: Any = "float32") -> Tensor:
    """Integers (...,) as unit vectors (..., size); numbers that stand for integers are taken too."""
    return OneHot(size, dtype)(index if index.dtype.kind in "iu" else ops.cast(index, "int64"))


def getitem(a: Tensor, index: Any) -> Tensor:
    """a[index]: integers, slices, ... and None; or one tensor or array of integers, which chooses along the first axis.

    Raises:
        IndexError: out of range. TypeError: an index of another kind.
    """
    if isinstance(index, (Tensor, np.ndarray, list)):
        return take(a, index)
    parts = _expand(index if isinstance(index, tuple) else (index,), a.ndim)
    begin, end, strides, turned, shape = [], [], [], [], []
    axis = 0
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        extent = a.shape[axis]
        if isinstance(part, slice):
            first, last, step = part.indices(extent)
            count = len(range(first, last, step))
            if step < 0:
                turned.append(axis)
                first, step = first + (count - 1) * step, -step
            first = first if count else 0
            begin.append(first)
            end.append(first + (count - 1) * step + 1 if count else first)
            strides.append(step)
            shape.append(count)
        else:
            if not -extent <= part < extent:
                raise IndexError(f"index {part} is out of range for axis {axis} of {extent} elements")
            begin.append(part % extent)
            end.append(part % extent + 1)
            strides.append(1)
        axis += 1
    found = ops.slice_axes(a, begin, end, strides)
    return ops.reshape(ops.flip(found, turned) if turned else found, shape)


def _expand(index: tuple[Any, ...], ndim: int) -> list[Any]:
    """Index parts for all axes, without `...`."""
    for part in index:
        if not (part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))):
            raise TypeError(f"a tensor takes integers, slices, ..., None, or one integer tensor as index, not {part!r}")
    named = sum(part is not None and part is not Ellipsis for part in index)
    dots = [i for i, part in enumerate(index) if part is Ellipsis]
    if named > ndim or len(dots) > 1:
        raise IndexError(f"{len(index)} indices do not fit a tensor of {ndim} axes")
    at = dots[0] if dots else len(index)
    return [*index[:at], *[slice(None)] * (ndim - named), *index[at + 1 :]]

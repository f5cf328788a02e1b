"""Operators that move elements, and tuples of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor, TensorOp, TensorTuple, TensorTupleOp, zeros_like
from .common import normal_axis


class MakeTensorTuple(TensorTupleOp):
    def compute(self, *args: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(args)

    def gradient(self, out_grad: TensorTuple, node: TensorTuple) -> tuple[Tensor, ...]:
        return tuple(out_grad[i] for i in range(len(node.inputs)))

    def lower(self, g: Any, *args: Any) -> tuple[Any, ...]:
        return args


def make_tuple(*args: Tensor) -> TensorTuple:
    return MakeTensorTuple()(*args)


class TupleGetItem(TensorOp):
    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, a: TensorTuple, fold_const: bool = True) -> Tensor:
        if fold_const and isinstance(a.op, MakeTensorTuple):
            return a.inputs[self.index]
        return Tensor.make_from_op(self, [a])

    def compute(self, a: tuple[np.ndarray, ...]) -> np.ndarray:
        return a[self.index]

    def gradient(self, out_grad: Tensor, node: Tensor) -> TensorTuple:
        (source,) = node.inputs
        return make_tuple(*(out_grad if i == self.index else zeros_like(a) for i, a in enumerate(source.known)))

    def lower(self, g: Any, a: tuple[Any, ...]) -> Any:
        return a[self.index]


def tuple_get_item(value: TensorTuple, index: int) -> Tensor:
    size = len(value)
    if not -size <= index < size:
        raise IndexError(f"a tuple of {size} tensors has no number {index}")
    return TupleGetItem(index % size)(value)


class Stack(TensorOp):
    """Joins tensors of one shape along a new axis."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def __call__(self, args: Any) -> Tensor:
        return Tensor.make_from_op(self, [args if isinstance(args, TensorTuple) else make_tuple(*args)])

    def compute(self, args: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack(args, self.axis)

    def gradient(self, out_grad: Tensor, node: Tensor) -> TensorTuple:
        return split(out_grad, self.axis)

    def lower(self, g: Any, args: tuple[Any, ...]) -> Any:
        shape = list(args[0].type.shape)
        shape.insert(self.axis % (len(shape) + 1), 1)
        return g.concat(*(g.reshape(a, shape=tuple(shape)) for a in args), axis=self.axis)


def stack(args: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""
    return Stack(axis)(args)


def concat(args: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after another along an axis that they have."""
    parts = tuple(args)
    if len(parts) == 1:
        return parts[0]
    return Concat(normal_axis(axis, parts[0].ndim))(*parts)


class Concat(TensorOp):
    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, *args: np.ndarray) -> np.ndarray:
        return np.concatenate(args, self.axis)

    def gradient(self, out_grad: Tensor, node: Tensor) -> tuple[Tensor, ...]:
        parts, start = [], 0
        for x in node.inputs:
            end = start + x.shape[self.axis]
            parts.append(slice_axis(out_grad, self.axis, start, end))
            start = end
        return tuple(parts)

    def lower(self, g: Any, *args: Any) -> Any:
        return g.concat(*args, axis=self.axis)


class Split(TensorTupleOp):
    """The slices along an axis, each without that axis."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, a: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.array(x) for x in np.moveaxis(a, self.axis, 0))

    def gradient(self, out_grad: TensorTuple, node: TensorTuple) -> Tensor:
        return stack(out_grad, self.axis)

    def lower(self, g: Any, a: Any) -> tuple[Any, ...]:
        axis = self.axis % a.type.ndim
        shape = a.type.shape
        rest = tuple(s for i, s in enumerate(shape) if i != axis)
        parts = []
        for i in range(shape[axis]):
            begin = tuple(i if d == axis else 0 for d in range(len(shape)))
            end = tuple(i + 1 if d == axis else s for d, s in enumerate(shape))
            parts.append(g.reshape(g.slice(a, begin=begin, end=end), shape=rest))
        return tuple(parts)


def split(a: Tensor, axis: int) -> TensorTuple:
    return Split(axis)(a)


class Flip(TensorOp):
    def __init__(self, axes: Sequence[int]) -> None:
        self.axes = tuple(axes)

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(a, self.axes))

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return flip(out_grad, self.axes)

    def lower(self, g: Any, a: Any) -> Any:
        return g.flip(a, axes=self.axes)


def flip(a: Tensor, axes: Sequence[int]) -> Tensor:
    return Flip(axes)(a)


class Dilate(TensorOp):
    """Puts `dilation` zeros behind each element of the axes."""

    def __init__(self, axes: Sequence[int], dilation: int) -> None:
        self.axes, self.dilation = tuple(axes), dilation

    def _every(self, ndim: int) -> tuple[slice, ...]:
        axes = {a % ndim for a in self.axes if -ndim <= a < ndim}
        return tuple(slice(None, None, self.dilation + 1) if i in axes else slice(None) for i in range(ndim))

    def compute(self, a: np.ndarray) -> np.ndarray:
        axes = {x % a.ndim for x in self.axes if -a.ndim <= x < a.ndim}
        shape = tuple(s * (self.dilation + 1) if i in axes else s for i, s in enumerate(a.shape))
        out = np.zeros(shape, a.dtype)
        out[self._every(a.ndim)] = a
        return out

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return undilate(out_grad, self.axes, self.dilation)

    def lower(self, g: Any, a: Any) -> Any:
        return g.dilate(a, axes=self.axes, dilation=self.dilation)


def dilate(a: Tensor, axes: Sequence[int], dilation: int) -> Tensor:
    return Dilate(axes, dilation)(a)


class UnDilate(Dilate):
    """Keeps the first of every dilation + 1 elements of the axes."""

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(a[self._every(a.ndim)])

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        return dilate(out_grad, self.axes, self.dilation)

    def lower(self, g: Any, a: Any) -> Any:
        steps = tuple(s.step or 1 for s in self._every(a.type.ndim))
        return g.slice(a, begin=(0,) * a.type.ndim, end=a.type.shape, strides=steps)


def undilate(a: Tensor, axes: Sequence[int], dilation: int) -> Tensor:
    return UnDilate(axes, dilation)(a)


class SliceAxes(TensorOp):
    """a[begin:end:stride] on every axis, strides positive."""

    def __init__(self, begin: Sequence[int], end: Sequence[int], strides: Sequence[int] | None = None) -> None:
        self.begin, self.end = tuple(begin), tuple(end)
        self.strides = (1,) * len(self.begin) if strides is None else tuple(strides)

    def _slices(self) -> tuple[slice, ...]:
        return tuple(map(slice, self.begin, self.end, self.strides))

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(a[self._slices()])

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        shape = node.inputs[0].shape
        g = out_grad
        for axis, stride in enumerate(self.strides):
            if stride > 1:
                g = dilate(g, (axis,), stride - 1)
        # dilation also puts zeros behind the last element, perhaps beyond the edge
        room = tuple(s - b for s, b in zip(shape, self.begin))
        if any(e > r for e, r in zip(g.shape, room)):
            g = slice_axes(g, (0,) * len(shape), tuple(map(min, g.shape, room)))
        return pad(g, tuple((b, s - b - e) for b, s, e in zip(self.begin, shape, g.shape)))

    def lower(self, g: Any, a: Any) -> Any:
        return g.slice(a, begin=self.begin, end=self.end, strides=self.strides)


def slice_axes(a: Tensor, begin: Sequence[int], end: Sequence[int], strides: Sequence[int] | None = None) -> Tensor:
    """a[begin:end:stride] on every axis.

    Args:
        begin, end, strides: one an axis; from 0, not beyond the extent; strides positive.
    """
    steps = (1,) * a.ndim if strides is None else tuple(strides)
    if not len(begin) == len(end) == len(steps) == a.ndim:
        raise ValueError(f"a slice of a tensor of {a.ndim} axes takes as many begins, ends and strides")
    if any(not 0 <= b <= e <= s or k < 1 for b, e, s, k in zip(begin, end, a.shape, steps)):
        raise ValueError(f"slice {tuple(begin)}:{tuple(end)}:{steps} leaves the tensor of shape {a.shape}")
    if all(b == 0 and e == s and k == 1 for b, e, s, k in zip(begin, end, a.shape, steps)):
        return a
    return SliceAxes(begin, end, steps)(a)


def slice_axis(a: Tensor, axis: int, begin: int, end: int) -> Tensor:
    """a[begin:end] along one axis."""
    place = normal_axis(axis, a.ndim)
    begins = tuple(begin if d == place else 0 for d in range(a.ndim))
    return slice_axes(a, begins, tuple(end if d == place else s for d, s in enumerate(a.shape)))


class Pad(TensorOp):
    """A border of one value around a tensor: (before, after) for each axis."""

    def __init__(self, axes: Sequence[tuple[int, int]], value: float = 0.0) -> None:
        self.axes, self.value = tuple((int(b), int(e)) for b, e in axes), value

    def compute(self, a: np.ndarray) -> np.ndarray:
        return np.pad(a, self.axes, constant_values=self.value)

    def gradient(self, out_grad: Tensor, node: Tensor) -> Tensor:
        begin = tuple(b for b, _ in self.axes)
        return slice_axes(out_grad, begin, tuple(b + s for b, s in zip(begin, node.inputs[0].shape)))

    def lower(self, g: Any, a: Any) -> Any:
        return g.pad(a, pad_width=self.axes, value=self.value)


def pad(a: Tensor, axes: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """A border of one value around a tensor.

    Args:
        axes: (before, after) for each axis.
    """
    if len(axes) != a.ndim or any(min(w) < 0 for w in axes):
        raise ValueError(f"pad takes a (before, after) pair for each of {a.ndim} axes, none negative; got {axes}")
    return Pad(axes, value)(a) if any(map(any, axes)) else a

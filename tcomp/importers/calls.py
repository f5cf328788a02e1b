"""Calls that converters of all formats make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dtype import DType
from ..errors import ShapeError, UnsupportedError
from ..ir.expr import Expr
from ..ir.graph import Operand, TensorType
from ..ir.query import as_int
from .builder import FoldingBuilder


@dataclass
class Calls:
    """Where a node's calls go, and how messages name it.

    Attributes:
        op: the operator's name.
    """

    g: FoldingBuilder
    op: str

    def place(self, axis: int, ndim: int) -> int:
        """An axis from 0 on.

        Raises:
            ShapeError: out of range.
        """
        if not -ndim <= axis < ndim:
            raise ShapeError(f"{self.op}: axis {axis} is out of range for {ndim} dimensions")
        return axis % ndim

    def places(self, axes: Sequence[int], ndim: int) -> tuple[int, ...]:
        """Axes from 0 on, all different."""
        found = tuple(self.place(int(a), ndim) for a in axes)
        if len(set(found)) < len(found):
            raise ShapeError(f"{self.op}: an axis is named twice in {list(axes)}")
        return found

    def constant(self, value: Any, like: TensorType | DType | Operand | None = None) -> Operand:
        """A constant, of the dtype of something else where that is given."""
        kind = (
            like
            if like is None or isinstance(like, DType)
            else (like if isinstance(like, TensorType) else like.type).dtype
        )
        return self.g.constant(np.asarray(value) if kind is None else np.asarray(value, kind.numpy))

    def cast(self, x: Operand, to: DType | str) -> Operand:
        """The tensor in another dtype, where it has another."""
        if x.type.dtype.name == str(to):
            return x
        return self.g.op("cast", x, dtype=str(to))

    def reshape(self, x: Operand, shape: Sequence[Any]) -> Operand:
        """The tensor in another shape, where it has another."""
        if x.type.shape == tuple(shape):
            return x
        return self.g.op("reshape", x, shape=tuple(shape))

    def transpose(self, x: Operand, axes: Sequence[int]) -> Operand:
        """The tensor with its axes in another order, where that is another."""
        if list(axes) == list(range(len(axes))):
            return x
        return self.g.op("transpose", x, axes=tuple(axes))

    def zeros(self, shape: Sequence[Any], d: DType) -> Operand:
        return self.g.op("broadcast_to", self.constant(np.zeros((), d.numpy)), shape=tuple(shape))

    def refuse(self, why: str, hint: str = "") -> UnsupportedError:
        return UnsupportedError(f"cannot compile {self.op}", why=why, hint=hint)


def cut(
    c: Calls, x: Operand, starts: Sequence[Any], ends: Sequence[Any], axes: Any = None, steps: Any = None
) -> Operand:
    """Part of a tensor, along some axes."""
    ndim = x.type.ndim
    axes = c.places(axes if axes is not None else range(len(starts)), ndim)
    steps = steps if steps is not None else [1] * len(starts)
    begin: list[Any] = [None] * ndim
    end: list[Any] = [None] * ndim
    stride = [1] * ndim
    for a, b, e, s in zip(axes, starts, ends, steps):
        begin[a], end[a], stride[a] = b, e, s
        n = x.type.shape[a]
        if isinstance(n, Expr) and isinstance(e, int) and e >= c.g.dims.get(n, 1 << 31):
            end[a] = None
    if all(b in (None, 0) and e is None and s == 1 for b, e, s in zip(begin, end, stride)):
        return x
    return c.g.op("slice", x, begin=tuple(begin), end=tuple(end), strides=tuple(stride))


def spread(c: Calls, x: Operand, wanted: Sequence[Any]) -> Operand:
    """A tensor broadcast together with a shape."""
    own = x.type.shape
    ndim = max(len(own), len(wanted))
    a = [1] * (ndim - len(own)) + list(own)
    b = [1] * (ndim - len(wanted)) + list(wanted)
    shape = tuple(q if as_int(p) == 1 else p for p, q in zip(a, b))
    if shape == own:
        return x
    return c.g.op("broadcast_to", x, shape=shape)


def padded(c: Calls, x: Operand, widths: Sequence[tuple[int, int]], mode: str = "constant", fill: Any = 0) -> Operand:
    """A tensor with borders; negative widths take elements away.

    Args:
        mode: "constant", "reflect", "edge" or "wrap". fill: a number, or a tensor of one element.
    """
    for axis, (before, after) in enumerate(widths):
        if min(before, after) < 0:
            n = x.type.shape[axis]
            x = cut(c, x, [max(-before, 0)], [n - max(-after, 0)], [axis])
    outer = [(max(a, 0), max(b, 0)) for a, b in widths]
    if not any(map(any, outer)):
        return x
    if mode == "constant":
        if not isinstance(fill, (int, float, bool)):
            inside = c.g.op(
                "pad", c.g.op("broadcast_to", c.constant(True), shape=x.type.shape), pad_width=outer, value=False
            )
            fill = c.reshape(fill, ())
            return c.g.op("where", inside, c.g.op("pad", x, pad_width=tuple(outer)), fill)
        d = x.type.dtype
        value = fill if d.is_float else bool(fill) if d.is_bool else int(fill)
        return c.g.op("pad", x, pad_width=tuple(outer), value=value)
    numpy_mode = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}.get(mode)
    if numpy_mode is None:
        raise c.refuse(f"mode {mode!r} is unknown")
    for axis, (before, after) in enumerate(outer):
        if before or after:
            n = x.type.shape[axis]
            if not isinstance(n, int):
                raise c.refuse(f"axis {axis} has the symbolic extent {n}", "dims= or shapes= fix it")
            places = np.pad(np.arange(n), (before, after), mode=numpy_mode)
            x = c.g.op("take", x, c.constant(places), axis=axis)
    return x


def product(c: Calls, a: Operand, b: Operand, **attrs: Any) -> Operand:
    """NumPy's matmul: vectors are matrices of one row, or of one column, meanwhile."""
    left, right = a.type.ndim == 1, b.type.ndim == 1
    d = a.type.dtype
    if left:
        a = c.reshape(a, (1, *a.type.shape))
    if right:
        b = c.reshape(b, (*b.type.shape, 1))
    y: Operand = c.g.op("matmul", a, b, **attrs)
    shape = y.type.shape
    if left or right:
        kept = shape[:-2] + (() if left else shape[-2:-1]) + (() if right else shape[-1:])
        y = c.reshape(y, kept)
    return c.cast(y, d) if d.is_int and "out_dtype" not in attrs and d.bits > 8 else y


def scaled(c: Calls, x: Operand, factor: float) -> Operand:
    """A tensor times a number, rounded where the tensor holds integers."""
    if x.type.dtype.is_float:
        return c.g.op("multiply_scalar", x, scalar=factor)
    return c.cast(c.g.op("multiply_scalar", c.cast(x, "float64"), scalar=factor), x.type.dtype)


def limited(c: Calls, x: Operand, low: Any, high: Any) -> Operand:
    """A tensor between two numbers, each of which may be None."""
    d = x.type.dtype
    for name, limit in (("maximum_scalar", low), ("minimum_scalar", high)):
        if limit is not None and d.lowest < limit < d.highest:
            x = c.g.op(name, x, scalar=limit if d.is_float else int(limit))
    return x

"""Running sums and products, and order, along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import LE, Expr, Select, as_expr
from ..ir.graph import Operand, TensorType
from ..ir.stmt import Attrs
from .common import normal_axis, rounds_once
from .composite import composite
from .registry import Operator, mismatch, register

BLOCK = 32
"""Elements that `cumulative` adds up directly; longer axes are taken block by block."""


def _infer_prefix(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    normal_axis("prefix", attrs["axis"], t.ndim)
    if t.dtype.is_bool:
        raise mismatch("prefix", "it takes numbers", t, hint="cast the argument")
    return t


def _prefix(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axis = normal_axis("prefix", attrs["axis"], x.ndim)
    k = te.reduce_axis(x.shape[axis], "k")
    neutral = as_expr(1 if attrs["product"] else 0, x.dtype)

    def at(*i: Expr) -> Expr:
        value = Select(LE(k, i[axis]), x[(*i[:axis], k, *i[axis + 1 :])], neutral)
        return (te.prod if attrs["product"] else te.sum)(value, axis=k)

    return te.compute(out.shape, at, name="prefix")


def _prefix_reference(x: Any, axis: int, product: bool) -> Any:
    f = np.cumprod if product else np.cumsum
    return f(x, axis=axis, dtype=x.dtype)


register(
    rounds_once(
        Operator("prefix", _infer_prefix, _prefix, _prefix_reference, "reduction", 1, {"axis": -1, "product": False},
                 lambda args, out, attrs: out.size * int(out.shape[normal_axis("prefix", attrs["axis"], out.ndim)]))
    )
)  # fmt: skip
"""The sum, or the product, of all elements up to each, along a short axis: as many steps for each element as the axis is long."""


@composite
def cumulative(
    g: Any, x: Operand, *, axis: int = -1, product: bool = False, exclusive: bool = False, reverse: bool = False
) -> Operand:
    """The sum, or the product, of all elements up to each (without itself: exclusive; of all from it on: reverse), along an axis.

    Block by block: sums inside of blocks, then what all blocks before add up to (G. Blelloch, Prefix Sums and Their Applications, 1990).
    """
    at = normal_axis("cumulative", axis, x.type.ndim)
    if not x.type.ndim or not isinstance(x.type.shape[at], int):
        raise ShapeError(f"cumulative of {x.type}", why="it takes an axis whose extent is an integer")
    n = x.type.shape[at]
    if n == 0:
        return x
    y = g.flip(x, axes=(at,)) if reverse else x
    if exclusive:
        y = _shifted(g, y, at, n, 1 if product else 0)
    y = g.prefix(y, axis=at, product=product) if n <= BLOCK else _by_blocks(g, y, at, n, product)
    return g.flip(y, axes=(at,)) if reverse else y


def _shifted(g: Any, x: Operand, axis: int, n: int, first: int) -> Any:
    """All elements moved one place on, another at the beginning."""
    widths = tuple((1, 0) if d == axis else (0, 0) for d in range(x.type.ndim))
    return _first(g, g.pad(x, pad_width=widths, value=first), axis, n)


def _first(g: Any, x: Operand, axis: int, n: int) -> Any:
    ndim = x.type.ndim
    return g.slice(x, begin=(0,) * ndim, end=tuple(n if d == axis else None for d in range(ndim)))


def _by_blocks(g: Any, x: Operand, axis: int, n: int, product: bool) -> Any:
    blocks, ndim = -(-n // BLOCK), x.type.ndim
    neutral = 1 if product else 0
    if blocks * BLOCK > n:
        widths = tuple((0, blocks * BLOCK - n) if d == axis else (0, 0) for d in range(ndim))
        x = g.pad(x, pad_width=widths, value=neutral)
    before, after = x.type.shape[:axis], x.type.shape[axis + 1 :]
    inside = g.prefix(g.reshape(x, shape=(*before, blocks, BLOCK, *after)), axis=axis + 1, product=product)
    ends = g.slice(
        inside,
        begin=tuple(BLOCK - 1 if d == axis + 1 else 0 for d in range(ndim + 1)),
        end=(None,) * (ndim + 1),
    )
    totals = g.cumulative(g.reshape(ends, shape=(*before, blocks, *after)), axis=axis, product=product, exclusive=True)
    start = g.reshape(totals, shape=(*before, blocks, 1, *after))
    whole = (g.multiply if product else g.add)(inside, start)
    return _first(g, g.reshape(whole, shape=(*before, blocks * BLOCK, *after)), axis, n)


@composite
def sort(g: Any, x: Operand, *, axis: int = -1, descending: bool = False) -> tuple[Operand, Operand]:
    """The elements of an axis in order, and the places (int64) where they were. Equal ones keep their order; NaN counts as greatest.

    A bitonic network (K. Batcher, Sorting networks and their applications, 1968): a loop whose trips compare each element with one whose
    place differs in one bit.
    """
    at = normal_axis("sort", axis, x.type.ndim)
    if not x.type.is_static or not x.type.ndim:
        raise ShapeError(f"sort of {x.type}", why="it takes a tensor with axes, whose extents are integers")
    n = x.type.extents[at]
    order = (at, *(d for d in range(x.type.ndim) if d != at))
    rows = g.transpose(x, axes=order) if at else x
    width = 1 << max(n - 1, 0).bit_length()
    if width > n:
        rows = g.pad(rows, pad_width=((0, width - n), *((0, 0) for _ in order[1:])), value=0)
    column = (width, *(1 for _ in order[1:]))
    steps = np.arange(width, dtype=np.int64)
    places = g.broadcast_to(g.constant(steps.reshape(column)), shape=rows.type.shape)
    if width > 1:
        rows, places = _network(g, rows, places, n, width, column, descending)
    back = tuple(int(i) for i in np.argsort(order))
    found = [_first(g, y, 0, n) if width > n else y for y in (rows, places)]
    values, order_of = (g.transpose(y, axes=back) if at else y for y in found)
    return values, order_of


def _network(
    g: Any, rows: Operand, places: Operand, n: int, width: int, column: tuple[int, ...], descending: bool
) -> tuple[Operand, Operand]:
    sizes, strides = [], []
    size = 2
    while size <= width:
        stride = size // 2
        while stride:
            sizes.append(size)
            strides.append(stride)
            stride //= 2
        size *= 2
    steps = g.constant(np.arange(width, dtype=np.int64))
    zero, limit = g.constant(np.asarray(0, np.int64)), g.constant(np.asarray(n, np.int64))

    def trip(b: Any, carried: Any, row: Any) -> Any:
        values, at = carried
        size, stride = row
        partner = b.bitwise_xor(steps, stride)
        others, other_at = b.take(values, partner, axis=0), b.take(at, partner, axis=0)
        goes_up = b.equal(b.bitwise_and(steps, size), zero)
        is_low = b.equal(b.bitwise_and(steps, stride), zero)
        keeps_first = b.reshape(b.equal(goes_up, is_low), shape=column)
        first = _comes_first(b, values, at, others, other_at, limit, descending)
        keeps = b.equal(first, keeps_first)
        return (b.where(keeps, values, others), b.where(keeps, at, other_at)), ()

    (values, at), _ = g.scan(trip, [rows, places], [g.constant(np.array(sizes)), g.constant(np.array(strides))])
    return values, at


def _comes_first(b: Any, x: Operand, at: Operand, y: Operand, other: Operand, limit: Operand, descending: bool) -> Any:
    """Whether each element stands before another: by value, then by place; what fills the axis up stands last."""
    better = b.greater(x, y) if descending else b.less(x, y)
    same = b.equal(x, y)
    if x.type.dtype.is_float:
        nan, other_nan = b.isnan(x), b.isnan(y)
        alone = (
            b.logical_and(nan, b.logical_not(other_nan)) if descending else b.logical_and(b.logical_not(nan), other_nan)
        )
        better, same = b.logical_or(better, alone), b.logical_or(same, b.logical_and(nan, other_nan))
    earlier = b.less(at, other)
    wins = b.logical_or(better, b.logical_and(same, earlier))
    is_real, other_real = b.less(at, limit), b.less(other, limit)
    fills = b.logical_and(b.equal(is_real, other_real), b.where(is_real, wins, earlier))
    return b.logical_or(fills, b.logical_and(is_real, b.logical_not(other_real)))


@composite
def topk(g: Any, x: Operand, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Operand, Operand]:
    """The k greatest (or least) elements of an axis in order, and their places (int64); of equal ones the first come first."""
    at = normal_axis("topk", axis, x.type.ndim)
    if not x.type.ndim or not isinstance(x.type.shape[at], int) or not 0 <= k <= x.type.shape[at]:
        raise ShapeError(f"topk of {x.type}", why=f"axis {axis} has no {k} elements")
    values, places = g.sort(x, axis=at, descending=largest)
    if k == x.type.shape[at]:
        return values, places
    return _first(g, values, at, k), _first(g, places, at, k)

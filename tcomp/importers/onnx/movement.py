"""Operators that move elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from ...ir.graph import ConstRef, Operand
from ...ir.query import as_int
from ..calls import cut, padded, spread
from ..extents import Extents
from .node import Node
from .table import converts
from .types import dtype_of

MOST_BYTES = 1 << 28
"""Constants of one value up to this size are made while a model is read."""


def axes_of(c: Node, at: int = 1, ndim: int | None = None) -> tuple[int, ...] | None:
    """Axes from an input or, in older versions, the attribute `axes`; None where they are not given."""
    ndim = len(c.shape(0)) if ndim is None else ndim
    given = c.integers(at) if c.has(at) else c.ints("axes")
    return None if given is None else c.places(given, ndim)


@converts("Reshape")
def reshape(c: Node) -> Operand:
    wanted = c.extents(1) if len(c.inputs) > 1 else c.ints("shape") or []
    shape = c.shape(0)
    allows_zero = bool(c.attr("allowzero", 0))
    final = [shape[i] if isinstance(e, int) and e == 0 and not allows_zero else e for i, e in enumerate(wanted)]
    return c.reshape(c[0], _without_unknown(shape, final))


def _without_unknown(shape: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, ...]:
    """An empty tensor's shape, where -1 could be anything: NumPy refuses it unless the other extents are known to fill it."""
    if all(isinstance(e, int) for e in (*shape, *wanted)) and -1 in wanted and prod(shape) == 0:
        rest = prod(e for e in wanted if e != -1)
        return tuple((0 if rest else 1) if e == -1 else e for e in wanted)
    return tuple(wanted)


@converts("Flatten")
def flatten(c: Node) -> Operand:
    shape = c.shape(0)
    axis = c.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    if not 0 <= axis <= len(shape):
        raise c.refuse(f"axis {axis} is out of range for {len(shape)} dimensions")
    halves = [reduce(lambda a, b: a * b, part, 1) for part in (shape[:axis], shape[axis:])]
    return c.reshape(c[0], halves)


@converts("Squeeze")
def squeeze(c: Node) -> Operand:
    shape = c.shape(0)
    axes = axes_of(c)
    gone = axes if axes is not None else tuple(i for i, e in enumerate(shape) if as_int(e) == 1)
    wrong = [a for a in gone if as_int(shape[a]) != 1 and isinstance(shape[a], int)]
    if wrong:
        raise c.refuse(f"axis {wrong[0]} of {c.type_of(0)} has more than one element")
    return c.reshape(c[0], [e for i, e in enumerate(shape) if i not in gone])


@converts("Unsqueeze")
def unsqueeze(c: Node) -> Operand:
    given = c.integers(1) if c.has(1) else c.ints("axes") or []
    ndim = len(c.shape(0)) + len(given)
    axes, rest = c.places(given, ndim), iter(c.shape(0))
    return c.reshape(c[0], [1 if i in axes else next(rest) for i in range(ndim)])


@converts("Transpose")
def transpose(c: Node) -> Operand:
    return c.transpose(c[0], c.ints("perm") or list(reversed(range(len(c.shape(0))))))


@converts("Concat")
def concat(c: Node) -> Operand:
    parts = c.all()
    axis = c.place(c.attr("axis", 1 if c.version < 4 else 0), parts[0].type.ndim)
    filled = [p for p in parts if as_int(p.type.shape[axis]) != 0] or parts[:1]
    if len(filled) == 1:
        return filled[0]
    return c.g.op("concat", *filled, axis=axis)


@converts("Split")
def split(c: Node) -> tuple[Operand, ...]:
    axis = c.axis()
    whole = c.static()[axis]
    given = c.integers(1) if c.has(1) else c.ints("split")
    if given is None:
        count = c.attr("num_outputs", c.num_outputs)
        size = -(-whole // count)
        given = [min(size, max(whole - i * size, 0)) for i in range(count)]
    if len(given) == 1:
        return (c[0],)
    return c.g.op("split", c[0], sections=tuple(given), axis=axis)


@converts("Slice")
def slice_(c: Node) -> Operand:
    if c.version < 10:
        starts, ends, axes, steps = c.ints("starts") or [], c.ints("ends") or [], c.ints("axes"), None
    else:
        starts, ends = c.extents(1), c.extents(2)
        axes, steps = (c.integers(i) if c.has(i) else None for i in (3, 4))
    return cut(c, c[0], starts, ends, axes, steps)


@converts("Gather")
def gather(c: Node) -> Operand:
    axis = c.axis()
    if c.shape(0)[axis] == 0:
        raise c.refuse(f"axis {axis} of {c.type_of(0)} has no elements")
    return c.g.op("take", c[0], c[1], axis=axis)


@converts("GatherElements")
def gather_elements(c: Node) -> Operand:
    return c.g.op("gather_elements", c[0], c[1], axis=c.axis())


@converts("GatherND")
def gather_nd(c: Node) -> Operand:
    return c.g.op("gather_nd", c[0], c[1], batch=c.attr("batch_dims", 0))


def _reduction(c: Node) -> str:
    given = str(c.attr("reduction", "none"))
    return "set" if given == "none" else given


@converts("ScatterElements", "Scatter")
def scatter_elements(c: Node) -> Operand:
    return c.g.op("scatter_elements", c[0], c[1], c[2], axis=c.axis(), reduction=_reduction(c))


@converts("ScatterND")
def scatter_nd(c: Node) -> Operand:
    return c.g.op("scatter_nd", c[0], c[1], c[2], reduction=_reduction(c))


@converts("TensorScatter")
def tensor_scatter(c: Node) -> Operand:
    """Rows of a cache, from a place of its own in each batch on, take new values."""
    past, new = c[0], c[1]
    axis = c.axis(default=-2)
    batch, rows, most = new.type.shape[0], new.type.shape[axis], past.type.shape[axis]
    first = c.cast(c[2], "int64") if c.has(2) else c.constant(np.zeros(batch, np.int64))
    shape = [1] * new.type.ndim
    shape[0] = batch
    steps = np.arange(rows).reshape([rows if d == axis else 1 for d in range(new.type.ndim)])
    places = c.g.op("add", c.reshape(first, shape), c.constant(steps))
    if c.attr("mode", "linear") == "circular":
        places = c.g.op("floor_mod", places, c.constant(np.asarray(most, np.int64)))
    spread = c.g.op("broadcast_to", places, shape=new.type.shape)
    return c.g.op("scatter_elements", past, spread, new, axis=axis)


@converts("Expand")
def expand(c: Node) -> Operand:
    return spread(c, c[0], c.extents(1))


@converts("Tile")
def tile(c: Node) -> Operand:
    x, counts = c[0], c.integers(1)
    if len(counts) != x.type.ndim or min(counts, default=1) < 0:
        raise c.refuse(f"{counts} repeats do not fit {x.type}")
    apart = [e for s in x.type.shape for e in (1, s)]
    wide = [e for s, n in zip(x.type.shape, counts) for e in (n, s)]
    if any(n != 1 for n in counts):
        x = c.g.op("broadcast_to", c.reshape(x, apart), shape=tuple(wide))
    return c.reshape(x, [s * n for s, n in zip(c.shape(0), counts)])


@converts("Pad")
def pad(c: Node) -> Operand:
    x = c[0]
    ndim = x.type.ndim
    given = c.integers(1) if c.version >= 11 else c.ints("pads") or c.ints("paddings") or []
    axes = c.places(c.integers(3), ndim) if c.has(3) else tuple(range(ndim))
    if len(given) != 2 * len(axes):
        raise c.refuse(f"{len(given)} widths for {len(axes)} axes")
    widths = [(0, 0)] * ndim
    for i, a in enumerate(axes):
        widths[a] = (given[i], given[len(axes) + i])
    mode = c.attr("mode", "constant")
    if c.version < 11:
        fill: Any = c.attr("value", 0.0)
    else:
        known = c.known(2) if c.has(2) else np.zeros(1)
        fill = c[2] if known is None else known.reshape(-1)[0].item()
    return padded(c, x, widths, mode, fill)


@converts("CenterCropPad")
def center_crop_pad(c: Node) -> Operand:
    x = c[0]
    axes = c.places(c.ints("axes") or range(x.type.ndim), x.type.ndim)
    widths = [(0, 0)] * x.type.ndim
    for a, wanted in zip(axes, c.integers(1)):
        n = x.type.shape[a]
        before = (wanted - n) // 2 if wanted >= n else -((n - wanted) // 2)
        widths[a] = (before, wanted - n - before)
    return padded(c, x, widths)


@converts("ConstantOfShape")
def constant_of_shape(c: Node) -> Operand:
    """A tensor of matrices or more of a known shape may be a weight: it is made now, so that it can be packed."""
    value = np.asarray(c.attr("value", np.zeros(1, np.float32))).reshape(-1)[:1].reshape(())
    shape = tuple(c.extents(0))
    if len(shape) > 1 and all(isinstance(e, int) for e in shape) and prod(shape) * value.itemsize <= MOST_BYTES:
        return c.constant(np.full(shape, value))
    return c.g.op("broadcast_to", c.constant(value), shape=shape)


@converts("Range")
def range_(c: Node) -> Operand:
    if isinstance(c.inputs[1], Extents) and not c.inputs[1].is_known:
        return _range_to(c, c.inputs[1].values.reshape(-1)[0])
    first, limit, step = (c.value(i).reshape(()) for i in range(3))
    return c.constant(np.arange(first, limit, step, dtype=first.dtype))


def _range_to(c: Node, limit: Any) -> Operand:
    """Numbers up to a symbolic extent: as many of those up to its bound."""
    first, step = (int(c.value(i).reshape(())) for i in (0, 2))
    bound = c.g.dims.get(limit)
    if bound is None or step != 1 or first < 0:
        raise c.refuse(f"numbers from {first} to {limit}, {step} apart", "dims= or shapes= fix the extent")
    return cut(c, c.constant(np.arange(first, bound, dtype=np.int64)), [0], [limit - first if first else limit])


@converts("EyeLike")
def eye_like(c: Node) -> Operand:
    rows, columns = c.static()
    kind = dtype_of(c.attrs["dtype"]) if "dtype" in c.attrs else c.type_of(0).dtype
    return c.constant(np.eye(rows, columns, c.attr("k", 0)).astype(kind.numpy))


@converts("Trilu")
def trilu(c: Node) -> Operand:
    x = c[0]
    rows, columns = x.type.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise c.refuse(f"{x.type} has symbolic rows or columns", "dims= or shapes= fix them")
    shift = c.reshape(c.cast(c[1], "int64"), ()) if c.has(1) else c.constant(np.asarray(0))
    places = c.constant(np.arange(columns)[None] - np.arange(rows)[:, None])
    kept = c.g.op("greater_equal" if c.attr("upper", 1) else "less_equal", places, shift)
    return c.g.op("where", kept, x, c.constant(0, x))


@converts("OneHot")
def one_hot(c: Node) -> Operand:
    depth = int(c.value(1).reshape(()))
    index = c.cast(c[0], "int64")
    axis = c.place(c.attr("axis", -1), index.type.ndim + 1)
    n = c.constant(np.asarray(depth, np.int64))
    index = c.g.op("where", c.g.op("less", index, c.constant(np.asarray(0))), c.g.op("add", index, n), index)
    shape = list(index.type.shape)
    places = [1] * len(shape)
    shape.insert(axis, 1)
    places.insert(axis, depth)
    is_hot = c.g.op("equal", c.reshape(index, shape), c.constant(np.arange(depth).reshape(places)))
    off, on = (c.g.op("take", c[2], c.constant(np.asarray(i)), axis=0) for i in range(2))
    return c.g.op("where", is_hot, on, off)


@converts("DepthToSpace")
def depth_to_space(c: Node) -> Operand:
    n, channels, h, w = c.shape()
    b = c.needed("blocksize", int)
    order = (0, 3, 4, 1, 5, 2) if c.attr("mode", "DCR") == "DCR" else (0, 1, 4, 2, 5, 3)
    deep = channels // (b * b)
    apart = (n, b, b, deep, h, w) if order[1] == 3 else (n, deep, b, b, h, w)
    return c.reshape(c.transpose(c.reshape(c[0], apart), order), (n, deep, h * b, w * b))


@converts("SpaceToDepth")
def space_to_depth(c: Node) -> Operand:
    n, channels, h, w = c.shape()
    b = c.needed("blocksize", int)
    apart = c.reshape(c[0], (n, channels, h // b, b, w // b, b))
    order = (0, 3, 5, 1, 2, 4) if c.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return c.reshape(c.transpose(apart, order), (n, channels * b * b, h // b, w // b))


@converts("ReverseSequence")
def reverse_sequence(c: Node) -> Operand:
    time, batch = c.attr("time_axis", 0), c.attr("batch_axis", 1)
    return reverse_rows(c, c[0], c[1], time, batch)


def reverse_rows(c: Node, x: Operand, lengths: Operand, time: int = 0, batch: int = 1) -> Operand:
    """The first rows of each sequence in the opposite order, the others where they were."""
    t, shape = x.type.shape[time], [1] * x.type.ndim
    n = c.cast(lengths, "int64")
    shape[batch] = x.type.shape[batch]
    steps = c.constant(np.arange(t).reshape([t if d == time else 1 for d in range(x.type.ndim)]))
    last = c.g.op("add_scalar", c.reshape(n, shape), scalar=-1)
    turned = c.g.op("where", c.g.op("less_equal", steps, last), c.g.op("subtract", last, steps), steps)
    return c.g.op("gather_elements", x, c.g.op("broadcast_to", turned, shape=x.type.shape), axis=time)


@converts("Compress")
def compress(c: Node) -> Operand:
    """The condition must be known: the result's extent depends on it."""
    condition = _constant_only(c, 1)
    places = np.flatnonzero(condition)
    if "axis" in c.attrs:
        return c.g.op("take", c[0], c.constant(places), axis=c.axis())
    flat = c.reshape(c[0], (prod(c.static()),))
    return c.g.op("take", flat, c.constant(places), axis=0)


@converts("NonZero")
def non_zero(c: Node) -> Operand:
    return c.constant(np.array(np.nonzero(_constant_only(c, 0)), np.int64))


@converts("Unique")
def unique(c: Node) -> tuple[Operand, ...]:
    x = _constant_only(c, 0)
    axis = c.axis() if "axis" in c.attrs else None
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not c.attr("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, 0 if axis is None else axis)
        inverse, first, counts = np.argsort(order)[inverse], first[order], counts[order]
    return tuple(c.constant(np.ascontiguousarray(a)) for a in (values, first, inverse, counts))


def _constant_only(c: Node, i: int) -> np.ndarray:
    """A tensor's value; refused where it is computed when the model runs, for extents depend on it."""
    x = c[i]
    if not isinstance(x, ConstRef):
        raise c.refuse("its result's extents depend on the values of tensors that are computed when the model runs")
    return c.value(i)


@converts("Col2Im")
def col2im(c: Node) -> Operand:
    """Each block's elements are added where they came from: a scatter by constant places."""
    size, window = c.integers(1), c.integers(2)
    dims = len(size)
    step, dilation = c.ints("strides") or [1] * dims, c.ints("dilations") or [1] * dims
    pads = c.ints("pads") or [0] * 2 * dims
    n, columns, blocks = c.static()
    channels = columns // prod(window)
    grid = [
        (s + pads[d] + pads[dims + d] - dilation[d] * (window[d] - 1) - 1) // step[d] + 1 for d, s in enumerate(size)
    ]
    if prod(grid) != blocks:
        raise c.refuse(f"{blocks} blocks do not fill the grid {grid}")
    taps, starts = np.indices(window).reshape(dims, -1, 1), np.indices(grid).reshape(dims, 1, -1)
    flat, inside = np.zeros((prod(window), blocks), np.int64), np.ones((prod(window), blocks), bool)
    for d in range(dims):
        at = starts[d] * step[d] + taps[d] * dilation[d] - pads[d]
        inside &= (at >= 0) & (at < size[d])
        flat = flat * size[d] + at
    flat = np.where(inside, flat, prod(size))
    values = c.reshape(c[0], (n * channels, prod(window) * blocks))
    start = c.zeros((n * channels, prod(size) + 1), c.type_of(0).dtype)
    total = c.g.op("scatter_add", start, c.constant(flat.reshape(-1)), values, axis=1)
    return c.reshape(cut(c, total, [0], [prod(size)], [1]), (n, channels, *size))

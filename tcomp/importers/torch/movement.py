"""Operators that make tensors, and move their elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...ir.graph import Operand
from ..calls import cut, padded, spread
from .node import Node, is_tensor
from .table import converts


@converts("view", "reshape", "_unsafe_view", "view_copy", "unsqueeze", "squeeze", "flatten", "unflatten")
def reshape(c: Node, x: Any, *rest: Any) -> Operand:
    """PyTorch tells the shape."""
    return c.reshape(x, c.shape)


@converts("permute")
def permute(c: Node, x: Any, axes: Sequence[int]) -> Operand:
    return c.transpose(x, c.places(axes, x.type.ndim))


@converts("transpose.int", "t", "swapaxes", "numpy_T", "mT")
def transpose(c: Node, x: Any, a: int = 0, b: int = 1) -> Operand:
    if x.type.ndim < 2:
        return x
    order = list(range(x.type.ndim))
    i, j = c.places([a, b], x.type.ndim) if a != b else (0, 0)
    order[i], order[j] = order[j], order[i]
    return c.transpose(x, order)


@converts("movedim")
def movedim(c: Node, x: Any, source: Any, target: Any) -> Operand:
    froms, tos = c.axes(source, x.type.ndim), c.axes(target, x.type.ndim)
    order: list[Any] = [None] * x.type.ndim
    for a, b in zip(froms, tos):
        order[b] = a
    rest = iter(d for d in range(x.type.ndim) if d not in froms)
    return c.transpose(x, [next(rest) if o is None else o for o in order])


@converts("expand", "broadcast_to", "expand_as")
def expand(c: Node, x: Any, *rest: Any, **how: Any) -> Operand:
    return spread(c, x, c.shape)


@converts("cat", "concat")
def cat(c: Node, parts: Sequence[Any], axis: int = 0) -> Operand:
    used = [c.tensor(p) for p in parts if p.type.shape != (0,)] or [c.tensor(parts[0])]
    return used[0] if len(used) == 1 else c.g.op("concat", *used, axis=c.place(axis, used[0].type.ndim))


@converts("stack")
def stack(c: Node, parts: Sequence[Any], axis: int = 0) -> Operand:
    at = c.place(axis, parts[0].type.ndim + 1)
    shape = list(parts[0].type.shape)
    shape.insert(at, 1)
    return cat(c, [c.reshape(p, shape) for p in parts], at)


def _sections(c: Node, x: Any, sizes: Sequence[int], axis: int) -> tuple[Operand, ...]:
    if len(sizes) == 1:
        return (x,)
    return c.g.op("split", x, sections=tuple(sizes), axis=axis)


@converts("split.Tensor", "split.default")
def split(c: Node, x: Any, size: Any, axis: int = 0) -> tuple[Operand, ...]:
    at = c.place(axis, x.type.ndim)
    n = x.type.extents[at]
    sizes = [min(size, n - i) for i in range(0, n, size)] if isinstance(size, int) else list(size)
    return _sections(c, x, sizes, at)


@converts("split_with_sizes", "split.sizes")
def split_with_sizes(c: Node, x: Any, sizes: Sequence[int], axis: int = 0) -> tuple[Operand, ...]:
    return _sections(c, x, sizes, c.place(axis, x.type.ndim))


@converts("chunk")
def chunk(c: Node, x: Any, count: int, axis: int = 0) -> tuple[Operand, ...]:
    at = c.place(axis, x.type.ndim)
    return split(c, x, -(-x.type.extents[at] // count), at)


@converts("unbind.int")
def unbind(c: Node, x: Any, axis: int = 0) -> tuple[Operand, ...]:
    at = c.place(axis, x.type.ndim)
    shape = [e for d, e in enumerate(x.type.shape) if d != at]
    return tuple(c.reshape(p, shape) for p in _sections(c, x, [1] * x.type.extents[at], at))


@converts("select.int")
def select(c: Node, x: Any, axis: int, place: int) -> Operand:
    at = c.place(axis, x.type.ndim)
    n = x.type.extents[at]
    first = place + n if place < 0 else place
    return c.reshape(cut(c, x, [first], [first + 1], [at]), c.shape)


@converts("slice.Tensor")
def slice_(c: Node, x: Any, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Operand:
    n = x.type.shape[c.place(axis, x.type.ndim)]
    last = None if end is None or (isinstance(end, int) and isinstance(n, int) and end >= n) else end
    return cut(c, x, [start or 0], [n if last is None else last], [axis], [step])


@converts("narrow")
def narrow(c: Node, x: Any, axis: int, start: int, length: int) -> Operand:
    return cut(c, x, [start], [start + length], [axis])


@converts("flip")
def flip(c: Node, x: Any, axes: Sequence[int]) -> Operand:
    return c.g.op("flip", x, axes=c.places(axes, x.type.ndim))


@converts("roll")
def roll(c: Node, x: Any, shifts: Any, axes: Any = ()) -> Operand:
    shape = x.type.shape
    moves = c.each(shifts, 1)
    y = x if axes else c.reshape(x, (prod(shape),))
    for shift, axis in zip(moves, c.each(axes, 1) if axes else [0]):
        n = y.type.extents[c.place(axis, y.type.ndim)]
        places = (np.arange(n) - shift) % n
        y = c.g.op("take", y, c.constant(places), axis=c.place(axis, y.type.ndim))
    return c.reshape(y, shape)


@converts("repeat")
def repeat(c: Node, x: Any, counts: Sequence[int]) -> Operand:
    own = [1] * (len(counts) - x.type.ndim) + list(x.type.shape)
    apart = [e for s in own for e in (1, s)]
    wide = [e for s, n in zip(own, counts) for e in (n, s)]
    y = c.reshape(x, apart)
    y = y if apart == wide else c.g.op("broadcast_to", y, shape=tuple(wide))
    return c.reshape(y, c.shape)


@converts("repeat_interleave.self_int")
def repeat_interleave(c: Node, x: Any, count: int, axis: Any = None) -> Operand:
    flat = c.reshape(x, (prod(x.type.extents),)) if axis is None else x
    at = 0 if axis is None else c.place(axis, x.type.ndim)
    return c.g.op("take", flat, c.constant(np.repeat(np.arange(flat.type.extents[at]), count)), axis=at)


@converts("index_select")
def index_select(c: Node, x: Any, axis: int, index: Any) -> Operand:
    return c.g.op("take", x, index, axis=c.place(axis, x.type.ndim))


@converts("embedding")
def embedding(c: Node, table: Any, index: Any, *rest: Any, **how: Any) -> Operand:
    return c.g.op("take", table, index, axis=0)


@converts("gather")
def gather(c: Node, x: Any, axis: int, index: Any, **how: Any) -> Operand:
    return c.g.op("gather_elements", x, index, axis=c.place(axis, x.type.ndim))


@converts("scatter.src", "scatter_add", "scatter.value")
def scatter(c: Node, x: Any, axis: int, index: Any, source: Any) -> Operand:
    values = c.tensor(source, x.type.dtype)
    if values.type.shape != index.type.shape:
        values = (
            spread(c, values, index.type.shape)
            if not values.type.shape
            else cut(c, values, [0] * values.type.ndim, list(index.type.shape))
        )
    reduction = "add" if c.op.startswith("scatter_add") else "set"
    return c.g.op("scatter_elements", x, index, values, axis=c.place(axis, x.type.ndim), reduction=reduction)


@converts("index.Tensor", "_unsafe_index")
def index(c: Node, x: Any, indices: Sequence[Any]) -> Operand:
    """Tensors of places along some axes, which broadcast together; they come first where they are not neighbours."""
    used = [d for d, i in enumerate(indices) if i is not None]
    if any(indices[d].type.dtype.is_bool for d in used):
        raise c.refuse("a mask chooses as many elements as it holds truths")
    if len(used) == 1 and indices[used[0]].type.ndim <= 1:
        return c.g.op("take", x, indices[used[0]], axis=used[0])
    ndim = max(indices[d].type.ndim for d in used)
    shape: list[Any] = [1] * ndim
    for d in used:
        own = indices[d].type.shape
        for i, e in enumerate(own):
            at = ndim - len(own) + i
            shape[at] = e if shape[at] == 1 else shape[at]
    places = [c.reshape(spread(c, c.cast(indices[d], "int64"), shape), (*shape, 1)) for d in used]
    whole = places[0] if len(places) == 1 else c.g.op("concat", *places, axis=ndim)
    rest = [d for d in range(x.type.ndim) if d not in used]
    y = c.g.op("gather_nd", c.transpose(x, [*used, *rest]), whole)
    if used == list(range(used[0], used[-1] + 1)) and used[0] > 0:  # neighbours stay where they were
        before = len([d for d in rest if d < used[0]])
        order = [*range(ndim, ndim + before), *range(ndim), *range(ndim + before, ndim + len(rest))]
        y = c.transpose(y, order)
    return y


@converts("constant_pad_nd", "pad")
def constant_pad(c: Node, x: Any, widths: Sequence[int], *rest: Any, **how: Any) -> Operand:
    value = next((r for r in rest if isinstance(r, (int, float))), how.get("value") or 0)
    mode = next((r for r in rest if isinstance(r, str)), how.get("mode", "constant"))
    return _padded(c, x, widths, {"replicate": "edge", "circular": "wrap"}.get(mode, mode), value)


@converts(
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def other_pad(c: Node, x: Any, widths: Sequence[int]) -> Operand:
    return _padded(c, x, widths, "reflect" if c.op.startswith("reflection") else "edge", 0)


def _padded(c: Node, x: Any, widths: Sequence[int], mode: str, value: Any) -> Operand:
    pairs = [(0, 0)] * x.type.ndim
    for i in range(len(widths) // 2):
        pairs[x.type.ndim - 1 - i] = (widths[2 * i], widths[2 * i + 1])
    return padded(c, x, pairs, mode, value)


@converts("tril", "triu")
def triangle(c: Node, x: Any, shift: int = 0) -> Operand:
    rows, columns = x.type.extents[-2:]
    places = np.arange(columns)[None] - np.arange(rows)[:, None]
    kept = places <= shift if c.op.startswith("tril") else places >= shift
    return c.g.op("where", c.constant(kept), x, c.constant(0, x))


@converts("pixel_shuffle")
def pixel_shuffle(c: Node, x: Any, factor: int) -> Operand:
    *lead, channels, h, w = x.type.extents
    n, deep = prod(lead), channels // factor**2
    apart = c.reshape(x, (n, deep, factor, factor, h, w))
    return c.reshape(c.transpose(apart, (0, 1, 4, 2, 5, 3)), c.shape)


# made of nothing


@converts("arange")
def arange(c: Node, *args: Any, **how: Any) -> Operand:
    c.numbers(*args)
    numbers = [a for a in args if a is not None]
    return c.constant(np.arange(*numbers).astype(c.dtype.numpy))


@converts("full", "ones", "zeros", "empty", "new_ones", "new_zeros", "new_full", "full_like", "ones_like", "zeros_like",
          "empty_like", "new_empty", "scalar_tensor", "empty_permuted")  # fmt: skip
def full(c: Node, *args: Any, **how: Any) -> Operand:
    name = c.op.split(".")[0]
    value: Any = 1 if "ones" in name else 0
    if "full" in name:
        value = args[2] if name == "new_full" else args[1]
    if name == "scalar_tensor":
        value = args[0]
    if is_tensor(value):
        return spread(c, c.tensor(value), c.shape)
    return spread(c, c.constant(np.asarray(value), c.dtype), c.shape)


@converts("eye")
def eye(c: Node, rows: int, columns: Any = None, **how: Any) -> Operand:
    return c.constant(np.eye(*c.shape).astype(c.dtype.numpy))


@converts("linspace")
def linspace(c: Node, first: float, last: float, count: int, **how: Any) -> Operand:
    return c.constant(np.linspace(first, last, count).astype(c.dtype.numpy))

"""Operators that move elements without changing them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.arith import simplify
from ..ir.expr import Const, Expr, Select, as_expr, const
from ..ir.graph import TensorType
from ..ir.query import all_of
from ..ir.stmt import Attrs
from .common import element, extent, normal_axis, plain, same_dtype, same_extent, whole_scalar
from .registry import Operator, as_tuple, mismatch, register


def _infer_reshape(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    shape = list(attrs["shape"])
    if not t.is_static or any(isinstance(s, Expr) for s in shape):
        return _infer_symbolic_reshape(t, shape)
    unknown = [i for i, s in enumerate(shape) if s == -1]
    known = prod(s for s in shape if s != -1)
    if len(unknown) > 1 or any(not isinstance(s, int) or s < -1 for s in shape):
        raise mismatch("reshape", f"{shape} is no shape: at most one extent may be -1", t)
    if unknown:
        if known == 0 or t.size % known:
            raise mismatch("reshape", f"{t.size} elements do not fill {shape}", t)
        shape[unknown[0]] = t.size // known
    if prod(shape) != t.size:
        raise mismatch("reshape", f"{t.size} elements do not fill {shape}, which has {prod(shape)}", t)
    return TensorType(tuple(shape), t.dtype)


def _infer_symbolic_reshape(t: TensorType, shape: list[Any]) -> TensorType:
    """The same with extents that calls decide: the numbers of elements must be equal whatever those are."""
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s == -1]
    total = simplify(reduce(mul, map(extent, t.shape), const(1)))
    known = simplify(reduce(mul, (extent(s) for i, s in enumerate(shape) if i not in unknown), const(1)))
    if len(unknown) > 1 or any(isinstance(s, int) and s < 0 for i, s in enumerate(shape) if i not in unknown):
        raise mismatch("reshape", f"{shape} is no shape: at most one extent may be -1", t)
    if unknown:
        rest = simplify(total // known) if not (isinstance(known, Const) and known.value == 0) else const(0)
        shape[unknown[0]] = int(rest.value) if isinstance(rest, Const) else rest
        known = simplify(known * rest)
    if not same_extent(total, known):
        raise mismatch("reshape", f"{total} elements do not fill {shape}", t)
    return TensorType(tuple(shape), t.dtype)


def _reshape(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args

    def at(*index: Expr) -> Expr:
        flat: Expr = const(0)
        for i, s in zip(index, out.shape):
            flat = flat * s + i
        found: list[Expr] = []
        for s in reversed(x.shape):
            found.append(flat % s)
            flat = flat // s
        return x[tuple(reversed(found))]

    return te.compute(out.shape, at, name="reshape")


register(
    Operator("reshape", _infer_reshape, _reshape, lambda x, shape: x.reshape(shape), "view", 1, {"shape": ...},
             lambda args, out, attrs: 0)
)  # fmt: skip


register(
    Operator("optimization_barrier", lambda args, attrs: args[0], lambda args, attrs, out: te.compute(out.shape, lambda *i: args[0][i], name="optimization_barrier"),
             lambda x, token: x, "view", 2, {}, lambda args, out, attrs: 0)
)  # fmt: skip
"""The first argument, once the second is there: keeps what is computed again from being merged with what was computed before."""


def _infer_transpose(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    axes = attrs["axes"]
    if sorted(axes) != list(range(t.ndim)):
        raise mismatch("transpose", f"{axes} is no permutation of {t.ndim} axes", t)
    return TensorType(tuple(t.shape[a] for a in axes), t.dtype)


def _transpose(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    inverse = np.argsort(attrs["axes"])
    return te.compute(out.shape, lambda *i: x[tuple(i[int(a)] for a in inverse)], name="transpose")


register(
    Operator("transpose", _infer_transpose, _transpose, lambda x, axes: x.transpose(axes), "injective", 1, {"axes": ...},
             lambda args, out, attrs: 0)
)  # fmt: skip


def _infer_broadcast(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    shape = attrs["shape"]
    fits = len(shape) >= t.ndim and all(
        a == 1 or same_extent(a, b) for a, b in zip(t.shape, shape[len(shape) - t.ndim :])
    )
    if not fits:
        raise mismatch("broadcast_to", f"it does not broadcast to {list(shape)}", t)
    return TensorType(tuple(shape), t.dtype)


register(
    Operator(
        "broadcast_to",
        _infer_broadcast,
        lambda args, attrs, out: te.compute(out.shape, lambda *i: element(args[0], i), name="broadcast"),
        lambda x, shape: np.ascontiguousarray(np.broadcast_to(x, shape)),
        "injective",
        1,
        {"shape": ...},
        lambda args, out, attrs: 0,
    )
)


def _infer_concat(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    same_dtype("concat", args)
    first = args[0]
    axis = normal_axis("concat", attrs["axis"], first.ndim)
    for t in args[1:]:
        same = t.ndim == first.ndim and all(
            same_extent(a, b) for d, (a, b) in enumerate(zip(t.shape, first.shape)) if d != axis
        )
        if not same:
            raise mismatch("concat", f"all extents but that of axis {axis} must agree", *args)
    shape = list(first.shape)
    shape[axis] = sum(t.shape[axis] for t in args)
    return TensorType(tuple(shape), first.dtype)


def _concat(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    axis = normal_axis("concat", attrs["axis"], out.ndim)
    starts = [0, *accumulate(t.shape[axis].value for t in args)]

    def at(*index: Expr) -> Expr:
        parts: list[Expr] = []
        for t, start in zip(args, starts):
            moved = [*index]
            moved[axis] = index[axis] - start
            parts.append(t[tuple(moved)])
        ends = starts[1:]
        while len(parts) > 1:  # a balanced tree: a chain would be as deep as there are parts
            pairs = range(0, len(parts) - 1, 2)
            joined: list[Expr] = [Select(index[axis] < ends[n], parts[n], parts[n + 1]) for n in pairs]
            parts, ends = joined + parts[2 * len(pairs) :], ends[1::2] + ends[2 * len(pairs) :]
        return parts[0]

    return te.compute(out.shape, at, name="concat")


register(
    Operator("concat", _infer_concat, _concat, lambda *xs, axis: np.concatenate(xs, axis), "injective", None, {"axis": 0},
             lambda args, out, attrs: 0)
)  # fmt: skip


def _sections(t: TensorType, attrs: Attrs) -> tuple[int, list[tuple[int, int]]]:
    """The axis, and where each part of it begins and ends.

    Raises:
        ShapeError: the parts are not the axis.
    """
    axis = normal_axis("split", attrs["axis"], t.ndim)
    sizes = attrs["sections"]
    if isinstance(sizes, int) or any(not isinstance(s, int) or s < 0 for s in sizes) or sum(sizes) != t.shape[axis]:
        raise mismatch("split", f"sections {sizes!r} do not add up to the extent of axis {axis}", t)
    ends = list(accumulate(sizes))
    return axis, [(end - size, end) for size, end in zip(sizes, ends)]


def _infer_split(args: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    (t,) = args
    axis, parts = _sections(t, attrs)
    if not parts:
        raise mismatch("split", "there is no section", t)
    return tuple(TensorType((*t.shape[:axis], b - a, *t.shape[axis + 1 :]), t.dtype) for a, b in parts)


def _split(args: Sequence[te.Tensor], attrs: Attrs, out: Any) -> tuple[te.Tensor, ...]:
    (x,) = args
    types = as_tuple(out)
    axis, parts = _sections(TensorType(tuple(e.value for e in x.shape), x.dtype), attrs)

    def part(start: int, t: TensorType) -> te.Tensor:
        tensor: te.Tensor = te.compute(
            t.shape, lambda *i: x[tuple(v + start if d == axis else v for d, v in enumerate(i))], name="split"
        )
        return tensor

    return tuple(part(start, t) for (start, _), t in zip(parts, types))


def _split_reference(x: Any, sections: Sequence[int], axis: int) -> tuple[Any, ...]:
    return tuple(np.split(x, list(accumulate(sections))[:-1], axis))


register(
    Operator("split", _infer_split, _split, _split_reference, "injective", 1, {"sections": ..., "axis": 0},
             lambda args, out, attrs: 0)
)  # fmt: skip


def _slices(t: TensorType, attrs: Attrs) -> tuple[slice, ...]:
    begin, end = attrs["begin"], attrs["end"]
    strides = attrs["strides"] or (1,) * len(begin)
    if not len(begin) == len(end) == len(strides) <= t.ndim or any(s == 0 for s in strides):
        raise mismatch("slice", "begin, end and strides must have one entry an axis, and no stride may be 0", t)
    given = [slice(b, e, s) for b, e, s in zip(begin, end, strides)]
    return tuple(given + [slice(None)] * (t.ndim - len(given)))


def _infer_slice(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    return TensorType(tuple(count for _, _, count in _steps(t, attrs)), t.dtype)


def _steps(t: TensorType, attrs: Attrs) -> list[tuple[Any, int, Any]]:
    """(first element, step, elements) along each axis. Ends that are expressions, of extents that calls decide, lie on the axis."""
    found: list[tuple[Any, int, Any]] = []
    for axis, (s, n) in enumerate(zip(_slices(t, attrs), t.shape)):
        if isinstance(n, int) and not isinstance(s.start, Expr) and not isinstance(s.stop, Expr):
            start, stop, step = s.indices(n)
            found.append((start, step, len(range(start, stop, step))))
        elif s.step not in (None, 1):
            raise mismatch("slice", f"axis {axis} has the symbolic extent {n}: it can only be taken step by step", t)
        else:
            if s.start == -1 and s.stop is None:  # the last one: there is one at least
                found.append((plain(extent(n) - 1), 1, 1))
                continue
            first, last = _end_of(s.start, n, 0), _end_of(s.stop, n, n)
            count = extent(last) - extent(first)
            if s.start not in (None, 0) and s.stop is not None and not isinstance(s.stop, Expr):
                count = te.maximum(count, 0)
            found.append((first, 1, plain(count)))
    return found


def _end_of(given: Any, n: int | Expr, default: Any) -> Any:
    """Where a slice begins or ends; numbers count from the end where they are negative."""
    if given is None or isinstance(given, Expr):
        return default if given is None else plain(given)
    if isinstance(n, int):
        return slice(given).indices(n)[1]
    if given < 0:
        return plain(te.maximum(n + given, 0))
    return given if given == 0 else plain(te.minimum(n, given))


def _slice(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    steps = _steps(TensorType(tuple(map(plain, x.shape)), x.dtype), attrs)

    def at(*index: Expr) -> Expr:
        places, inside = [], []
        for i, (start, step, count), e in zip(index, steps, x.shape):
            places.append(i * step + start)
            n = plain(e)
            whole = isinstance(count, int) and isinstance(n, int)
            if not whole and not (start == 0 and same_extent(count, n)):  # nothing tells that the ends lie on the axis
                inside += [const(0) <= places[-1], places[-1] < e]
        found = x[tuple(places)]
        condition = all_of(inside)
        return found if condition is None else Select(condition, found, as_expr(0, x.dtype))

    return te.compute(out.shape, at, name="slice")


def _slice_reference(x: Any, begin: Any, end: Any, strides: Any) -> Any:
    return np.ascontiguousarray(x[tuple(slice(b, e, s) for b, e, s in zip(begin, end, strides or (1,) * len(begin)))])


register(
    Operator("slice", _infer_slice, _slice, _slice_reference, "injective", 1, {"begin": ..., "end": ..., "strides": None},
             lambda args, out, attrs: 0)
)  # fmt: skip


def _infer_pad(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    widths = attrs["pad_width"]
    if len(widths) != t.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
        raise mismatch("pad", f"pad_width {widths} must be a (before, after) pair for each axis", t)
    whole_scalar("pad", attrs["value"], t, "value")
    return TensorType(tuple(s + a + b for s, (a, b) in zip(t.shape, widths)), t.dtype)


def pad_tensor(x: te.Tensor, widths: Sequence[tuple[int, int]], value: float | int, name: str = "pad") -> te.Tensor:
    """A tensor expression with borders of one value."""
    shape = tuple(e + a + b for e, (a, b) in zip(x.shape, widths))

    def at(*index: Expr) -> Expr:
        moved = tuple(i - a if a else i for i, (a, _) in zip(index, widths))
        inside = []
        for i, e, (a, b) in zip(moved, x.shape, widths):
            inside += [const(0) <= i] if a else []
            inside += [i < e] if b else []
        condition = all_of(inside)
        return x[moved] if condition is None else Select(condition, x[moved], as_expr(value, x.dtype))

    return te.compute(shape, at, name=name)


register(
    Operator(
        "pad",
        _infer_pad,
        lambda args, attrs, out: pad_tensor(args[0], attrs["pad_width"], attrs["value"]),
        lambda x, pad_width, value: np.pad(x, pad_width, constant_values=value) if x.ndim else x,
        "injective",
        1,
        {"pad_width": ..., "value": 0},
        lambda args, out, attrs: 0,
    )
)


def _infer_flip(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    for a in attrs["axes"]:
        normal_axis("flip", a, args[0].ndim)
    return args[0]


def _flip(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    axes = {normal_axis("flip", a, x.ndim) for a in attrs["axes"]}
    return te.compute(
        out.shape,
        lambda *index: x[tuple(e - 1 - i if d in axes else i for d, (i, e) in enumerate(zip(index, x.shape)))],
        name="flip",
    )


register(
    Operator("flip", _infer_flip, _flip, lambda x, axes: np.ascontiguousarray(np.flip(x, axes)), "injective", 1,
             {"axes": ...}, lambda args, out, attrs: 0)
)  # fmt: skip


def _infer_dilate(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    (t,) = args
    step = attrs["dilation"] + 1
    axes = {normal_axis("dilate", a, t.ndim) for a in attrs["axes"]}
    if attrs["dilation"] < 0:
        raise ShapeError("dilate: a negative dilation")
    return TensorType(tuple(s * step if d in axes else s for d, s in enumerate(t.shape)), t.dtype)


def _dilate(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    (x,) = args
    step = attrs["dilation"] + 1
    axes = {normal_axis("dilate", a, x.ndim) for a in attrs["axes"]}

    def at(*index: Expr) -> Expr:
        source = tuple(i // step if d in axes else i for d, i in enumerate(index))
        hit = all_of([te.equal(i % step, 0) for d, i in enumerate(index) if d in axes])
        return x[source] if hit is None else Select(hit, x[source], as_expr(0, x.dtype))

    return te.compute(out.shape, at, name="dilate")


def _dilate_reference(x: Any, axes: Sequence[int], dilation: int) -> Any:
    step = dilation + 1
    normal = {a % x.ndim for a in axes}
    out = np.zeros(tuple(s * step if d in normal else s for d, s in enumerate(x.shape)), x.dtype)
    out[tuple(slice(None, None, step) if d in normal else slice(None) for d in range(x.ndim))] = x
    return out


register(
    Operator("dilate", _infer_dilate, _dilate, _dilate_reference, "injective", 1, {"axes": ..., "dilation": ...},
             lambda args, out, attrs: 0)
)  # fmt: skip


def place_along(index: Expr, extent: Expr) -> Expr:
    """A place on an axis: a negative one counts from the end, one that is out of range is moved to the nearest end."""
    chosen = te.cast(index, "int64")
    place = te.select(chosen < 0, chosen + extent, chosen)
    return te.maximum(te.minimum(place, extent - 1), 0)


def _infer_take(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, index = args
    axis = normal_axis("take", attrs["axis"], x.ndim)
    if x.ndim < 1 or not index.dtype.is_int:
        raise mismatch("take", "it takes a tensor with axes, and integers", *args, hint="cast the index")
    if x.shape[axis] == 0 and index.size:
        raise mismatch("take", f"axis {axis} has no elements to take", *args)
    return TensorType((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype)


def _take(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, index = args
    axis = normal_axis("take", attrs["axis"], x.ndim)

    def at(*i: Expr) -> Expr:
        place = place_along(index[i[axis : axis + index.ndim]], x.shape[axis])
        return x[(*i[:axis], place, *i[axis + index.ndim :])]

    return te.compute(out.shape, at, name="take")


def _take_reference(x: Any, index: Any, axis: int) -> Any:
    wide = index.astype(np.int64)
    return np.take(x, np.where(wide < 0, wide + x.shape[axis], wide), axis, mode="clip")


register(Operator("take", _infer_take, _take, _take_reference, "injective", 2, {"axis": 0}, lambda args, out, attrs: 0))
"""Slices of a tensor along an axis, by an integer tensor of their places (an embedding looks rows up so). Negative places count
from the end; what is out of range is moved to the nearest end, so that no wrong memory is ever read."""

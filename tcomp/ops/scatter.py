"""Elements and slices of a tensor changed at places that are tensors themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import te
from ..errors import ShapeError
from ..ir.expr import Expr
from ..ir.graph import TensorType
from ..ir.stmt import Attrs
from .common import normal_axis, same_extent
from .movement import place_along
from .registry import Operator, mismatch, register

REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "set": lambda a, b: b, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum,
}  # fmt: skip
"""How a value meets what was there before it, by name."""


def check_update(name: str, args: Sequence[TensorType], reduction: str) -> None:
    """Raises ShapeError unless tensor and values are of one dtype that can be combined so, and places are integers."""
    x, index, updates = args
    if reduction not in REDUCTIONS:
        raise ShapeError(f"{name}: reduction={reduction!r}", hint=f"one of {', '.join(REDUCTIONS)}")
    if x.ndim < 1 or not index.dtype.is_int:
        raise mismatch(name, "it takes a tensor with axes, integers, and values", *args, hint="cast the index")
    if updates.dtype != x.dtype or (reduction != "set" and x.dtype.is_bool):
        raise mismatch(name, "tensor and values must be numbers of one dtype", *args, hint="cast them")


def _fits(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(same_extent, a, b))


def _flops(args: Sequence[TensorType], out: TensorType, attrs: Attrs) -> int:
    return prod(int(e) for e in args[2].shape)


def _places(index: Any, extent: int) -> Any:
    """Places from 0 on, those out of range moved to the nearest end."""
    wide = np.asarray(index).astype(np.int64)
    return np.clip(np.where(wide < 0, wide + extent, wide), 0, max(extent - 1, 0))


def _infer_slices(name: str) -> Callable[[Sequence[TensorType], Attrs], TensorType]:
    def infer(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
        x, index, updates = args
        check_update(name, args, "add" if name == "scatter_add" else "set")
        axis = normal_axis(name, attrs["axis"], x.ndim)
        wanted = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
        if not _fits(wanted, updates.shape):
            shown = ", ".join(map(str, wanted))
            raise mismatch(name, f"the slices must be of shape ({shown})", *args)
        if index.is_static and x.shape[axis] == 0 and index.size:
            raise mismatch(name, f"axis {axis} has no places", *args)
        return x

    return infer


def _slices(name: str) -> Callable[[Sequence[te.Tensor], Attrs, TensorType], te.Tensor]:
    def compute(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
        x, index, updates = args
        axis = normal_axis(name, attrs["axis"], x.ndim)
        end = axis + index.ndim

        def at(*i: Expr) -> tuple[tuple[Expr, ...], Expr]:
            place = place_along(index[i[axis:end]], x.shape[axis])
            return (*i[:axis], place, *i[end:]), updates[i]

        return te.scatter(x, updates.shape, at, "add" if name == "scatter_add" else "set", name)

    return compute


def _slices_reference(x: Any, index: Any, updates: Any, axis: int, adds: bool) -> Any:
    axis = axis % x.ndim
    places = _places(index, x.shape[axis]).reshape(-1)
    out = np.moveaxis(np.array(x), axis, 0)  # a copy
    after = x.shape[axis + 1 :]
    rows = np.moveaxis(updates.reshape(*x.shape[:axis], places.size, *after), axis, 0)
    for place, row in zip(places, rows):
        out[place] = out[place] + row if adds else row
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


for _name, _adds in (("scatter_add", True), ("scatter", False)):
    register(
        Operator(
            _name,
            _infer_slices(_name),
            _slices(_name),
            lambda x, index, updates, axis, a=_adds: _slices_reference(x, index, updates, axis, a),
            "scatter",
            3,
            {"axis": 0},
            _flops,
        )
    )
"""(tensor, integers, slices) -> the tensor, with the slices along `axis` that the integers name changed: each slice is added, or takes
its place, one after another in the order of the integers, so that sums are the same in each run. The transpose of `take`: places count
and are moved to the nearest end as there."""


def _infer_elements(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, index, updates = args
    check_update("scatter_elements", args, attrs["reduction"])
    axis = normal_axis("scatter_elements", attrs["axis"], x.ndim)
    if not _fits(index.shape, updates.shape) or index.ndim != x.ndim:
        raise mismatch("scatter_elements", "places and values must have one shape, and the tensor's axes", *args)
    if any(d != axis and i > e for d, (i, e) in enumerate(zip(index.extents, x.extents))):
        raise mismatch("scatter_elements", f"there are more places than elements along an axis but {axis}", *args)
    if x.shape[axis] == 0 and index.size:
        raise mismatch("scatter_elements", f"axis {axis} has no places", *args)
    return x


def _elements(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, index, updates = args
    axis = normal_axis("scatter_elements", attrs["axis"], x.ndim)

    def at(*i: Expr) -> tuple[tuple[Expr, ...], Expr]:
        return (*i[:axis], place_along(index[i], x.shape[axis]), *i[axis + 1 :]), updates[i]

    return te.scatter(x, updates.shape, at, attrs["reduction"], "scatter_elements")


def _elements_reference(x: Any, index: Any, updates: Any, axis: int, reduction: str) -> Any:
    out, axis = np.array(x), axis % x.ndim
    places = _places(index, x.shape[axis])
    for i in np.ndindex(index.shape):
        at = (*i[:axis], places[i], *i[axis + 1 :])
        out[at] = REDUCTIONS[reduction](out[at], updates[i])
    return out


register(
    Operator("scatter_elements", _infer_elements, _elements, _elements_reference, "scatter", 3,
             {"axis": 0, "reduction": "set"}, _flops)
)  # fmt: skip
"""(tensor, places, values) -> the tensor, where each value meets the element at its own place, but at the given place along `axis`:
the transpose of `gather_elements`."""


def _infer_nd(args: Sequence[TensorType], attrs: Attrs) -> TensorType:
    x, index, updates = args
    check_update("scatter_nd", args, attrs["reduction"])
    depth = index.shape[-1] if index.ndim else 0
    if not isinstance(depth, int) or index.ndim < 1 or not 0 < depth <= x.ndim:
        raise mismatch("scatter_nd", "the last axis of the places holds one number for each of the first axes", *args)
    if not _fits((*index.shape[:-1], *x.shape[depth:]), updates.shape):
        raise mismatch("scatter_nd", f"the slices must be of shape {(*index.shape[:-1], *x.shape[depth:])}", *args)
    return x


def _nd(args: Sequence[te.Tensor], attrs: Attrs, out: TensorType) -> te.Tensor:
    x, index, updates = args
    depth, rows = index.shape[-1].value, index.ndim - 1

    def at(*i: Expr) -> tuple[tuple[Expr, ...], Expr]:
        places = [place_along(index[(*i[:rows], d)], x.shape[d]) for d in range(depth)]
        return (*places, *i[rows:]), updates[i]

    return te.scatter(x, updates.shape, at, attrs["reduction"], "scatter_nd")


def _nd_reference(x: Any, index: Any, updates: Any, reduction: str) -> Any:
    out = np.array(x)
    for i in np.ndindex(index.shape[:-1]):
        at = tuple(_places(p, e) for p, e in zip(index[i], x.shape))
        out[at] = REDUCTIONS[reduction](out[at], updates[i])
    return out


register(Operator("scatter_nd", _infer_nd, _nd, _nd_reference, "scatter", 3, {"reduction": "set"}, _flops))
"""(tensor, places, slices) -> the tensor, where the slices that the last axis of the places names meet new ones, one after another."""
